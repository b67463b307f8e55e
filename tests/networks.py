"""The network that tests of training train."""

import fastrna


def network(sizes=(3, 16, 1), hidden="tanh", seed=0, **options):
    return fastrna.Network(list(sizes), hidden=hidden, seed=seed, **options)
