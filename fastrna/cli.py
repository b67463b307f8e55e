"""The command line: ``fastrna demo``, ``fastrna info``, ``fastrna --version``."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastrna
from fastrna import kernels
from fastrna import validation as check
from fastrna.extras import require

_LEARNING_RATE, _MOMENTUM, _BATCH_SIZE = 0.1, 0.9, 32
_EXTRAS = ("scipy", "scikit-learn", "matplotlib", "tqdm", "onnx", "safetensors")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0, 1 for a failure, 2 for wrong arguments, 130 for an interrupt.

    Examples
    --------
    >>> from fastrna.cli import main
    >>> main(["--version"])  # doctest: +SKIP
    fastrna 0.1.0
    0
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    try:
        status = arguments.run(arguments)
        # Here, where it can be caught, rather than when the interpreter closes.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ArithmeticError, ImportError, OSError, TypeError, ValueError) as error:
        print(f"fastrna: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastrna", description="Multilayer perceptrons at the speed of the CPU."
    )
    parser.add_argument("--version", action="version", version=f"fastrna {fastrna.__version__}")
    parser.set_defaults(run=lambda _: parser.print_help() or 0)
    commands = parser.add_subparsers(metavar="command")

    demo = commands.add_parser("demo", help="train on the handwritten digits and report")
    epochs, seed, threads = _integer(1, 10**6), _integer(0, 2**64 - 1), kernels.MOST_THREADS
    demo.add_argument("--epochs", type=epochs, default=50, help="default: %(default)s")
    demo.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    demo.add_argument(
        "--threads", type=_integer(1, threads), help="default: chosen by the amount of work"
    )
    demo.add_argument("--save", metavar="FILE", help="save the network, which takes raw pixels")
    demo.add_argument("--plot", metavar="FILE", help="draw cost and confusion (the plot extra)")
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="version, kernel variants, threads, packages")
    info.set_defaults(run=_info)
    return parser


def _integer(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"expected an integer from {least} to {most}, not {text!r}"
            )
        return number

    return convert


# ------------------------------------------------------------------------------------------ demo


def _demo(arguments: argparse.Namespace) -> int:
    from fastrna.datasets import load_digits, split
    from fastrna.plotting import confusion_matrix

    # Said before the training rather than after it.
    for option, file in (("--save", arguments.save), ("--plot", arguments.plot)):
        if file is not None:
            check.path(file, option)
    if arguments.plot:
        require("matplotlib", "plot", "Pictures need matplotlib")
        from matplotlib.figure import Figure

        known = Figure().canvas.get_supported_filetypes()
        kind = os.path.splitext(arguments.plot)[1][1:].lower()
        if kind and kind not in known:  # without one matplotlib adds its own
            raise ValueError(
                f"--plot is {arguments.plot!r}, of kind {kind!r}; expected one of "
                f"{', '.join(sorted(known))}."
            )
    X_train, y_train, X_test, y_test = split(*load_digits(), seed=arguments.seed)
    scaler = fastrna.Scaler("minmax").fit(X_train)
    scaler.transform(X_train, out=X_train)
    scaler.transform(X_test, out=X_test)
    net = fastrna.Network(
        [64, 100, 10], hidden="relu", output="softmax", dtype="float32", seed=arguments.seed
    )
    untrained = net.copy()
    print(
        f"{len(X_train) + len(X_test):,} handwritten digits of 8 x 8 pixels, scaled to 0..1: "
        f"{len(X_train):,} to train on, {len(X_test)} held out.\n"
        f"Network 64-100-10, relu and softmax, {net.dtype}: {net.n_parameters:,} parameters.\n"
        f"SGD, learning rate {_LEARNING_RATE}, momentum {_MOMENTUM}, "
        f"mini-batches of {_BATCH_SIZE}, {arguments.epochs} epochs.",
        flush=True,
    )
    options: dict[str, Any] = {
        "optimizer": fastrna.SGD(learning_rate=_LEARNING_RATE, momentum=_MOMENTUM),
        "batch_size": _BATCH_SIZE,
        "seed": arguments.seed,
    }
    start = time.perf_counter()
    trainer = fastrna.Trainer(net, progress=True, n_threads=arguments.threads, **options)
    history = trainer.run(X_train, y_train, arguments.epochs)
    seconds = time.perf_counter() - start
    if history.n_epochs == 0:
        return 130
    interrupted = ", then interrupted" if history.stopped_by == "interrupt" else ""
    outputs = net.predict(X_test, n_threads=arguments.threads)
    matrix = confusion_matrix(y_test, outputs)
    right = int(np.trace(matrix))
    ours, reference = _epoch_seconds(untrained, X_train, y_train, options, arguments.threads)
    rows = (
        ("held-out accuracy", f"{right / len(y_test):.2%} ({right} of {len(y_test)})"),
        ("final cost", f"{history.cost[-1]:.3g}"),
        ("seconds", f"{seconds:.3g} for {history.n_epochs} epochs{interrupted}"),
        ("examples/s", f"{history.n_epochs * len(X_train) / seconds:,.0f}"),
        ("kernel variant", fastrna.isa()),
        ("threads", _threads(arguments.threads, trainer.n_threads_used)),
        (
            "speed-up",
            f"{reference / ours:.1f}x: an epoch takes {ours * 1e3:.3g} ms, "
            f"in NumPy (fastrna.reference) {reference * 1e3:.3g} ms",
        ),
    )
    print()
    for name, value in rows:
        print(f"{name:<19}{value}")
    _print_worst(matrix)
    if arguments.save:
        net.scaler = scaler
        net.save(arguments.save)
        print(f"\nsaved to {arguments.save}")
    if arguments.plot:
        _plot(history, y_test, outputs, arguments.plot)
        print(f"\ndrawn to {arguments.plot}")
    return 0


def _epoch_seconds(
    net: fastrna.Network,
    X: np.ndarray,
    y: np.ndarray,
    options: dict[str, Any],
    n_threads: int | None,
) -> tuple[float, float]:
    """Time an epoch of fastrna and of the NumPy reference: medians of alternating runs."""
    from fastrna import reference

    times: tuple[list[float], list[float]] = ([], [])
    # Many epochs of the fast one per run, so that the one-off cost of a call is as small a share
    # of it as it is of a training; the first run of both warms the caches and is dropped.
    for _ in range(4):
        for train, epochs, extra, seconds in (
            (fastrna.train, 20, {"n_threads": n_threads}, times[0]),
            (reference.train, 2, {}, times[1]),
        ):
            fresh = net.copy()
            start = time.perf_counter()
            train(fresh, X, y, epochs=epochs, **options, **extra)
            seconds.append((time.perf_counter() - start) / epochs)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _print_worst(matrix: np.ndarray, worst: int = 3) -> None:
    """Print the rows of the confusion matrix with the lowest share on the diagonal."""
    accuracy = np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)
    order = [digit for digit in np.argsort(accuracy, kind="stable")[:worst] if accuracy[digit] < 1]
    if not order:
        print("\nNo digit was mistaken.")
        return
    print("\nThe worst digits, by what they were taken for:")
    print("digit" + "".join(f"{column:>5}" for column in range(len(matrix))) + "   accuracy")
    for digit in order:
        counts = "".join(f"{count or '.':>5}" for count in matrix[digit])
        print(f"{digit:>5}{counts}{accuracy[digit]:>11.1%}")


def _plot(history: fastrna.History, y: np.ndarray, outputs: np.ndarray, path: str) -> None:
    from matplotlib.figure import Figure

    from fastrna import plotting

    # A figure of no window system: this works without a display.
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    plotting.plot_history(history, ax=left)
    plotting.plot_confusion(y, outputs, ax=right)
    figure.savefig(path)


# ------------------------------------------------------------------------------------------ info


def _info(_: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    print(f"fastrna         {fastrna.__version__}")
    print(f"kernel variant  {fastrna.isa()} (runnable here: {', '.join(kernels.available())})")
    print(f"threads         at most {kernels.thread_limit()}, fewer where the work is small")
    print(f"machine         {platform.machine()}, {os.cpu_count()} processors, {sys.platform}")
    print(f"Python          {platform.python_version()}")
    print(f"NumPy           {np.__version__}")
    for name in _EXTRAS:
        try:
            print(f"{name:<16}{version(name)}")
        except PackageNotFoundError:
            print(f"{name:<16}not installed")
    return 0


def _threads(requested: int | None, used: int) -> str:
    return str(used) if requested else f"{used} (chosen by the amount of work)"
