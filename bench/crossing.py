"""What it brings two threads to store past the caches what the other reads, near by and far away.

::

    python bench/crossing.py                      # a minute
    python bench/crossing.py --seconds 300        # until both distances have come, with luck

Cores that share a cache are near; on a virtual machine they may be moved apart and together at any
time. Each round measures how long two threads take to meet and to write a line of memory that the
other has read, then times epochs with such stores and without, in turn. Rounds are sorted by what
the library itself would choose: "far" where a line takes long. Rounds that began and ended at
different distances are left out.

No other program should be running. Nothing here is compared with peers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import cases
import peer_fastrna
from workers import seconds_per_call, statement

import fastrna

NETS = [
    cases.Case((8, 64, 64, 1), "tanh", "identity", 5000, 128),
    cases.Case((16, 64, 64, 4), "sigmoid", "softmax", 5000, 64),
    cases.Case((31, 67, 3), "tanh", "softmax", 5000, 50),
    cases.Case((512, 256, 256, 256, 10), "relu", "softmax", 2000, 128),
    cases.Case((784, 512, 512, 10), "relu", "softmax", 2000, 128),
]


def timed(case: cases.Case, past_caches: bool) -> Callable[[int], Any]:
    """Make a call of an epoch on two threads that stores one way or the other."""
    train = peer_fastrna.trainer(case, 2)
    data = train.prepare(*case.data)
    train.epoch(data)
    train._engine.past_caches = past_caches
    return statement("epoch(data)", epoch=train.epoch, data=data)


def distance() -> tuple[float, float]:
    """Seconds to meet, and to write a line that the other has read."""
    kernels = fastrna.kernels.load("float32")
    return kernels.meeting_seconds(2), kernels.rewriting_seconds(2)


def measure(case: cases.Case, seconds: float) -> dict[str, list]:
    """Time rounds of one network, by distance: (meeting, line, within, past the caches)."""
    ways = [timed(case, past_caches) for past_caches in (False, True)]
    rounds: dict[str, list] = {"near": [], "far": []}
    limit = fastrna.kernels.load("float32").FAR_LINE
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = distance()
        took = [seconds_per_call(way, 0.05) for way in ways]
        after = distance()
        if (before[1] > limit) == (after[1] > limit):
            rounds["far" if before[1] > limit else "near"].append((*before, *took))
    return rounds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="for all networks together")
    options = parser.parse_args()
    if not options.seconds > 0:
        parser.error(f"--seconds is {options.seconds}; expected a positive number.")
    print("ms an epoch on two threads, medians of so many rounds")
    print(
        f"{'net, examples, batch':36}{'':6}{'rounds':>7}{'meeting':>9}{'line':>9}"
        f"{'caches':>10}{'past':>10}{'ratio':>7}"
    )
    for case in NETS:
        for where, rounds in measure(case, options.seconds / len(NETS)).items():
            if rounds:
                columns = zip(*rounds, strict=True)
                meeting, line, within, past = (statistics.median(column) for column in columns)
                print(
                    f"{case.name:36}{where:6}{len(rounds):>7}{1e9 * meeting:>6.0f} ns"
                    f"{1e9 * line:>6.1f} ns{1e3 * within:>10.4g}{1e3 * past:>10.4g}"
                    f"{within / past:>7.2f}"
                )


if __name__ == "__main__":
    main()
