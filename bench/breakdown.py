"""Where the time of training goes, phase by phase, for a small, a medium and a large network.

Run it alone on the machine::

    python bench/breakdown.py                 # one thread and all cores
    python bench/breakdown.py --threads 1 --json breakdown.json

The engine times its own phases when asked to: the clock is read between the phases of every
mini-batch on the first thread, which costs some 25 ns a reading. "timed" tells how much longer the
epoch takes for that, and its time is what the percentages are of; "Python" is what is left of a
call. The floors of the roofline: "arithmetic" is what the products alone take at the multiply-add
peak of the threads used, measured in the same run; "weights" is what reading and writing the
weights and their velocity in every mini-batch takes at the speed with which this machine copies as
many bytes.
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


def phases_of(train: fastrna.Trainer, data: object) -> tuple[dict[str, float], float]:
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


def copy_seconds(case: cases.Case) -> float:
    """Seconds to read and to write as many bytes as the weights and their velocity have."""
    source = np.ones(2 * case.n_parameters, case.dtype)
    run = statement("copy(target, source)", copy=np.copyto, target=source.copy(), source=source)
    return min(seconds_per_call(run, 0.02) for _ in range(ROUNDS))


def measure(name: str, case: cases.Case, n_threads: int) -> dict:
    """One net on some threads: its epoch, its phases, its floors."""
    train = peer_fastrna.trainer(case, n_threads)
    data = train.prepare(*case.data)
    total = epoch_seconds(train, data)
    phases, timed = phases_of(train, data)
    peak = max(peer_fastrna.peak(case.dtype, n_threads) for _ in range(ROUNDS))
    return {
        "net": name,
        "case": case.name,
        "threads": n_threads,
        "epoch": total,
        "timed": timed,
        "phases": phases,
        "flops": case.epoch_flops,
        "peak": peak,
        "floors": {
            "arithmetic": case.epoch_flops / peak,
            "weights": -(-case.m // case.batch) * copy_seconds(case) / n_threads,
        },
    }


def show(result: dict) -> None:
    """Print one net's table."""
    total, timed = result["epoch"], result["timed"]
    print(f"\n{result['net']}: {result['case']}; threads: {result['threads']}")
    print(f"  epoch {1e3 * total:.4g} ms, timed {1e3 * timed:.4g} ms")
    for phase, seconds in sorted(result["phases"].items(), key=lambda p: -p[1]):
        bar = "#" * max(0, round(40 * seconds / timed))
        print(f"  {phase:<28}{1e3 * seconds:>10.4g} ms {seconds / timed:>6.1%}  {bar}")
    for floor, seconds in result["floors"].items():
        print(f"  floor: {floor:<21}{1e3 * seconds:>10.4g} ms {seconds / total:>6.1%}")


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
