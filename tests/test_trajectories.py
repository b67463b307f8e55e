"""Ten steps of training against the reference in float64, for every pair of activation and cost.

The reference starts from the same parameters and sees the examples in the same order, so that each
mini-batch, each update and each cost has to be right for the end to be.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from test_reference import ELEMENTWISE, PAIRS, targets
from tolerances import TRAJECTORY

import fastrna
from fastrna import reference

PAIRS = [*PAIRS, ("perceptron", "step"), ("perceptron", "sign")]


def twin_of(net):
    """Make a network for the reference, in float64, with the same parameters."""
    return SimpleNamespace(
        sizes=net.sizes,
        activations=net.activations,
        weights=[W.astype(float) for W in net.weights],
        biases=[b.astype(float) for b in net.biases],
    )


def flat(net):
    pairs = zip(net.weights, net.biases, strict=True)
    return np.concatenate([p.ravel() for pair in pairs for p in pair])


def assert_same_training(net, X, y, n_threads=None, **options):
    """Train both; the costs of the epochs and all parameters have to agree."""
    twin, start = twin_of(net), net.parameters.copy()
    w = options.get("sample_weight")
    wide = options | ({} if w is None else {"sample_weight": w.astype(float)})
    expected = reference.train(twin, X.astype(float), np.asarray(y), **wide)
    history = fastrna.train(net, X, y, n_threads=n_threads, **options)
    tolerance = TRAJECTORY[str(net.dtype)]
    np.testing.assert_allclose(history.cost, expected, rtol=tolerance, atol=tolerance)
    limit = tolerance * max(1, np.abs(flat(twin)).max())
    np.testing.assert_allclose(net.parameters, flat(twin), rtol=0, atol=limit)
    return start


def data(rng, output, m=23, n_x=4, n_y=3, dtype="float64"):
    X = rng.normal(size=(m, n_x)).astype(dtype)
    return X, targets(output, (m, n_y), rng).astype(dtype)


# Five mini-batches an epoch, the last of them short: two epochs make ten steps.
TEN_STEPS = {"batch_size": 5, "epochs": 2, "seed": 3}


@pytest.mark.parametrize("hidden", ELEMENTWISE, ids=str)
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_every_activation_and_cost(dtype, rng, hidden, loss, output):
    net = fastrna.Network([4, 9, 3], hidden=hidden, output=output, dtype=dtype, seed=1)
    X, y = data(rng, output, dtype=dtype)
    optimizer = fastrna.SGD(1e-4 if output == "exp" else 1e-2)
    start = assert_same_training(net, X, y, loss=loss, optimizer=optimizer, **TEN_STEPS)
    assert not np.array_equal(net.parameters, start)


OPTIMIZERS = [
    fastrna.SGD(0.1),
    fastrna.SGD(0.05, momentum=0.9),
    fastrna.SGD(0.05, momentum=0.9, nesterov=True),
    fastrna.Adam(0.01),
    fastrna.Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-4),
]
PENALTIES = [{}, {"l2": 0.05}, {"l1": 0.01}, {"l1": 0.01, "l2": 0.05}]


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_every_optimizer_and_penalty(dtype, rng, optimizer, penalty, batch_size):
    net = fastrna.Network([4, 9, 17, 3], hidden="tanh", output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", dtype=dtype)
    assert_same_training(
        net, X, y, optimizer=optimizer, batch_size=batch_size, epochs=3, seed=3, **penalty
    )


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100, None])
@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
def test_sample_weights(dtype, rng, output, batch_size):
    net = fastrna.Network([4, 9, 3], hidden="relu", output=output, dtype=dtype, seed=1)
    X, y = data(rng, output, dtype=dtype)
    w = rng.uniform(0.2, 3, len(X))
    options = {"sample_weight": w, "batch_size": batch_size, "epochs": 3, "seed": 5, "l2": 0.01}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.05, momentum=0.5), **options)


def test_mini_batches_of_no_weight_at_all(rng, dtype):
    net = fastrna.Network([4, 9, 3], hidden="relu", dtype=dtype, seed=1)
    X, y = data(rng, "identity", dtype=dtype)
    w = (rng.random(len(X)) < 0.3).astype(float)
    options = {"sample_weight": w, "batch_size": 2, "epochs": 2, "seed": 5, "l2": 0.01}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.05, momentum=0.5), **options)


@pytest.mark.parametrize("batch_size", [1, 5, None])
@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("hidden", ["tanh", "relu", "gelu", "sigmoid"])
def test_dropout(dtype, rng, hidden, rate, batch_size):
    net = fastrna.Network([4, 19, 33, 3], hidden=hidden, dtype=dtype, seed=1)
    X, y = data(rng, "identity", dtype=dtype)
    options = {"dropout": rate, "batch_size": batch_size, "epochs": 2, "seed": 7, "l2": 0.01}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.002, momentum=0.5), **options)


@pytest.mark.parametrize(
    "schedule",
    [fastrna.InverseScaling(0.7), fastrna.StepDecay(2, 0.5), fastrna.Cosine(4, 1e-3)],
    ids=str,
)
def test_schedules(dtype, rng, schedule):
    X, y = data(rng, "identity", dtype=dtype)
    for optimizer in (
        fastrna.SGD(0.1, 0.5, schedule=schedule),
        fastrna.Adam(0.02, schedule=schedule),
    ):
        net = fastrna.Network([4, 9, 3], "tanh", dtype=dtype, seed=1)
        assert_same_training(net, X, y, optimizer=optimizer, batch_size=5, epochs=6, seed=3)


@pytest.mark.parametrize("hidden", [[9, 5], [400]], ids=str)  # of few weights, and of many
@pytest.mark.parametrize("m", [511, 512, 513, 1023, 1025, 1700])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_mini_batches_larger_than_the_workspace(dtype, rng, optimizer, m, hidden):
    """The engine passes them in pieces; nothing of that may be seen."""
    net = fastrna.Network([4, *hidden, 3], "tanh", output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", m, dtype=dtype)
    options = {"sample_weight": rng.uniform(0.2, 3, m), "dropout": 0.1, "l1": 1e-3, "l2": 0.01}
    for batch_size in (None, 700):
        options |= {"batch_size": batch_size, "epochs": 3, "seed": 5}
        assert_same_training(net.copy(), X, y, optimizer=optimizer, **options)


@pytest.mark.parametrize("sizes", [[1, 1], [1, 16, 1], [3, 2], [16, 64, 97, 10], [33, 7, 1, 5, 2]])
@pytest.mark.parametrize("batch_size", [1, 2, 6, 13])
def test_widths_and_depths(dtype, rng, sizes, batch_size):
    net = fastrna.Network(sizes, hidden="tanh", dtype=dtype, seed=1)
    X, y = data(rng, "identity", 20, sizes[0], sizes[-1], dtype)
    options = {"batch_size": batch_size, "epochs": 2, "seed": 3}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.005, momentum=0.5), **options)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("m", "batch_size"), [(9, 1), (31, 7), (60, 24), (60, 25), (150, 70)])
@pytest.mark.parametrize("n_x", [256, 301, 1030])
def test_long_rows(dtype, rng, n_x, m, batch_size, n_threads):
    """Rows gathered a few at a time, beside the products of those before."""
    net = fastrna.Network([n_x, 90, 3], hidden="tanh", output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", m, n_x, 3, dtype)
    options = {"batch_size": batch_size, "epochs": 2, "seed": 3, "n_threads": n_threads}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.002, momentum=0.5), **options)


def test_long_rows_in_more_than_one_chunk(dtype, rng):
    net = fastrna.Network([260, 300, 3], hidden="tanh", output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", 1300, 260, 3, dtype)
    options = {"batch_size": 600, "epochs": 2, "seed": 3, "n_threads": 1}
    assert_same_training(net, X, y, optimizer=fastrna.SGD(0.01, momentum=0.5), **options)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(("m", "batch_size"), [(370, 160), (1100, 600)])
@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != fastrna.Adam(0.01)], ids=str)
def test_wide_layers(dtype, rng, optimizer, m, batch_size, n_threads):
    """Enough arithmetic in a mini-batch for phases in tasks; the last mini-batch is a short one.

    Not with Adam's tiny default epsilon, which makes a whole step of a gradient that is a few
    roundings: among this many weights there are some. Nor with Adam and L1, for a weight that
    is a few roundings: the penalty's slope has its sign.
    """
    net = fastrna.Network([210, 300, 220, 5], "tanh", output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", m, 210, 5, dtype)
    options = {"sample_weight": rng.uniform(0.2, 3, m), "dropout": 0.1, "l2": 0.01}
    options["l1"] = 0 if isinstance(optimizer, fastrna.Adam) else 1e-3
    options |= {"batch_size": batch_size, "epochs": 2, "seed": 5, "n_threads": n_threads}
    assert_same_training(net, X, y, optimizer=optimizer, **options)


# One example a lane, whatever the vectors; and as narrow, but for those of two and four numbers.
NARROW = [[1, 1, 1, 2], [4, 5, 3], [7, 10, 3], [24, 8, 2]]


@pytest.mark.parametrize("batch_size", [33, 64, 300, None])
@pytest.mark.parametrize("sizes", NARROW, ids=str)
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_narrow_networks(dtype, rng, loss, output, sizes, batch_size):
    """Batches and last batches of parts of a vector, of slices, and of several blocks."""
    net = fastrna.Network(sizes, hidden="tanh", output=output, dtype=dtype, seed=1)
    X, y = data(rng, output, 1090, sizes[0], sizes[-1], dtype)
    optimizer = fastrna.SGD(1e-4 if output == "exp" else 1e-2, momentum=0.5)
    options = {"loss": loss, "optimizer": optimizer, "batch_size": batch_size, "epochs": 2}
    assert_same_training(net, X, y, seed=3, **options)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("sizes", NARROW, ids=str)
def test_updates_of_narrow_networks(dtype, rng, sizes, optimizer, penalty):
    X, y = data(rng, "softmax", 350, sizes[0], sizes[-1], dtype)
    options = {"sample_weight": rng.uniform(0.2, 3, 350), "optimizer": optimizer, **penalty}
    for batch_size, n_threads in (33, 1), (160, 1), (160, 2):
        net = fastrna.Network(sizes, "tanh", output="softmax", dtype=dtype, seed=1)
        options |= {"batch_size": batch_size, "epochs": 2, "seed": 3, "n_threads": n_threads}
        assert_same_training(net, X, y, **options)


def test_a_part_of_a_vector_after_large_numbers(dtype, rng):
    """Whose exp would be infinite with the weights of now, and infinity times 0 is not 0."""
    many, few = np.full((48, 3), 1e4, dtype), rng.normal(size=(33, 3)).astype(dtype)
    trained = []
    for first in (many, few):
        net = fastrna.Network([3, 4, 1], "exp", dtype=dtype, seed=1)
        start = net.parameters.copy()
        trainer = fastrna.Trainer(net, optimizer=fastrna.SGD(1e-3), batch_size=48, seed=0)
        net.parameters = np.zeros_like(start)
        trainer.epoch(trainer.prepare(first, np.zeros(len(first), dtype)))
        net.parameters = start
        trainer.step(few, np.zeros(33, dtype))
        trained.append(net.parameters.copy())
    np.testing.assert_array_equal(*trained)


def test_different_activations_in_every_layer(dtype, rng):
    hidden = ["relu", ("leaky_relu", 0.3), "gelu", ("elu", 0.5), "softplus", "identity", "silu"]
    net = fastrna.Network([4, *[6] * 7, 3], hidden=hidden, output="tanh", dtype=dtype, seed=1)
    X, y = data(rng, "tanh", dtype=dtype)
    assert_same_training(net, X, y, **TEN_STEPS)


def test_in_the_order_given_without_shuffling(dtype, rng):
    net = fastrna.Network([4, 9, 3], dtype=dtype, seed=1)
    X, y = data(rng, "identity", dtype=dtype)
    assert_same_training(net, X, y, shuffle=False, batch_size=5, epochs=3)


def test_class_indices(dtype, rng):
    net = fastrna.Network([4, 9, 3], output="softmax", dtype=dtype, seed=1)
    X, y = data(rng, "softmax", 90, dtype=dtype)
    for batch_size in 5, 40:
        options = {"batch_size": batch_size, "epochs": 2, "seed": 3}
        assert_same_training(net, X, y.argmax(axis=1), **options)


@pytest.mark.parametrize(("m", "batch_size"), [(40, 1), (40, 7), (1100, None)])
def test_sparse_rows(dtype, rng, m, batch_size):
    sparse = pytest.importorskip("scipy.sparse")
    X = np.where(rng.random((m, 30)) < 0.1, rng.normal(size=(m, 30)), 0).astype(dtype)
    X[7] = 0
    y = rng.normal(size=(m, 3)).astype(dtype)
    for optimizer in OPTIMIZERS:
        for penalty in {}, {"l1": 0.01, "l2": 0.05}:
            net = fastrna.Network([30, 9, 3], hidden="tanh", dtype=dtype, seed=1)
            twin = twin_of(net)
            options = {
                "optimizer": optimizer,
                "batch_size": batch_size,
                "epochs": 2,
                "seed": 3,
            } | penalty
            expected = reference.train(twin, X, y, **options)
            history = fastrna.train(net, sparse.csr_array(X), y, **options)
            tolerance = TRAJECTORY[dtype]
            np.testing.assert_allclose(history.cost, expected, rtol=tolerance)
            np.testing.assert_allclose(net.parameters, flat(twin), atol=tolerance)


def test_targets_at_which_training_stops(dtype, rng):
    net = fastrna.Network([4, 9, 3], dtype=dtype, seed=1)
    X, y = data(rng, "identity", dtype=dtype)
    twin = twin_of(net)
    options = {"optimizer": fastrna.SGD(0.05), "epochs": 200, "seed": 3, "target_cost": 1.0}
    expected = reference.train(twin, X, y, **options)
    history = fastrna.train(net, X, y, **options)
    assert 1 < len(expected) < 200
    assert history.n_epochs == len(expected)
    assert history.stopped_by == "target_cost"


# ------------------------------------------------------------------- without training: the door


@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_loss_and_gradient(dtype, rng, loss, output):
    net = fastrna.Network([4, 9, 3], hidden="tanh", output=output, dtype=dtype, seed=1)
    X, y = data(rng, output, m=130, dtype=dtype)
    w = rng.uniform(0.5, 2, 130)
    for m in (1, 2, 23, 130):
        args = {"loss": loss, "sample_weight": w[:m], "l2": 0.1}
        found, gradient = net.loss_and_gradient(X[:m], y[:m], **args)
        twin = twin_of(net)
        expected, expected_gradient = reference.loss_and_gradient(twin, X[:m], y[:m], **args)
        assert found == pytest.approx(expected, rel=TRAJECTORY[dtype])
        assert gradient.shape == net.parameters.shape
        assert gradient.dtype == dtype
        limit = TRAJECTORY[dtype] * max(1, np.abs(expected_gradient).max())
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=limit)


@pytest.mark.parametrize("hidden", ELEMENTWISE, ids=str)
@pytest.mark.parametrize("output", ["identity", "softmax", "tanh", "step"])
def test_predict_and_jacobian(dtype, rng, hidden, output):
    net = fastrna.Network([4, 9, 17, 3], hidden=hidden, output=output, dtype=dtype, seed=1)
    twin = twin_of(net)
    X = rng.normal(size=(67, 4)).astype(dtype)
    for m in (1, 2, 67):
        expected = reference.predict(twin, X[:m].astype(float))
        tolerance = {"rtol": TRAJECTORY[dtype], "atol": TRAJECTORY[dtype]}
        np.testing.assert_allclose(net.predict(X[:m]), expected, **tolerance)
        slopes = reference.jacobian(twin, X[:m].astype(float))
        np.testing.assert_allclose(net.jacobian(X[:m]), slopes, **tolerance)
    for x, row in zip(X, reference.predict(twin, X.astype(float)), strict=True):
        np.testing.assert_allclose(net.predict_one(x), row, **tolerance)


@pytest.mark.parametrize("sizes", [[4, 20, 20, 3], [4, 260, 3]], ids=str)
@pytest.mark.parametrize("batch_size", [127, 128, 300, None])
def test_large_batches_of_small_networks(dtype, rng, sizes, batch_size):
    """Whose rows are cut in slices, each with a gradient of its own."""
    X, Y = data(rng, "softmax", m=1300, n_x=4, n_y=3, dtype=dtype)
    net = fastrna.Network(sizes, hidden="tanh", output="softmax", dtype=dtype, seed=1)
    options = {"batch_size": batch_size, "epochs": 2, "seed": 3, "l2": 0.01}
    optimizer = fastrna.SGD(0.1, momentum=0.9)
    weight = rng.uniform(0.5, 2, 1300)
    assert_same_training(net, X, Y, optimizer=optimizer, sample_weight=weight, **options)
