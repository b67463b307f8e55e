"""One epoch of the main networks by every kernel variant, and by several builds if there are.

Run it alone on the machine::

    python bench/variants.py
    python bench/variants.py --build gcc=. --build clang=../built-by-clang

A build is a folder whose `fastrna` has its kernels built in place (`CC=clang python setup.py
build_ext --inplace --force` in a clone of its own). Milliseconds, the median over interleaved
rounds of the median of three timings; threads are fastrna's own choice.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cases
import peer_fastrna
from workers import seconds_per_call, statement

# Seconds in which the threads of the BLAS that made the data, which wait awake, go to sleep.
REST = 0.5


def epochs() -> None:
    """Time each network in this process, and print a line for each."""
    for number, case in enumerate(cases.MAIN):
        train = peer_fastrna.trainer(case, None)
        data = train.prepare(*case.data)
        time.sleep(REST)
        run = statement("epoch(data)", epoch=train.epoch, data=data)
        print(number, statistics.median(seconds_per_call(run, 0.1) for _ in range(3)))


def measure(folder: str, isa: str) -> list[float]:
    """Seconds an epoch of each network, in a process that loads this build and variant."""
    environment = dict(os.environ, FASTRNA_ISA=isa, PYTHONPATH=str(Path(folder).resolve()))
    done = subprocess.run(
        [sys.executable, __file__, "--child"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(line.split()[1]) for line in done.stdout.splitlines()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", action="append", metavar="NAME=FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        epochs()
        return
    from fastrna import kernels

    builds = dict(b.split("=", 1) for b in options.build or ["here=."])
    ways = [(name, isa) for name in builds for isa in kernels.available()]
    rounds: dict[tuple[str, str], list[list[float]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for name, isa in ways:
            rounds[name, isa].append(measure(builds[name], isa))
    print(f"{'sizes, examples, batch':<42}" + "".join(f"{' '.join(w):>18}" for w in ways))
    for number, case in enumerate(cases.MAIN):
        medians = (statistics.median(r[number] for r in rounds[w]) * 1e3 for w in ways)
        print(f"{case.name:<42}" + "".join(f"{m:>18.3g}" for m in medians))


if __name__ == "__main__":
    main()
