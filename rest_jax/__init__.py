"""Reinforced Self-Training (ReST, arXiv:2308.08998) in JAX and Flax.

A policy grows a data set of its own samples, a reward model scores them, and
the policy improves on those above a rising threshold. Everything is a batch of
groups: one source with its candidates (`rest_jax.data.group_store`). Start with
`rest_jax.rest`, which is Algorithm 1 on one page, and `rest_jax.main`, the
command line.

Importing this package imports nothing else, so it is cheap and safe without
an accelerator.
"""

__version__ = '0.1.0'
