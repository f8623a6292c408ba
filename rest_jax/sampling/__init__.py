"""Sampling: draws by identity, the decoder loop and the sampler around it."""
