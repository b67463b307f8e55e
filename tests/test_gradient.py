"""Network.loss_and_gradient against the reference: narrow networks, sizes around vector widths."""

import numpy as np
import pytest
from layouts import LAYOUTS
from tolerances import ELEMENTWISE

import fastrna
from fastrna import reference

# Examples around vectors of 2 to 16 numbers, and around the block of a narrow network.
COUNTS = [1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 600]
NARROW = [[1, 1], [3, 1], [5, 4, 3, 2], [24, 8, 2], [17, 7, 1], [33, 2, 5], [2, 1, 1, 3]]
COSTS = [
    ("identity", "squared_error"),
    ("tanh", "squared_error"),
    ("identity", "absolute_error"),
    ("identity", ("huber", 0.5)),
    ("identity", ("quantile", 0.3)),
    ("sigmoid", "log_loss"),
    ("sigmoid", "squared_error"),
    ("exp", "poisson"),
    ("softplus", "poisson"),
    ("softmax", "log_loss"),
    ("step", "perceptron"),
]
HIDDEN = ["tanh", "relu", "sigmoid", "elu", ("leaky_relu", -0.1), "softplus", "silu", "gelu"]


def problem(net, m, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, net.sizes[0])).astype(net.dtype)
    y = rng.random((m, net.sizes[-1]))
    output = net.activations[-1][0]
    if output == "softmax":
        y /= y.sum(axis=1, keepdims=True)
    elif output == "step":
        y = np.round(y)
    return X, y.astype(net.dtype)


def agree(net, X, y, loss="auto"):
    cost, gradient = net.loss_and_gradient(X, y, loss=loss)
    wide = fastrna.Network(
        net.sizes, hidden=[*net.activations[:-1]], output=net.activations[-1][0], dtype="float64"
    )
    wide.parameters = net.parameters
    X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
    expected, g = reference.loss_and_gradient(wide, X, y, loss=loss)
    tolerance = 10 * ELEMENTWISE[net.dtype.name]
    assert cost == pytest.approx(expected, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(gradient, g, rtol=0, atol=tolerance * max(1, np.abs(g).max()))
    assert gradient.dtype == net.dtype


@pytest.mark.parametrize("m", COUNTS)
@pytest.mark.parametrize("sizes", NARROW, ids=lambda s: "-".join(map(str, s)))
def test_examples_around_vectors(sizes, m, dtype):
    net = fastrna.Network(sizes, hidden="tanh", dtype=dtype, seed=1)
    agree(net, *problem(net, m))


@pytest.mark.parametrize(("output", "loss"), COSTS, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_activations_and_costs(hidden, output, loss, dtype):
    net = fastrna.Network([6, 5, 3], hidden=[hidden], output=output, dtype=dtype, seed=2)
    agree(net, *problem(net, 41), loss=loss)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [[24, 8, 2], [1, 3, 1], [64, 100, 10]], ids=str)
def test_memory_layouts(layout, sizes, dtype):
    net = fastrna.Network(sizes, hidden="tanh", dtype=dtype, seed=3)
    X, y = problem(net, 70)
    expected = net.loss_and_gradient(X, y)
    cost, gradient = net.loss_and_gradient(LAYOUTS[layout](X), LAYOUTS[layout](y))
    assert cost == expected[0]
    np.testing.assert_array_equal(gradient, expected[1])


def test_rows_of_a_wider_array_are_read_where_they_lie(dtype):
    net = fastrna.Network([5, 3, 1], hidden="tanh", dtype=dtype, seed=4)
    X, y = problem(net, 40)
    wide = np.full((40, 9), np.nan, dtype)
    wide[:, 2:7] = X
    cost, gradient = net.loss_and_gradient(wide[:, 2:7], y)
    assert cost == net.loss_and_gradient(X, y)[0]
    np.testing.assert_array_equal(gradient, net.loss_and_gradient(X, y)[1])


def test_penalties_and_weights_of_a_narrow_network(dtype):
    net = fastrna.Network([6, 5, 2], hidden="tanh", dtype=dtype, seed=5)
    X, y = problem(net, 50)
    plain, g = net.loss_and_gradient(X, y)
    cost, weighted = net.loss_and_gradient(X, y, sample_weight=np.full(50, 3.0))
    tolerance = 10 * ELEMENTWISE[dtype]
    assert cost == pytest.approx(plain, rel=tolerance)
    np.testing.assert_allclose(weighted, g, atol=tolerance)
    _, penalised = net.loss_and_gradient(X, y, l2=0.5)
    at = 0
    for W, b in zip(net.weights, net.biases, strict=True):
        np.testing.assert_allclose(
            penalised[at : at + W.size] - g[at : at + W.size], 0.5 * W.ravel(), atol=tolerance
        )
        at += W.size + b.size


def test_a_number_that_is_not_finite_is_named(dtype):
    net = fastrna.Network([24, 8, 2], hidden="tanh", dtype=dtype, seed=6)
    X, y = problem(net, 20)
    X[7, 3] = np.nan
    with pytest.raises(ValueError, match="X has nan at row 7, column 3"):
        net.loss_and_gradient(X, y)
    X[7, 3], y[4, 1] = 0, np.inf
    with pytest.raises(ValueError, match="y has inf at row 4, column 1"):
        net.loss_and_gradient(X, y)
