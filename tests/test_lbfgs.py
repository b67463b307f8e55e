"""L-BFGS through the public interface: what it finds, what stops it, what it leaves behind."""

import numpy as np
import pytest

import fastrna

pytest.importorskip("scipy")


@pytest.fixture
def line(rng):
    """Return X (80, 3) and y (80,), nearly a plane."""
    X = rng.normal(size=(80, 3))
    return X, X @ [1.0, -2.0, 0.5] + 3 + 0.1 * rng.normal(size=80)


@pytest.fixture
def noise(rng):
    """Return training and validation data of pure noise: the validation cost soon rises."""
    X, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    return X, y, (rng.normal(size=(50, 3)), rng.normal(size=50))


def network(sizes=(3, 16, 1), dtype="float32"):
    return fastrna.Network(list(sizes), hidden="tanh", dtype=dtype, seed=0)


def train(net, X, y, **options):
    return fastrna.train(net, X, y, optimizer=fastrna.LBFGS(), **({"epochs": 100} | options))


def test_it_finds_the_least_squares(line, dtype):
    """For a float32 network to the digits that its parameters have."""
    X, y = line
    net = network([3, 1], dtype)
    history = fastrna.train(net, X, y, optimizer=fastrna.LBFGS(tolerance=1e-10), epochs=100)
    expected = np.linalg.lstsq(np.c_[X, np.ones(80)], y, rcond=None)[0]
    np.testing.assert_allclose(net.parameters, expected, rtol=3e-7)
    assert history.cost[-1] == pytest.approx(net.loss_and_gradient(X, y)[0], rel=1e-5)
    assert history.stopped_by == "patience"  # before the 100 epochs: there is nothing better
    assert (np.diff(history.cost) <= 0).all()


def test_weights_classes_and_penalties_count(rng):
    X, y = rng.normal(size=(40, 3)), rng.integers(3, size=40)
    w = rng.uniform(0.5, 2, 40)
    options = {"class_weight": {0: 1.0, 1: 2.0, 2: 5.0}, "sample_weight": w, "l2": 0.01}
    net = fastrna.Network([3, 3], output="softmax", seed=0)
    history = train(net, X, y, **options)
    total = w * np.array([1.0, 2.0, 5.0])[y]
    cost, gradient = net.loss_and_gradient(X, y, sample_weight=total, l2=0.01)
    assert history.cost[-1] == pytest.approx(cost, rel=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_target_cost_callbacks_and_patience_stop_it(noise):
    X, y, held_out = noise
    assert train(network(), X, y, target_cost=0.2).stopped_by == "target_cost"
    seen = []
    stop = train(
        network(), X, y, callbacks=[lambda _, h: seen.append(h.n_epochs) or len(seen) == 3]
    )
    assert stop.stopped_by == "callback" and seen == [1, 2, 3] and stop.n_epochs == 3
    net = network(dtype="float64")
    history = train(net, X, y, validation=held_out, patience=4, epochs=1000)
    best = history.validation_cost.argmin()
    assert history.stopped_by == "patience" and history.n_epochs == best + 1 + 4
    cost, _ = net.loss_and_gradient(*held_out)  # of the best parameters, which are back
    assert cost == pytest.approx(history.validation_cost[best], rel=1e-12)


@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_an_interrupt_leaves_what_was_accepted(noise, dtype, at):
    """Wherever it comes, in a line search too."""
    X, y, _ = noise
    accepted = []
    net = network(dtype=dtype)

    def remember(trainer, history):
        accepted.append(trainer.network.parameters.copy())
        if history.n_epochs == at:
            raise KeyboardInterrupt

    history = train(net, X, y, callbacks=[remember])
    assert history.stopped_by == "interrupt"
    np.testing.assert_array_equal(net.parameters, accepted[-1])


def test_an_error_in_a_line_search_leaves_what_was_accepted():
    from fastrna.lbfgs import minimise

    net, calls = fastrna.Network([1, 1], dtype="float64", init="zeros"), []

    def cost(w):
        net.parameters = w  # a trial, as where the network itself evaluates
        calls.append(w)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return float(((w - 3) ** 4).sum()), 4 * (w - 3) ** 3

    with pytest.raises(KeyboardInterrupt):
        minimise(net, cost, lambda cost: False)
    np.testing.assert_array_equal(net.parameters, 0)


def test_it_turns_back_from_a_cost_that_is_not_finite(rng):
    """Poisson's cost of a long step overflows."""
    X = rng.uniform(0, 10, size=(50, 1))
    y = np.exp(0.5 * X[:, 0])
    net = fastrna.Network([1, 1], output="exp", dtype="float64", init="zeros")
    history = train(net, X, y)
    assert np.isfinite(history.cost).all()
    np.testing.assert_allclose(net.parameters, [0.5, 0.0], atol=1e-3)


def test_a_start_that_is_not_finite_is_refused(line):
    net = fastrna.Network([3, 1], output="exp", dtype="float64", init="zeros")
    net.biases[0][:] = 800
    before = net.parameters.copy()
    with pytest.raises(fastrna.DivergenceError, match="not finite at the start"):
        train(net, line[0], np.ones(80))
    np.testing.assert_array_equal(net.parameters, before)


def test_it_has_neither_epochs_nor_steps_of_mini_batches(line):
    trainer = fastrna.Trainer(network(), optimizer="lbfgs")
    for call in (lambda: trainer.step(*line), lambda: trainer.epoch(trainer.prepare(*line))):
        with pytest.raises(TypeError, match="optimizer is LBFGS, which has no"):
            call()


def test_its_state_is_plain_and_comes_back(line):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.LBFGS(history_size=7))
    trainer.run(*line, 2)
    other = fastrna.Trainer(network())
    other.set_state(trainer.state())
    assert other.optimizer == fastrna.LBFGS(history_size=7) and other.n_epochs == 2


def test_a_callback_that_raises_what_stops_scipy(line):
    def stop(trainer, history):
        raise StopIteration("mine")

    trainer = fastrna.Trainer(network(), optimizer="lbfgs", callbacks=[stop])
    with pytest.raises(StopIteration, match="mine"):
        trainer.run(*line, 5)


def test_numbers_that_the_network_does_not_hold(line):
    """Its costs are of float64, which does."""
    X, y = line
    for inputs, targets, word in ((X, np.full(80, 1e39), "y has"), (X * 1e39, y, "X has")):
        net = network(dtype="float32")
        with pytest.raises(ValueError, match=f"{word}.*beyond the range of float32"):
            train(net, inputs, targets)
