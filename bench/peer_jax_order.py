"""JAX as a peer of peers.py, the order of each epoch drawn by NumPy and handed to the jit.

Inside a jit a permutation is a sort of random keys, which can cost as much as training a small
network. This is quicker, but not the whole epoch in one jit, so it has a column of its own.
"""

from __future__ import annotations

from cases import Case
from peer_jax import epochs, versions
from workers import Way

__all__ = ["epoch", "versions"]


def epoch(case: Case) -> list[Way]:
    """As peer_jax, with the permutation outside."""
    return epochs(case, inside=False)
