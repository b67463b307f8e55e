"""Where the time of training goes, phase by phase, for a small, a medium and a large network.

Run it alone on the machine::

    python bench/breakdown.py                 # one thread and all cores
    python bench/breakdown.py --threads 1 --json breakdown.json

The engine times its own phases when asked to: the clock is read between the phases of every
mini-batch on the first thread, which costs some 25 ns a reading. The line "timed" tells how much
longer the epoch takes for that, and its time is what the percentages are of. The roofline is the
part of the multiply-add peak of the threads used that the products reach while they run, and the
bytes of weights and velocity that a step passes through.

An engine without these timers is measured from outside: its kernels one by one as functions of
arrays, which copy their arguments, so that the sum exceeds the epoch; the shares still show what
dominates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import timeit
from pathlib import Path

import cases
import numpy as np
import peer_fastrna
from workers import seconds_per_call, statement

import fastrna

NETS = {"small": cases.MAIN[0], "medium": cases.MAIN[1], "large": cases.MAIN[5]}
ROUNDS = 5


def epoch_seconds(train: fastrna.Trainer, data: object) -> float:
    """Median time of an epoch."""
    run = statement("epoch(data)", epoch=train.epoch, data=data)
    return statistics.median(seconds_per_call(run, 0.2) for _ in range(ROUNDS))


def phases_inside(train: fastrna.Trainer, data: object) -> tuple[dict[str, float], float]:
    """Seconds an epoch of each phase by the engine's timers, and the epoch's while timed."""
    engine = train._engine
    engine.timed = True
    total = epoch_seconds(train, data)
    engine.phase_seconds()  # forget what was booked so far
    repeats = max(1, round(0.5 / total))
    seconds = timeit.timeit(lambda: train.epoch(data), number=repeats)
    phases = {name: value / repeats for name, value in engine.phase_seconds().items()}
    engine.timed = False
    phases["Python"] = seconds / repeats - sum(phases.values())
    return phases, seconds / repeats


def phases_outside(case: cases.Case) -> dict[str, float]:
    """Seconds an epoch of each kernel called by itself, for all mini-batches but the short one."""
    k = fastrna.kernels.load(case.dtype)
    X, y = case.data
    steps = case.m // case.batch
    rows = np.random.default_rng(0).permutation(case.m)[: case.batch]
    loss = "log_loss" if case.output == "softmax" else "squared_error"
    Y = np.eye(case.sizes[-1], dtype=case.dtype)[y] if case.output == "softmax" else y
    A, W, dZ = [X[rows]], [w for w, _ in case.weights], []
    for w, b in case.weights:
        A.append(k.layer_forward(A[-1], w, b, case.hidden))
    dZ = [np.ones_like(a) for a in A[1:]]
    g = np.zeros(case.n_parameters, case.dtype)
    w, v = g.copy(), g.copy()

    def each(function, *layers):
        return sum(
            seconds_per_call(statement("f(*a)", f=function, a=arguments), 0.02)
            for arguments in zip(*layers, strict=True)
        )

    hidden = [case.hidden] * len(W)
    parts = {
        "gather": each(lambda r: X.take(r, axis=0), [rows]),
        "forward": each(k.layer_forward, A[:-1], W, [b for _, b in case.weights], hidden),
        "cost": each(k.cost_and_gradient, [loss], [case.output], [A[-1]], [Y[rows]]),
        "backward": each(k.input_gradient, dZ[1:], W[1:], A[1:-1], hidden[1:]),
        "weight gradient": each(k.weight_gradient, A[:-1], dZ),
        "update": each(k.momentum_update, [w], [v], [g], [0.01], [0.9]),
    }
    return {name: steps * value for name, value in parts.items()}


def measure(name: str, case: cases.Case, n_threads: int) -> dict:
    """One net on some threads: its epoch, its phases, its arithmetic."""
    train = peer_fastrna.trainer(case, n_threads)
    data = train.prepare(*case.data)
    total = epoch_seconds(train, data)
    if hasattr(train._engine, "phase_seconds"):
        phases, timed = phases_inside(train, data)
        source = "timers of the engine"
    else:
        phases, source = phases_outside(case), "kernels by themselves"
        timed = sum(phases.values())
    peak = max(peer_fastrna.peak(case.dtype, n_threads) for _ in range(ROUNDS))
    return {
        "net": name,
        "case": case.name,
        "threads": n_threads,
        "epoch": total,
        "timed": timed,
        "source": source,
        "phases": phases,
        "flops": case.epoch_flops,
        "peak": peak,
        "step_bytes": 4 * case.n_parameters * np.dtype(case.dtype).itemsize,
    }


def show(result: dict) -> None:
    """Print one net's table."""
    total, timed = result["epoch"], result["timed"]
    print(f"\n{result['net']}: {result['case']}; {result['threads']} threads; {result['source']}")
    share = result["flops"] / total / result["peak"]
    print(f"  epoch {1e3 * total:.4g} ms, timed {1e3 * timed:.4g} ms; {share:.0%} of peak")
    for phase, seconds in sorted(result["phases"].items(), key=lambda p: -p[1]):
        bar = "#" * max(0, round(40 * seconds / timed))
        print(f"  {phase:<16}{1e3 * seconds:>10.4g} ms {seconds / timed:>6.1%}  {bar}")
    products = [result["phases"].get(p, 0) for p in ("forward", "backward", "dW and update")]
    if all(products):
        speed = result["flops"] / sum(products)
        print(f"  the products with their fused work: {speed / result['peak']:.0%} of peak")
    kib = result["step_bytes"] / 1024
    print(f"  weights and velocity read and written in a step: {kib:.4g} KiB")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    parser.add_argument("--net", choices=list(NETS), nargs="+", default=list(NETS))
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    results = []
    for name in options.net:
        for n_threads in options.threads or sorted({1, os.cpu_count() or 1}):
            results.append(measure(name, NETS[name], n_threads))
            show(results[-1])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
