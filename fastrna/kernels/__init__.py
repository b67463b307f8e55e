"""The compiled core, one module for each (float type, instruction set).

`load` returns the module of a variant; `isa` names the one in use. The variant is the best the
machine and the operating system can run, or the one the environment variable FASTRNA_ISA names.
"""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

#: Types of X that the kernels read as they stand.
SOURCES = frozenset(
    np.dtype(name) for name in
    ["float32", "float64", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64",
     "int64"]
)  # fmt: skip

_ISAS = ("amx", "avx512", "avx2", "baseline")
_PREFIXES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}

#: Threads that may be asked for.
MOST_THREADS = 1024

# Arithmetic of a prediction, an evaluation or a gradient that repays sharing it with one more
# thread; in training the engine judges for itself.
_WORTH_A_THREAD = 1_500_000.0

# A child of fork inherits OpenMP's bookkeeping but not its threads, and would wait for them.
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _import(prefix: str, isa: str) -> ModuleType:
    if isa == "amx" and prefix == "f64":
        isa = "avx512"  # that unit has no float64
    return importlib.import_module(f"fastrna.kernels.{prefix}_{isa}")


@functools.cache
def _supported() -> tuple[str, ...]:
    """Instruction sets that the processor and the operating system support, best first."""
    names = _import("f32", "baseline").instruction_sets()
    return tuple(isa for isa in _ISAS if isa in names)


@functools.cache
def available() -> list[str]:
    """Variants that are built and that this machine can run, best first.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from fastrna import kernels
    >>> kernels.available()[-1]
    'baseline'
    """
    found = []
    for isa in _supported():
        try:
            _import("f32", isa)
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            import logging

            logging.getLogger("fastrna").warning(
                "The %s kernels exist but cannot be imported: %s", isa, error
            )
            continue
        found.append(isa)
    return found


@functools.cache
def isa() -> str:
    """Name of the kernel variant in use.

    Returns
    -------
    str
        "amx" (AVX-512 and, for wide layers in float32, the processor's matrix unit), "avx512",
        "avx2" or "baseline"; what FASTRNA_ISA names if it is set.

    Raises
    ------
    ImportError
        If FASTRNA_ISA names a variant that is unknown, not built, or that the machine cannot run.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.isa() in ("amx", "avx512", "avx2", "baseline")
    True
    """
    wanted = os.environ.get("FASTRNA_ISA")
    if wanted:
        if wanted not in _ISAS:
            raise ImportError(f"FASTRNA_ISA is {wanted!r}; expected one of {', '.join(_ISAS)}.")
        if wanted not in available():
            raise ImportError(
                f"FASTRNA_ISA is {wanted!r}, which this machine or this build cannot run; expected "
                f"one of {', '.join(available())}."
            )
        return wanted
    return available()[0]


@functools.cache
def load(dtype: DTypeLike, isa_name: str | None = None) -> ModuleType:
    """Return the compiled module for a float type.

    Parameters
    ----------
    dtype : {"float32", "float64"} or dtype
        Type of all arrays it computes with.
    isa_name : {"amx", "avx512", "avx2", "baseline"}, optional
        The variant; by default the one in use, `isa`.

    Returns
    -------
    module
        ``kernels.pyi`` tells its contents; the functions on arrays are those of the same names in
        `fastrna.reference`.

    Raises
    ------
    ValueError, TypeError
        If the variant cannot run here or the type is another.
    ImportError
        As for `isa`, where no variant is given.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrna import kernels
    >>> kernels.load("float64").activation("relu", np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    dtype = np.dtype(dtype)
    if dtype not in _PREFIXES:
        raise ValueError(f"dtype is {dtype}; expected float32 or float64.")
    if isa_name is not None and isa_name not in available():
        raise ValueError(f"isa is {isa_name!r}; expected one of {', '.join(available())}.")
    return _import(_PREFIXES[dtype], isa_name or isa())


def thread_limit() -> int:
    """Threads that training may use: FASTRNA_NUM_THREADS, or what OpenMP allows.

    OpenMP allows as many as there are processors, fewer under OMP_NUM_THREADS or threadpoolctl; the
    child of a fork gets one.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If FASTRNA_NUM_THREADS is not an integer from 1 to `MOST_THREADS`.

    Examples
    --------
    >>> from fastrna import kernels
    >>> kernels.thread_limit() >= 1
    True
    """
    if _forked:
        return 1
    kernel = _import("f32", isa())
    wanted: int | None = kernel.integer_in_environment(b"FASTRNA_NUM_THREADS")
    if wanted is None:
        return int(kernel.thread_limit())
    if not 1 <= wanted <= MOST_THREADS:
        raise ValueError(
            f"FASTRNA_NUM_THREADS is {os.environ.get('FASTRNA_NUM_THREADS')!r}; expected an "
            f"integer from 1 to {MOST_THREADS}."
        )
    return wanted


class TeamChoice:
    """One thread or several for calls of a millisecond or less, judged by the clock.

    Where another library's threads spin on the processors (a BLAS after each of its calls does), a
    team may wait whole time slices for its last member: 8 ms for a prediction of 0.3 ms. So the
    time of each way is kept, the quicker one is taken, and the other tried again after twice as
    many calls as the last time. The results are the same bit for bit either way.
    """

    #: Operations from which on a call is long enough not to be judged.
    LONG = 5e8
    _RAREST_TRIAL = 1024

    def __init__(self) -> None:
        self._cost: dict[int, float] = {}  # seconds an operation, by number of threads
        self._calls = 0
        self._next_trial = 4

    def pick(self, team: int) -> int:
        """Return `team`, or 1 where that has been quicker."""
        self._calls += 1
        for way in (team, 1):
            if way not in self._cost:
                return way
        quicker, slower = sorted((team, 1), key=self._cost.__getitem__)
        if self._calls < self._next_trial:
            return quicker
        self._next_trial = self._calls + min(self._calls, self._RAREST_TRIAL)
        return slower

    def note(self, team: int, cost: float) -> None:
        """Take account of a call: seconds an operation on so many threads."""
        before = self._cost.get(team, cost)
        # A hiccup is not a habit, three in a row are; a quick call shows what can be.
        self._cost[team] = min(cost, 0.5 * (before + min(cost, 1.5 * before)))


def team(n_threads: int | None) -> int:
    """Threads to use at most: as many as asked for or allowed; one in the child of a fork."""
    if _forked:
        return 1
    return thread_limit() if n_threads is None else n_threads


def threads_for(n_threads: int | None, operations: float) -> int:
    """Threads for one call without an update: as many as asked for, or as `operations` repay.

    The results are the same bit for bit either way.
    """
    if n_threads is not None or _forked:
        return team(n_threads)
    worth = int(operations / _WORTH_A_THREAD)
    return 1 if worth < 2 else min(worth, thread_limit())
