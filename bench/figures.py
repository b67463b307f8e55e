"""Pictures of what peers.py measured: time against size, fraction of peak, growth of cost.

Needs matplotlib::

    python bench/peers.py --only widths --only examples --json peers.json
    python bench/figures.py peers.json --out docs

writes peers-parameters.png (time per example against parameters, every peer), peers-peak.png (the
fraction of the machine's multiply-add peak that fastrna reaches) and peers-growth.png (fastrna's
epoch as examples and parameters grow, beside lines of proportional growth). A picture whose
section is not in the file is left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import peers

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLES = {  # name, colour (distinct to colour-blind eyes), marker
    "fastrna": ("fastrna", "#d55e00", "o"),
    "jax": ("JAX, whole epoch in one jit", "#0072b2", "s"),
    "jax_order": ("JAX, order drawn by NumPy", "#56b4e9", "D"),
    "torch": ("PyTorch", "#009e73", "^"),
    "torch_compile": ("PyTorch, torch.compile", "#cc79a7", "v"),
    "sklearn": ("scikit-learn", "#7f7f7f", "x"),
}


def results_of(report: dict, *sections: str) -> list[dict]:
    """Results of some sections that fastrna took part in, in order of size."""
    found = [r for r in report["results"] if r["section"] in sections and "fastrna" in r["median"]]
    return sorted(found, key=lambda r: (r["parameters"], r["m"]))


def axes(title: str, x: str, y: str):
    """Make a figure with one pair of logarithmic axes."""
    figure, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
    label(ax, title, x, y)
    return figure, ax


def label(ax, title: str, x: str, y: str) -> None:
    """Write the titles and draw the grid of logarithmic axes."""
    ax.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    ax.set_title(title, loc="left", fontsize=11)
    ax.grid(True, which="major", color="0.9")
    ax.spines[["top", "right"]].set_visible(False)


def time_against_parameters(report: dict):
    """Draw the time per example of every peer over the widths."""
    results = results_of(report, "widths")
    if not results:
        return None
    figure, ax = axes(
        f"Training: 64-w-w-10 relu, batch {results[0]['batch']}, {report['threads']} threads",
        "parameters",
        "microseconds per example",
    )
    for peer, (name, colour, marker) in STYLES.items():
        points = [
            (r["parameters"], 1e6 * r["median"][peer] / r["m"])
            for r in results
            if peer in r["median"]
        ]
        if points:
            front = {"linewidth": 2.4, "zorder": 5} if peer == "fastrna" else {"linewidth": 1.2}
            ax.plot(*zip(*points, strict=True), marker=marker, color=colour, label=name, **front)
    ax.legend(frameon=False, fontsize=9)
    return figure


def fraction_of_peak(report: dict):
    """Draw fastrna's part of the peak: the widths as a line, all other nets as points."""
    variant = report["versions"].get("fastrna variant")
    title = f"fastrna's arithmetic: {report['threads']} threads, {variant}"
    figure, ax = axes(title, "parameters", "% of the multiply-add peak")
    ax.set_yscale("linear")
    drawn = []
    for sections, style in ((("widths",), "o-"), (("epochs", "extra"), "s")):
        points = [
            (r["parameters"], 100 * peers.fraction_of_peak(r))
            for r in results_of(report, *sections)
            if r["peaks"]
        ]
        if points:
            drawn += [percentage for _, percentage in points]
            name = "64-w-w-10, batch 128" if sections == ("widths",) else "nets of the tables"
            colour = "#d55e00" if sections == ("widths",) else "0.6"
            ax.plot(*zip(*points, strict=True), style, color=colour, label=name)
    # The matrix unit may exceed the peak of the vector units.
    ax.set_ylim(0, max(100, 1.05 * max(drawn, default=0)))
    ax.legend(frameon=False, fontsize=9)
    return figure if drawn else None


def growth(report: dict):
    """Draw fastrna's epoch over examples and over parameters, with proportional growth dotted."""
    panels = [
        ("examples", "m", "examples of 64-100-10, batch 32"),
        ("widths", "parameters", "parameters of 64-w-w-10, 2048 examples"),
    ]
    panels = [p for p in panels if results_of(report, p[0])]
    if not panels:
        return None
    figure, row = plt.subplots(
        1, len(panels), figsize=(4.8 * len(panels), 4.2), layout="constrained", squeeze=False
    )
    for ax, (section, key, name) in zip(row[0], panels, strict=True):
        results = results_of(report, section)
        x = [r[key] for r in results]
        y = [1e3 * r["median"]["fastrna"] for r in results]
        label(ax, f"One epoch as {'examples' if key == 'm' else key} grow", name, "milliseconds")
        ax.plot(x, y, "o-", color="#d55e00", linewidth=2.4, label="fastrna")
        line = [y[-1] * value / x[-1] for value in x]
        ax.plot(x, line, ":", color="0.4", label="proportional to the last")
        ax.legend(frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Draw what the file has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="what peers.py --json wrote")
    parser.add_argument("--out", type=Path, help="folder (default: beside the file)")
    options = parser.parse_args()
    report = json.loads(options.report.read_text())
    folder = options.out or options.report.parent
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "parameters": time_against_parameters(report),
        "peak": fraction_of_peak(report),
        "growth": growth(report),
    }
    for name, figure in pictures.items():
        if figure is not None:
            path = folder / f"peers-{name}.png"
            figure.savefig(path, dpi=150)
            print(path)


if __name__ == "__main__":
    main()
