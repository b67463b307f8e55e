"""fastrna against JAX, PyTorch, scikit-learn, ONNX Runtime and NumPy, whichever are installed.

Run it alone on the machine::

    python bench/peers.py                       # everything, some 25 minutes with torch.compile
    python bench/peers.py --only epochs         # the main table
    python bench/peers.py --only 784-128-10 --rounds 15
    python bench/peers.py --quick               # the sections in short, a few minutes
    python bench/peers.py --json peers.json && python bench/figures.py peers.json

Each line is one network. Every peer has a process of its own, stopped while another is timed
(see workers.py); the rounds are interleaved, and the figure is the median over them. The ratio is
the fastest peer's time over fastrna's: above 1, fastrna is faster. It leaves out "JAX, order",
whose permutations NumPy draws outside the jit; "of all" is the ratio with it. The peak is what
the machine's multiply-add units can do on the same number of threads at the time: the best of
several bursts right after each of fastrna's timings. "Sustained" is what the same units then do
over a third of a second: of that an epoch of as long could reach all. Both fractions are the median
over the rounds, and so is "meeting", the nanoseconds that its threads take to meet, right after it:
of small networks it decides what several threads gain, and on a virtual machine, whose cores may
move apart, it can change. An epoch includes drawing the permutation and gathering the examples.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import cases
import machine
from workers import Unsupported, Worker, use_threads

TITLES = {
    "fastrna": "fastrna",
    "jax": "JAX",
    "jax_order": "JAX, order",
    "torch": "PyTorch",
    "torch_compile": "compiled",
    "sklearn": "sklearn",
    "onnx": "ONNX RT",
    "numpy": "NumPy",
}
TRAINERS = ["fastrna", "jax", "jax_order", "torch", "torch_compile", "sklearn"]
PREDICTORS = ["fastrna", "numpy", "onnx", "jax", "torch", "sklearn"]


class Section(NamedTuple):
    """A table: what is timed, on which cases, of which peers, in which unit."""

    title: str
    task: str
    cases: list[cases.Case]
    peers: list[str]
    unit: str = "ms"


SECTIONS = {
    "epochs": Section("one epoch of training", "epoch", cases.MAIN, TRAINERS),
    "predict_one": Section(
        "one row, called from Python", "predict_one", cases.PREDICT_ONE, PREDICTORS, "us"
    ),
    "predict": Section("prediction of 10,000 rows", "predict", cases.PREDICT, PREDICTORS),
    "gradient": Section(
        "cost and gradient, called from Python",
        "gradient",
        cases.GRADIENT,
        ["fastrna", "jax", "torch", "torch_compile"],
        "us",
    ),
    "threads": Section("one epoch by fastrna", "threads", cases.MAIN, ["fastrna"]),
    "extra": Section("one epoch of other shapes", "epoch", cases.EXTRA, TRAINERS),
    "widths": Section("one epoch, growing width", "epoch", cases.WIDTHS, TRAINERS),
    "examples": Section("one epoch, growing examples", "epoch", cases.EXAMPLES, TRAINERS),
}
UNITS = {"ms": 1e3, "us": 1e6}


class Bench:
    """The workers of one run, started when first needed, and what they could not do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.workers: dict[str, Worker | None] = {}
        self.versions: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def worker(self, peer: str) -> Worker | None:
        """Return the worker of a peer, None where it is not installed or not wanted."""
        if peer not in self.workers:
            self.workers[peer] = None
            if peer == "fastrna" or not self.options.peers or peer in self.options.peers:
                try:
                    self.workers[peer] = Worker(peer)
                    self.versions |= self.workers[peer].versions
                except Unsupported as reason:
                    self.notes[TITLES[peer]] = str(reason)
        return self.workers[peer]

    def prepare(self, section: Section, case: cases.Case) -> dict:
        """Have every peer build and compile its ways of doing the case."""
        keep = 3 if section.task == "threads" else 1
        ready = {}
        for peer in section.peers:
            worker = self.worker(peer)
            if worker is None:
                continue
            try:
                ready[peer] = worker("prepare", section.task, case, self.options.budget / 2, keep)
            except Unsupported as reason:
                self.notes[f"{TITLES[peer]}, {case.name}"] = str(reason)
        return ready

    def measure(self, name: str, section: Section, case: cases.Case) -> dict:
        """Time one case in interleaved rounds; the seconds of every round, by peer."""
        ready = self.prepare(section, case)
        seconds: dict[str, list[float]] = {}
        peaks, sustained, meetings = [], [], []
        flops = case.flops(section.task)
        order = list(ready)
        for _ in range(self.options.rounds):
            order = order[1:] + order[:1]
            for peer in order:
                for label, value in self.workers[peer]("time", self.options.budget).items():
                    key = label if section.task == "threads" else peer
                    seconds.setdefault(key, []).append(value)
                if peer == "fastrna" and flops:
                    machine = case.dtype, self.options.threads
                    peaks.append(self.workers[peer]("ask", "peak", *machine))
                    sustained.append(self.workers[peer]("ask", "sustained", *machine))
                    meetings.append(self.workers[peer]("ask", "meeting", *machine))
        return {
            "section": name,
            "case": case.name,
            **asdict(case),
            "parameters": case.n_parameters,
            "flops": flops,
            "seconds": seconds,
            "median": {k: statistics.median(v) for k, v in seconds.items()},
            "peaks": peaks,
            "sustained": sustained,
            "meetings": meetings,
            "ways": {k: v["ways"] for k, v in ready.items()},
            "costs": {k: next(iter(v["costs"].values())) for k, v in ready.items()},
        }

    def close(self) -> None:
        """End all workers."""
        for worker in filter(None, self.workers.values()):
            worker.close()


def ratio(result: dict, without: tuple[str, ...] = ()) -> float | None:
    """Divide the fastest peer's time by fastrna's, some peers left out."""
    median = result["median"]
    others = [v for k, v in median.items() if k not in ("fastrna", *without)]
    return min(others) / median["fastrna"] if "fastrna" in median and others else None


def fraction_of_peak(result: dict, key: str = "fastrna", of: str = "peaks") -> float | None:
    """Divide the arithmetic that fastrna did in a second by what the machine could do then.

    That is its "peaks", or what it "sustained".
    """
    if not (result["flops"] and result[of] and key in result["seconds"]):
        return None
    rounds = zip(result["seconds"][key], result[of], strict=True)
    return statistics.median(result["flops"] / seconds / peak for seconds, peak in rounds)


def disagreement(result: dict) -> str:
    """Word a warning where a peer, after two epochs, is not at the cost the others are."""
    costs = {k: v for k, v in result["costs"].items() if v is not None}
    if len(costs) < 2:
        return ""
    middle = statistics.median(costs.values())
    far = [f"{TITLES[k]} {v:.4g}" for k, v in costs.items() if abs(v - middle) > 0.1 * middle]
    return (
        f"   cost after two epochs differs: {', '.join(far)} (median {middle:.4g})" if far else ""
    )


def cell(value: float | None, width: int = 11, form: str = ".3g") -> str:
    """Format a number of a table, or a dash."""
    if value is None:
        return "-".rjust(width)
    return (f"{value:.0f}" if form == ".3g" and value >= 1000 else format(value, form)).rjust(width)


def print_head(section: Section, options: argparse.Namespace, columns: list[str]) -> None:
    """Print the title of a table and its columns."""
    print(f"\n{section.title}: {section.unit}, median of {options.rounds} rounds")
    names = "".join(TITLES.get(c, c).rjust(11) for c in columns)
    last = "".join(f"{c:>11}" for c in ("2 over 1", "auto")) if section.task == "threads" else ""
    last = last or "".join(f"{c:>11}" for c in ("ratio", "of all", "wanted"))
    shares = f"{'of peak':>9}{'sustained':>11}{'meeting':>9}"
    print(f"{'sizes, examples, batch':<42}{names}{last}{shares}", flush=True)


def print_line(section: Section, result: dict, columns: list[str]) -> None:
    """Print one case: the time of every column, the ratio and what was wanted of it."""
    median, scale = result["median"], UNITS[section.unit]
    times = "".join(cell(median[c] * scale if c in median else None) for c in columns)
    if section.task == "threads":
        one, several, auto = (median.get(c) for c in columns)
        best = min(one, several)
        last = cell(one / several, form=".2f") + cell(best / auto, form=".2f")
        key = "automatic"
    else:
        aims = [f"{result['target']:g}"] if result["target"] else []
        aims += [f"{result['limit'] * scale:g} {section.unit}"] if result["limit"] else []
        last = cell(ratio(result, without=("jax_order",)), form=".2f")
        last += cell(ratio(result), form=".2f") + (", ".join(aims) or "-").rjust(11)
        key = "fastrna"
    shares = cell(fraction_of_peak(result, key), 9, ".0%")
    shares += cell(fraction_of_peak(result, key, "sustained"), 11, ".0%")
    met = statistics.median(result["meetings"]) * 1e9 if result["meetings"] else None
    shares += cell(met, 9, ".0f")
    print(f"{result['case']:<42}{times}{last}{shares}", flush=True)
    if warning := disagreement(result):
        print(warning)


def columns_of(section: Section, bench: Bench) -> list[str]:
    """Name the columns: the peers that run here, or fastrna's numbers of threads."""
    if section.task == "threads":
        return ["1 thread", f"{bench.options.threads} threads", "automatic"]
    return [p for p in section.peers if bench.worker(p)]


def wanted(options: argparse.Namespace) -> dict[str, list[cases.Case]]:
    """Choose what --only leaves: sections by name, cases by a part of theirs."""
    chosen = {}
    for name, section in SECTIONS.items():
        keep = [
            case
            for case in section.cases
            if not options.only or any(o == name or o in case.name for o in options.only)
        ]
        if options.quick:
            keep = [c for c in keep if c.n_parameters < 200_000 and c.m <= 20_000]
        if name == "threads" and options.threads == 1:
            keep = []
        if keep:
            chosen[name] = keep
    return chosen


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="a section, or part of a case's name")
    parser.add_argument("--peers", nargs="+", choices=list(TITLES), help="these peers only")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 9; 3 with --quick)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores for everyone")
    parser.add_argument("--quick", action="store_true", help="small cases, short rounds")
    parser.add_argument("--json", metavar="FILE", help="write everything measured here")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.budget = 0.05 if options.quick else 0.2
    if options.quick and options.peers is None:
        options.peers = [p for p in TITLES if p != "torch_compile"]
    return options


def main() -> None:
    """Run the sections asked for and print a table for each."""
    options = parse()
    use_threads(options.threads)
    bench = Bench(options)
    report = {"machine": machine.describe(), "threads": options.threads}
    report |= {"rounds": options.rounds, "results": []}
    print("  ".join(f"{k}: {v}" for k, v in report["machine"].items()))
    try:
        for name, chosen in wanted(options).items():
            section = SECTIONS[name]
            columns = columns_of(section, bench)
            print_head(section, options, columns)
            for case in chosen:
                result = bench.measure(name, section, case)
                report["results"].append(result)
                if any(c in result["median"] for c in columns):
                    print_line(section, result, columns)
                report |= {"versions": bench.versions, "notes": bench.notes}
                if options.json:
                    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    finally:
        bench.close()
    print("\n" + ", ".join(f"{k} {v}" for k, v in bench.versions.items()))
    for what, why in bench.notes.items():
        print(f"left out: {what}: {why}")


if __name__ == "__main__":
    main()
