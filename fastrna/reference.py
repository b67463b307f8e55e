"""The whole method in plain NumPy, one function per equation, to be read next to the lecture.

Rows are examples, as everywhere in NumPy; the lecture's columns of examples are ``X.T``. Layer
``l`` has weights ``W_l (n_in, n_out)`` and biases ``b_l (n_out,)``:

====================  =====================================================================
forward               ``Z_l = A_{l-1} W_l + b_l``,  ``A_l = g_l(Z_l)``,  ``A_0 = X``
cost                  ``J = sum_i w_i c(yhat_i, y_i) / sum_i w_i``, ``c`` a sum over outputs
penalty               ``l2/2 * sum W^2 + l1 * sum abs(W)``, biases excluded
backpropagation       ``dZ_L = dJ/dA_L * g_L'(Z_L)``,  ``dA_{l-1} = dZ_l W_l^T``
gradient              ``dW_l = A_{l-1}^T dZ_l``,  ``db_l = sum_i dZ_l``
gradient descent      ``w = w - alpha dJ/dw``
momentum              ``v = beta v - alpha dJ/dw``,  ``w = w + v``
====================  =====================================================================

The functions from `activation` to `dropout` have the names, the arguments and the meaning of
compiled twins in ``fastrna.kernels``; `softmax` is one of the activations there. `predict`,
`loss_and_gradient` and `jacobian` are the methods of :class:`fastrna.Network` of those names,
`train` is :func:`fastrna.train` as far as their arguments agree. The tests hold all of it together.
Nothing here is fast: it is the definition the fast code is checked against. At run time only the
plots of activations and the timing of ``fastrna demo`` call it.

An activation or a loss is a name or a pair ``(name, parameter)``, such as ``("elu", 0.5)``; a name
alone takes its parameter from ``DEFAULTS``. A network is any object with the lists ``activations``,
``weights`` and ``biases``; a ``scaler``, if it has one, is applied to its inputs.
"""

import math
from types import SimpleNamespace

import numpy as np

# ------------------------------------------------------------------------------- activations


def _sigmoid(z):
    e = np.exp(-np.abs(z))  # never overflows; 1 / (1 + exp(-z)) would
    return np.where(z >= 0, 1, e) / (1 + e)


def _softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _normal_cdf(z):
    """Phi(z), by erfc because 1 + erf(z) loses every digit in the lower tail."""
    erfc = np.vectorize(math.erfc, otypes=[np.float64])
    return (0.5 * erfc(-z * math.sqrt(0.5))).astype(z.dtype)


def _normal_density(z):
    return np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _silu_derivative(z):
    return _sigmoid(z) * (1 + z * _sigmoid(-z))


# name: (g(z, parameter), g'(z, parameter)). The method defines the derivative of the steps as 0,
# and at a kink takes the branch z <= 0.
ACTIVATIONS = {
    "step": (lambda z, _: np.heaviside(z, 1.0), lambda z, _: np.zeros_like(z)),
    "sign": (lambda z, _: 2 * np.heaviside(z, 1.0) - 1, lambda z, _: np.zeros_like(z)),
    "identity": (lambda z, _: z.copy(), lambda z, _: np.ones_like(z)),
    "sigmoid": (lambda z, _: _sigmoid(z), lambda z, _: _sigmoid(z) * _sigmoid(-z)),
    "tanh": (lambda z, _: np.tanh(z), lambda z, _: 1 - np.tanh(z) ** 2),
    "relu": (lambda z, _: np.maximum(z, 0), lambda z, _: np.heaviside(z, 0.0)),
    "leaky_relu": (
        lambda z, slope: z * np.where(z > 0, 1, slope),
        lambda z, slope: np.where(z > 0, 1, slope),
    ),
    "elu": (
        lambda z, alpha: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z, alpha: np.where(z > 0, 1, alpha * np.exp(np.minimum(z, 0))),
    ),
    "softplus": (lambda z, _: _softplus(z), lambda z, _: _sigmoid(z)),
    "gelu": (
        lambda z, _: z * _normal_cdf(z),
        lambda z, _: _normal_cdf(z) + z * _normal_density(z),
    ),
    "silu": (lambda z, _: z * _sigmoid(z), lambda z, _: _silu_derivative(z)),
    "exp": (lambda z, _: np.exp(z), lambda z, _: np.exp(z)),
}

OUTPUTS = (*ACTIVATIONS, "softmax")  # softmax has rows, not elements, for arguments
DEFAULTS = {"leaky_relu": 0.1, "elu": 1.0, "huber": 1.0, "quantile": 0.5}


def _split(spec, known):
    """``"elu"`` or ``("elu", 0.5)`` -> the name and its parameter, or None where it has none."""
    name, parameter = (spec, None) if isinstance(spec, str) else spec
    if name not in known:
        raise ValueError(f"unknown name {name!r}; known: {', '.join(known)}")
    return name, DEFAULTS.get(name) if parameter is None else parameter


def _floats(Z):
    Z = np.asarray(Z)
    return Z if Z.dtype.kind == "f" else Z.astype(np.float64)


def softmax(Z):
    """Turn each row into probabilities, ``exp(z_k) / sum_j exp(z_j)``.

    The largest of the row is subtracted first, which changes nothing and never overflows.

    Parameters
    ----------
    Z : array_like (m, n)

    Returns
    -------
    ndarray (m, n)
        Of the dtype of Z, float64 for integers; each row sums to 1.

    Examples
    --------
    >>> softmax([[0.0, 0.0], [1000.0, 0.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    Z = _floats(Z)
    E = np.exp(Z - Z.max(axis=1, keepdims=True, initial=-np.inf))
    return E / E.sum(axis=1, keepdims=True)


def _activate(spec, Z):
    name, parameter = _split(spec, OUTPUTS)
    Z = _floats(Z)
    A = softmax(Z) if name == "softmax" else ACTIVATIONS[name][0](Z, parameter)
    return np.asarray(A, dtype=Z.dtype)


def activation(activation, Z):
    """Apply an activation: ``A = g(Z)``, element by element, for softmax row by row.

    Parameters
    ----------
    activation : str or (str, float)
        One of the names below; a slope not given is 0.1, an alpha 1.
    Z : array_like, any shape; (m, n) for softmax

    Returns
    -------
    ndarray
        Of the shape and dtype of Z; float64 for integers.

    Raises
    ------
    ValueError
        If the name is unknown.

    Notes
    -----
    ============  ==========================================================================
    step          1 where z >= 0, else 0
    sign          1 where z >= 0, else -1
    identity      z
    sigmoid       1 / (1 + exp(-z))
    tanh          tanh(z)
    relu          max(z, 0)
    leaky_relu    z where z > 0, else slope z (Maas et al., 2013)
    elu           z where z > 0, else alpha (exp(z) - 1) (Clevert et al., 2016)
    softplus      ln(1 + exp(z)) (Dugas et al., 2001)
    gelu          z Phi(z), Phi the normal distribution (Hendrycks and Gimpel, 2016)
    silu          z / (1 + exp(-z)) (Elfwing et al., 2018)
    exp           exp(z)
    softmax       exp(z_k) / sum_j exp(z_j)
    ============  ==========================================================================

    Examples
    --------
    >>> activation("relu", np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> activation(("leaky_relu", 0.5), np.array([-1.0, 2.0]))
    array([-0.5,  2. ])
    """
    return _activate(activation, Z)


def activation_derivative(activation, Z):
    """Differentiate an activation: ``g'(Z)``, element by element.

    That of a step is 0 everywhere; at a kink the branch z <= 0 is taken.

    Parameters
    ----------
    activation : str or (str, float)
        As for `activation`, but softmax.
    Z : array_like, any shape

    Returns
    -------
    ndarray
        Of the shape and dtype of Z; float64 for integers.

    Raises
    ------
    ValueError
        If the name is unknown, or is softmax, whose derivative is a matrix for each example.

    Examples
    --------
    >>> activation_derivative("tanh", np.array([0.0]))
    array([1.])
    """
    name, parameter = _split(activation, ACTIVATIONS)
    Z = _floats(Z)
    return np.asarray(ACTIVATIONS[name][1](Z, parameter), dtype=Z.dtype)


# --------------------------------------------------------------------------------- products


def layer_forward(A, W, b, activation="identity"):
    """Pass examples through one layer: ``g(A W + b)``.

    Parameters
    ----------
    A : ndarray (m, n_in)
        Outputs of the layer below.
    W : ndarray (n_in, n_out)
    b : ndarray (n_out,)
    activation : str or (str, float), default "identity"
        As for `activation`.

    Returns
    -------
    ndarray (m, n_out)

    Raises
    ------
    ValueError
        If the name is unknown or the shapes do not fit.

    Examples
    --------
    >>> layer_forward(np.ones((2, 3)), np.ones((3, 1)), np.array([-4.0]), "relu")
    array([[0.],
           [0.]])
    """
    return _activate(activation, A @ W + b)


def weight_gradient(A, dZ):
    """Return the gradient of one layer: ``dW = A^T dZ`` and ``db = sum_i dZ``.

    Parameters
    ----------
    A : ndarray (m, n_in)
        Outputs of the layer below.
    dZ : ndarray (m, n_out)
        ``dJ/dZ`` of the layer.

    Returns
    -------
    dW : ndarray (n_in, n_out)
    db : ndarray (n_out,)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> weight_gradient(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    (array([[3.],
           [6.]]), array([3.]))
    """
    return A.T @ dZ, dZ.sum(axis=0)


def input_gradient(dZ, W, Z=None, activation="identity"):
    """Go back through the weights, then through the activation below: ``(dZ W^T) * g'(Z)``.

    Parameters
    ----------
    dZ : ndarray (m, n_out)
        ``dJ/dZ`` of the layer.
    W : ndarray (n_in, n_out)
        Its weights.
    Z : ndarray (m, n_in), optional
        What the layer below fed to its activation; None leaves the factor ``g'(Z)`` out.
    activation : str or (str, float), default "identity"
        That of the layer below, as for `activation_derivative`.

    Returns
    -------
    ndarray (m, n_in)
        ``dJ/dZ`` of the layer below; without Z, its ``dJ/dA``.

    Raises
    ------
    ValueError
        If the name is unknown or softmax, or the shapes do not fit.

    Examples
    --------
    >>> input_gradient(np.ones((1, 2)), np.array([[1.0, 2.0]]), np.array([[-1.0]]), "relu")
    array([[0.]])
    """
    dA = dZ @ W.T
    return dA if Z is None else dA * activation_derivative(activation, Z)


# ------------------------------------------------------------------------------------ costs

# name: (c(yhat, y, parameter), dc/dyhat), element by element, with r = yhat - y.
COSTS = {
    "squared_error": (lambda a, y, _: (a - y) ** 2 / 2, lambda a, y, _: a - y),
    "absolute_error": (lambda a, y, _: np.abs(a - y), lambda a, y, _: np.sign(a - y)),
    "huber": (
        lambda a, y, delta: np.where(
            np.abs(a - y) <= delta, (a - y) ** 2 / 2, delta * (np.abs(a - y) - delta / 2)
        ),
        lambda a, y, delta: np.clip(a - y, -delta, delta),
    ),
    "quantile": (
        lambda a, y, q: q * np.maximum(y - a, 0) + (1 - q) * np.maximum(a - y, 0),
        lambda a, y, q: np.where(a > y, 1 - q, np.where(a < y, -q, 0)),
    ),
}


def _log_loss(output, Z, Y):
    """Cost and ``dc/dz`` from Z: the logarithm of a saturated yhat would be -inf."""
    if output == "sigmoid":  # -y ln yhat - (1 - y) ln(1 - yhat) = softplus(z) - y z
        cost = np.maximum(Z, 0) - Y * Z + np.log1p(np.exp(-np.abs(Z)))
        return cost, _sigmoid(Z) - Y
    A = softmax(Z)  # -sum_k y_k ln yhat_k = sum_k y_k (ln sum_j e^z_j - z_k)
    Z = Z - Z.max(axis=1, keepdims=True, initial=-np.inf)
    cost = Y * (np.log(np.exp(Z).sum(axis=1, keepdims=True)) - Z)
    return cost, A * Y.sum(axis=1, keepdims=True) - Y


def _perceptron(output, Z, Y):
    """Rosenblatt's rule; an error on the boundary costs more than nothing, a right answer 0."""
    error = activation(output, Z) - Y
    return np.abs(error) * np.maximum(np.abs(Z), np.finfo(Z.dtype).tiny), error


def _poisson(output, Z, Y):
    """Half the Poisson deviance, ``y ln(y / yhat) - y + yhat``, with ``0 ln 0 = 0``."""
    A = activation(output, Z)
    log_a, slope = Z, np.ones_like(Z)  # ln yhat and its derivative: exact where yhat = exp(z),
    if output == "softplus":  # and to the last digit in the lower tail of the softplus
        safe = np.maximum(Z, -40)
        log_a = np.where(Z > -40, np.log(_softplus(safe)), Z)
        slope = np.where(Z > -40, _sigmoid(safe) / _softplus(safe), 1)
    y_log_y = Y * np.log(np.where(Y > 0, Y, 1))
    return y_log_y - Y * log_a - Y + A, activation_derivative(output, Z) - Y * slope


# The losses that are defined by Z rather than by yhat alone, and the outputs they go with.
COSTS_OF_Z = {
    "log_loss": (_log_loss, ("sigmoid", "softmax")),
    "perceptron": (_perceptron, ("step", "sign")),
    "poisson": (_poisson, ("exp", "softplus")),
}


# The loss that "auto" stands for, by output; squared error for every other.
AUTO = {"sigmoid": "log_loss", "softmax": "log_loss", "exp": "poisson"}
AUTO |= {"step": "perceptron", "sign": "perceptron"}


def _goes_with(loss, output):
    if loss in COSTS_OF_Z:
        return output in COSTS_OF_Z[loss][1]
    return output not in ("step", "sign") and (output != "softmax" or loss == "squared_error")


def cost_and_gradient(loss, output, Z, Y, sample_weight=None):
    """Return the cost of a batch and its gradient at the last layer: ``J`` and ``dJ/dZ``.

    ``J = sum_i w_i c_i / sum_i w_i``, ``c_i`` the sum of an example's costs over the outputs.

    Parameters
    ----------
    loss : str or (str, float)
        One of the names below; a delta not given is 1, a q 0.5.
    output : str or (str, float)
        The activation of the last layer, as for `activation`.
    Z : array_like of floats (m, n_y)
        The last layer before its activation.
    Y : array_like (m, n_y)
        Targets.
    sample_weight : array_like (m,), optional
        Weights ``w_i`` of the examples in the mean; all 1 when None. If all are 0, so is J.

    Returns
    -------
    cost : float
    dZ : ndarray (m, n_y)
        Of the dtype of Z.

    Raises
    ------
    ValueError
        If a name is unknown or the loss does not go with the output.

    Notes
    -----
    The cost of one output, with ``r = yhat - y``:

    ==============  =========================================================================
    squared_error   r^2 / 2
    absolute_error  abs(r)
    huber           r^2 / 2 where abs(r) <= delta, else delta (abs(r) - delta / 2) (Huber, 1964)
    quantile        q max(-r, 0) + (1 - q) max(r, 0) (Koenker and Bassett, 1978)
    log_loss        for softmax -y ln yhat, for sigmoid -y ln yhat - (1 - y) ln(1 - yhat)
    perceptron      abs(r) abs(z), for step and sign; its gradient is r (Rosenblatt, 1958)
    poisson         y ln(y / yhat) - y + yhat, for exp and softplus: half the deviance
    ==============  =========================================================================

    The first four go with every output but step and sign, squared_error alone of them with softmax.

    Examples
    --------
    >>> cost_and_gradient("squared_error", "identity", np.array([[3.0]]), np.array([[1.0]]))
    (2.0, array([[2.]]))
    """
    loss, parameter = _split(loss, (*COSTS, *COSTS_OF_Z))
    name, _ = _split(output, OUTPUTS)
    if not _goes_with(loss, name):
        raise ValueError(f"loss {loss!r} does not go with output {name!r}")
    Z, Y = np.asarray(Z), np.asarray(Y)
    w = np.ones(len(Z), Z.dtype) if sample_weight is None else np.asarray(sample_weight, Z.dtype)
    w = w[:, None] / max(w.sum(), np.finfo(Z.dtype).tiny)  # of no weight at all: cost 0
    if loss in COSTS_OF_Z:
        cost, dZ = COSTS_OF_Z[loss][0](name, Z, Y)
    else:
        A = activation(output, Z)
        cost, dA = COSTS[loss][0](A, Y, parameter), COSTS[loss][1](A, Y, parameter)
        if name == "softmax":  # dyhat_j/dz_k = yhat_j ([j = k] - yhat_k)
            dZ = A * (dA - (dA * A).sum(axis=1, keepdims=True))
        else:
            dZ = dA * activation_derivative(output, Z)
    return float((w * cost).sum()), np.asarray(w * dZ, dtype=Z.dtype)


# ---------------------------------------------------------------------------------- updates


def sgd_update(w, g, learning_rate):
    """Make one step of gradient descent: ``w = w - alpha g``.

    Parameters
    ----------
    w : ndarray, any shape
        Parameters; changed in place.
    g : ndarray, shape of w
        Gradient ``dJ/dw``.
    learning_rate : float
        alpha.

    Examples
    --------
    >>> w = np.array([1.0])
    >>> sgd_update(w, np.array([2.0]), 0.25)
    >>> w
    array([0.5])
    """
    w -= learning_rate * g


def momentum_update(w, v, g, learning_rate, momentum):
    """Make one step with momentum: ``v = beta v - alpha g``, ``w = w + v`` (Polyak, 1964).

    Parameters
    ----------
    w : ndarray, any shape
        Parameters; changed in place.
    v : ndarray, shape of w
        Velocity, 0 at first; changed in place.
    g : ndarray, shape of w
        Gradient ``dJ/dw``.
    learning_rate, momentum : float
        alpha and beta.

    Examples
    --------
    >>> w, v = np.array([1.0]), np.array([1.0])
    >>> momentum_update(w, v, np.array([2.0]), 0.25, 0.75)
    >>> w, v
    (array([1.25]), array([0.25]))
    """
    v *= momentum
    v -= learning_rate * g
    w += v


def nesterov_update(w, v, g, learning_rate, momentum):
    """Make one step with Nesterov's momentum (Sutskever et al., 2013).

    ``v = beta v - alpha g``, ``w = w + beta v - alpha g`` with the new v.

    Parameters
    ----------
    w, v, g, learning_rate, momentum
        As for `momentum_update`.

    Examples
    --------
    >>> w, v = np.array([1.0]), np.array([1.0])
    >>> nesterov_update(w, v, np.array([2.0]), 0.25, 0.75)
    >>> w, v
    (array([0.6875]), array([0.25]))
    """
    v *= momentum
    v -= learning_rate * g
    w += momentum * v - learning_rate * g


def adam_update(w, m, v, g, learning_rate, beta_1, beta_2, epsilon, t):
    """Make one step of Adam (Kingma and Ba, 2015), in the efficient form of its authors.

    ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g^2``,
    ``w = w - alpha sqrt(1-b2^t) / (1-b1^t) * m / (sqrt(v) + epsilon)``.

    Parameters
    ----------
    w : ndarray, any shape
        Parameters; changed in place.
    m, v : ndarray, shape of w
        First and second moment, 0 at first; changed in place.
    g : ndarray, shape of w
        Gradient ``dJ/dw``.
    learning_rate, beta_1, beta_2, epsilon : float
        alpha, b1, b2 and epsilon.
    t : int
        Number of the step, from 1.

    Examples
    --------
    >>> w, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adam_update(w, m, v, np.array([2.0]), 0.5, 0.9, 0.999, 0.0, 1)
    >>> w.round(12)
    array([0.5])
    """
    epsilon = max(epsilon, np.finfo(w.dtype).tiny)
    m *= beta_1
    m += (1 - beta_1) * g
    v *= beta_2
    v += (1 - beta_2) * g * g
    w -= learning_rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)


# ---------------------------------------------------------------------------------- dropout


def _splitmix64(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def dropout(A, rate, seed, step, layer, first_row=0):
    """Drop each entry of A with probability ``rate``, divide the kept ones by ``1 - rate``.

    What is dropped depends on the place alone (seed, mini-batch counter ``step``, hidden
    ``layer`` from 0, row of the mini-batch, column), through a hash: no generator is shared by
    the threads, and the backward pass drops the same entries of the gradient by the same call.

    Parameters
    ----------
    A : array_like of floats (m, n)
        Activations of a hidden layer, or the gradient with respect to them.
    rate : float
        At least 0 and below 1.
    seed, step, layer : int
        The place.
    first_row : int, default 0
        Row of the mini-batch that is the first of A.

    Returns
    -------
    ndarray (m, n)
        Of the dtype of A.

    Notes
    -----
    Inverted dropout (Srivastava et al., 2014). The hash is SplitMix64 (Steele et al., 2014) down to
    the row, MurmurHash3's finalizer (Appleby) for the column; an entry is dropped where its 32 bits
    are below ``floor(rate 2^32)``.

    Examples
    --------
    >>> dropout(np.ones((2, 4)), 0.5, seed=0, step=0, layer=0)
    array([[2., 2., 0., 0.],
           [2., 0., 0., 0.]])
    """
    A = np.asarray(A)
    base = np.array([seed % 2**64], np.uint64)
    for key in (step, layer, np.arange(first_row, first_row + len(A), dtype=np.uint64)):
        base = _splitmix64(base) ^ np.asarray(key, np.uint64)
    x = _splitmix64(base).astype(np.uint32)[:, None]
    x = x ^ (np.arange(A.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B9))
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    kept = (x ^ (x >> np.uint32(16))) >= np.uint32(math.floor(rate * 2**32))
    return np.where(kept, A / (1 - rate), 0).astype(A.dtype)


# ------------------------------------------------------------------------- the whole network


def _inputs(net, X):
    scaler = getattr(net, "scaler", None)
    X = X if scaler is None else (np.asarray(X) - scaler.shift_) * scaler.scale_
    return np.asarray(X, dtype=net.weights[0].dtype)


def _targets(net, y):
    """Targets as (m, n_y): class indices become rows of the identity matrix."""
    y, n_y = np.asarray(y), len(net.biases[-1])
    if y.ndim == 1:
        softmax = _split(net.activations[-1], OUTPUTS)[0] == "softmax"
        y = np.eye(n_y)[y] if softmax else y[:, None]
    return np.asarray(y, dtype=net.weights[0].dtype)


def _loss(net, loss):
    name, _ = _split(net.activations[-1], OUTPUTS)
    return AUTO.get(name, "squared_error") if loss == "auto" else loss


def _keep(A, layer):
    return A


def _dropper(rate, seed, step):
    return lambda A, layer: dropout(A, rate, seed, step, layer) if rate else A


def _forward(net, X, drop=_keep):
    """Return the list of every ``Z_l`` and the list of every ``A_l``, from ``A_0 = X``."""
    Z, A = [], [X]
    for layer, (W, b, g) in enumerate(zip(net.weights, net.biases, net.activations, strict=True)):
        Z.append(A[-1] @ W + b)
        A.append(activation(g, Z[-1]))
        if layer < len(net.weights) - 1:
            A[-1] = drop(A[-1], layer)
    return Z, A


def _backpropagation(net, X, Y, loss, sample_weight, l1, l2, drop=_keep):
    """Cost with penalty, and the gradient as a list dW1, db1, dW2, db2, ..."""
    Z, A = _forward(net, X, drop)
    cost, dZ = cost_and_gradient(loss, net.activations[-1], Z[-1], Y, sample_weight)
    gradient = []
    for layer in reversed(range(len(net.weights))):
        W = net.weights[layer]
        cost += l2 / 2 * float((W**2).sum()) + l1 * float(np.abs(W).sum())
        dW, db = weight_gradient(A[layer], dZ)
        gradient = [dW + l2 * W + l1 * np.sign(W), db, *gradient]
        if layer > 0:
            dZ = input_gradient(dZ, W, Z[layer - 1], net.activations[layer - 1])
            dZ = drop(dZ, layer - 1)
    return cost, gradient


def predict(net, X):
    """Pass X through every layer: ``A_L``.

    Parameters
    ----------
    net : object
        A network, as above.
    X : array_like (m, n_x)
        Inputs, in raw units if the network has a scaler.

    Returns
    -------
    ndarray (m, n_y)
        Of the dtype of the weights.

    Raises
    ------
    ValueError
        If an activation is unknown or the shapes do not fit.

    Examples
    --------
    >>> net = SimpleNamespace(activations=["relu"], weights=[np.eye(2)], biases=[np.zeros(2)])
    >>> predict(net, np.array([[1.0, -1.0]]))
    array([[1., 0.]])
    """
    return _forward(net, _inputs(net, X))[1][-1]


def loss_and_gradient(net, X, y, loss="auto", sample_weight=None, l2=0.0, l1=0.0):
    """Return the cost of the whole of X, with penalty, and its gradient by backpropagation.

    Parameters
    ----------
    net : object
        A network, as above.
    X : array_like (m, n_x)
        Inputs.
    y : array_like (m, n_y), (m,) where n_y = 1, or (m,) classes where the output is softmax
        Targets.
    loss : str or (str, float), default "auto"
        As for `cost_and_gradient`; "auto" takes log_loss for sigmoid and softmax, perceptron for
        step and sign, poisson for exp, else squared_error.
    sample_weight : array_like (m,), optional
        Weights of the examples; all 1 when None.
    l2, l1 : float, default 0.0
        Penalties ``l2/2 sum W^2`` and ``l1 sum abs(W)``, biases excluded.

    Returns
    -------
    cost : float
    gradient : ndarray (n_parameters,)
        Flat: W_1, b_1, W_2, b_2, ...

    Raises
    ------
    ValueError
        If a name is unknown, the loss does not go with the output, or the shapes do not fit.

    Examples
    --------
    >>> net = SimpleNamespace(activations=["identity"], weights=[np.eye(1)], biases=[np.ones(1)])
    >>> loss_and_gradient(net, np.array([[2.0]]), np.array([[1.0]]), l2=1.0)
    (2.5, array([5., 2.]))
    """
    X, Y, loss = _inputs(net, X), _targets(net, y), _loss(net, loss)
    cost, gradient = _backpropagation(net, X, Y, loss, sample_weight, l1, l2)
    return cost, np.concatenate([g.ravel() for g in gradient])


def jacobian(net, X):
    """Return ``dyhat_k/dx_j`` of each example: the chain rule from the output down.

    Parameters
    ----------
    net : object
        A network, as above.
    X : array_like (m, n_x)
        Inputs.

    Returns
    -------
    ndarray (m, n_y, n_x)
        In raw units if the network has a scaler.

    Raises
    ------
    ValueError
        As for `predict`.

    Examples
    --------
    >>> net = SimpleNamespace(activations=["exp"], weights=[2 * np.eye(1)], biases=[np.zeros(1)])
    >>> jacobian(net, np.zeros((1, 1)))
    array([[[2.]]])
    """
    Z, A = _forward(net, _inputs(net, X))
    eye = np.eye(Z[-1].shape[1], dtype=Z[-1].dtype)
    if _split(net.activations[-1], OUTPUTS)[0] == "softmax":
        D = A[-1][:, :, None] * (eye - A[-1][:, None, :])
    else:
        D = activation_derivative(net.activations[-1], Z[-1])[:, :, None] * eye
    for layer in reversed(range(1, len(net.weights))):
        D = D @ net.weights[layer].T
        D *= activation_derivative(net.activations[layer - 1], Z[layer - 1])[:, None, :]
    D = D @ net.weights[0].T
    scaler = getattr(net, "scaler", None)
    return D if scaler is None else np.asarray(D * scaler.scale_, dtype=D.dtype)


# --------------------------------------------------------------------------------- training


def _updater(optimizer, parameters):
    """Return ``update(gradients, learning_rate)``, which owns the state of the optimizer."""
    m, v = ([np.zeros_like(w) for w in parameters] for _ in range(2))
    steps = iter(range(1, 2**63))

    def update(gradients, learning_rate):
        t = next(steps)
        for w, m_w, v_w, g in zip(parameters, m, v, gradients, strict=True):
            if hasattr(optimizer, "beta_1"):
                betas = optimizer.beta_1, optimizer.beta_2
                adam_update(w, m_w, v_w, g, learning_rate, *betas, optimizer.epsilon, t)
            elif optimizer.momentum == 0:
                sgd_update(w, g, learning_rate)
            elif optimizer.nesterov:
                nesterov_update(w, v_w, g, learning_rate, optimizer.momentum)
            else:
                momentum_update(w, v_w, g, learning_rate, optimizer.momentum)

    return update


def train(
    net,
    X,
    y,
    *,
    loss="auto",
    optimizer="sgd",
    batch_size=32,
    epochs=100,
    target_cost=None,
    shuffle=True,
    seed=None,
    sample_weight=None,
    l1=0.0,
    l2=0.0,
    dropout=0.0,
):
    """Train a network in place by descent on mini-batches.

    Parameters
    ----------
    net : object
        A network, as above; its weights and biases are changed in place.
    X, y, loss
        As for `loss_and_gradient`.
    optimizer : {"sgd", "adam"} or object, default "sgd"
        A name, or any object with the fields of :class:`fastrna.SGD` or :class:`fastrna.Adam`.
    batch_size : int or None, default 32
        Examples a step: 1 is stochastic descent, None batch descent.
    epochs : int, default 100
        Passes over the examples at most.
    target_cost : float, optional
        Stop once an epoch's cost is at or below it.
    shuffle : bool, default True
        Whether each epoch visits the examples in a new order.
    seed : int, optional
        Seed of the order and of dropout; without one the order is a fresh one.
    sample_weight : array_like (m,), optional
        Weights of the examples; all 1 when None.
    l1, l2 : float, default 0.0
        Penalties, as for `loss_and_gradient`.
    dropout : float, default 0.0
        Rate at which activations of hidden layers are dropped, as by `dropout`.

    Returns
    -------
    ndarray (epochs finished,)
        The cost of each epoch: the mean, weighted as the examples are, of what its mini-batches
        cost before the update each of them made.

    Raises
    ------
    ValueError
        If a schedule is one that follows the cost instead of the epoch, or as for
        `loss_and_gradient`.

    Examples
    --------
    >>> net = SimpleNamespace(activations=["identity"], weights=[np.eye(1)], biases=[np.ones(1)])
    >>> train(net, np.array([[1.0]]), np.array([1.0]), epochs=3).round(3)
    array([0.5  , 0.48 , 0.461])
    """
    if optimizer == "sgd":
        optimizer = SimpleNamespace(learning_rate=0.01, momentum=0.0, nesterov=False)
    elif optimizer == "adam":
        optimizer = SimpleNamespace(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    X, Y, loss = _inputs(net, X), _targets(net, y), _loss(net, loss)
    m = len(X)
    w = np.ones(m) if sample_weight is None else np.asarray(sample_weight)
    pairs = zip(net.weights, net.biases, strict=True)
    update = _updater(optimizer, [p for pair in pairs for p in pair])
    schedule = getattr(optimizer, "schedule", None)
    if schedule is not None and not hasattr(schedule, "rate"):
        raise ValueError(f"schedule is {schedule!r}; expected one that gives a rate to an epoch")
    rng = np.random.default_rng(seed)
    drop_seed, step, costs = seed if isinstance(seed, int) else 0, 0, []
    for epoch in range(epochs):
        alpha = optimizer.learning_rate
        alpha = alpha if schedule is None else schedule.rate(alpha, epoch)
        order = rng.permutation(m) if shuffle else np.arange(m)
        total = 0.0
        for rows in np.split(order, range(batch_size or m, m, batch_size or m)):
            drop = _dropper(dropout, drop_seed, step)
            J, gradient = _backpropagation(net, X[rows], Y[rows], loss, w[rows], l1, l2, drop)
            update(gradient, alpha)
            total += float(w[rows].sum()) * J
            step += 1
        costs.append(total / float(w.sum()))
        if target_cost is not None and costs[-1] <= target_cost:
            break
    return np.array(costs)
