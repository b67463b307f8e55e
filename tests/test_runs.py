"""A run from outside: history, validation, stopping, callbacks, interruption, progress."""

import faulthandler
import os
import signal
import sys
import threading

import numpy as np
import pytest
from networks import network

import fastrna
from fastrna import reference

# ---------------------------------------------------------------------------------------- history


def test_history(problem):
    X, y = problem
    seen = fastrna.train(network(), X, y, epochs=7, validation=(X[:20], y[:20]))
    assert seen.n_epochs == 7
    assert seen.stopped_by == "epochs"
    for field in ("cost", "validation_cost", "validation_score", "learning_rate", "seconds"):
        values = getattr(seen, field)
        assert isinstance(values, np.ndarray) and values.shape == (7,), field
        assert np.isfinite(values).all(), field
    assert (seen.learning_rate == 0.01).all()
    assert (seen.seconds >= 0).all()
    assert (np.diff(seen.cost) < 0).all()


def test_history_without_validation_has_no_validation(problem):
    seen = fastrna.train(network(), *problem, epochs=3)
    assert seen.cost.shape == (3,)
    assert seen.validation_cost.shape == seen.validation_score.shape == (0,)


def test_the_cost_of_an_epoch_has_the_penalty_and_the_validation_cost_has_not(problem):
    X, y = problem
    net = network(dtype="float64")
    penalised, _ = reference.loss_and_gradient(net, X, y, l1=0.01, l2=0.1)
    assert penalised > reference.loss_and_gradient(net, X, y)[0]
    options = {"batch_size": None, "l1": 0.01, "l2": 0.1, "epochs": 1}
    seen = fastrna.train(net, X, y, validation=(X, y), **options)
    assert seen.cost[0] == pytest.approx(penalised, rel=1e-12)  # before the update it made
    plain, _ = reference.loss_and_gradient(net, X, y)
    assert seen.validation_cost[0] == pytest.approx(plain, rel=1e-12)  # after it


def test_validation_score(rng):
    X = rng.normal(size=(60, 3))
    net = network([3, 4, 3], output="softmax", dtype="float64")
    labels = rng.integers(3, size=60)
    seen = fastrna.train(net, X, labels, epochs=2, validation=(X, labels))
    accuracy = (net.predict(X).argmax(axis=1) == labels).mean()
    assert seen.validation_score[-1] == pytest.approx(accuracy)
    net, y = network([3, 4, 2], dtype="float64"), X[:, :2] + 0.1
    seen = fastrna.train(net, X, y, epochs=2, validation=(X, y))
    residual = ((net.predict(X) - y) ** 2).sum(axis=0)
    determination = 1 - residual / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert seen.validation_score[-1] == pytest.approx(determination.mean(), abs=1e-9)


def test_validation_score_of_numbers_whose_squares_float32_does_not_hold(rng):
    X = rng.normal(size=(60, 3)).astype(np.float32)
    y = rng.normal(size=60).astype(np.float32)
    far = y * np.float32(1e25)
    seen = fastrna.train(network(), X, y, epochs=1, validation=(X, far))
    far = far.astype(float)
    squares = (far**2).sum(), ((far - far.mean()) ** 2).sum()
    assert seen.validation_score[0] == pytest.approx(1 - squares[0] / squares[1], abs=1e-6)


def test_a_fraction_is_held_out(problem):
    X, y = problem
    seen = fastrna.train(network(), X, y, epochs=3, validation=0.25, seed=1)
    assert np.isfinite(seen.validation_cost).all()
    again = fastrna.train(network(), X, y, epochs=3, validation=0.25, seed=1)
    np.testing.assert_array_equal(seen.validation_cost, again.validation_cost)


def test_what_is_held_out_is_not_trained_on(problem):
    """60 of 80 examples are; which, the cost of one that stands out tells."""
    X, y = problem
    steps = fastrna.Trainer(network(), validation=0.25, batch_size=1, seed=1)
    steps.run(X, y, 1)
    assert steps.n_steps == 60
    for place in range(20):
        odd = y.copy()
        odd[place] = 1e4
        seen = fastrna.train(network(), X, odd, epochs=1, validation=0.25, seed=1, batch_size=None)
        assert (seen.cost[0] > 1e4) != (seen.validation_cost[0] > 1e4)


def test_validation_score_of_a_threshold_is_accuracy(rng):
    X, y = rng.normal(size=(60, 3)), rng.integers(2, size=60)
    net = network(output="sigmoid", dtype="float64")
    seen = fastrna.train(net, X, y, epochs=2, validation=(X, y))
    assert seen.validation_score[-1] == ((net.predict(X)[:, 0] > 0.5) == y).mean()


# --------------------------------------------------------------------------------------- stopping


def overfit(rng):
    """Return training and validation data of pure noise: the validation cost soon rises."""
    X, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    return X, y, (rng.normal(size=(50, 3)), rng.normal(size=50))


def test_patience_restores_the_best_parameters(rng, dtype):
    X, y, held_out = overfit(rng)
    options = {"optimizer": fastrna.Adam(0.01), "epochs": 500, "validation": held_out, "seed": 0}
    net, last = network(dtype=dtype), network(dtype=dtype)
    seen = fastrna.train(net, X, y, patience=5, **options)
    assert seen.stopped_by == "patience"
    best = seen.validation_cost.argmin()
    assert seen.n_epochs == best + 1 + 5
    cost, _ = net.loss_and_gradient(*held_out)
    assert cost == pytest.approx(seen.validation_cost[best], rel=1e-5)
    fastrna.train(last, X, y, patience=5, restore_best=False, **options)
    assert last.loss_and_gradient(*held_out)[0] == pytest.approx(seen.validation_cost[-1], rel=1e-5)
    fresh = network(dtype=dtype)
    fastrna.train(fresh, X, y, **(options | {"epochs": int(best) + 1, "validation": None}))
    np.testing.assert_array_equal(net.parameters, fresh.parameters)


def test_callbacks_see_every_epoch_and_may_stop(problem):
    seen = []

    def callback(*arguments, **named):
        seen.append((arguments, named))
        return len(seen) == 4

    history = fastrna.train(network(), *problem, epochs=10, callbacks=[callback])
    assert history.stopped_by == "callback"
    assert history.n_epochs == len(seen) == 4


def test_what_numpy_calls_true_stops_as_well(problem):
    stop = fastrna.train(network(), *problem, epochs=5, callbacks=[lambda _, h: h.cost[-1] < 1e9])
    assert stop.stopped_by == "callback" and stop.n_epochs == 1


def test_an_interrupt_while_it_validates_leaves_one_entry_an_epoch(problem):
    class Interrupting(fastrna.Trainer):
        def evaluate(self, data):
            if self.n_epochs == 3:
                raise KeyboardInterrupt
            return super().evaluate(data)

    seen = Interrupting(network(), validation=problem).run(*problem, 5)
    assert seen.stopped_by == "interrupt"
    assert len(seen.cost) == len(seen.validation_cost) == len(seen.validation_score) == 3
    assert np.isnan(seen.validation_cost[-1]) and np.isfinite(seen.validation_cost[:-1]).all()


def test_epochs_beyond_those_of_one_call(problem):
    """More than would be allocated at once: the target cost is reached long before."""
    net = network((3, 1), dtype="float64")
    seen = fastrna.train(net, *problem, epochs=2**70, target_cost=1e9)
    assert seen.stopped_by == "target_cost" and seen.n_epochs == 1
    one, other = (fastrna.Network([1, 1], dtype="float64", init="zeros") for _ in range(2))
    options = {"optimizer": fastrna.SGD(0.1, momentum=0.9), "seed": 0}
    history = fastrna.train(one, [[1.0], [2.0]], [1.0, 3.0], epochs=70_000, **options)
    trainer = fastrna.Trainer(other, **options)
    costs = [trainer.run([[1.0], [2.0]], [1.0, 3.0], 35_000).cost for _ in range(2)]
    np.testing.assert_array_equal(history.cost, np.concatenate(costs))


def test_a_callback_that_returns_nothing_stops_nothing(problem):
    calls = []
    callbacks = [lambda *_: calls.append("first"), lambda *_: calls.append("second")]
    history = fastrna.train(network(), *problem, epochs=3, callbacks=callbacks)
    assert history.stopped_by == "epochs"
    assert calls == ["first", "second"] * 3


def test_a_callback_that_returns_an_array_is_told_so(problem):
    with pytest.raises(TypeError, match="callback returned an object of type ndarray"):
        fastrna.train(network(), *problem, epochs=3, callbacks=[lambda *_: np.ones(2)])


def test_an_exception_in_a_callback_is_the_callers(problem):
    def callback(*_):
        raise KeyError("mine")

    net = network()
    with pytest.raises(KeyError, match="mine"):
        fastrna.train(net, *problem, epochs=3, callbacks=[callback])
    assert np.isfinite(net.parameters).all()


# ----------------------------------------------------------------------------------- interruption


needs_alarm = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no alarm")


def interrupted(trainer, call, number=signal.SIGINT):
    """Make the call, and send this process a signal once the trainer's epochs are under way.

    A call that does not heed it cannot be broken off: after a minute the whole run ends.
    """

    def interrupt():
        while trainer.n_steps < 100 and not done.wait(0.01):
            pass
        if not done.wait(0.2):
            os.kill(os.getpid(), number)

    done, sender = threading.Event(), threading.Thread(target=interrupt)
    # A process that was started in the background ignores it unless told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender.start()
    faulthandler.dump_traceback_later(60, exit=True)
    try:
        result = call()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return result
    finally:
        faulthandler.cancel_dump_traceback_later()
        done.set()
        sender.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_stops_between_mini_batches(rng):
    X, y = rng.normal(size=(500, 32)), rng.normal(size=500)
    net = network([32, 64, 1])
    trainer = fastrna.Trainer(net, seed=0)
    history = interrupted(trainer, lambda: trainer.run(X, y, epochs=10**7))
    assert history.stopped_by == "interrupt"
    assert history.n_epochs == len(history.cost) > 0
    assert np.isfinite(net.parameters).all()
    again = fastrna.train(net, X, y, epochs=2)  # and nothing is left over for the next run
    assert again.stopped_by == "epochs"


def test_an_interrupt_does_not_wait_for_the_epoch(rng):
    """An epoch here takes minutes."""
    X, y = np.broadcast_to(rng.normal(size=64), (10**7, 64)), np.broadcast_to(1.0, (10**7,))
    net = network([64, 256, 1])
    trainer = fastrna.Trainer(net, batch_size=1, shuffle=False)
    history = interrupted(trainer, lambda: trainer.run(X, y, epochs=1))
    assert history.stopped_by == "interrupt"
    assert np.isfinite(net.parameters).all()


@needs_alarm
def test_what_a_signals_handler_raises_is_the_callers(rng):
    """The epochs that it interrupts count, and the network holds what they made of it."""

    class Alarm(Exception):
        pass

    def handler(*_):
        seen.append(np.float32(1e-40) * np.float32(1))  # no longer 0, as within the engine
        raise Alarm

    X, y, seen = rng.normal(size=(500, 32)), rng.normal(size=500), []
    trainer = fastrna.Trainer(network([32, 64, 1]), seed=0)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Alarm):
            interrupted(trainer, lambda: trainer.run(X, y, epochs=10**7), signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [np.float32(1e-40)]
    assert trainer.n_epochs > 0 and 0 <= trainer.n_steps - 16 * trainer.n_epochs <= 16
    assert trainer.run(X, y, epochs=2).stopped_by == "epochs"


@needs_alarm
def test_one_call_of_a_trainer_at_a_time(rng):
    """Of another thread, or of a signal's handler within a call of the same thread."""
    X, y = rng.normal(size=(500, 32)), rng.normal(size=500)
    trainer = fastrna.Trainer(network([32, 64, 1]), seed=0)
    data = trainer.prepare(X, y)

    def handler(*_):
        trainer.epoch(data)

    def meanwhile():
        while trainer.n_steps == 0:
            pass
        try:
            trainer.epoch(data)
        except RuntimeError as error:
            refused.append(error)

    before, refused = signal.signal(signal.SIGALRM, handler), []
    other = threading.Thread(target=meanwhile)
    other.start()
    try:
        with pytest.raises(RuntimeError, match="The trainer is in use by another call"):
            interrupted(trainer, lambda: trainer.run(X, y, epochs=10**7), signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
        other.join()
    assert len(refused) == 1
    assert trainer.epoch(data) > 0


@needs_alarm
def test_an_interrupt_at_any_moment_leaves_the_trainer_free(rng):
    """Also between the taking of the trainer and its epoch; some of so many hit that moment."""
    trainer = fastrna.Trainer(network([1, 1]), optimizer=fastrna.SGD(1e-9))
    data = trainer.prepare(*rng.normal(size=(2, 2, 1)))
    before, interrupts = signal.signal(signal.SIGALRM, signal.default_int_handler), 0
    try:
        for delay in rng.uniform(1e-5, 5e-5, size=5000):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    trainer.epoch(data)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts == 5000


def test_training_outside_the_main_thread(problem):
    """Signals belong to the main thread; any other trains without them."""
    results = []
    thread = threading.Thread(
        target=lambda: results.append(fastrna.train(network(), *problem, epochs=3))
    )
    thread.start()
    thread.join()
    assert results[0].stopped_by == "epochs"


# --------------------------------------------------------------------------------------- progress


def test_progress_is_silent_unless_asked_for(problem, capfd):
    pytest.importorskip("tqdm")
    fastrna.train(network(), *problem, epochs=3)
    assert capfd.readouterr() == ("", "")
    fastrna.train(network(), *problem, epochs=3, progress=True)
    assert "3/3" in capfd.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_without_tqdm_is_a_line_on_a_terminal(problem, monkeypatch, capsys, terminal):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    seen = fastrna.train(network(), *problem, epochs=2, progress=True)
    shown = capsys.readouterr().err
    if terminal:
        assert f"epoch 2/2  cost {seen.cost[-1]:.4g}" in shown and shown.endswith("\n")
    else:
        assert shown == ""


def test_an_interrupt_after_the_best_epoch_restores_it(problem):
    """The network has a part of the next epoch then."""
    net, held = network(), network()
    trainer = fastrna.Trainer(net, validation=0.3, seed=0, callbacks=[lambda *_: calls.append(1)])
    calls, epoch = [], trainer._descend

    def interrupted_epoch(data, X, rates):
        if len(calls) == 2:
            net.parameters[:] = 7
            raise KeyboardInterrupt
        return epoch(data, X, rates)

    trainer._descend = interrupted_epoch
    history = trainer.run(*problem, 10)
    assert history.stopped_by == "interrupt" and history.validation_cost.argmin() == 1
    fastrna.train(held, *problem, validation=0.3, seed=0, epochs=2)
    np.testing.assert_array_equal(net.parameters, held.parameters)


def test_an_interrupt_between_two_columns_leaves_one_entry_an_epoch(problem, monkeypatch):
    extend, calls = fastrna.History._extend, []

    def interrupted_extend(self, **entries):
        calls.append(entries)
        if len(calls) == 5:  # of the third epoch, whose cost is there
            extend(self, cost=entries["cost"])
            raise KeyboardInterrupt
        extend(self, **entries)

    monkeypatch.setattr(fastrna.History, "_extend", interrupted_extend)
    seen = fastrna.train(network(), *problem, epochs=9, seed=0, validation=0.3)
    columns = seen.cost, seen.seconds, seen.learning_rate, seen.validation_cost
    assert [len(column) for column in columns] == [3] * 4
    assert np.isfinite(seen.cost).all() and np.isnan(seen.validation_cost[2])


@needs_alarm
def test_an_optimizer_is_not_exchanged_under_way(rng):
    X, y = rng.normal(size=(500, 32)), rng.normal(size=500)
    trainer = fastrna.Trainer(network([32, 64, 1]), optimizer=fastrna.SGD(0.01), seed=0)

    def exchange(*_):
        trainer.optimizer = fastrna.Adam()

    before = signal.signal(signal.SIGALRM, exchange)
    try:
        with pytest.raises(RuntimeError, match="The trainer is in use by another call"):
            interrupted(trainer, lambda: trainer.run(X, y, epochs=10**7), signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert trainer.optimizer == fastrna.SGD(0.01)
