"""Wide layers of many rows, which are the matrix unit's where the processor has one."""

import itertools
import signal

import numpy as np
import pytest
from tolerances import ELEMENTWISE, EPS, TRAJECTORY

import fastrna
from fastrna import reference

# Layers of whole squares of units, of one unit more or less, of odd numbers of vectors, and of too
# few units, beside one another; rows of a batch likewise.
CASES = [
    ([256, 256, 256, 256, 10], 160),
    ([300, 270, 200, 70], 320),
    ([129, 500, 401, 66], 333),
    ([100, 300, 300, 300, 64], 1000),
    ([784, 513, 95], 97),
    ([200, 700, 131, 600, 1], 511),
    ([63, 2000, 130, 97], 600),
]


def problem(sizes, m, seed=0, **options):
    """Return a float32 network, inputs and targets."""
    rng = np.random.default_rng(seed)
    options = {"hidden": "tanh", "output": "softmax" if sizes[-1] > 1 else "identity"} | options
    net = fastrna.Network(sizes, seed=seed, **options)
    X = rng.normal(size=(m, sizes[0])).astype("float32")
    y = rng.integers(0, sizes[-1], m) if sizes[-1] > 1 else rng.normal(size=(m, 1))
    return net, X, y


@pytest.mark.parametrize(("sizes", "m"), CASES)
def test_cost_and_gradient(sizes, m):
    net, X, y = problem(sizes, m)
    cost, gradient = net.loss_and_gradient(X, y)
    exact_cost, exact = net.copy("float64").loss_and_gradient(X, y)
    assert cost == pytest.approx(exact_cost, rel=ELEMENTWISE["float32"])
    error = np.abs(gradient - exact)
    for layer_error, layer in zip(parts(net, error), parts(net, exact), strict=True):
        assert layer_error.max() <= ELEMENTWISE["float32"] * np.abs(layer).max()


def parts(net, flat):
    """Split what is ordered as the parameters are into its layers."""
    sizes = net.sizes
    ends = np.cumsum([(n + 1) * k for n, k in itertools.pairwise(sizes)])
    return np.split(flat, ends[:-1])


@pytest.mark.parametrize(("sizes", "m"), CASES)
@pytest.mark.parametrize("optimizer", [fastrna.SGD(0.005), fastrna.SGD(0.005, momentum=0.9)])
def test_steps_against_the_reference(sizes, m, optimizer):
    net, X, y = problem(sizes, m, hidden="relu")
    twin = net.copy("float64")
    options = {"optimizer": optimizer, "batch_size": m - 20, "epochs": 2, "l2": 1e-3}
    history = fastrna.train(net, X, y, shuffle=False, **options)
    costs = reference.train(twin, X.astype(float), targets_of(twin, y), shuffle=False, **options)
    np.testing.assert_allclose(history.cost, costs, rtol=TRAJECTORY["float32"])
    error = np.abs(net.parameters - twin.parameters).max()
    assert error <= TRAJECTORY["float32"] * np.abs(twin.parameters).max()


def test_columns_of_padding_stay_zero():
    """They would count in the penalty: 200 units and 230 are no whole vectors."""
    net, X, y = problem([200, 230, 300, 10], 320)
    twin = net.copy("float64")
    options = {"optimizer": fastrna.SGD(0.05, momentum=0.9), "batch_size": 300, "l2": 0.01}
    costs = fastrna.train(net, X, y, epochs=30, shuffle=False, **options).cost
    exact = fastrna.train(twin, X, y, epochs=30, shuffle=False, **options).cost
    np.testing.assert_allclose(costs, exact, rtol=ELEMENTWISE["float32"])


def targets_of(net, y):
    """Return targets as the reference takes them."""
    return np.eye(net.sizes[-1])[y] if net.sizes[-1] > 1 else y


@pytest.mark.parametrize(("sizes", "m"), CASES)
def test_any_number_of_threads_gives_the_same_bits(sizes, m):
    found = []
    for n_threads in (1, 2, 3):
        net, X, y = problem(sizes, m, hidden="elu")
        history = fastrna.train(
            net, X, y, batch_size=m - 20, epochs=3, seed=1, dropout=0.2, n_threads=n_threads
        )
        found.append((net.parameters, history.cost, net.predict(X, n_threads=n_threads)))
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize(("sizes", "m"), CASES)
def test_a_row_of_many_does_not_depend_on_the_others(sizes, m):
    net, X, _ = problem(sizes, 600)
    together = net.predict(X)
    for first, last in ((0, 256), (3, 300), (100, 600)):
        np.testing.assert_array_equal(net.predict(X[first:last]), together[first:last])
    np.testing.assert_array_equal(net.predict(X.astype("float64")), together)
    whole = np.full((602, sizes[-1]), 7, "float32")
    net.predict(X, out=whole[1:-1])
    np.testing.assert_array_equal(whole[1:-1], together)
    assert (whole[[0, -1]] == 7).all(), "wrote past its rows"


@pytest.mark.parametrize("depth", [96, 127, 129, 784, 1500])
def test_each_sum_is_as_good_as_its_terms_allow(depth):
    """Terms of all sizes: the error is a small part of the sum of their absolute values."""
    rng = np.random.default_rng(depth)
    net = fastrna.Network([depth, 128], seed=0)

    def numbers(*shape):
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-7, 8, shape)).astype("float32")

    W, b, X = numbers(depth, 128), numbers(128), numbers(700, depth)
    net.parameters = np.concatenate([W.ravel(), b])
    exact = X.astype(float) @ W + b
    terms = np.abs(X).astype(float) @ np.abs(W) + np.abs(b)
    assert (np.abs(net.predict(X) - exact) <= depth**0.5 * EPS["float32"] * terms).all()


@pytest.mark.skipif(fastrna.isa() != "amx", reason="this processor has no such unit")
@pytest.mark.parametrize("sizes", [[784, 512, 64], [1024, 96], [96, 200]])
def test_sums_are_nearer_than_those_of_multiply_adds(sizes):
    net, X, _ = problem(sizes, 512, hidden="relu", output="identity")
    exact = net.copy("float64").predict(X.astype(float))
    by_unit = np.abs(net.predict(X) - exact).mean()
    by_multiply_adds = np.abs([net.predict_one(x) for x in X] - exact).mean()
    assert 0 < by_unit < by_multiply_adds


def test_tiny_and_huge_numbers():
    """Numbers near the smallest normal one are nothing beside others, and huge ones no accident."""
    net = fastrna.Network([128, 128], seed=0)
    X = np.ones((300, 128), "float32")
    W = np.zeros((128, 128), "float32")
    W[0] = 3e37
    W[1] = 2e-38
    net.parameters = np.concatenate([W.ravel(), np.zeros(128, "float32")])
    np.testing.assert_allclose(net.predict(X), 3e37, rtol=4 * EPS["float32"])
    W[0] = 0
    net.parameters = np.concatenate([W.ravel(), np.ones(128, "float32")])
    np.testing.assert_array_equal(net.predict(X), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 31, 299])
def test_a_number_that_is_not_finite_is_named(bad, row):
    net, X, _ = problem([200, 128, 10], 300)
    X[row, 77] = bad
    with pytest.raises(ValueError, match=rf"X.*{row}.*77"):
        net.predict(X)


def test_weights_that_overflow_end_the_training():
    net, X, y = problem([512, 512, 512, 10], 256, hidden="relu", output="identity")
    with pytest.raises(fastrna.DivergenceError):
        fastrna.train(net, X * 1e18, np.eye(10)[y] * 1e18, epochs=5, batch_size=128, seed=0)
    assert np.isfinite(net.parameters).all()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_a_signal_handler_may_predict_meanwhile():
    """What the handler does with the unit's registers is gone when the training goes on."""
    other, inputs, _ = problem([256, 256, 10], 300, seed=5)
    expected = other.predict(inputs)
    found = []

    def train():
        net, X, y = problem([256, 512, 512, 10], 1000, hidden="relu")
        fastrna.train(net, X, y, epochs=5, batch_size=128, seed=0, n_threads=2)
        return net.parameters

    def handle(*_):
        found.append(other.predict(inputs))
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # no sooner: on a busy machine it would nest

    undisturbed = train()
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    try:
        while len(found) < 5:
            np.testing.assert_array_equal(train(), undisturbed)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for outputs in found:
        np.testing.assert_array_equal(outputs, expected)
