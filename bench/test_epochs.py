"""Whole epochs, predictions and gradients beside the NumPy reference.

Run ``pytest bench/test_epochs.py``. fastrna chooses its number of threads itself; the peak it is
compared with is that of all cores for an epoch, of one for a single row and for a gradient.
"""

from __future__ import annotations

import cases
import numpy as np
import peer_fastrna
import pytest
from conftest import IMPLEMENTATIONS

import fastrna
from fastrna import reference

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def each(chosen):
    """Parametrize by case, named as the tables name it."""
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name.replace(" ", "_"))


OTHERS = {case.name: case for case in cases.EXTRA}


@both
@each([*cases.MAIN, OTHERS["32-128-128-128-128-7 relu, 5000, 128"],
       OTHERS["64-256-10 relu, 20000, 4096"], OTHERS["64-100-10 relu, 1797, 32 float64"],
       OTHERS["64-100-10 relu, 1797, 32 dropout"]])  # fmt: skip
def test_epoch(compare, implementation, case):
    """One epoch of mini-batch descent, shuffle and gather included."""
    X, y = case.data
    if implementation == "fastrna":
        trainer = peer_fastrna.trainer(case)
        run, arguments = trainer.epoch, (trainer.prepare(X, y),)
    else:
        net = peer_fastrna.network(case)
        optimizer = fastrna.SGD(case.learning_rate, momentum=case.momentum)

        def run():
            reference.train(
                net, X, y, optimizer=optimizer, batch_size=case.batch, epochs=1, seed=0,
                dropout=case.dropout,
            )  # fmt: skip

        arguments = ()
    compare(
        f"epoch {case.name}",
        run,
        *arguments,
        flops=case.epoch_flops,
        dtype=case.dtype,
        n_threads=fastrna.kernels.thread_limit(),
        rounds=3 if case.epoch_flops > 1e9 else None,
    )


@both
@each(cases.PREDICT)
def test_predict(compare, implementation, case):
    """Ten thousand rows at once."""
    net, X = peer_fastrna.network(case), case.data[0]
    run, arguments = (
        (net.predict, (X,)) if implementation == "fastrna" else (reference.predict, (net, X))
    )
    compare(
        f"predict {case.name}",
        run,
        *arguments,
        flops=case.m * case.forward_flops,
        n_threads=fastrna.kernels.thread_limit(),
    )


@both
@each([c for c in cases.PREDICT_ONE if c.call])
def test_predict_one(compare, implementation, case):
    """One row, from Python, into an array made before."""
    net, x = peer_fastrna.network(case), case.data[0][0].copy()
    out = np.empty(case.sizes[-1], case.dtype)
    run, arguments = (
        (net.predict_one, (x, out))
        if implementation == "fastrna"
        else (reference.predict, (net, x[None]))
    )
    compare(f"predict_one {case.name}", run, *arguments, flops=case.forward_flops)


@both
@each([c for c in cases.GRADIENT if not c.call])
def test_loss_and_gradient(compare, implementation, case):
    """The cost and its flat gradient."""
    net, (X, y) = peer_fastrna.network(case), case.data
    run, arguments = (
        (net.loss_and_gradient, (X, y))
        if implementation == "fastrna"
        else (reference.loss_and_gradient, (net, X, y))
    )
    compare(f"loss_and_gradient {case.name}", run, *arguments, flops=case.epoch_flops)
