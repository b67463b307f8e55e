"""Bit-identical results for any number of threads; a step that allocates nothing."""

import gc
import tracemalloc

import numpy as np
import pytest

import fastrna

# The largest are split among the threads in earnest; the smallest have fewer rows than threads.
NETS = [
    ([3, 2], {"hidden": "tanh"}, 40),
    ([4, 10, 3], {"hidden": "tanh", "output": "softmax"}, 150),
    ([64, 100, 10], {"hidden": "relu", "output": "softmax"}, 203),
    ([33, 257, 129, 5], {"hidden": "gelu", "output": "sigmoid"}, 301),
    ([1, 17, 1, 17, 1], {"hidden": ["elu", "silu", "softplus"]}, 100),
    # In three pieces as one batch, by rows and by units.
    ([5, 40, 3], {"hidden": "tanh", "output": "softmax"}, 1300),
    ([3, 400, 2], {"hidden": "tanh", "output": "softmax"}, 1300),
]


def make(sizes, options, m, dtype, seed=0):
    rng = np.random.default_rng(5)
    net = fastrna.Network(sizes, dtype=dtype, seed=seed, **options)
    X = rng.normal(size=(m, sizes[0])).astype(dtype)
    if options.get("output") == "softmax":
        return net, X, rng.integers(sizes[-1], size=m)
    return net, X, rng.integers(2, size=(m, sizes[-1])).astype(dtype)


def run(case, dtype, n_threads, **options):
    net, X, y = make(*case, dtype)
    history = fastrna.train(net, X, y, n_threads=n_threads, seed=1, **options)
    return net, X, y, history


@pytest.mark.parametrize("optimizer", [fastrna.SGD(0.001, momentum=0.9), fastrna.Adam()], ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, None])
@pytest.mark.parametrize("case", NETS, ids=lambda case: "-".join(map(str, case[0])))
def test_any_number_of_threads_gives_the_same_bits(dtype, case, batch_size, optimizer):
    sizes, activations, m = case
    case = sizes, activations, min(m, 10 * (batch_size or m) + 1)  # more only takes longer
    options = {"batch_size": batch_size, "epochs": 2, "optimizer": optimizer, "dropout": 0.2}
    options |= {"l1": 1e-4, "l2": 1e-3, "sample_weight": np.linspace(0.5, 2, case[2])}
    net, X, y, history = run(case, dtype, 1, **options)
    predicted, (cost, gradient) = net.predict(X, n_threads=1), net.loss_and_gradient(X, y)
    assert np.isfinite(net.parameters).all()
    for n_threads in (2, 3):
        other, _, _, other_history = run(case, dtype, n_threads, **options)
        np.testing.assert_array_equal(other.parameters, net.parameters)
        np.testing.assert_array_equal(other_history.cost, history.cost)
        np.testing.assert_array_equal(other.predict(X, n_threads=n_threads), predicted)
        other_cost, other_gradient = other.loss_and_gradient(X, y)
        assert other_cost == cost
        np.testing.assert_array_equal(other_gradient, gradient)


@pytest.mark.parametrize("batch_size, options", [(101, {}), (300, {"dropout": 0.2}), (1300, {})])
@pytest.mark.parametrize(
    "sizes", [[4, 10, 3], [8, 64, 64, 1], [601, 397, 233, 3]], ids=lambda s: "-".join(map(str, s))
)
def test_stores_past_the_caches_give_the_same_bits(dtype, sizes, batch_size, options):
    """As where cores are far apart: slices, an example a lane or not, and tasks."""
    net, X, y = make(sizes, {"hidden": "tanh"}, batch_size + 70, dtype)
    expected = None
    for n_threads, past_caches in [(1, False), (2, False), (1, True), (2, True), (3, True)]:
        trainer = fastrna.Trainer(
            net.copy(), optimizer=fastrna.SGD(0.001, momentum=0.9), batch_size=batch_size, seed=0,
            n_threads=n_threads, **options,
        )  # fmt: skip
        data = trainer.prepare(X, y)
        trainer.epoch(data)  # which makes the engine
        trainer._engine.past_caches = past_caches
        costs = [trainer.epoch(data) for _ in range(2)]
        assert trainer._engine.past_caches == past_caches
        found = np.append(trainer.network.parameters, costs)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_size", [7, 700])
def test_sparse_rows_give_the_same_bits(dtype, batch_size):
    sparse = pytest.importorskip("scipy.sparse")
    net, X, y = make([90, 33, 10], {"hidden": "relu", "output": "softmax"}, 700, dtype)
    X = sparse.csr_array(np.where(np.abs(X) > 1.5, X, 0))
    for n_threads in (1, 2, 3):
        other = net.copy()
        fastrna.train(other, X, y, batch_size=batch_size, epochs=2, seed=0, n_threads=n_threads)
        if n_threads == 1:
            expected = other.parameters
        np.testing.assert_array_equal(other.parameters, expected)


@pytest.mark.parametrize("kind", ["as it is", "uint8", "scaled", "strided"])
def test_inputs_of_any_kind_give_the_same_bits(dtype, kind):
    """A pair of threads gathers inputs apart, a larger team or one that converts them together."""
    net, X, y = make([300, 130, 4], {"hidden": "tanh", "output": "softmax"}, 100, dtype)
    if kind == "uint8":
        X = np.abs(X * 50).astype(np.uint8)
    elif kind == "scaled":
        net.scaler = fastrna.Scaler("zscore").fit(X)
    elif kind == "strided":
        X = np.repeat(X, 2, axis=1)[:, ::2]
    options = {"batch_size": 32, "epochs": 2, "optimizer": fastrna.SGD(1e-4)}
    one = net.copy()
    fastrna.train(one, X, y, seed=1, n_threads=1, **options)
    assert not np.array_equal(one.parameters, net.parameters)
    for n_threads in (2, 3):
        other = net.copy()
        fastrna.train(other, X, y, seed=1, n_threads=n_threads, **options)
        np.testing.assert_array_equal(other.parameters, one.parameters)


# Layers in two, four and eight parts; outputs enough to be shared by rows; one layer alone.
LARGE = [
    [300, 512, 512, 10],
    [20, 1100, 300, 40, 3],
    [64, 300, 600],
    [700, 10],
    [16, 64, 64, 64, 2],
]


@pytest.mark.parametrize("batch_size", [1, 3, 100, 257])
@pytest.mark.parametrize("sizes", LARGE, ids=lambda sizes: "-".join(map(str, sizes)))
def test_large_layers_give_the_same_bits(dtype, sizes, batch_size):
    """Enough work a step that threads pay on any machine; teams that parts do not go into."""
    case = (sizes, {"hidden": "relu", "output": "softmax"}, min(600, 10 * batch_size))
    options = {"batch_size": batch_size, "epochs": 2}
    options["optimizer"] = fastrna.SGD(0.001, momentum=0.9)
    one, X, _, history = run(case, dtype, 1, **options)
    for n_threads in (2, 3, 5, 8):
        many, *_, other = run(case, dtype, n_threads, **options)
        np.testing.assert_array_equal(many.parameters, one.parameters)
        np.testing.assert_array_equal(other.cost, history.cost)
        np.testing.assert_array_equal(
            many.predict(X, n_threads=n_threads), one.predict(X, n_threads=1)
        )


@pytest.mark.parametrize("optimizer", [fastrna.SGD(0.01, momentum=0.9), fastrna.Adam()], ids=str)
@pytest.mark.parametrize("batch_size", [1, 20])
def test_calls_one_after_another_give_the_same_bits(dtype, batch_size, optimizer):
    """What each thread has of weights and moments comes together at the end of a call."""
    order = np.arange(60)
    trained = []
    for n_threads in (1, 2, 3):
        net, X, y = make([20, 150, 40, 3], {"hidden": "tanh", "output": "softmax"}, 60, dtype)
        trainer = fastrna.Trainer(
            net, batch_size=batch_size, n_threads=n_threads, optimizer=optimizer
        )
        data = trainer.prepare(X, y)
        for _ in range(3):
            trainer.epoch(data, order)
        trained.append(net.parameters.copy())
    np.testing.assert_array_equal(trained[1], trained[0])
    np.testing.assert_array_equal(trained[2], trained[0])


def test_the_same_seed_gives_the_same_bits(dtype):
    for case in NETS[:3]:
        first, _, _, one = run(case, dtype, None, epochs=3)
        again, _, _, two = run(case, dtype, None, epochs=3)
        np.testing.assert_array_equal(first.parameters, again.parameters)
        np.testing.assert_array_equal(one.cost, two.cost)


def test_another_seed_gives_other_weights_and_another_order():
    first, other = (fastrna.Network([4, 10, 3], seed=s) for s in (0, 1))
    assert not np.array_equal(first.parameters, other.parameters)
    _, X, y = make(*NETS[1], "float32")
    trained = []
    for seed in (0, 1):
        net = fastrna.Network([4, 10, 3], output="softmax", seed=0)
        fastrna.train(net, X, y, epochs=2, seed=seed)
        trained.append(net.parameters)
    assert not np.array_equal(*trained)


def test_no_seed_gives_other_weights_every_time():
    first, other = (fastrna.Network([4, 10, 3]) for _ in range(2))
    assert not np.array_equal(first.parameters, other.parameters)


# ------------------------------------------------------------------------ nothing is allocated


def peak_of(call):
    """Bytes that each call holds at its worst, beyond what there was before.

    The least of three: what a call needs it needs each time, what Python does meanwhile (a
    dictionary that grows, say) but once.
    """
    call()  # the first may fill caches
    gc.collect()
    tracemalloc.start()
    try:
        peaks = []
        for _ in range(3):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            call()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        return min(peaks)
    finally:
        tracemalloc.stop()


# Python's own small change: a float returned, a tuple of arguments. An array of one row of the
# inputs below would be 2 kB at least.
SMALL_CHANGE = 1500


@pytest.mark.parametrize("optimizer", [fastrna.SGD(0.001, momentum=0.9), fastrna.Adam()], ids=str)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 32, None])
def test_an_epoch_allocates_nothing(dtype, batch_size, n_threads, optimizer):
    case = ([512, 600, 300, 10], {"hidden": "tanh", "output": "softmax"}, 100)
    net, X, y = make(*case, dtype)
    trainer = fastrna.Trainer(
        net, batch_size=batch_size, n_threads=n_threads, optimizer=optimizer, dropout=0.1, l2=1e-3
    )
    data, order = trainer.prepare(X, y), np.arange(100)
    assert peak_of(lambda: trainer.epoch(data, order)) < SMALL_CHANGE


def test_the_measure_of_allocation_sees_an_array():
    assert peak_of(lambda: np.ones(300)) > SMALL_CHANGE


def test_a_thousand_steps_allocate_no_more_than_one(dtype):
    net, X, y = make([4, 10, 3], {"output": "softmax"}, 1000, dtype)
    trainer = fastrna.Trainer(net, batch_size=1, n_threads=1)
    data, one, all_of_them = trainer.prepare(X, y), np.arange(1), np.arange(1000)
    single = peak_of(lambda: trainer.epoch(data, one))
    # Numbers are larger, and Python keeps some at hand: but less than a byte a step.
    assert peak_of(lambda: trainer.epoch(data, all_of_them)) < single + 1000


def test_a_prediction_into_an_array_allocates_nothing(dtype):
    net, X, _ = make([512, 600, 10], {"output": "softmax"}, 100, dtype)
    out, row = np.empty((100, 10), dtype), np.empty(10, dtype)
    net.predict_one(X[0], out=row)
    x = X[0]
    assert peak_of(lambda: net.predict_one(x, out=row)) < SMALL_CHANGE
    np.testing.assert_allclose(row, net.predict(X)[0], rtol=1e-5, atol=1e-6)
    assert net.predict(X, out=out) is out
