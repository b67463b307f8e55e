"""L-BFGS, by SciPy: what training and the scikit-learn estimators share of it.

In float64 even for a float32 network, because the line search compares costs that float32 cannot
tell apart.
"""

from __future__ import annotations

import math

import numpy as np

from fastrna.extras import require

_WALL = 1e300  # a cost for the line search to turn back from, where it is not finite


def minimise(net, loss_and_gradient, end_iteration, **options):
    """Minimise the cost over the parameters of a network of either type.

    Parameters
    ----------
    net : Network
        Its parameters are the start, and after every iteration what that accepted; never a trial
        of the line search, however this ends.
    loss_and_gradient : callable
        Takes the parameters (n_parameters,), float64; returns cost and gradient, float64.
    end_iteration : callable
        Takes the cost of the point accepted, after each iteration; true ends the descent.
    **options
        Of SciPy's "L-BFGS-B".

    Returns
    -------
    scipy.optimize.OptimizeResult
        Its `fun` is NaN where the cost was not finite even at the start.

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastrna
    >>> from fastrna.lbfgs import minimise
    >>> net = fastrna.Network([1, 1], dtype="float64", init="zeros")
    >>> def square(w):
    ...     return float(((w - 3) ** 2).sum()), 2 * (w - 3)
    >>> _ = minimise(net, square, lambda cost: False)
    >>> net.parameters.round(3)
    array([3., 3.])
    """
    optimize = require("scipy.optimize", "scipy", "The optimizer LBFGS needs SciPy")
    latest, accepted = math.nan, net.parameters.astype(np.float64)
    raised = None

    def evaluate(parameters):
        nonlocal latest
        latest, gradient = loss_and_gradient(parameters)
        if not math.isfinite(latest):
            return _WALL, np.zeros_like(parameters)
        return latest, gradient

    def accept(parameters):
        nonlocal accepted, raised
        net.parameters = accepted = parameters.copy()
        # The line search ends on the point it accepts, whose cost is therefore the latest.
        try:
            stop = end_iteration(latest)
        except StopIteration as error:  # SciPy would take it for its own
            raised = stop = error
        if stop:
            raise StopIteration

    try:
        result = optimize.minimize(
            evaluate, accepted, jac=True, method="L-BFGS-B", callback=accept, options=options
        )
        accepted = result.x
        if result.fun == _WALL:
            result.fun = math.nan
    finally:
        net.parameters = accepted  # also where trials went through the network itself
    if raised is not None:
        raise raised
    return result
