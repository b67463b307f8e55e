"""Gradient descent on any function, by the update kernels of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrna import kernels
from fastrna import validation as check
from fastrna.optimizers import LBFGS, SGD, Adam, Adaptive, optimizer_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def gradient_descent(
    gradient: Callable[[NDArray[Any]], ArrayLike],
    w0: ArrayLike,
    optimizer: SGD | Adam | str = "sgd",
    steps: int = 100,
) -> NDArray[Any]:
    """Minimise any function by the engine's own update kernels.

    Parameters
    ----------
    gradient : callable
        Takes w (n,) and returns dJ/dw (n,).
    w0 : array_like (n,) or float
        Where to start.
    optimizer : SGD or Adam, or {"sgd", "adam"}, default "sgd"
        How a gradient becomes an update; schedules count steps as epochs.
    steps : int, default 100
        Steps to take.

    Returns
    -------
    ndarray (steps + 1, n)
        The trajectory, w0 first: of float32 where w0 is, else of float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above, or a gradient does not have w's shape.

    Examples
    --------
    The lecture's J(w) = w^2 from w = 0.7: w_k = (1 - 2 alpha)^k w_0.

    >>> import fastrna
    >>> fastrna.gradient_descent(lambda w: 2 * w, 0.7, fastrna.SGD(0.5), steps=1).ravel().tolist()
    [0.7, 0.0]
    """
    chosen = optimizer_of(optimizer)
    if isinstance(chosen, LBFGS):
        raise TypeError("optimizer is LBFGS; expected SGD or Adam.")
    if not callable(gradient):
        raise TypeError(f"gradient is {gradient!r}; expected a function of w.")
    if isinstance(chosen.schedule, Adaptive):
        raise TypeError("schedule is Adaptive, which needs a cost; expected one by the step.")
    steps = check.integer(steps, "steps", 0)
    w = check.numeric(w0, "w0")
    w = np.array(w, dtype=w.dtype if w.dtype == np.float32 else np.float64, ndmin=1)
    if w.ndim != 1:
        raise ValueError(f"w0 has {w.ndim} dimensions; expected 1.")
    check.finite(w, "w0")
    module = kernels.load(w.dtype)
    first, second = np.zeros_like(w), np.zeros_like(w)
    trajectory = np.empty((steps + 1, len(w)), w.dtype)
    trajectory[0] = w
    for k in range(steps):
        rate = chosen.learning_rate
        if chosen.schedule is not None:
            rate = chosen.schedule.rate(rate, k)
        g = np.ascontiguousarray(gradient(w.copy()), dtype=w.dtype).reshape(-1)
        if g.shape != w.shape:
            raise ValueError(f"gradient returned shape {g.shape}; expected {w.shape}, that of w0.")
        if isinstance(chosen, Adam):
            module.adam_update(
                w, first, second, g, rate, chosen.beta_1, chosen.beta_2, chosen.epsilon, k + 1
            )
        elif chosen.rule == "sgd":
            module.sgd_update(w, g, rate)
        else:
            update = getattr(module, f"{chosen.rule}_update")
            update(w, first, g, rate, chosen.momentum)
        trajectory[k + 1] = w
    return trajectory
