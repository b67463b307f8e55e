"""Cost and gradient against the reference: narrow networks, sizes around vector widths."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from layouts import LAYOUTS
from tolerances import ELEMENTWISE

import fastrna
from fastrna import reference

# Examples around vectors of 2 to 16 numbers, and around the block of a narrow network.
COUNTS = [1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 600]
NARROW = [[1, 1], [3, 1], [5, 4, 3, 2], [24, 8, 2], [17, 7, 1], [33, 2, 5], [2, 1, 1, 3]]
NARROW += [[16, 16, 16]]  # whole vectors
NARROW += [[20, 11, 2], [37, 9, 3]]  # whole vectors of inputs and some more, units in two tiles
NARROW += [[1030, 1, 1]]  # deeper than a block of the depth
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
    ("softmax", "squared_error"),
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
    wide = net.copy("float64")
    X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
    expected, g = reference.loss_and_gradient(wide, X, y, loss=loss)
    tolerance = 10 * ELEMENTWISE[net.dtype.name]
    assert cost == pytest.approx(expected, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(gradient, g, rtol=0, atol=tolerance * max(1, np.abs(g).max()))
    assert gradient.dtype == net.dtype
    again = net.loss_and_gradient(X.astype(net.dtype), y.astype(net.dtype), loss=loss)
    assert again[0] == cost
    np.testing.assert_array_equal(again[1], gradient)
    trainer = fastrna.Trainer(net, loss=loss)
    evaluated = trainer.evaluate(trainer.prepare(X.astype(net.dtype), y.astype(net.dtype)))
    assert evaluated == pytest.approx(expected, rel=tolerance, abs=tolerance)


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


@pytest.mark.parametrize("m", [7, 41, 300])
@pytest.mark.parametrize("sizes", [[4, 10, 3], [2, 5]], ids=str)
def test_classes_and_weights(sizes, m, dtype, rng):
    net = fastrna.Network(sizes, hidden="tanh", output="softmax", dtype=dtype, seed=9)
    X, _ = problem(net, m)
    classes, w = rng.integers(sizes[-1], size=m), rng.uniform(0, 3, m)
    wide = net.copy("float64")
    tolerance = 10 * ELEMENTWISE[dtype]
    for y in classes, np.eye(sizes[-1], dtype=dtype)[classes]:
        cost, gradient = net.loss_and_gradient(X, y, sample_weight=w)
        expected, g = reference.loss_and_gradient(wide, X.astype(float), y, sample_weight=w)
        assert cost == pytest.approx(expected, rel=tolerance)
        np.testing.assert_allclose(gradient, g, rtol=0, atol=tolerance)


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("hidden", [*HIDDEN, "step", "sign", "exp"], ids=str)
def test_a_number_that_is_not_finite_is_named(hidden, bad, dtype):
    """At the first call, and at the ones that find everything in place."""
    net = fastrna.Network([24, 8, 2], hidden=[hidden], dtype=dtype, seed=6)
    X, y = problem(net, 20)
    for _ in range(2):
        X[7, 3] = bad
        with pytest.raises(ValueError, match=f"X has {bad} at row 7, column 3"):
            net.loss_and_gradient(X, y)
        X[7, 3], y[4, 1] = 0, bad
        with pytest.raises(ValueError, match=f"y has {bad} at row 4, column 1"):
            net.loss_and_gradient(X, y)
        y[4, 1] = 0
        kept, net.weights[0][2, 5] = net.weights[0][2, 5], bad
        with pytest.raises(ValueError, match=rf"weights\[0\] has {bad}"):
            net.loss_and_gradient(X, y)
        net.weights[0][2, 5] = kept
        net.loss_and_gradient(X, y)


def test_a_cost_beyond_the_largest_number_is_returned(dtype):
    net = fastrna.Network([3, 2, 1], output="identity", dtype=dtype, init="zeros")
    X, y = problem(net, 4)
    y[:] = np.finfo(dtype).max
    for _ in range(3):
        cost, gradient = net.loss_and_gradient(X, y)
        assert cost == np.inf
        assert gradient.shape == (net.n_parameters,)


def test_arguments_count_at_every_call(dtype):
    """Weights, penalties, another cost and a scaler, after calls without any."""
    net = fastrna.Network([6, 5, 2], hidden="tanh", dtype=dtype, seed=7)
    X, y = problem(net, 30)
    for _ in range(2):
        net.loss_and_gradient(X, y)
    fresh = net.copy()
    weights = np.arange(1.0, 31.0)
    for options in ({"sample_weight": weights}, {"l2": 0.5}, {"l1": 1}, {"l2": np.float32(0.5)},
                    {"loss": "absolute_error"}, {"loss": ("huber", 0.5)}):  # fmt: skip
        cost, gradient = net.loss_and_gradient(X, y, **options)
        assert cost != net.loss_and_gradient(X, y)[0]
        assert cost == fresh.loss_and_gradient(X, y, **options)[0]
        np.testing.assert_array_equal(gradient, fresh.loss_and_gradient(X, y, **options)[1])
    net.scaler = fastrna.Scaler("zscore").fit(3 * X)
    fresh.scaler = net.scaler
    assert net.loss_and_gradient(X, y)[0] == fresh.loss_and_gradient(X, y)[0]
    with pytest.raises(ValueError, match="l2"):
        net.loss_and_gradient(X, y, l2=-0.5)
    with pytest.raises(ValueError, match="l1"):
        net.loss_and_gradient(X, y, l1=np.nan)


def test_a_call_leaves_nothing_to_the_next(dtype):
    net = fastrna.Network([24, 8, 2], hidden="tanh", dtype=dtype, seed=6)
    for m in (200, 7, 256, 300, 1, 33):
        X, y = problem(net, m)
        with pytest.raises(ValueError, match="y has"):
            net.loss_and_gradient(np.vstack([X, X]), y)
        found = net.loss_and_gradient(X, y)
        expected = net.copy().loss_and_gradient(X, y)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("sizes", [[24, 8, 2], [24, 40, 40, 2]])
def test_prepared_data_of_several_kinds_in_a_row(sizes, dtype):
    """Dense and CSR, few and many: each by its own way, and none by what another left."""
    sparse = pytest.importorskip("scipy.sparse")
    net = fastrna.Network(sizes, hidden="tanh", dtype=dtype, seed=9)
    trainer = fastrna.Trainer(net, loss="squared_error")
    for m, convert in (
        (40, np.asarray), (600, np.asarray), (40, sparse.csr_array), (700, sparse.csr_array),
        (1, np.asarray), (40, sparse.csr_array), (40, np.asarray),
    ):  # fmt: skip
        X, y = problem(net, m)
        data = trainer.prepare(convert(X), y)
        expected, slopes = net.copy().loss_and_gradient(X, y)
        cost, gradient = trainer.loss_and_gradient(data)
        tolerance = 10 * ELEMENTWISE[dtype]
        assert cost == pytest.approx(expected, rel=tolerance)
        assert trainer.evaluate(data) == pytest.approx(expected, rel=tolerance)
        np.testing.assert_allclose(gradient, slopes, rtol=0, atol=tolerance * abs(slopes).max())


def test_threads_that_share_a_network(dtype):
    net = fastrna.Network([24, 8, 2], hidden="tanh", dtype=dtype, seed=8)
    problems = [problem(net, m, seed=m) for m in (40, 200, 256, 300)]
    expected = [net.loss_and_gradient(X, y) for X, y in problems]

    def differences(k):
        X, y = problems[k]
        return sum(
            cost != expected[k][0] or not np.array_equal(gradient, expected[k][1])
            for cost, gradient in (net.loss_and_gradient(X, y) for _ in range(300))
        )

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(differences, range(4))) == [0, 0, 0, 0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("m", [8, 15, 16, 100, 300])
@pytest.mark.parametrize("sizes", [[8, 14, 2], [16, 5, 1], [32, 9, 3], [7, 4, 2], [64, 100, 10]])
def test_the_same_row_over_and_over(sizes, m, weighted, dtype):
    """A row that lies in memory once, with a stride of 0."""
    net = fastrna.Network(sizes, "tanh", dtype=dtype, seed=0)
    X = np.broadcast_to(np.linspace(-1, 1, sizes[0]).astype(dtype), (m, sizes[0]))
    y = np.random.default_rng(0).normal(size=(m, sizes[-1])).astype(dtype)
    weight = np.linspace(1, 2, m) if weighted else None
    cost, gradient = net.loss_and_gradient(X, y, sample_weight=weight)
    expected_cost, expected = net.loss_and_gradient(X.copy(), y, sample_weight=weight)
    assert cost == pytest.approx(expected_cost, rel=1e-6)
    tolerance = 10 * ELEMENTWISE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("m", [1, 7, 15, 16, 17, 33, 203])
def test_lanes_without_an_example_make_nothing_infinite(m, dtype):
    """Examples far from 0, where exp would be infinite, and the layers before bring them back."""
    net = fastrna.Network([2, 3, 1], hidden="exp", dtype=dtype, seed=0)
    net.weights[0][:] = -1
    net.biases[0][:] = 2000
    X = np.full((m, 2), 1000, dtype) + np.random.default_rng(0).random((m, 2)).astype(dtype)
    y = np.zeros((m, 1), dtype)
    expected_cost, expected = reference.loss_and_gradient(net.copy("float64"), X, y)
    cost, gradient = net.loss_and_gradient(X, y)
    assert cost == pytest.approx(expected_cost, rel=1e-3)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())
    for batch_size in 2, 16, 32, None:
        trained = net.copy()
        fastrna.train(trained, X, y, optimizer=fastrna.SGD(1e-9), batch_size=batch_size, epochs=1)
        np.testing.assert_allclose(trained.parameters, net.parameters, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sizes", [[5, 4, 2], [20, 100, 3]])
@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_the_smallest_and_the_largest_weights(size, sizes, dtype):
    net = fastrna.Network(sizes, "tanh", dtype=dtype, seed=0)
    X = np.random.default_rng(0).normal(size=(40, sizes[0])).astype(dtype)
    for error in 1e-3, 1e5:
        y = net.predict(X) + np.asarray(error, dtype)
        expected, gradient = net.loss_and_gradient(X, y)
        cost, weighted = net.loss_and_gradient(X, y, sample_weight=np.full(40, size))
        assert cost == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(weighted, gradient, rtol=1e-3, atol=1e-6 * abs(gradient).max())
        assert fastrna.Trainer(net.copy()).step(X, y, np.full(40, size)) == pytest.approx(
            expected, rel=1e-4
        )


@pytest.mark.parametrize("sizes", [[5, 4, 2], [20, 100, 3]])
def test_an_example_without_weight_takes_no_part(sizes, dtype):
    """Were its cost infinite, or no number."""
    net = fastrna.Network(sizes, "tanh", dtype=dtype, seed=0)
    X = np.random.default_rng(0).normal(size=(40, sizes[0])).astype(dtype)
    y = net.predict(X) + np.asarray(0.5, dtype)
    weight = np.ones(40)
    weight[[3, 17]] = 0
    expected_cost, expected = net.loss_and_gradient(X, y, sample_weight=weight)
    y[[3, 17]] = np.sqrt(np.finfo(dtype).max) * 10
    cost, gradient = net.loss_and_gradient(X, y, sample_weight=weight)
    assert cost == expected_cost
    np.testing.assert_array_equal(gradient, expected)
    trainer = fastrna.Trainer(net)
    assert trainer.evaluate(trainer.prepare(X, y, weight)) == pytest.approx(expected_cost)
    assert trainer.step(X, y, weight) == pytest.approx(expected_cost)
