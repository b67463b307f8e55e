"""fastrna as one of the peers of peers.py, through its public interface."""

from __future__ import annotations

import os

import numpy as np
from cases import Case
from workers import Way, statement

import fastrna


def versions() -> dict:
    """Version and kernel variant of what is timed here."""
    return {"fastrna": fastrna.__version__, "fastrna variant": fastrna.isa()}


def peak(dtype: str, n_threads: int) -> float:
    """Measure what this machine can do now in products of this dtype, flop/s."""
    return fastrna.kernels.load(dtype).fma_peak(0.05, n_threads)


def sustained(dtype: str, n_threads: int) -> float:
    """Measure what of that it keeps up, flop/s."""
    return fastrna.kernels.load(dtype).fma_sustained(0.3, n_threads)


def meeting(dtype: str, n_threads: int) -> float:
    """Measure how long the threads take to meet once, in seconds."""
    return fastrna.kernels.load(dtype).meeting_seconds(n_threads)


def network(case: Case) -> fastrna.Network:
    """Make the case's network with the weights that all peers start from."""
    net = fastrna.Network(
        list(case.sizes), hidden=case.hidden, output=case.output, dtype=case.dtype
    )
    for W, b, (W0, b0) in zip(net.weights, net.biases, case.weights, strict=True):
        W[:], b[:] = W0, b0
    return net


def trainer(case: Case, n_threads: int | None = None) -> fastrna.Trainer:
    """Make a trainer with the settings that all peers use."""
    optimizer = fastrna.SGD(case.learning_rate, momentum=case.momentum)
    return fastrna.Trainer(
        network(case), optimizer=optimizer, batch_size=case.batch, dropout=case.dropout, seed=0,
        n_threads=n_threads,
    )  # fmt: skip


def epoch(case: Case, n_threads: int | None = None) -> list[Way]:
    """Train epoch by epoch over data checked once, as the peers have their tensors ready."""
    train = trainer(case, n_threads)
    data = train.prepare(*case.data)
    net = train.network

    def weights():
        return list(zip(net.weights, net.biases, strict=True))

    return [Way("Trainer.epoch", statement("epoch(data)", epoch=train.epoch, data=data), weights)]


def threads(case: Case) -> list[Way]:
    """Compare one thread, all cores, and the number of threads left to fastrna."""
    n_cores = int(os.environ.get("FASTRNA_NUM_THREADS", os.cpu_count() or 1))
    choices = {"1 thread": 1, f"{n_cores} threads": n_cores, "automatic": None}
    return [
        Way(label, way.run, way.weights)
        for label, n_threads in choices.items()
        for way in epoch(case, n_threads)
    ]


def predict_one(case: Case) -> list[Way]:
    """One row, into the caller's array where the case says out=."""
    net, x = network(case), case.data[0][0].copy()
    if case.call == "out=":
        out = np.empty(case.sizes[-1], case.dtype)
        return [Way("out=", statement("f(x, out=out)", f=net.predict_one, x=x, out=out))]
    return [Way("predict_one", statement("f(x)", f=net.predict_one, x=x))]


def predict(case: Case) -> list[Way]:
    """All rows at once, into an array made once, as NumPy's way does."""
    net, X = network(case), case.data[0]
    out = np.empty((case.m, case.sizes[-1]), case.dtype)
    return [Way("out=", statement("f(X, out=out)", f=net.predict, X=X, out=out))]


def gradient(case: Case) -> list[Way]:
    """Cost and flat gradient; "prepared" has the data checked once instead of at each call."""
    X, y = case.data
    if case.call == "prepared":
        train = trainer(case)
        run = statement("f(d)", f=train.loss_and_gradient, d=train.prepare(X, y))
        return [Way("Trainer.loss_and_gradient", run)]
    run = statement("f(X, y)", f=network(case).loss_and_gradient, X=X, y=y)
    return [Way("Network.loss_and_gradient", run)]
