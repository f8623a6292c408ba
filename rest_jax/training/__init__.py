"""Mesh and sharding, optimisers, the train step, the loop around it, checkpoints."""
