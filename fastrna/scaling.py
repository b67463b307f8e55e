"""Scaling of inputs: the four formulas of the lecture, one class.

Every kind is the same map, ``(x - shift) * scale`` with one shift and one scale per column, so a
fitted scaler is two vectors, which a network can carry and a file can hold.

The data is read in tiles of at most ``_TILE`` numbers, each turned into float64 on its own. An
array on disk, or one of uint8, is therefore never loaded or converted whole, and the arithmetic
is float64 whatever the array's dtype.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Scaler"]

_KINDS = ("minmax", "max", "mean", "zscore")

# 512 KiB of float64: a tile and its centred copy stay in the second-level cache.
_TILE = 1 << 16


class Scaler:
    """Scale every column of the inputs by one of the lecture's formulas.

    ========== ============================== ======================
    kind       formula                        result
    ========== ============================== ======================
    "minmax"   ``(x - min) / (max - min)``    between 0 and 1
    "max"      ``x / max``                    at most 1 if max > 0
    "mean"     ``(x - mean) / (max - min)``   mean 0, width 1
    "zscore"   ``(x - mean) / std``           mean 0, variance 1
    ========== ============================== ======================

    The minimum, maximum, mean and (population) standard deviation are those of each column of
    the data given to `fit`. Where the divisor is zero the column is divided by 1 instead: a
    constant column becomes 0 under "minmax", "mean" and "zscore", and a column whose maximum is 0
    is left as it is under "max". "max" divides by the maximum itself, not by its absolute value,
    so a column of negative numbers changes sign.

    Parameters
    ----------
    kind : {"minmax", "max", "mean", "zscore"}
        The formula.

    Attributes
    ----------
    kind : str
        The formula.
    shift_, scale_ : ndarray of float64, shape (n_x,)
        After `fit`: the transform is ``(x - shift_) * scale_``.

    Raises
    ------
    ValueError
        If `kind` is none of the four.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrna import Scaler
    >>> X = np.array([[1.0, 10.0], [2.0, 10.0], [5.0, 10.0]])
    >>> scaler = Scaler("minmax").fit(X)
    >>> scaler.transform(X)
    array([[0.  , 0.  ],
           [0.25, 0.  ],
           [1.  , 0.  ]])
    >>> scaler.inverse_transform(scaler.transform(X))
    array([[ 1., 10.],
           [ 2., 10.],
           [ 5., 10.]])
    """

    shift_: NDArray[np.float64]
    scale_: NDArray[np.float64]

    def __init__(self, kind: str) -> None:
        if not isinstance(kind, str) or kind not in _KINDS:
            known = ", ".join(map(repr, _KINDS))
            raise ValueError(f"kind is {kind!r}; expected one of {known}.")
        self.kind = kind

    def fit(self, X: ArrayLike) -> Scaler:
        """Learn the shift and the scale of every column.

        Parameters
        ----------
        X : array_like, shape (m, n_x)
            The examples, of any real dtype; read in tiles, never copied whole. For "max", which
            has no shift, also a SciPy sparse matrix.

        Returns
        -------
        Scaler
            Itself.

        Raises
        ------
        TypeError
            If X does not hold real numbers, or is sparse and the formula has a shift.
        ValueError
            If X is not two-dimensional, is empty, holds NaN or infinity, or has a column too
            wide or too narrow for its divisor to be a float64.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> Scaler("zscore").fit([[0.0, 1.0], [2.0, 1.0]]).scale_
        array([1., 1.])
        """
        is_sparse = self._takes_sparse(X)
        if not is_sparse:
            X = real_array(X, "X")
        if X.ndim != 2:
            hint = " A single column is X.reshape(-1, 1)." if X.ndim == 1 else ""
            raise ValueError(
                f"X has shape {X.shape}; expected 2 dimensions, (examples, features).{hint}"
            )
        if 0 in X.shape:
            raise ValueError(
                f"X has shape {X.shape}; expected at least one example and one feature."
            )
        with_moments = self.kind in ("mean", "zscore")
        # Overflow is reported below, as a sentence about the column.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if is_sparse:
                minimum, maximum = _sparse_extremes(X)
                mean = variance = None
            else:
                minimum, maximum, mean, variance = _column_statistics(X, with_moments)
            width = maximum - minimum
            if self.kind == "max":
                shift, divisor, undivided = np.zeros_like(maximum), maximum, maximum == 0.0
            else:
                # Exact equality, not a small variance: rounding gives a constant column of 0.1 a
                # variance of about 1e-34, and dividing by that would turn noise into signal.
                undivided = width == 0.0
                shift = minimum if self.kind == "minmax" else mean
                divisor = np.sqrt(variance) if self.kind == "zscore" else width
            # A subnormal divisor overflows its reciprocal, a zero one makes it infinite.
            with np.errstate(divide="ignore"):
                scale = 1.0 / np.where(undivided, 1.0, divisor)
        unusable = ~(np.isfinite(shift) & np.isfinite(scale)) | (scale == 0.0)
        if unusable.any():
            column = int(np.argmax(unusable))
            raise ValueError(
                f"X runs from {minimum[column]:.6g} to {maximum[column]:.6g} in column {column}, "
                f"which the {self.kind!r} scaling cannot divide by in float64; change the unit."
            )
        self.shift_, self.scale_ = shift, scale
        return self

    def transform(self, X: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Scale examples: ``(X - shift_) * scale_``.

        Parameters
        ----------
        X : array_like, shape (m, n_x) or (n_x,)
            Examples, or a single one. NaN and infinity pass through. For "max" also a SciPy sparse
            matrix.
        out : ndarray of float32 or float64, same shape, optional
            Where to write; may be X itself.

        Returns
        -------
        ndarray
            `out`, or a new array: float32 for float32 (and float16), float64 for everything else.
            Of a sparse matrix, CSR.

        Raises
        ------
        TypeError
            If X does not hold real numbers, or is sparse and there is a shift or an `out`, or if
            `out` is not a float32 or float64 array.
        ValueError
            If the scaler is not fitted, or a shape is wrong, or `out` is read-only.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> scaler = Scaler("max").fit([[1.0], [4.0]])
        >>> scaler.transform([[2.0]])
        array([[0.5]])
        """
        return self._map(X, out, inverse=False)

    def inverse_transform(self, X: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Undo the scaling: ``X / scale_ + shift_``.

        Parameters
        ----------
        X : array_like, shape (m, n_x) or (n_x,)
            Scaled examples, or a single one. For "max" also a SciPy sparse matrix.
        out : ndarray of float32 or float64, same shape, optional
            Where to write; may be X itself.

        Returns
        -------
        ndarray
            `out`, or a new array: float32 for float32 (and float16), float64 for everything else.
            Of a sparse matrix, CSR.

        Raises
        ------
        TypeError
            If X does not hold real numbers, or is sparse and there is a shift or an `out`, or if
            `out` is not a float32 or float64 array.
        ValueError
            If the scaler is not fitted, or a shape is wrong, or `out` is read-only.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> scaler = Scaler("max").fit([[1.0], [4.0]])
        >>> scaler.inverse_transform([[0.5]])
        array([[2.]])
        """
        return self._map(X, out, inverse=True)

    def fit_transform(self, X: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Fit to the examples and scale them: ``fit(X).transform(X, out)``.

        Parameters
        ----------
        X : array_like, shape (m, n_x)
            The examples.
        out : ndarray of float32 or float64, same shape, optional
            Where to write; may be X itself.

        Returns
        -------
        ndarray
            `out`, or a new array.

        Raises
        ------
        TypeError, ValueError
            As `fit` and `transform` do.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> Scaler("mean").fit_transform([[0.0], [1.0], [2.0]])
        array([[-0.5],
               [ 0. ],
               [ 0.5]])
        """
        X = X if self._takes_sparse(X) else real_array(X, "X")
        return self.fit(X).transform(X, out)

    def state(self) -> dict[str, Any]:
        """Return the fitted scaler as plain data, for a file.

        Returns
        -------
        dict
            "kind", "shift" and "scale".

        Raises
        ------
        ValueError
            If the scaler is not fitted.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> sorted(Scaler("max").fit([[1.0], [4.0]]).state())
        ['kind', 'scale', 'shift']
        """
        self._check_fitted()
        return {"kind": self.kind, "shift": self.shift_.copy(), "scale": self.scale_.copy()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scaler:
        """Rebuild a fitted scaler from what `state` returned.

        Parameters
        ----------
        state : mapping
            "kind", "shift" and "scale".

        Returns
        -------
        Scaler
            A fitted scaler.

        Raises
        ------
        ValueError
            If an entry is missing or cannot belong to a fitted scaler.

        Examples
        --------
        >>> from fastrna import Scaler
        >>> scaler = Scaler("max").fit([[1.0], [4.0]])
        >>> Scaler.from_state(scaler.state()).transform([[2.0]])
        array([[0.5]])
        """
        missing = {"kind", "shift", "scale"}.difference(state)
        if missing:
            raise ValueError(f"state lacks {', '.join(sorted(missing))}.")
        scaler = cls(state["kind"])
        shift = np.array(real_array(state["shift"], "shift"), dtype=np.float64)
        scale = np.array(real_array(state["scale"], "scale"), dtype=np.float64)
        if shift.ndim != 1 or shift.size == 0 or shift.shape != scale.shape:
            raise ValueError(
                f"shift has shape {shift.shape} and scale has shape {scale.shape}, "
                "but both must be (n_x,)."
            )
        if not (np.isfinite(shift).all() and np.isfinite(scale).all() and scale.all()):
            raise ValueError("shift and scale must be finite, and scale must not be zero.")
        scaler.shift_, scaler.scale_ = shift, scale
        return scaler

    def __repr__(self) -> str:
        """Return the call that makes the scaler, unfitted."""
        return f"Scaler({self.kind!r})"

    def _check_fitted(self) -> None:
        if not hasattr(self, "scale_"):
            raise ValueError(f"{self!r} is not fitted: call fit(X) first.")

    def _takes_sparse(self, X: Any) -> bool:
        """Whether X is a sparse matrix, which a shift would fill."""
        if not hasattr(X, "tocsr"):
            return False
        if self.kind != "max":
            raise TypeError(
                f"X is sparse; expected a dense array, as the shift of {self.kind!r} would fill "
                "its zeros, or a scaler of kind 'max'."
            )
        if X.dtype.kind not in "fiub":
            raise TypeError(f"X has dtype {X.dtype}; expected real numbers.")
        return True

    def _map(self, X: ArrayLike, out: NDArray[Any] | None, inverse: bool) -> NDArray[Any]:
        self._check_fitted()
        is_sparse = self._takes_sparse(X)
        X = X.tocsr() if is_sparse else real_array(X, "X")
        n_x = self.scale_.size
        if X.ndim not in (1, 2) or X.shape[-1] != n_x:
            raise ValueError(
                f"X has shape {X.shape}; expected (m, {n_x}) or ({n_x},), as the scaler was fitted "
                f"on {n_x} features."
            )
        if is_sparse:
            if out is not None:
                raise TypeError("X is sparse; expected no out.")
            scale = self.scale_[X.indices]
            scaled = X.astype(_result_dtype(X.dtype))
            scaled.data = (X.data / scale if inverse else X.data * scale).astype(scaled.dtype)
            return scaled
        if out is None:
            out = np.empty(X.shape, _result_dtype(X.dtype))
        else:
            _check_out(out, X.shape)
            if np.may_share_memory(X, out) and not _same_elements(X, out):
                # Tiles written early would be read again, shifted, by later ones.
                X = X.copy()
        rows, target = (X, out) if X.ndim == 2 else (X[np.newaxis], out[np.newaxis])
        # Overflow to infinity and NaN in the data are the data's: the network names them.
        with np.errstate(over="ignore", invalid="ignore"):
            for tile in _tiles(rows):
                columns = tile[1]
                shift, scale = self.shift_[columns], self.scale_[columns]
                if inverse:
                    block = rows[tile] / scale
                    block += shift
                    target[tile] = block
                else:
                    block = rows[tile] - shift
                    np.multiply(block, scale, out=target[tile], casting="same_kind")
        return out


def _is_masked(values: Any) -> bool:
    """Whether it is an array with masked numbers, without importing `numpy.ma`."""
    ma = sys.modules.get("numpy.ma")
    return ma is not None and isinstance(values, ma.MaskedArray) and ma.is_masked(values)


def real_array(values: Any, name: str) -> NDArray[Any]:
    """Return `values` as an array of real numbers, without a copy where it is one."""
    if _is_masked(values):
        raise ValueError(f"{name} has masked numbers; expected none, as {name}.filled(0).")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths; expected a rectangle.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected real numbers: a float, integer or boolean "
            "type."
        )
    return array


def _result_dtype(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Keep float32 and float64; integers need the 53 bits, float16 does not."""
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def _check_out(out: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype not in (np.float32, np.float64):
        what = f"an array of {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out is {what}; expected an array of float32 or float64.")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; expected {shape}, that of X.")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array that may be written.")


def _same_elements(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether the two arrays are the same view of the same memory."""
    return (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.strides == b.strides
        and a.dtype == b.dtype
    )


def _tiles(X: NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """Cut X (m, n) into tiles of at most _TILE numbers, along its order in memory.

    All the row blocks of one group of columns come before the next group, so that the statistics
    of a group are finished before another begins.
    """
    m, n = X.shape
    by_columns = abs(X.strides[0]) < abs(X.strides[1])
    if by_columns:
        n_rows = min(max(m, 1), _TILE)
        n_columns = max(1, _TILE // n_rows)
    else:
        n_columns = min(max(n, 1), _TILE)
        n_rows = max(1, _TILE // n_columns)
    for column in range(0, n, n_columns):
        columns = slice(column, min(column + n_columns, n))
        for row in range(0, m, n_rows):
            yield slice(row, min(row + n_rows, m)), columns


def _sparse_extremes(X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the minimum and maximum of each column of a sparse matrix, its zeros among them."""
    X = X.tocoo()
    if not np.isfinite(X.data).all():
        place = int(np.argmin(np.isfinite(X.data)))
        raise ValueError(
            f"X is {X.data[place]} at row {X.row[place]}, column {X.col[place]}: a scaler is "
            "fitted on finite numbers."
        )
    extremes = (X.min(axis=0), X.max(axis=0))
    return tuple(e.toarray().ravel().astype(np.float64) for e in extremes)


def _column_statistics(
    X: NDArray[Any], with_moments: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the minimum, maximum, mean and population variance of each column.

    Everything is measured from a pivot, the mean of the column's first tile, since a number of
    the size of the spread is rounded less than one of the size of the mean. The moments of a tile
    are taken around its own mean, and tiles are joined by the pairwise update of Chan, Golub and
    LeVeque (1979):

        mean = mean_a + d n_b / n,   M2 = M2_a + M2_b + d^2 n_a n_b / n,   d = mean_b - mean_a

    The textbook E[x^2] - E[x]^2 cancels to nonsense where the mean is large beside the spread.
    """
    n = X.shape[1]
    minimum = np.full(n, np.inf)
    maximum = np.full(n, -np.inf)
    pivot = np.zeros(n)
    mean = np.zeros(n)  # from the pivot
    squares = np.zeros(n)
    for rows, columns in _tiles(X):
        tile = X[rows, columns].astype(np.float64)
        low, high = tile.min(axis=0), tile.max(axis=0)
        # NaN passes through min and max, and infinity is one of the two: no pass of its own.
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            row, column = np.argwhere(~np.isfinite(tile))[0]
            raise ValueError(
                f"X is {tile[row, column]} at row {rows.start + row}, "
                f"column {columns.start + column}: a scaler is fitted on finite numbers."
            )
        np.minimum(minimum[columns], low, out=minimum[columns])
        np.maximum(maximum[columns], high, out=maximum[columns])
        if not with_moments:
            continue
        n_a, n_b = rows.start, rows.stop - rows.start
        if n_a == 0:
            pivot[columns] = tile.mean(axis=0)
        tile -= pivot[columns]
        tile_mean = tile.mean(axis=0)
        tile -= tile_mean
        # What is left of the mean is its rounding error: small, and known exactly enough to
        # correct both moments with.
        residue = tile.sum(axis=0)
        tile_squares = np.einsum("ij,ij->j", tile, tile) - residue * residue / n_b
        tile_mean += residue / n_b
        d = tile_mean - mean[columns]
        mean[columns] += d * (n_b / (n_a + n_b))
        squares[columns] += tile_squares + d * d * (n_a * (n_b / (n_a + n_b)))
    mean += pivot
    # A constant column's mean is exactly its value.
    constant = minimum == maximum
    mean[constant] = minimum[constant]
    return minimum, maximum, mean, squares / X.shape[0]
