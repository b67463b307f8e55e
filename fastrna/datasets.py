"""Small data sets: the handwritten digits, and the logical gates of the lecture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrna import validation as check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["load_digits", "load_gates", "split"]

_DIGITS = Path(__file__).parent / "data" / "digits.npz"

# The targets of the four rows (0, 0), (0, 1), (1, 0), (1, 1).
_GATES = {
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "xor": (0, 1, 1, 0),
    "nand": (1, 1, 1, 0),
    "nor": (1, 0, 0, 0),
}


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 1,797 real handwritten digits and what they are.

    Each row is an image of 8 x 8 pixels, top row first; each pixel is the number, 0 to 16, of
    black points in a 4 x 4 block of the scanned form. The set is the test part of the UCI
    "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, CC BY 4.0),
    written by 13 people.

    Returns
    -------
    X : ndarray of float32, shape (1797, 64)
        The images, not scaled. The file holds them as uint8; float32 is given because the
        difference of two unsigned images would wrap around.
    y : ndarray of int64, shape (1797,)
        The digits, 0 to 9.

    Raises
    ------
    FileNotFoundError
        If the package was installed without its data.

    Examples
    --------
    >>> from fastrna.datasets import load_digits
    >>> X, y = load_digits()
    >>> X.shape, float(X.min()), float(X.max())
    ((1797, 64), 0.0, 16.0)
    >>> y[:5]
    array([0, 1, 2, 3, 4])
    """
    with np.load(_DIGITS, allow_pickle=False) as archive:
        return archive["X"].astype(np.float32), archive["y"].astype(np.int64)


def load_gates(name: str, bipolar: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the truth table of a logical gate of two inputs.

    Parameters
    ----------
    name : {"and", "or", "xor", "nand", "nor"}
        The gate. All but "xor" are linearly separable.
    bipolar : bool, default False
        Write false and true as -1 and 1, as the "sign" and "tanh" outputs do, in place of 0
        and 1.

    Returns
    -------
    X : ndarray of float32, shape (4, 2)
        The inputs.
    y : ndarray of int64, shape (4,)
        The outputs.

    Raises
    ------
    ValueError
        If there is no such gate.

    Examples
    --------
    >>> from fastrna.datasets import load_gates
    >>> X, y = load_gates("xor")
    >>> X.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    name = check.known(name.lower() if isinstance(name, str) else name, "name", _GATES)
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    y = np.array(_GATES[name], dtype=np.int64)
    return (2 * X - 1, 2 * y - 1) if bipolar else (X, y)


def split(
    X: ArrayLike, y: ArrayLike, test: float = 0.25, seed: int | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Divide examples at random into those to train on and those to hold out.

    Parameters
    ----------
    X : array_like, shape (m, ...)
        The inputs.
    y : array_like, shape (m, ...)
        The targets.
    test : float, default 0.25
        The fraction to hold out; the number of held-out examples is ``round(test * m)``.
    seed : int, optional
        Seed of ``numpy.random.default_rng``, whose permutation is divided.

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Copies.

    Raises
    ------
    ValueError, TypeError
        If the lengths differ, one of the parts would be empty, or an argument is not as above.

    Examples
    --------
    >>> from fastrna.datasets import load_digits, split
    >>> X_train, y_train, X_test, y_test = split(*load_digits(), seed=0)
    >>> len(X_train), len(X_test)
    (1348, 449)
    """
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ValueError(
            f"X has shape {X.shape} and y has shape {y.shape}; expected as many examples of one as "
            "of the other."
        )
    test = check.real(test, "test", 0, 1, low_open=True, high_open=True)
    seed = check.optional(check.integer, seed, "seed", 0)
    m = len(X)
    n_test = round(test * m)
    if not 0 < n_test < m:
        raise ValueError(
            f"test is {test!r}, which leaves a part of the {m} examples empty; expected at least "
            "one in each."
        )
    order = np.random.default_rng(seed).permutation(m)
    train, held_out = order[n_test:], order[:n_test]
    return X[train], y[train], X[held_out], y[held_out]
