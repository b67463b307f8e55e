"""Guard against slower training that no clock can disturb: instructions a training step executes.

Counted by Valgrind for three networks, and for a round of the multiply-add peak, on one thread, for
the instruction sets that Valgrind knows (avx2 and baseline: it has no AVX-512)::

    python bench/instructions.py            # compare with bench/instructions.json, exit 1 if worse
    python bench/instructions.py --record   # renew the record of this compiler

A count is that of a long run less that of a short one, over the steps between them, so start-up
cancels. It repeats to about one in two hundred, but depends on the compiler: the record holds
one entry a compiler, and a build by another one is reported and not judged. Fewer instructions
than recorded by more than the tolerance are reported too: renew the record. An instruction count
is no time (a cache miss is one instruction), so this finds lost vectorization and added work, and
bench/peers.py finds the rest. About a minute on two cores.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECORD = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
ISAS = ("avx2", "baseline")
# sizes, hidden, output, batch, steps an epoch, epochs of the long run
NETS = {
    "small": ((4, 10, 3), "tanh", "softmax", 32, 50, 201),
    "medium": ((64, 100, 10), "relu", "softmax", 32, 20, 61),
    "large": ((256, 256, 10), "relu", "softmax", 64, 5, 21),
}
# Beside the nets, a round of the loop that measures the multiply-add peak: an instruction for each
# chain and two of the loop. A compiler that merges chains makes it fewer, and the peak too high.
PEAK, PEAK_ROUNDS, PEAK_RUNS = "peak", 200_000, 3


def train(name: str, epochs: int) -> None:
    """Train one net, or measure the peak so many times: what runs under Valgrind."""
    import numpy as np

    import fastrna

    if name == PEAK:
        for _ in range(epochs):
            fastrna.kernels.load("float32").fma_peak(1e-9)  # a single burst
        return
    sizes, hidden, output, batch, steps, _ = NETS[name]
    rng = np.random.default_rng(0)
    X = rng.standard_normal((batch * steps, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], len(X))
    net = fastrna.Network(list(sizes), hidden=hidden, output=output, seed=0)
    optimizer = fastrna.SGD(0.01, momentum=0.9)
    trainer = fastrna.Trainer(net, optimizer=optimizer, batch_size=batch, seed=0, n_threads=1)
    data = trainer.prepare(X, y)
    gc.disable()
    for _ in range(epochs):
        trainer.epoch(data)


def count(name: str, isa: str, epochs: int) -> int:
    """Instructions of a whole process that trains `epochs` epochs."""
    environment = os.environ | {
        "FASTRNA_ISA": isa,
        "FASTRNA_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        command = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            f"--cachegrind-out-file={out}",
        ]
        command += [sys.executable, __file__, "--train", name, str(epochs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return int(re.search(r"^summary: (\d+)", out.read_text(), re.MULTILINE).group(1))


def per_step(name: str, isa: str) -> int:
    """Instructions of one mini-batch, or of one round of the peak."""
    *_, steps, epochs = NETS[name] if name != PEAK else (PEAK_ROUNDS, PEAK_RUNS)
    return round((count(name, isa, epochs) - count(name, isa, 1)) / (steps * (epochs - 1)))


def compiler(isa: str) -> str:
    """Name and version of the compiler that built a variant, from its object file's comment."""
    from fastrna import kernels

    content = Path(kernels.load("float32", isa).__file__).read_bytes()
    names = re.findall(rb"(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", content)
    clang = [n for n in names if n.startswith(b"clang")]  # the C runtime may add gcc's own comment
    return (clang or names or [b"unknown compiler"])[0].decode()


def compare(counts: dict[str, dict[str, int]], recorded: dict[str, dict[str, int]]) -> bool:
    """Print the counts beside the record; whether none is worse than the tolerance allows."""
    good = True
    print(f"{'instructions a step':<24}{'now':>14}{'recorded':>14}{'change':>10}")
    for isa, nets in counts.items():
        for name, now in nets.items():
            before = recorded.get(isa, {}).get(name)
            change = now / before - 1 if before else None
            verdict = ""
            if change is not None and change > TOLERANCE:
                good, verdict = False, "  WORSE"
            elif change is not None and change < -TOLERANCE:
                verdict = "  better: renew the record"
            shown = f"{change:+.1%}" if change is not None else "-"
            print(f"{isa + ' ' + name:<24}{now:>14,}{before or '-':>14}{shown:>10}{verdict}")
    return good


def main() -> int:
    """Count, and compare or record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="renew this compiler's entry")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train[0], int(options.train[1]))
        return 0
    if shutil.which("valgrind") is None:
        print("instructions.py: valgrind is not installed; nothing counted, nothing compared")
        return 0
    from fastrna import kernels

    isas = [isa for isa in ISAS if isa in kernels.available()]
    jobs = [(name, isa) for isa in isas for name in (*NETS, PEAK)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: per_step(*job), jobs))
    counts: dict[str, dict[str, int]] = {}
    for (name, isa), steps in zip(jobs, results, strict=True):
        counts.setdefault(isa, {})[name] = steps
    built_by = compiler(isas[-1])
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    good = compare(counts, record.get(built_by, {}))
    if options.record:
        record[built_by] = counts
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        print(f"recorded for {built_by}")
        return 0
    if built_by not in record:
        print(f"built by {built_by}; recorded are: {', '.join(record) or 'none'}.")
        print("Nothing judged: the counts of two compilers differ. Record with --record.")
        return 0
    print(f"built by {built_by}: " + ("within" if good else "NOT within") + f" {TOLERANCE:.0%}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
