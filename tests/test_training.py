"""Training from outside: fidelity, divergence, weights, penalties, schedules, the network."""

import copy
import pickle
import re

import numpy as np
import pytest
from networks import network
from test_trajectories import flat, twin_of

import fastrna
from fastrna import reference

# -------------------------------------------------------------------------------- fidelity


def independent_training(net, X, Y, order, batch, alpha, beta):
    """Train a tanh net by momentum, written out here, apart from the reference."""
    W = [w.astype(float) for w in net.weights]
    b = [v.astype(float) for v in net.biases]
    vW, vb = [0 * w for w in W], [0 * v for v in b]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        A = [X[rows]]
        for w, v in zip(W[:-1], b[:-1], strict=True):
            A.append(np.tanh(A[-1] @ w + v))
        dZ = (A[-1] @ W[-1] + b[-1] - Y[rows]) / len(rows)
        for i in reversed(range(len(W))):
            dW, db = A[i].T @ dZ, dZ.sum(axis=0)
            dZ = (dZ @ W[i].T) * (1 - A[i] ** 2)
            vW[i] = beta * vW[i] - alpha * dW
            vb[i] = beta * vb[i] - alpha * db
            W[i] = W[i] + vW[i]
            b[i] = b[i] + vb[i]
    return np.concatenate([p.ravel() for pair in zip(W, b, strict=True) for p in pair])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_fifty_momentum_steps_of_three_hidden_layers(rng, dtype, tolerance):
    X, Y = rng.normal(size=(490, 8)), rng.normal(size=(490, 3))
    net = network([8, 32, 24, 16, 3], dtype=dtype)
    order = np.random.default_rng(9).permutation(490)
    wide = X.astype(dtype).astype(float), Y.astype(dtype).astype(float)
    expected = independent_training(net, *wide, order, 10, 0.05, 0.9)[: net.n_parameters]
    start = net.parameters.copy()
    optimizer = fastrna.SGD(0.05, momentum=0.9)
    twin = twin_of(net)
    options = {"optimizer": optimizer, "batch_size": 10, "epochs": 1, "seed": 9}
    history = fastrna.train(net, X.astype(dtype), Y.astype(dtype), **options)
    costs = reference.train(twin, *wide, **options)
    scale = np.abs(expected).max()
    assert np.abs(start - expected).max() > 0.01 * scale
    assert np.abs(flat(twin) - expected).max() < 1e-12 * scale
    assert np.abs(net.parameters - expected).max() < tolerance * scale
    np.testing.assert_allclose(history.cost, costs, rtol=tolerance)


def test_the_last_short_mini_batch_is_trained_on(dtype):
    X, y = np.zeros((7, 1)), np.zeros((7, 1))
    X[6], y[6] = 1, 1  # only the last example, alone in its mini-batch, moves the weight
    net = fastrna.Network([1, 1], dtype=dtype, seed=0)
    net.parameters[:] = 0
    options = {"optimizer": fastrna.SGD(0.5), "batch_size": 3, "epochs": 1, "shuffle": False}
    history = fastrna.train(net, X, y, **options)
    np.testing.assert_allclose(net.parameters, 0.5)
    assert history.cost[0] == pytest.approx(0.5 / 7)  # weighted by examples, not by mini-batches


def test_the_order_is_that_of_the_generator(dtype, problem):
    X, y = problem
    net, other = network(dtype=dtype), network(dtype=dtype)
    fastrna.train(net, X, y, epochs=3, seed=12, batch_size=1)
    trainer = fastrna.Trainer(other, batch_size=1)
    draw = np.random.default_rng(12)
    for _ in range(3):
        for i in draw.permutation(80):
            trainer.step(X[i : i + 1], y[i : i + 1])
    np.testing.assert_array_equal(net.parameters, other.parameters)
    assert trainer.n_steps == 240


def test_a_trainer_run_in_parts_is_one_run(dtype, problem):
    X, y = problem
    options = {"optimizer": fastrna.Adam(0.01), "dropout": 0.1, "seed": 4}
    net, other = network(dtype=dtype), network(dtype=dtype)
    whole = fastrna.train(net, X, y, epochs=5, **options)
    trainer = fastrna.Trainer(other, **options)
    parts = [trainer.run(X, y, 2), trainer.run(X, y, 3)]
    np.testing.assert_array_equal(net.parameters, other.parameters)
    np.testing.assert_array_equal(whole.cost, np.concatenate([p.cost for p in parts]))


def test_small_work_is_left_to_one_thread(rng):
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    trainer = fastrna.Trainer(network(), n_threads=None)
    assert trainer.n_threads_used == 0
    trainer.run(X, y, 1)
    assert trainer.n_threads_used == 1  # some microseconds do not repay waking another
    wide = fastrna.Trainer(network((64, 512, 1)), n_threads=2)
    wide.run(rng.normal(size=(20, 64)), y, 1)
    assert wide.n_threads_used == 2  # as told


@pytest.mark.parametrize(
    "source", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
)
def test_inputs_of_every_type_train_alike(dtype, rng, source):
    X, y = rng.integers(0, 2, size=(37, 9)), rng.normal(size=(37, 2))
    net, other = network([9, 7, 2], dtype=dtype), network([9, 7, 2], dtype=dtype)
    fastrna.train(net, X.astype(dtype), y, epochs=2, seed=0)
    fastrna.train(other, X.astype(source), y, epochs=2, seed=0)
    np.testing.assert_array_equal(net.parameters, other.parameters)
    np.testing.assert_array_equal(net.predict(X.astype(dtype)), other.predict(X.astype(source)))


def test_inputs_of_every_layout_train_alike(dtype, rng, tmp_path):
    X, y, w = rng.normal(size=(37, 9)).astype(dtype), rng.normal(size=(37, 2)), rng.random(37)
    mapped = np.memmap(tmp_path / "x", dtype, "w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    padded = np.zeros((74, 27), dtype)
    padded[::2, 1::3] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    raw = np.zeros(X.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype).reshape(X.shape)
    unaligned[:] = X
    layouts = {
        "Fortran": np.asfortranarray(X),
        "strided": padded[::2, 1::3],
        "reversed": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "read-only": frozen,
        "memmap": np.memmap(tmp_path / "x", dtype, "r", shape=X.shape),
        "unaligned": unaligned,
        "swapped": X.astype(X.dtype.newbyteorder()),
        "list": X.tolist(),
    }
    net = network([9, 7, 2], dtype=dtype)
    fastrna.train(net, X, y, sample_weight=w, epochs=2, seed=0)
    for name, layout in layouts.items():
        other = network([9, 7, 2], dtype=dtype)
        fastrna.train(other, layout, np.asfortranarray(y), sample_weight=list(w), epochs=2, seed=0)
        np.testing.assert_array_equal(net.parameters, other.parameters, err_msg=name)
        np.testing.assert_array_equal(net.predict(X), net.predict(layout), err_msg=name)


def test_the_rows_of_a_broadcast_array_train_alike(dtype):
    X, y = np.broadcast_to(np.array([1, 2, 3], dtype), (20, 3)), np.ones(20)
    net, other = network(dtype=dtype), network(dtype=dtype)
    fastrna.train(net, X, y, epochs=2, seed=0)
    fastrna.train(other, X.copy(), y, epochs=2, seed=0)
    np.testing.assert_array_equal(net.parameters, other.parameters)


def test_a_learning_rate_that_is_an_integer(rng):
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    trained = []
    for rate in (1, 1.0):
        one, other = network([3, 4, 1]), network([3, 4, 1])
        trainer = fastrna.Trainer(one, optimizer=fastrna.SGD(rate, momentum=0.1), seed=0)
        trainer.step(X, y)
        fastrna.train(other, X, y, optimizer=fastrna.SGD(rate, momentum=0.1), epochs=1, seed=0)
        trained.append(np.concatenate([one.parameters, other.parameters]))
    np.testing.assert_array_equal(*trained)


# ------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("hidden", ["relu", "identity", "exp"])
def test_divergence(problem, dtype, hidden):
    net = network(hidden=hidden, dtype=dtype)
    before = net.parameters.copy()
    seen = []

    def callback(*_):
        seen.append(net.parameters.copy())

    options = {"optimizer": fastrna.SGD(1e3), "epochs": 400, "seed": 0, "batch_size": None}
    with pytest.raises(fastrna.DivergenceError, match=r"(?s)epoch.*learning_rate") as caught:
        fastrna.train(net, *problem, callbacks=[callback], **options)
    assert isinstance(caught.value, ArithmeticError)
    np.testing.assert_array_equal(net.parameters, seen[-1] if seen else before)
    assert np.isfinite(net.parameters).all()


def test_divergence_names_the_last_finite_cost(problem):
    X, y = problem
    net = fastrna.Network([3, 1], dtype="float64", seed=0)
    options = {"optimizer": fastrna.SGD(1e6), "batch_size": None}
    trainer, seen = fastrna.Trainer(net.copy(), **options), []
    with pytest.raises(fastrna.DivergenceError):
        fastrna.train(
            net.copy(), X, y, epochs=400, callbacks=[lambda *_: seen.append(1)], **options
        )
    assert len(seen) > 1
    last = trainer.run(X, y, len(seen)).cost[-1]  # in one call, and the next one diverges
    expected = f"in epoch {len(seen) + 1}; the last finite cost was {last:.6g}."
    with pytest.raises(fastrna.DivergenceError, match=re.escape(expected)):
        trainer.run(X, y, 1)


# --------------------------------------------------------------- weights of examples and classes


@pytest.mark.parametrize("output", ["identity", "softmax", "sigmoid"])
def test_a_weight_is_a_number_of_repetitions(rng, output):
    X, counts = rng.normal(size=(30, 3)), rng.integers(0, 4, 30)
    y = rng.integers(2, size=30) if output == "softmax" else rng.integers(2, size=(30, 2))
    weighted, repeated = (network([3, 8, 2], output=output, dtype="float64") for _ in range(2))
    options = {"batch_size": None, "epochs": 20, "l2": 0.01, "optimizer": fastrna.SGD(0.1, 0.5)}
    one = fastrna.train(weighted, X, y, sample_weight=counts, **options)
    two = fastrna.train(repeated, X.repeat(counts, axis=0), y.repeat(counts, axis=0), **options)
    np.testing.assert_allclose(one.cost, two.cost, rtol=1e-12)
    np.testing.assert_allclose(weighted.parameters, repeated.parameters, rtol=0, atol=1e-12)


def test_only_the_ratio_of_weights_counts(problem):
    X, y = problem
    nets = [network(dtype="float64") for _ in range(2)]
    w = np.linspace(1, 2, 80)
    for net, factor in zip(nets, (1, 1e-3), strict=True):
        fastrna.train(net, X, y, sample_weight=factor * w, epochs=3, seed=0, l2=0.1)
    np.testing.assert_allclose(nets[0].parameters, nets[1].parameters, rtol=0, atol=1e-12)


def test_class_weight_is_a_sample_weight(rng):
    X, y = rng.normal(size=(60, 3)), rng.choice(3, p=[0.6, 0.3, 0.1], size=60)
    w = rng.uniform(0.5, 2, 60)
    balanced = 60 / (3 * np.bincount(y))
    for given, factors in [
        ({0: 1.0, 1: 2.0, 2: 5.0}, np.array([1.0, 2.0, 5.0])),
        ("balanced", balanced),
        ({0: 3.0}, np.array([3.0, 1.0, 1.0])),
    ]:
        for sample_weight in None, w:
            nets = [network([3, 8, 3], output="softmax", dtype="float64") for _ in range(2)]
            base = np.ones(60) if sample_weight is None else w
            options = {"epochs": 3, "seed": 0}
            fastrna.train(nets[0], X, y, class_weight=given, sample_weight=sample_weight, **options)
            fastrna.train(nets[1], X, y, sample_weight=base * factors[y], **options)
            np.testing.assert_allclose(nets[0].parameters, nets[1].parameters, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------- penalties


def test_penalties_shrink_the_weights(problem):
    norms, zeros = [], []
    for l1, l2 in [(0, 0), (0, 0.1), (0, 1.0), (0.1, 0)]:
        net = network()
        fastrna.train(net, *problem, l1=l1, l2=l2, epochs=300, optimizer=fastrna.SGD(0.05), seed=0)
        norms.append(sum((W**2).sum() for W in net.weights))
        zeros.append(sum((np.abs(W) < 0.01).mean() for W in net.weights))
    assert norms[0] > norms[1] > norms[2]
    assert zeros[3] > zeros[0]


def test_penalties_over_the_batch(problem):
    X, y = problem
    nets = [network(dtype="float64") for _ in range(2)]
    fastrna.Trainer(nets[0], l1=0.2, l2=0.8, l2_over_batch=True, batch_size=20, seed=0).run(X, y, 3)
    fastrna.Trainer(nets[1], l1=0.01, l2=0.04, batch_size=20, seed=0).run(X, y, 3)
    np.testing.assert_allclose(nets[0].parameters, nets[1].parameters, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------- schedules


def rates(schedule, epochs, problem, learning_rate=0.1):
    optimizer = fastrna.SGD(learning_rate, schedule=schedule)
    return fastrna.train(
        network(), *problem, optimizer=optimizer, epochs=epochs, seed=0
    ).learning_rate


def test_schedules(problem):
    epoch = np.arange(12)
    for schedule, expected in [
        (None, 0.1 + 0 * epoch),
        (fastrna.InverseScaling(0.5), 0.1 / np.sqrt(epoch + 1)),
        (fastrna.StepDecay(5, 0.1), 0.1 * 0.1 ** (epoch // 5)),
        (fastrna.Cosine(12), 0.05 * (1 + np.cos(np.pi * epoch / 12))),
    ]:
        np.testing.assert_allclose(
            rates(schedule, 12, problem), expected, rtol=1e-6, err_msg=str(schedule)
        )


def test_the_scheduled_rate_is_the_one_used(problem):
    X, y = problem
    net, other = network(dtype="float64"), network(dtype="float64")
    optimizer = fastrna.SGD(0.1, momentum=0.9, schedule=fastrna.StepDecay(2, 0.5))
    fastrna.train(net, X, y, optimizer=optimizer, epochs=6, shuffle=False)
    trainer = fastrna.Trainer(other, optimizer=fastrna.SGD(0.1, momentum=0.9), shuffle=False)
    for rate in (0.1, 0.05, 0.025):
        trainer.learning_rate = rate
        assert trainer.learning_rate == rate
        trainer.run(X, y, 2)
    np.testing.assert_array_equal(net.parameters, other.parameters)


def test_adaptive_schedule_lowers_the_rate_when_progress_stops(problem):
    seen = rates(fastrna.Adaptive(patience=2, factor=0.2, minimum=1e-3), 400, problem)
    levels = np.unique(seen)[::-1]
    assert seen[0] == pytest.approx(0.1)
    assert len(levels) > 1
    assert (np.diff(seen) <= 0).all()
    assert levels[-1] >= 1e-3 * (1 - 1e-6)
    np.testing.assert_allclose(levels[1], 0.02, rtol=1e-6)


# ------------------------------------------------------------------- the network as an object


def test_parameters_are_one_array_and_its_views(dtype):
    net = network([3, 5, 2], dtype=dtype)
    assert net.sizes == [3, 5, 2] or net.sizes == (3, 5, 2)
    assert net.n_parameters == 3 * 5 + 5 + 5 * 2 + 2 == net.parameters.size
    assert net.parameters.dtype == dtype and net.parameters.flags.c_contiguous
    net.parameters[:] = np.arange(net.n_parameters)
    np.testing.assert_array_equal(net.weights[0], np.arange(15).reshape(3, 5))
    np.testing.assert_array_equal(net.biases[0], np.arange(15, 20))
    np.testing.assert_array_equal(net.weights[1], np.arange(20, 30).reshape(5, 2))
    np.testing.assert_array_equal(net.biases[1], [30, 31])
    net.weights[1][0, 0] = -1
    assert net.parameters[20] == -1
    before = net.predict(np.ones((1, 3)))
    net.biases[1][:] += 1
    np.testing.assert_allclose(net.predict(np.ones((1, 3))), before + 1)


def test_activations_are_normalised():
    net = fastrna.Network([2, 3, 3, 1], hidden=["leaky_relu", ("elu", 0.5)], output="sigmoid")
    assert list(net.activations) == [("leaky_relu", 0.1), ("elu", 0.5), ("sigmoid", None)]


def test_a_copy_is_apart(problem):
    net = network()
    other = net.copy()
    np.testing.assert_array_equal(net.parameters, other.parameters)
    fastrna.train(other, *problem, epochs=1)
    assert not np.array_equal(net.parameters, other.parameters)
    np.testing.assert_array_equal(net.parameters, network().parameters)


def test_a_copy_of_another_type(problem):
    net = network(hidden=("elu", 0.5))
    net.scaler = fastrna.Scaler("zscore").fit(problem[0])
    wide = net.copy("float64")
    assert wide.dtype == np.float64 and wide.activations == net.activations
    np.testing.assert_array_equal(wide.parameters, net.parameters)
    np.testing.assert_allclose(wide.predict(problem[0]), net.predict(problem[0]), atol=1e-5)
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        net.copy("int8")


@pytest.mark.parametrize("hidden", ["relu", "tanh", "sigmoid", "gelu"])
def test_initial_weights_keep_the_scale_of_the_signal(hidden, rng):
    net = fastrna.Network([200, 200, 200, 200, 200], hidden=hidden, output="identity", seed=0)
    out = net.predict(rng.normal(size=(100, 200)))
    assert 0.02 < out.std() < 20


def test_online_steps(problem):
    X, y = problem
    net, other = network(dtype="float64"), network(dtype="float64")
    trainer = fastrna.Trainer(net, optimizer=fastrna.SGD(0.1), l2=0.1)
    expected, gradient = other.loss_and_gradient(X[:9], y[:9], l2=0.1)
    cost = trainer.step(X[:9], y[:9])
    assert isinstance(cost, float)
    assert cost == pytest.approx(expected)
    np.testing.assert_allclose(net.parameters, other.parameters - 0.1 * gradient, atol=1e-14)


def test_evaluate_and_gradient_of_a_trainer_change_nothing(problem):
    X, y = problem
    net = network(dtype="float64")
    trainer = fastrna.Trainer(net, l1=0.01, l2=0.1)
    data = trainer.prepare(X, y)
    before = net.parameters.copy()
    plain, _ = net.loss_and_gradient(X, y)
    assert trainer.evaluate(data) == pytest.approx(plain)
    expected, expected_gradient = reference.loss_and_gradient(net, X, y, l1=0.01, l2=0.1)
    cost, gradient = trainer.loss_and_gradient(data)
    assert cost == pytest.approx(expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-13)
    np.testing.assert_array_equal(net.parameters, before)
    assert trainer.n_steps == 0


def test_a_scaler_is_applied_to_raw_inputs(rng, dtype):
    X, y = rng.normal(size=(50, 3)) * [1, 100, 0.01] + [5, -300, 0], rng.normal(size=50)
    scaler = fastrna.Scaler("zscore").fit(X)
    inside, outside = network(dtype=dtype), network(dtype=dtype)
    inside.scaler = scaler
    scaled = scaler.transform(X)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(inside.predict(X), outside.predict(scaled), **tolerance)
    np.testing.assert_allclose(
        inside.predict_one(X[0]), outside.predict_one(scaled[0]), **tolerance
    )
    np.testing.assert_allclose(
        inside.jacobian(X), outside.jacobian(scaled) * scaler.scale_, **tolerance
    )
    np.testing.assert_allclose(
        inside.loss_and_gradient(X, y)[1], outside.loss_and_gradient(scaled, y)[1], **tolerance
    )
    fastrna.train(inside, X, y, epochs=5, seed=0, validation=(X, y))
    fastrna.train(outside, scaled, y, epochs=5, seed=0)
    np.testing.assert_allclose(inside.parameters, outside.parameters, **tolerance)


def test_unpickled_and_copied_networks_predict_the_same(problem):
    net = network(output="sigmoid")
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), net.copy()):
        np.testing.assert_array_equal(net.predict(problem[0]), other.predict(problem[0]))
        other.parameters[:] = 0
        assert (other.weights[0] == 0).all()
        assert net.parameters.any()


def test_divergence_in_the_first_epoch_has_no_cost_to_name(problem):
    net = network()
    before = net.parameters.copy()
    with pytest.raises(fastrna.DivergenceError, match="no epoch was finite before"):
        fastrna.train(net, *problem, optimizer=fastrna.SGD(1e30), batch_size=1, epochs=2)
    np.testing.assert_array_equal(net.parameters, before)


def test_a_step_with_many_rows_of_softmax():
    """More rows than a vector has lanes."""
    rng = np.random.default_rng(0)
    for rows in (1, 15, 16, 33, 64):
        net = fastrna.Network([3, 4, 5], output="softmax", seed=0)
        X, y = rng.normal(size=(rows, 3)), rng.integers(5, size=rows)
        cost = net.loss_and_gradient(X, y)[0]
        assert fastrna.Trainer(net).step(X, y) == pytest.approx(cost, rel=1e-5)


def test_an_optimizer_of_another_rule_may_be_set_between_runs(problem):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.SGD(0.1), seed=0)
    trainer.run(*problem, 2)
    twin = copy.deepcopy(trainer)
    trainer.optimizer = fastrna.Adam(0.01)
    trainer.run(*problem, 2)
    twin.run(*problem, 2)
    assert trainer.state()["second_moment"].any() and twin.state()["second_moment"] is None
    assert not np.array_equal(trainer.network.parameters, twin.network.parameters)


def test_after_a_divergence_a_smaller_rate_goes_on(problem):
    """The optimizer begins anew: what it remembers is not finite."""
    for optimizer in fastrna.SGD(0.05, momentum=0.9), fastrna.Adam(0.01):
        trainer = fastrna.Trainer(network(), optimizer=optimizer, seed=0)
        trainer.run(*problem, 5)
        assert trainer.n_steps == 15
        trainer.learning_rate = 1e30
        with pytest.raises(fastrna.DivergenceError, match="the optimizer begins anew"):
            trainer.run(*problem, 3)
        assert trainer.n_steps == 15
        twin = fastrna.Trainer(trainer.network.copy(), optimizer=optimizer, seed=0)
        trainer.learning_rate = twin.learning_rate = 0.01
        costs = [
            [t.epoch(t.prepare(*problem), order=np.arange(80)) for _ in range(3)]
            for t in (trainer, twin)
        ]
        assert costs[0] == costs[1]
        assert trainer.n_steps == 24


def test_a_step_that_diverges_spoils_none_after_it(problem):
    X, y = problem
    trainer = fastrna.Trainer(network(hidden="relu"), optimizer=fastrna.SGD(0.1, momentum=0.9))
    cost = trainer.step(X, y)
    with pytest.raises(fastrna.DivergenceError):
        trainer.step(X * 1e30, y)
    assert trainer.step(X, y) < cost


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (fastrna.SGD(0.1, momentum=0.9), fastrna.Adam(0.01), False),
        (fastrna.Adam(0.01), fastrna.SGD(0.02, momentum=0.9), False),
        (fastrna.SGD(0.1, momentum=0.9), fastrna.SGD(0.05, momentum=0.5, nesterov=True), True),
        (fastrna.Adam(0.01), fastrna.Adam(0.002, beta_1=0.5), True),
        (fastrna.SGD(0.1), "adam", False),
    ],
)
def test_an_optimizer_set_between_runs(problem, first, second, kept):
    """With its own learning rate, and with what the one before remembers if it means the same."""
    trainer = fastrna.Trainer(network(), optimizer=first, seed=0)
    trainer.run(*problem, 4)
    if not kept:
        fresh = fastrna.Trainer(trainer.network.copy(), optimizer=second)
    moment = trainer.state()["first_moment"]
    trainer.optimizer = second
    assert trainer.learning_rate == trainer.optimizer.learning_rate
    if kept:
        np.testing.assert_array_equal(trainer.state()["first_moment"], moment)
    else:
        order = np.arange(80)
        data = trainer.prepare(*problem), fresh.prepare(*problem)
        assert trainer.epoch(data[0], order) == fresh.epoch(data[1], order)
        np.testing.assert_array_equal(trainer.network.parameters, fresh.network.parameters)
    assert trainer.n_steps == 12 + 3 * (not kept)


def test_what_an_optimizer_may_not_be_set_to(problem):
    trainer = fastrna.Trainer(network(), dropout=0.5)
    with pytest.raises(TypeError, match="optimizer is 3; expected an SGD"):
        trainer.optimizer = 3
    trainer.optimizer = "lbfgs"
    with pytest.raises(ValueError, match=r"dropout is 0\.5 with optimizer LBFGS"):
        trainer.run(*problem, 1)
    for name in "network", "loss":
        with pytest.raises(AttributeError):
            setattr(trainer, name, None)


def test_data_prepared_before_the_scaler_are_refused(problem):
    X, y = problem
    net = network()
    trainer = fastrna.Trainer(net)
    before = trainer.prepare(X, y)
    net.scaler = fastrna.Scaler("zscore").fit(X)
    data = trainer.prepare(X, y)
    assert trainer.evaluate(data) == trainer.evaluate(trainer.prepare(X, y))
    for use in trainer.evaluate, trainer.epoch, trainer.loss_and_gradient:
        with pytest.raises(ValueError, match="data was prepared for inputs scaled in another way"):
            use(before)
    net.scaler = None
    with pytest.raises(ValueError, match="prepared anew"):
        trainer.evaluate(data)


def test_what_a_network_is_made_of_is_not_assigned():
    net = network()
    for name, value in (("dtype", np.dtype("float64")), ("n_parameters", 3), ("sizes", [1, 1])):
        with pytest.raises(AttributeError):
            setattr(net, name, value)
    with pytest.raises(ValueError, match=r"parameters has 1e\+300, beyond the range of float32"):
        net.parameters = 1e300
    wide = network(dtype="float64")
    wide.parameters[5] = -1e39
    with pytest.raises(ValueError, match=r"parameters has -1e\+39 at row 5, beyond the range"):
        wide.copy("float32")
