"""The reference against the definitions: finite differences, closed forms, hand-made sums."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import tolerances

from fastrna import reference

ELEMENTWISE = [
    "step",
    "sign",
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    ("leaky_relu", 0.1),
    ("leaky_relu", 0.3),
    ("elu", 1.0),
    ("elu", 0.4),
    "softplus",
    "gelu",
    "silu",
    "exp",
]
SMOOTH = [a for a in ELEMENTWISE if a not in ("step", "sign")]
REGRESSION = ["squared_error", "absolute_error", "huber", ("huber", 0.3), ("quantile", 0.8)]
PAIRS = [
    *((loss, output) for loss in REGRESSION for output in SMOOTH),
    ("squared_error", "softmax"),
    ("log_loss", "sigmoid"),
    ("log_loss", "softmax"),
    ("poisson", "exp"),
    ("poisson", "softplus"),
]


def central_difference(f, x, h=1e-6):
    """df/dx of a scalar f, element by element of x."""
    gradient = np.empty(x.size)
    for i in range(x.size):
        there, back = x.copy(), x.copy()
        there.flat[i] += h
        back.flat[i] -= h
        gradient[i] = (f(there) - f(back)) / (2 * h)
    return gradient.reshape(x.shape)


def network(sizes, hidden, output, seed=0):
    rng = np.random.default_rng(seed)
    return SimpleNamespace(
        sizes=sizes,
        activations=[hidden] * (len(sizes) - 2) + [output],
        weights=[rng.normal(size=s) / math.sqrt(s[0]) for s in pairwise(sizes)],
        biases=[rng.normal(size=n) for n in sizes[1:]],
    )


def set_flat(net, flat):
    for W, b in zip(net.weights, net.biases, strict=True):
        W[:] = flat[: W.size].reshape(W.shape)
        b[:] = flat[W.size : W.size + b.size]
        flat = flat[W.size + b.size :]


def get_flat(net):
    pairs = zip(net.weights, net.biases, strict=True)
    return np.concatenate([p.ravel() for pair in pairs for p in pair])


def targets(output, shape, rng):
    name = output if isinstance(output, str) else output[0]
    if name == "softmax":
        return np.eye(shape[1])[rng.integers(shape[1], size=shape[0])]
    if name in ("sigmoid", "step"):
        return rng.integers(2, size=shape).astype(float)
    if name == "sign":
        return 2.0 * rng.integers(2, size=shape) - 1
    if name in ("exp", "softplus"):
        return rng.poisson(2.0, size=shape).astype(float)
    return rng.normal(size=shape)


# ------------------------------------------------------------------------------- activations


def word(value):
    """Name a parameter; a formula has no name, and its address is another in every process."""
    return "formula" if callable(value) else str(value)


@pytest.mark.parametrize("spec", ELEMENTWISE, ids=str)
def test_derivative_is_the_finite_difference(spec):
    z = np.linspace(-6, 6, 101) + 0.013  # no kink within the step
    h = 1e-5
    expected = (reference.activation(spec, z + h) - reference.activation(spec, z - h)) / (2 * h)
    np.testing.assert_allclose(
        reference.activation_derivative(spec, z),
        expected,
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("spec", "value", "slope"),
    [
        ("step", 1, 0),
        ("sign", 1, 0),
        ("identity", 0, 1),
        ("sigmoid", 0.5, 0.25),
        ("tanh", 0, 1),
        ("relu", 0, 0),
        ("leaky_relu", 0, 0.1),
        (("leaky_relu", 0.3), 0, 0.3),
        ("elu", 0, 1),
        (("elu", 0.4), 0, 0.4),
        ("softplus", math.log(2), 0.5),
        ("gelu", 0, 0.5),
        ("silu", 0, 0.5),
        ("exp", 1, 1),
    ],
    ids=str,
)
def test_value_and_derivative_at_zero(spec, value, slope):
    zero = np.zeros(1)
    assert reference.activation(spec, zero)[0] == pytest.approx(value, abs=1e-15)
    assert reference.activation_derivative(spec, zero)[0] == pytest.approx(slope, abs=1e-15)


@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        ("step", lambda z: float(z >= 0)),
        ("sign", lambda z: 1.0 if z >= 0 else -1.0),
        ("sigmoid", lambda z: 1 / (1 + math.exp(-z))),
        ("tanh", lambda z: (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z))),
        ("relu", lambda z: max(0.0, z)),
        ("leaky_relu", lambda z: max(0.1 * z, z)),
        (("elu", 0.4), lambda z: z if z > 0 else 0.4 * (math.exp(z) - 1)),
        ("softplus", lambda z: math.log(1 + math.exp(z))),
        ("gelu", lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2),
        ("silu", lambda z: z / (1 + math.exp(-z))),
        ("exp", math.exp),
    ],
    ids=word,
)
def test_activation_is_the_formula_of_the_lecture(spec, formula):
    z = np.linspace(-5, 5, 41)
    np.testing.assert_allclose(
        reference.activation(spec, z), [formula(v) for v in z], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", ELEMENTWISE, ids=str)
def test_tails_are_finite_quiet_and_keep_the_dtype(spec, dtype):
    far = 80.0 if spec == "exp" else 1e4
    z = np.array([-far, -100.0, -1e-40, 0.0, 1e-40, 80.0, far], dtype)
    for f in reference.activation, reference.activation_derivative:
        result = f(spec, z)
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_softmax():
    Z = np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]])
    A = reference.activation("softmax", Z)
    np.testing.assert_allclose(A[0], np.exp(Z[0]) / np.exp(Z[0]).sum(), rtol=1e-15)
    np.testing.assert_array_equal(A[1], [1, 0, 0])
    with pytest.raises(ValueError, match="softmax"):
        reference.activation_derivative("softmax", Z)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'swish'.*silu"):
        reference.activation("swish", np.zeros(1))


# ------------------------------------------------------------------------------------ costs


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_gradient_of_the_cost_is_the_finite_difference(loss, output, weighted):
    rng = np.random.default_rng(1)
    Z, w = rng.normal(size=(5, 3)), rng.uniform(0.5, 2, 5) if weighted else None
    Y = targets(output, Z.shape, rng)
    found, dZ = reference.cost_and_gradient(loss, output, Z, Y, w)
    assert isinstance(found, float)
    expected = central_difference(
        lambda z: reference.cost_and_gradient(loss, output, z, Y, w)[0], Z
    )
    tolerance = tolerances.FINITE_DIFFERENCE
    np.testing.assert_allclose(dZ, expected, rtol=tolerance, atol=tolerance)


def xlogy(y, x):
    return y * math.log(x) if y else 0.0


@pytest.mark.parametrize(
    ("loss", "output", "cost"),
    [
        ("squared_error", "tanh", lambda a, y: (a - y) ** 2 / 2),
        ("absolute_error", "identity", lambda a, y: abs(a - y)),
        (
            "huber",
            "identity",
            lambda a, y: (a - y) ** 2 / 2 if abs(a - y) < 1 else abs(a - y) - 0.5,
        ),
        ("quantile", "identity", lambda a, y: abs(a - y) / 2),
        (("quantile", 0.9), "identity", lambda a, y: max(0.9 * (y - a), 0.1 * (a - y))),
        ("log_loss", "sigmoid", lambda a, y: -y * math.log(a) - (1 - y) * math.log(1 - a)),
        ("log_loss", "softmax", lambda a, y: -y * math.log(a)),
        ("poisson", "exp", lambda a, y: xlogy(y, y / a) - y + a),
        ("poisson", "softplus", lambda a, y: xlogy(y, y / a) - y + a),
    ],
    ids=word,
)
def test_cost_is_a_sum_over_outputs_and_a_weighted_mean_over_examples(loss, output, cost):
    rng = np.random.default_rng(2)
    Z, w = 2 * rng.normal(size=(6, 4)), rng.uniform(0.5, 2, 6)
    Y = targets(output, Z.shape, rng)
    A = reference.activation(output, Z)
    expected = sum(w[i] * sum(cost(A[i, k], Y[i, k]) for k in range(4)) for i in range(6)) / sum(w)
    assert reference.cost_and_gradient(loss, output, Z, Y, w)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("output", "low"), [("step", 0.0), ("sign", -1.0)])
def test_perceptron_criterion(output, low):
    tiny = np.finfo(np.float64).tiny
    Z = np.array([[2.0], [-3.0], [0.5], [0.0]])
    Y = np.array([[1.0], [1.0], [low], [low]])
    gap = 1 - low
    found, dZ = reference.cost_and_gradient("perceptron", output, Z, Y)
    assert found == pytest.approx((0 + 3 * gap + 0.5 * gap + 0) / 4, rel=1e-15)
    np.testing.assert_array_equal(dZ, np.array([[0], [-gap], [gap], [gap]]) / 4)
    boundary, _ = reference.cost_and_gradient("perceptron", output, Z[3:], Y[3:])
    assert boundary == gap * tiny > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_log_loss_of_a_saturated_network_is_finite_and_exact(output, dtype):
    Z = np.array([[1000.0, 0.0], [-1000.0, 0.0]], dtype)
    Y = np.array([[0, 1], [0, 1]], dtype)
    found, dZ = reference.cost_and_gradient("log_loss", output, Z, Y)
    extra = 2 * math.log(2) if output == "sigmoid" else 0  # of the outputs at z = 0
    assert found == pytest.approx((1000 + extra) / 2, rel=1e-6)
    assert np.isfinite(dZ).all() and dZ.dtype == dtype


@pytest.mark.parametrize("output", ["exp", "softplus"])
def test_poisson_keeps_its_lower_tail(output):
    Z, Y = np.array([[-700.0]]), np.array([[3.0]])
    found, dZ = reference.cost_and_gradient("poisson", output, Z, Y)
    assert found == pytest.approx(3 * math.log(3) - 3 + 3 * 700, rel=1e-14)
    assert dZ[0, 0] == pytest.approx(-3, rel=1e-14)


def test_an_example_of_weight_zero_is_not_there():
    Z, Y = np.array([[1.0], [5.0]]), np.array([[0.0], [0.0]])
    found, dZ = reference.cost_and_gradient("squared_error", "identity", Z, Y, np.array([2.0, 0.0]))
    assert found == 0.5
    np.testing.assert_array_equal(dZ, [[1], [0]])
    found, dZ = reference.cost_and_gradient("squared_error", "identity", Z, Y, np.zeros(2))
    assert found == 0
    np.testing.assert_array_equal(dZ, 0)


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("log_loss", "identity"),
        ("log_loss", "tanh"),
        ("perceptron", "sigmoid"),
        ("squared_error", "step"),
        ("huber", "sign"),
        ("huber", "softmax"),
        ("poisson", "identity"),
        ("poisson", "relu"),
    ],
)
def test_a_loss_that_does_not_go_with_the_output_is_refused(loss, output):
    with pytest.raises(ValueError, match=rf"{loss}.*{output}"):
        reference.cost_and_gradient(loss, output, np.zeros((1, 2)), np.zeros((1, 2)))


# ------------------------------------------------------------------------- the whole network


@pytest.mark.parametrize("hidden", SMOOTH, ids=str)
@pytest.mark.parametrize("output", ["identity", "softmax", "sigmoid", "exp"])
def test_backpropagation_is_the_finite_difference(hidden, output):
    rng = np.random.default_rng(3)
    net = network([3, 4, 3, 2], hidden, output)
    X, w = rng.normal(size=(7, 3)), rng.uniform(0.5, 2, 7)
    y = targets(output, (7, 2), rng)
    start = get_flat(net)

    def loss(flat):
        set_flat(net, flat)
        return reference.loss_and_gradient(net, X, y, sample_weight=w, l1=0.01, l2=0.1)[0]

    expected = central_difference(loss, start)
    set_flat(net, start)
    found, gradient = reference.loss_and_gradient(net, X, y, sample_weight=w, l1=0.01, l2=0.1)
    assert found == loss(start)
    assert gradient.shape == start.shape
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(gradient, expected, atol=tolerances.FINITE_DIFFERENCE * scale)


def test_penalty_leaves_the_biases_out():
    net = network([3, 2], None, "identity")
    X, y = np.ones((1, 3)), np.zeros((1, 2))
    plain, g = reference.loss_and_gradient(net, X, y)
    cost, g2 = reference.loss_and_gradient(net, X, y, l1=0.3, l2=0.5)
    W = net.weights[0]
    assert cost - plain == pytest.approx(0.25 * (W**2).sum() + 0.3 * np.abs(W).sum())
    np.testing.assert_allclose(g2[:6] - g[:6], (0.5 * W + 0.3 * np.sign(W)).ravel())
    np.testing.assert_array_equal(g2[6:], g[6:])


def test_class_indices_are_one_hot_rows():
    net = network([3, 4], None, "softmax")
    X, y = np.random.default_rng(4).normal(size=(5, 3)), np.array([0, 3, 2, 2, 1])
    found, g = reference.loss_and_gradient(net, X, y)
    again, g2 = reference.loss_and_gradient(net, X, np.eye(4)[y])
    assert found == again
    np.testing.assert_array_equal(g, g2)


@pytest.mark.parametrize("hidden", SMOOTH, ids=str)
@pytest.mark.parametrize("output", ["identity", "softmax", "tanh"])
def test_jacobian_is_the_finite_difference(hidden, output):
    net = network([3, 5, 4, 2], hidden, output)
    X = np.random.default_rng(5).normal(size=(4, 3))
    J = reference.jacobian(net, X)
    assert J.shape == (4, 2, 3)
    h = 1e-6
    for j in range(3):
        e = h * np.eye(3)[j]
        expected = (reference.predict(net, X + e) - reference.predict(net, X - e)) / (2 * h)
        np.testing.assert_allclose(J[:, :, j], expected, atol=tolerances.FINITE_DIFFERENCE)


def test_a_scaler_is_part_of_the_network():
    net = network([2, 3, 1], "tanh", "identity")
    X, y = np.array([[10.0, 300.0], [12.0, 100.0]]), np.array([1.0, 2.0])
    shift, scale = np.array([11.0, 200.0]), np.array([0.5, 0.01])
    scaled = (X - shift) * scale
    expected = reference.predict(net, scaled), reference.loss_and_gradient(net, scaled, y)[0]
    slopes = reference.jacobian(net, scaled) * scale
    net.scaler = SimpleNamespace(shift_=shift, scale_=scale)
    np.testing.assert_array_equal(reference.predict(net, X), expected[0])
    assert reference.loss_and_gradient(net, X, y)[0] == expected[1]
    np.testing.assert_array_equal(reference.jacobian(net, X), slopes)


# ---------------------------------------------------------------------------------- updates


def test_updates_are_the_formulas_of_the_lecture():
    alpha, beta, steps = 0.1, 0.9, 5
    gradients = np.random.default_rng(6).normal(size=steps)
    w = np.full(3, 0.7)
    u, v = 0.7, 0.0
    for g in gradients:
        reference.sgd_update(w, np.full(3, g), alpha)
        u -= alpha * g
    np.testing.assert_allclose(w, u, rtol=1e-14)

    for update, ahead in (
        (reference.momentum_update, False),
        (reference.nesterov_update, True),
    ):
        w, velocity, u, v = np.full(3, 0.7), np.zeros(3), 0.7, 0.0
        for g in gradients:
            update(w, velocity, np.full(3, g), alpha, beta)
            v = beta * v - alpha * g
            u += beta * v - alpha * g if ahead else v
        np.testing.assert_allclose(w, u, rtol=1e-14)
        np.testing.assert_allclose(velocity, v, rtol=1e-14)

    w, m_w, v_w, u, m, v = np.full(3, 0.7), np.zeros(3), np.zeros(3), 0.7, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        reference.adam_update(w, m_w, v_w, np.full(3, g), alpha, 0.9, 0.99, 1e-8, t)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        u -= alpha * math.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-8)
    np.testing.assert_allclose(w, u, rtol=1e-13)


# ---------------------------------------------------------------------------------- dropout


def splitmix64(x):
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
    return x ^ x >> 31


def kept(rate, seed, step, layer, row, column):
    """Compute the mask in Python's whole numbers, one entry at a time."""
    x = splitmix64(splitmix64(splitmix64(splitmix64(seed) ^ step) ^ layer) ^ row) % 2**32
    x ^= column * 0x9E3779B9 % 2**32
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    x ^= x >> 16
    return x >= math.floor(rate * 2**32)


def test_dropout_mask_is_the_hash_of_the_place():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the generator's published first output
    for rate, seed, step, layer, first in [(0.5, 0, 0, 0, 0), (0.2, 2**63 + 5, 70000, 3, 11)]:
        A = reference.dropout(np.ones((6, 9)), rate, seed, step, layer, first_row=first)
        expected = [
            [kept(rate, seed, step, layer, first + i, j) / (1 - rate) for j in range(9)]
            for i in range(6)
        ]
        np.testing.assert_array_equal(A, expected)


def test_dropout_drops_its_rate_and_keeps_the_mean():
    A = reference.dropout(np.ones((500, 400), np.float32), 0.3, 1, 2, 0)
    assert A.dtype == np.float32
    assert (A == 0).mean() == pytest.approx(0.3, abs=0.005)
    assert A.mean() == pytest.approx(1, abs=0.01)
    other = reference.dropout(np.ones((500, 400), np.float32), 0.3, 1, 3, 0)
    assert ((A == 0) & (other == 0)).mean() == pytest.approx(0.09, abs=0.005)
    np.testing.assert_array_equal(reference.dropout(A, 0.0, 1, 2, 0), A)


# --------------------------------------------------------------------------------- training


def test_training_finds_the_least_squares_solution():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(50, 3))
    y = X @ [1.0, -2.0, 0.5] + 3 + 0.1 * rng.normal(size=50)
    net = network([3, 1], None, "identity")
    adam = SimpleNamespace(learning_rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    sgd = SimpleNamespace(learning_rate=0.3, momentum=0.5, nesterov=True)
    expected = np.linalg.lstsq(np.c_[X, np.ones(50)], y, rcond=None)[0]
    for optimizer in adam, sgd:
        costs = reference.train(net, X, y, optimizer=optimizer, batch_size=None, epochs=400)
        assert costs.shape == (400,)
        assert (np.diff(costs)[-100:] < 1e-12).all()
        np.testing.assert_allclose(get_flat(net), expected, atol=1e-6)


def test_epochs_follow_one_generator_and_the_short_batch_counts():
    rng = np.random.default_rng(8)
    X, y, w = rng.normal(size=(7, 2)), rng.normal(size=7), rng.uniform(1, 2, 7)
    net, twin = network([2, 1], None, "identity"), network([2, 1], None, "identity")
    optimizer = SimpleNamespace(learning_rate=0.1, momentum=0.9, nesterov=False)
    costs = reference.train(
        net, X, y, optimizer=optimizer, batch_size=3, epochs=2, seed=11, sample_weight=w, l2=0.1
    )
    draw, v = np.random.default_rng(11), np.zeros(3)
    for epoch in range(2):
        order, total = draw.permutation(7), 0.0
        for rows in order[:3], order[3:6], order[6:]:
            J, g = reference.loss_and_gradient(twin, X[rows], y[rows], "auto", w[rows], l2=0.1)
            total += J * w[rows].sum() / w.sum()
            v = 0.9 * v - 0.1 * g
            set_flat(twin, get_flat(twin) + v)
        assert costs[epoch] == pytest.approx(total, rel=1e-13)
    np.testing.assert_allclose(get_flat(net), get_flat(twin), rtol=1e-13)


def test_gradient_of_a_step_with_dropout_is_the_finite_difference():
    rng = np.random.default_rng(9)
    X, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    options = {"batch_size": None, "shuffle": False, "seed": 5, "dropout": 0.4, "epochs": 1}

    def train(flat, learning_rate):
        net = network([3, 8, 8, 2], "tanh", "identity")
        set_flat(net, flat)
        optimizer = SimpleNamespace(learning_rate=learning_rate, momentum=0.0, nesterov=False)
        cost = reference.train(net, X, y, optimizer=optimizer, **options)[0]
        return cost, get_flat(net)

    start = get_flat(network([3, 8, 8, 2], "tanh", "identity"))
    gradient = start - train(start, 1.0)[1]
    expected = central_difference(lambda flat: train(flat, 0.0)[0], start)
    assert (gradient == 0).any()  # something was dropped
    np.testing.assert_allclose(gradient, expected, atol=tolerances.FINITE_DIFFERENCE)


def test_a_schedule_gives_each_epoch_its_rate():
    X, y = np.array([[1.0]]), np.array([1.0])
    net = network([1, 1], None, "identity")
    set_flat(net, np.zeros(2))
    sgd = SimpleNamespace(learning_rate=0.1, momentum=0.0, nesterov=False)
    sgd.schedule = SimpleNamespace(rate=lambda initial, epoch: initial / (epoch + 1))
    costs = reference.train(net, X, y, optimizer=sgd, epochs=3)
    errors = np.array([1, 1 - 2 * 0.1, (1 - 2 * 0.1) * (1 - 2 * 0.05)])
    np.testing.assert_allclose(costs, errors**2 / 2)
    sgd.schedule = SimpleNamespace(patience=2)
    with pytest.raises(ValueError, match="schedule"):
        reference.train(net, X, y, optimizer=sgd, epochs=3)


def test_target_cost_stops_training():
    X, y = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])
    net = network([1, 1], None, "identity")
    costs = reference.train(net, X, y, epochs=1000, batch_size=None, target_cost=0.01)
    assert len(costs) < 1000
    assert costs[-1] <= 0.01 < costs[-2]


@pytest.mark.parametrize("name", [*reference.ACTIVATIONS, "softmax"])
def test_activations_of_integers(name):
    """In float64: of the type of Z they would be cut off."""
    Z = np.array([[-2, 0, 1], [3, 1, 2]])
    expected = reference.activation(name, Z.astype(float))
    np.testing.assert_array_equal(reference.activation(name, Z), expected)
    np.testing.assert_array_equal(reference.activation(name, Z.tolist()), expected)
    if name != "softmax":
        expected = reference.activation_derivative(name, Z.astype(float))
        np.testing.assert_array_equal(reference.activation_derivative(name, Z), expected)
