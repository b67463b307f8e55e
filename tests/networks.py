"""The network that tests of training train."""

import fastrna


def network(sizes=(3, 16, 1), hidden="tanh", seed=0, **options):
    """Return a network of these sizes, tanh unless told otherwise."""
    return fastrna.Network(list(sizes), hidden=hidden, seed=seed, **options)
