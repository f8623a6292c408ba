"""Our policy, objectives and Grow store under T5X's own trainer and inference.

Nothing else imports this package, and its modules (but `inferences`) need T5X, which
is not on the package index: docs/t5x.md says how to install it and what to run.
"""
