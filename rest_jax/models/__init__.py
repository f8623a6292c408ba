"""The T5 encoder-decoder and its scalar-head sibling, as Flax modules."""
