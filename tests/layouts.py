"""The same numbers in every memory layout a user may pass."""

import numpy as np


def _spread(x, steps):
    buffer = np.full([2 * n + 3 for n in x.shape], np.nan, x.dtype)
    view = buffer[tuple(slice(1, 1 + 2 * n, 2) for n in x.shape)]
    view[...] = x
    return view[steps] if steps else view


def _unaligned(x):
    """Start one element past an alignment boundary of 64 bytes."""
    buffer = np.full(x.size + 64, np.nan, x.dtype)
    start = (-buffer.ctypes.data % 64) // x.itemsize + 1
    view = buffer[start : start + x.size].reshape(x.shape)
    view[...] = x
    return view


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda x: _spread(x, ()),
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": _read_only,
    "unaligned": _unaligned,
}
