"""Losses: pure functions of arrays, one file per loss; sums, not means."""
