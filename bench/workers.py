"""Peers timed in processes of their own, stopped while it is not their turn.

Imported by peers.py. Every library under test brings a pool of threads, and most pools spin for
a while after their work is done: two of them in one process, or in two running processes, slow
each other. Here each peer lives in one worker process for the whole run. Between its turns the
worker is stopped with SIGSTOP, so its pool cannot use a cycle whatever its policy; it is
continued for its turn and warmed up before the clock starts.

A peer is a module `peer_NAME.py` with `versions() -> dict` and functions named after the
sections (`epoch`, `predict_one`, `predict`, `gradient`), each taking a `cases.Case` and returning
a list of `Way`: the several ways in which an expert might have it done. The worker tries them all
and keeps the fastest, so that no peer loses by our choice.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import time
import timeit
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

WARM_UP = 2


class Way(NamedTuple):
    """One way of doing the work: `run(n)` does it n times and returns when it is done."""

    label: str
    run: Callable[[int], Any]
    weights: Callable[[], list] | None = None


class Unsupported(Exception):
    """What a peer raises for a case that it cannot do; the message goes below the table."""


def statement(text: str, **names: Any) -> Callable[[int], Any]:
    """Make a `run(n)` over one statement, without the cost of a Python call around it."""
    return timeit.Timer(text, globals=names).timeit


def seconds_per_call(run: Callable[[int], Any], budget: float) -> float:
    """Time `run` for about `budget` seconds, after a warm-up of a fifth of that.

    The warm-up wakes the threads and brings the data back into the caches; it also tells how
    many calls fit into the budget.
    """
    calls, elapsed = 1, 0.0
    while True:
        start = time.perf_counter()
        run(calls)
        elapsed = time.perf_counter() - start
        if elapsed > budget / 5:
            break
        calls = max(2 * calls, int(calls * budget / 5 / max(elapsed, 1e-9)))
    calls = max(1, round(calls * budget / elapsed))
    start = time.perf_counter()
    run(calls)
    return (time.perf_counter() - start) / calls


class Desk:
    """The worker's side: holds the peer's module and the ways it is timing."""

    def __init__(self, peer: str) -> None:
        self.module = importlib.import_module(f"peer_{peer}")
        self.ways: dict[str, Way] = {}

    def prepare(self, section: str, case: Any, budget: float, keep: int = 1) -> dict:
        """Build, compile, warm up and check all ways; keep the fastest. Returns labels, costs."""
        make = getattr(self.module, section, None)
        if make is None:
            raise Unsupported(f"no {section}")
        self.ways.clear()
        costs, times = {}, {}
        for way in make(case):
            way.run(WARM_UP)  # compiles, where that is done
            if way.weights is not None:
                costs[way.label] = case.cost(way.weights())
            times[way.label] = seconds_per_call(way.run, budget)
            self.ways[way.label] = way
        for label in sorted(times, key=times.get)[keep:]:
            del self.ways[label]
        return {"ways": {k: times[k] for k in times}, "costs": {k: costs.get(k) for k in self.ways}}

    def time(self, budget: float) -> dict[str, float]:
        """Seconds a call of every way kept."""
        return {way.label: seconds_per_call(way.run, budget) for way in self.ways.values()}

    def ask(self, function: str, *arguments: Any) -> Any:
        """Call any other function of the peer's module."""
        return getattr(self.module, function)(*arguments)


def die_with_parent() -> None:
    """Have Linux kill this process when its parent ends: stopped, it could not notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def serve(connection: Any, peer: str) -> None:
    """Answer requests until told to stop: the whole life of a worker process."""
    die_with_parent()
    try:
        desk = Desk(peer)
        connection.send(("done", desk.module.versions()))
    except ImportError as error:
        connection.send(("unsupported", f"not installed ({error})"))
        return
    while (request := connection.recv()) is not None:
        method, arguments = request
        try:
            answer = ("done", getattr(desk, method)(*arguments))
        except Unsupported as reason:
            answer = ("unsupported", str(reason))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            answer = ("unsupported", f"{type(error).__name__}: {str(error).splitlines()[0]}")
        connection.send(answer)


class Worker:
    """The parent's side of one peer. Raises Unsupported where the peer is not installed."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, peer), daemon=True)
        self.process.start()
        theirs.close()
        self.versions = self._answer()
        self._pause()

    def _answer(self) -> Any:
        try:
            kind, value = self.connection.recv()
        except EOFError:
            raise Unsupported("its process died") from None
        if kind == "unsupported":
            raise Unsupported(value)
        return value

    def _pause(self) -> None:
        if hasattr(signal, "SIGSTOP") and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGSTOP)
        else:
            time.sleep(0.5)  # long enough for every pool known to stop spinning

    def _resume(self) -> None:
        if hasattr(signal, "SIGCONT") and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGCONT)

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Have `Desk.method(*arguments)` done by the worker, alone on the machine."""
        self._resume()
        try:
            self.connection.send((method, arguments))
            return self._answer()
        except BrokenPipeError:
            raise Unsupported("its process died") from None
        finally:
            self._pause()

    def close(self) -> None:
        """End the worker."""
        self._resume()
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def use_threads(n: int) -> None:
    """Give every worker started from now on n cores and n threads."""
    for name in ("OMP", "OPENBLAS", "MKL", "FASTRNA"):
        os.environ[f"{name}_NUM_THREADS"] = str(n)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:n])
