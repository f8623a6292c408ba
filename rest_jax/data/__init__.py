"""Corpora, vocabularies, the group store and batches; no TensorFlow at import."""
