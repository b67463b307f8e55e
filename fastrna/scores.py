"""The score of predictions, of training and of the scikit-learn estimators alike."""

from __future__ import annotations

import numpy as np


def score_of(outputs, targets, output, weights=None):
    """Return the accuracy where the outputs are classes, else R^2.

    Parameters
    ----------
    outputs : ndarray (m, n_y)
        What the network returned.
    targets : array_like (m, n_y), (m,) where n_y = 1, or (m,) classes where the output is softmax
        What it should have returned.
    output : str
        Activation of the output layer.
    weights : ndarray (m,), optional
        Weights of the examples.

    Returns
    -------
    float
        Of the examples, the weight that has all outputs right; or R^2 averaged over the outputs,
        where a constant target counts 1 if it is met and 0 if not, as scikit-learn has it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrna.scores import score_of
    >>> score_of(np.array([[0.2, 0.8], [0.6, 0.4]]), [1, 1], "softmax")
    0.5
    """
    targets = np.asarray(targets)
    if output == "softmax":
        classes = targets if targets.ndim == 1 else targets.argmax(axis=1)
        return float(np.average(outputs.argmax(axis=1) == classes, weights=weights))
    targets = targets.reshape(outputs.shape)
    if output in ("sigmoid", "step", "sign"):
        middle = 0.0 if output == "sign" else 0.5
        right = ((outputs > middle) == (targets > middle)).all(axis=1)
        return float(np.average(right, weights=weights))
    return _r2(outputs.astype(np.float64), targets.astype(np.float64), weights)


def _r2(outputs, targets, weights):
    w = np.ones(len(targets)) if weights is None else weights
    # On its way to diverging a network may be wrong by more than the square of a float64 holds.
    with np.errstate(over="ignore", invalid="ignore"):
        residual = w @ (targets - outputs) ** 2
        total = w @ (targets - np.average(targets, axis=0, weights=weights)) ** 2
        explained = 1 - residual / np.where(total == 0, 1, total)
    return float(np.where(total == 0, residual == 0, explained).mean())
