"""Pictures of a training, of the method, and of what a network learnt.

Matplotlib is imported when a picture is drawn, not before. Every function draws on the axes it is
given, or on a new figure, and returns what it drew on; showing or saving is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrna import validation as check
from fastrna.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from fastrna.history import History
    from fastrna.network import Network

__all__ = [
    "confusion_matrix",
    "plot_activations",
    "plot_confusion",
    "plot_descent",
    "plot_history",
    "plot_weights",
]

_MOST_CLASSES = 10000  # of a confusion matrix
_LECTURE_RATES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.01)
_ACTIVATIONS = (
    "step",
    "sign",
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "gelu",
    "silu",
    "exp",
)


def plot_history(history: History, ax: Axes | None = None) -> Axes:
    """Draw the cost of each epoch, and the validation's where there was one.

    Parameters
    ----------
    history : History
        What `train` returned.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        With a logarithmic cost axis where every cost is positive.

    Raises
    ------
    ImportError
        If matplotlib is missing (the `plot` extra).

    Examples
    --------
    >>> import fastrna
    >>> from fastrna.datasets import load_gates
    >>> net = fastrna.Network([2, 4, 1], output="sigmoid", seed=0)
    >>> history = fastrna.train(net, *load_gates("xor"), epochs=5, seed=0)
    >>> ax = history.plot()  # doctest: +SKIP
    """
    if ax is None:
        ax = _axes(ax)
        ax.xaxis.get_major_locator().set_params(integer=True)
    curves = [("training", history.cost)]
    validation = getattr(history, "validation_cost", None)
    if validation is not None and np.isfinite(validation).any():
        curves.append(("validation", validation))
    for label, cost in curves:
        # A single epoch is a point, which a line would not show.
        ax.plot(np.arange(1, len(cost) + 1), cost, label=label, marker="." * (len(cost) == 1))
    values = np.concatenate([np.asarray(cost, dtype=float) for _, cost in curves])
    if values.size and np.nanmin(values) > 0.0:
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("cost")
    if len(curves) > 1:
        ax.legend()
    return ax


def plot_descent(
    learning_rates: Sequence[float] = _LECTURE_RATES, w0: float = 0.7, steps: int = 20
) -> Figure:
    """Draw gradient descent on J(w) = w^2, one panel per learning rate.

    The gradient is 2 w, so w_k = (1 - 2 alpha)^k w_0: slow for a small alpha, exact in one step
    at 1/2, overshooting beyond it, back and forth for ever at 1, and away from 0 above 1.

    Parameters
    ----------
    learning_rates : sequence of float
        The alphas; those of the lecture by default.
    w0 : float, default 0.7
        Where to start.
    steps : int, default 20
        Steps to take.

    Returns
    -------
    matplotlib Figure
        A grid of panels.

    Raises
    ------
    ImportError
        If matplotlib is missing (the `plot` extra).
    ValueError
        If there are no learning rates.

    Examples
    --------
    >>> from fastrna.plotting import plot_descent
    >>> figure = plot_descent([0.1, 0.9])  # doctest: +SKIP
    """
    learning_rates = list(learning_rates)
    if not learning_rates:
        raise ValueError("learning_rates is empty; expected at least one.")
    from fastrna import SGD, gradient_descent

    paths = [
        gradient_descent(lambda w: 2.0 * w, np.array([w0]), SGD(learning_rate=rate), steps)[:, 0]
        for rate in learning_rates
    ]
    reach = 1.1 * max(np.abs(path).max() for path in paths)
    w = np.linspace(-reach, reach, 200)
    figure, panels = _grid(len(paths), columns=3, size=(2.6, 2.2), sharex=True, sharey=True)
    for panel, rate, path in zip(panels, learning_rates, paths, strict=True):
        panel.plot(w, w * w, color="0.8")
        panel.plot(path, path * path, "o-", markersize=3, linewidth=0.8)
        panel.set_title(rf"$\alpha$ = {rate:g}", fontsize="medium")
    figure.supxlabel("w")
    figure.supylabel("J(w)")
    return figure


def plot_activations(
    activations: Sequence[str | tuple[str, float]] = _ACTIVATIONS, limit: float = 4.0
) -> Figure:
    """Draw activations and their derivatives, one panel each.

    Parameters
    ----------
    activations : sequence
        Names, or pairs of a name and a parameter; all but softmax by default, which is no
        function of one number.
    limit : float, default 4.0
        The panels show -limit to limit.

    Returns
    -------
    matplotlib Figure
        A grid of panels.

    Raises
    ------
    ImportError
        If matplotlib is missing (the `plot` extra).
    ValueError
        If `activations` is empty or holds an unknown name.

    Examples
    --------
    >>> from fastrna.plotting import plot_activations
    >>> figure = plot_activations(["tanh", ("elu", 0.5)])  # doctest: +SKIP
    """
    activations = list(activations)
    if not activations:
        raise ValueError("activations is empty; expected at least one.")
    from fastrna import reference

    # An even number of points, so that none falls on a kink or a jump at 0.
    z = np.linspace(-limit, limit, 400)[np.newaxis]
    figure, panels = _grid(len(activations), columns=4, size=(2.4, 2.0), sharex=True)
    for panel, activation in zip(panels, activations, strict=True):
        panel.axhline(0.0, color="0.85", linewidth=0.8)
        panel.axvline(0.0, color="0.85", linewidth=0.8)
        value = reference.activation(activation, z)[0]
        slope = reference.activation_derivative(activation, z)[0]
        for curve, style, label in ((value, "-", "g"), (slope, "--", "g'")):
            # Broken at a jump, which can only be at 0: joined, it would look like a ramp.
            middle = curve.size // 2
            if abs(curve[middle] - curve[middle - 1]) > 0.1:
                curve[middle] = np.nan
            panel.plot(z[0], curve, style, label=label)
        name, parameter = (activation, None) if isinstance(activation, str) else activation
        panel.set_title(name if parameter is None else f"{name}({parameter:g})", fontsize="medium")
        # Cut at the limit: exp would otherwise flatten everything near 0.
        seen = np.clip(np.concatenate([value, slope]), -limit, limit)
        margin = 0.05 * (np.nanmax(seen) - np.nanmin(seen))
        panel.set_ylim(np.nanmin(seen) - margin, np.nanmax(seen) + margin)
    panels[0].legend(fontsize="small")
    return figure


def confusion_matrix(y: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Parameters
    ----------
    y : array_like of int, shape (m,)
        The true classes.
    predicted : array_like, shape (m,) or (m, n)
        The predicted classes, or the outputs of a network, whose largest is the prediction.

    Returns
    -------
    ndarray of int64, shape (n, n)
        Row: the true class; column: the predicted one.

    Raises
    ------
    ValueError
        If the lengths differ, or a class is not a non-negative integer.

    Examples
    --------
    >>> from fastrna.plotting import confusion_matrix
    >>> confusion_matrix([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    true, guessed = np.asarray(y), np.asarray(predicted)
    n = 0
    if guessed.ndim == 2:
        n = guessed.shape[1]
        guessed = guessed.argmax(axis=1)
    if true.ndim != 1 or true.shape != guessed.shape:
        raise ValueError(
            f"y has shape {true.shape} and predicted has {guessed.shape}; expected as many of one "
            "as of the other."
        )
    for name, classes in (("y", true), ("predicted", guessed)):
        if not classes.size:
            continue
        if classes.dtype.kind not in "iub" or classes.min() < 0:
            raise ValueError(f"{name} holds other things than classes; expected 0, 1, 2, ...")
        if classes.max() >= _MOST_CLASSES:
            raise ValueError(f"{name} has class {classes.max()}; expected below {_MOST_CLASSES}.")
    true, guessed = true.astype(np.int64), guessed.astype(np.int64)
    n = int(max(n, true.max(initial=-1) + 1, guessed.max(initial=-1) + 1))
    return np.bincount(true * n + guessed, minlength=n * n).reshape(n, n).astype(np.int64)


def plot_confusion(y: ArrayLike, predicted: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix, the mistakes in colour.

    Parameters
    ----------
    y : array_like of int, shape (m,)
        The true classes.
    predicted : array_like, shape (m,) or (m, n)
        The predicted classes, or the outputs of a network.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        Rows are true classes, columns predicted ones.

    Raises
    ------
    ImportError
        If matplotlib is missing (the `plot` extra).
    ValueError
        As `confusion_matrix` does.

    Examples
    --------
    >>> from fastrna.plotting import plot_confusion
    >>> ax = plot_confusion([0, 1, 1], [0, 1, 0])  # doctest: +SKIP
    """
    matrix = confusion_matrix(y, predicted)
    ax = _axes(ax)
    mistakes = matrix.astype(float)
    # On the same scale the diagonal would leave every mistake white.
    np.fill_diagonal(mistakes, 0.0)
    ax.imshow(mistakes, cmap="Reds", vmin=0.0, vmax=max(mistakes.max(initial=0.0), 1.0) * 1.5)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            ax.text(column, row, str(count), ha="center", va="center", fontsize="small")
    ax.set_xticks(range(len(matrix)))
    ax.set_yticks(range(len(matrix)))
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def plot_weights(net: Network, shape: tuple[int, int] = (8, 8), limit: int = 100) -> Figure:
    """Draw what each neuron of the first layer looks for, as images.

    Parameters
    ----------
    net : Network
        A network whose inputs are the pixels of an image, row by row.
    shape : (int, int), default (8, 8)
        Height and width of the image.
    limit : int, default 100
        Draw at most so many neurons.

    Returns
    -------
    matplotlib Figure
        One image per neuron, all on one scale: blue weights are positive, red ones negative.

    Raises
    ------
    ImportError
        If matplotlib is missing (the `plot` extra).
    ValueError
        If the network's inputs do not fill such an image.

    Examples
    --------
    >>> import fastrna
    >>> from fastrna.plotting import plot_weights
    >>> figure = plot_weights(fastrna.Network([64, 10, 10], seed=0))  # doctest: +SKIP
    """
    W = net.weights[0]
    if np.shape(shape) != (2,):
        raise ValueError(f"shape is {shape!r}; expected a pair, height and width.")
    limit = check.integer(limit, "limit")
    if shape[0] * shape[1] != W.shape[0]:
        raise ValueError(
            f"shape is {shape}, which is {shape[0] * shape[1]} pixels; expected {W.shape[0]}, the "
            "inputs of the network."
        )
    n = min(limit, W.shape[1])
    figure, panels = _grid(n, columns=10, size=(0.7, 0.7))
    scale = np.abs(W[:, :n]).max()
    for panel, weights in zip(panels, W.T, strict=False):
        panel.imshow(weights.reshape(shape), cmap="RdBu", vmin=-scale, vmax=scale)
        panel.set_axis_off()
    return figure


def _pyplot() -> Any:
    return require("matplotlib.pyplot", "plot", "Pictures need matplotlib")


def _axes(ax: Axes | None) -> Axes:
    return _pyplot().subplots(layout="constrained")[1] if ax is None else ax


def _grid(
    n: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with n panels of `size` inches, row by row."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, panels = _pyplot().subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        squeeze=False,
        layout="constrained",
        **options,
    )
    for panel in panels.flat[n:]:
        panel.remove()
    return figure, list(panels.flat[:n])
