"""What the lecture says is learnt, is learnt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrna

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
AND, OR, XOR = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])


@pytest.mark.parametrize("hidden", ["tanh", "sigmoid", "relu", "elu", "gelu"])
@pytest.mark.parametrize("truth", [AND, OR, XOR], ids=["and", "or", "xor"])
def test_a_hidden_layer_learns_the_gates(dtype, hidden, truth):
    net = fastrna.Network([2, 8, 1], hidden=hidden, output="sigmoid", dtype=dtype, seed=3)
    options = {"optimizer": fastrna.Adam(0.05), "batch_size": None, "epochs": 2000}
    history = fastrna.train(net, CORNERS, truth, target_cost=0.01, **options)
    assert history.stopped_by == "target_cost"
    np.testing.assert_array_equal(net.predict(CORNERS)[:, 0] > 0.5, truth)


@pytest.mark.parametrize("output", ["step", "sign"])
@pytest.mark.parametrize("truth", [AND, OR], ids=["and", "or"])
def test_a_perceptron_learns_the_separable_gates(dtype, truth, output):
    y = truth if output == "step" else 2 * truth - 1
    net = fastrna.Network([2, 1], output=output, dtype=dtype, seed=0)
    history = fastrna.train(
        net, CORNERS, y, optimizer=fastrna.SGD(0.1), batch_size=1, epochs=200, target_cost=0, seed=0
    )
    assert history.stopped_by == "target_cost"
    assert history.cost[-1] == 0
    np.testing.assert_array_equal(net.predict(CORNERS)[:, 0], y)


def test_no_perceptron_learns_xor():
    net = fastrna.Network([2, 1], output="step", seed=0)
    history = fastrna.train(net, CORNERS, XOR, batch_size=1, epochs=200, target_cost=0, seed=0)
    assert history.stopped_by == "epochs"
    assert (net.predict(CORNERS)[:, 0] != XOR).any()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    m=st.integers(1, 40),
    output=st.sampled_from(["step", "sign"]),
    dtype=st.sampled_from(["float32", "float64"]),
    batch_size=st.sampled_from([1, 4, None]),
)
def test_a_perceptron_separates_every_separable_set(seed, n, m, output, dtype, batch_size):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=n)
    normal /= np.linalg.norm(normal)
    X = rng.uniform(-1, 1, size=(m, n))
    side = X @ normal + rng.uniform(-0.5, 0.5) > 0
    X += 0.1 * np.where(side, 1, -1)[:, None] * normal  # a margin, which bounds the corrections
    y = side if output == "step" else np.where(side, 1, -1)
    net = fastrna.Network([n, 1], output=output, dtype=dtype, seed=seed)
    options = {"optimizer": fastrna.SGD(1.0), "batch_size": batch_size, "epochs": 20000}
    history = fastrna.train(net, X, y, target_cost=0, seed=seed, **options)
    assert history.stopped_by == "target_cost"
    np.testing.assert_array_equal(net.predict(X)[:, 0], y)


ALPHAS = [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.01]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_descent_on_a_parabola_has_its_closed_form(alpha):
    """J = w^2 from 0.7: w_k = (1 - 2 alpha)^k w_0."""
    w = fastrna.gradient_descent(lambda w: 2 * w, [0.7], fastrna.SGD(alpha), 30)
    assert w.shape == (31, 1)
    expected = (1 - 2 * alpha) ** np.arange(31) * 0.7
    np.testing.assert_allclose(w[:, 0], expected, rtol=1e-13, atol=1e-15)


def test_momentum_on_a_parabola_has_its_closed_form():
    """A step is a 2 x 2 matrix on (w, v)."""
    alpha, beta, steps = 0.05, 0.9, 40
    found = fastrna.gradient_descent(lambda w: 2 * w, [0.7], fastrna.SGD(alpha, beta), steps)
    step = np.array([[1 - 2 * alpha, beta], [-2 * alpha, beta]])
    expected = [(np.linalg.matrix_power(step, k) @ [0.7, 0])[0] for k in range(steps + 1)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "optimizer",
    [
        fastrna.SGD(0.02, momentum=0.9),
        fastrna.SGD(0.02, momentum=0.9, nesterov=True),
        fastrna.Adam(0.05),
    ],
    ids=str,
)
def test_descent_finds_the_bottom_of_a_bowl(optimizer):
    A, bottom = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([1.0, -2.0])
    w = fastrna.gradient_descent(lambda w: A @ (w - bottom), np.zeros(2), optimizer, 2000)
    assert w.shape == (2001, 2)
    np.testing.assert_array_equal(w[0], 0)
    np.testing.assert_allclose(w[-1], bottom, atol=1e-6)


def test_descent_hands_the_gradient_a_point_of_its_own():
    seen = []

    def gradient(w):
        seen.append(w.copy())
        w[:] = np.nan  # what it does to its argument is its own affair
        return np.ones(2)

    w = fastrna.gradient_descent(gradient, [1.0, 2.0], fastrna.SGD(0.5), 3)
    np.testing.assert_allclose(w, [[1, 2], [0.5, 1.5], [0, 1], [-0.5, 0.5]])
    np.testing.assert_array_equal(seen, w[:3])


def test_training_stops_at_the_target_cost(rng, dtype):
    X = rng.normal(size=(64, 3))
    net = fastrna.Network([3, 16, 1], hidden="tanh", dtype=dtype, seed=0)
    history = fastrna.train(
        net, X, np.sin(X[:, 0]), optimizer=fastrna.Adam(0.01), epochs=2000, target_cost=0.01, seed=0
    )
    assert history.stopped_by == "target_cost"
    assert history.cost[-1] <= 0.01 < history.cost[-2]
    assert history.n_epochs == len(history.cost) < 2000


def test_a_linear_layer_finds_the_least_squares_solution(rng):
    X = rng.normal(size=(200, 3))
    y = X @ [1.0, -2.0, 0.5] + 3 + 0.1 * rng.normal(size=200)
    net = fastrna.Network([3, 1], dtype="float64", seed=0)
    fastrna.train(net, X, y, optimizer=fastrna.SGD(0.3, momentum=0.5), batch_size=None, epochs=300)
    expected = np.linalg.lstsq(np.c_[X, np.ones(200)], y, rcond=None)[0]
    np.testing.assert_allclose(net.parameters, expected, atol=1e-10)


def test_quantile_loss_finds_the_quantile(rng):
    y = rng.exponential(size=1001)
    net = fastrna.Network([1, 1], dtype="float64", seed=0)
    net.parameters[:] = 0
    options = {"optimizer": fastrna.SGD(0.5), "batch_size": None, "epochs": 500}
    fastrna.train(net, np.zeros((1001, 1)), y, loss=("quantile", 0.8), **options)
    assert net.biases[0][0] == pytest.approx(np.quantile(y, 0.8), abs=0.02)


def test_poisson_regression_finds_the_rate(rng):
    y = rng.poisson(4.0, size=500)
    net = fastrna.Network([1, 1], output="exp", dtype="float64", seed=0)
    net.parameters[:] = 0
    X = np.zeros((500, 1))
    fastrna.train(net, X, y, optimizer=fastrna.SGD(0.1), batch_size=None, epochs=300)
    assert net.predict(X[:1])[0, 0] == pytest.approx(y.mean(), rel=1e-9)
