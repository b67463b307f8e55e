"""Trainers that are saved, copied or put back: they go on exactly."""

import copy
import pickle

import numpy as np
import pytest
from networks import network

import fastrna


def test_a_checkpoint_is_the_trainer_after_its_last_epoch(problem, tmp_path):
    path, net = tmp_path / "checkpoint.npz", network()
    fastrna.train(net, *problem, epochs=3, seed=0, checkpoint=path)
    resumed = fastrna.Trainer.load(path)
    np.testing.assert_array_equal(resumed.network.parameters, net.parameters)
    assert resumed.n_epochs == 3
    resumed.run(*problem, 2)
    whole = network()
    fastrna.train(whole, *problem, epochs=5, seed=0)
    np.testing.assert_array_equal(resumed.network.parameters, whole.parameters)


def test_a_checkpoint_knows_what_the_callbacks_did(problem, tmp_path):
    def halve(trainer, _):
        trainer.learning_rate /= 2

    path = tmp_path / "checkpoint.npz"
    fastrna.train(
        network(),
        *problem,
        optimizer=fastrna.SGD(0.1),
        epochs=3,
        callbacks=[halve],
        checkpoint=path,
    )
    assert fastrna.Trainer.load(path).learning_rate == 0.0125


def test_what_is_held_out_is_held_out_after_a_resume(problem, tmp_path):
    options = {"validation": 0.25, "patience": 500, "restore_best": False, "seed": 1}
    whole, half = network(), network()
    expected = fastrna.Trainer(whole, **options).run(*problem, 6)
    trainer = fastrna.Trainer(half, **options)
    trainer.run(*problem, 3)
    trainer.save(tmp_path / "trainer.npz")
    resumed = fastrna.Trainer.load(tmp_path / "trainer.npz")
    seen = resumed.run(*problem, 3)
    np.testing.assert_array_equal(resumed.network.parameters, whole.parameters)
    np.testing.assert_array_equal(seen.validation_cost, expected.validation_cost[3:])


def test_patience_without_its_validation_examples_is_refused_when_resumed(problem, tmp_path):
    trainer = fastrna.Trainer(network(), validation=problem, patience=3)
    trainer.run(*problem, 1)
    trainer.save(tmp_path / "trainer.npz")
    resumed = fastrna.Trainer.load(tmp_path / "trainer.npz")
    with pytest.raises(ValueError, match="patience is 3 without validation"):
        resumed.run(*problem, 1)
    resumed.validation = problem
    assert len(resumed.run(*problem, 2).validation_cost) == 2


def test_a_pickled_or_copied_trainer_goes_on_alike(problem):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.Adam(0.01), dropout=0.1, seed=3)
    trainer.run(*problem, 2)
    twins = [pickle.loads(pickle.dumps(trainer)), copy.deepcopy(trainer)]
    trainer.run(*problem, 2)
    for twin in twins:
        twin.run(*problem, 2)
        np.testing.assert_array_equal(twin.network.parameters, trainer.network.parameters)
        assert twin.n_epochs == 4 and twin.n_steps == trainer.n_steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["options"].update(n_threads=-4), "n_threads is -4"),
        (lambda state: state["options"].update(l2=-3.0), "l2 is -3.0"),
        (lambda state: state["options"].update(dropout=7.0), "dropout is 7.0"),
        (lambda state: state["options"].update(batch_size=0), "batch_size is 0"),
        (lambda state: state.update(n_epochs=-1), "n_epochs is -1"),
        (lambda state: state.update(loss=("log_loss", None)), "loss 'log_loss'"),
        (lambda state: state.update(first_moment=np.zeros(3)), r"moments of shape \(3,\)"),
        (lambda state: state["optimizer"].update(learning_rate=0.0), "learning_rate is 0.0"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(problem, change, message):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.SGD(0.1, momentum=0.9), seed=0)
    trainer.run(*problem, 1)
    state, before = trainer.state(), trainer.state()
    state["options"], state["optimizer"] = dict(state["options"]), dict(state["optimizer"])
    change(state)
    with pytest.raises(ValueError, match=message):
        trainer.set_state(state)
    after = trainer.state()
    moments = [(s.pop("first_moment"), s.pop("second_moment")) for s in (before, after)]
    np.testing.assert_array_equal(moments[0][0], moments[1][0])
    assert before == after


def test_state_resumes_exactly(dtype, problem):
    X, y = problem
    options = {"optimizer": fastrna.Adam(0.01), "dropout": 0.1, "seed": 4}
    net, other = network(dtype=dtype), network(dtype=dtype, seed=99)
    trainer, second = fastrna.Trainer(net, **options), fastrna.Trainer(other, **options)
    trainer.run(X, y, 2)
    other.parameters[:] = net.parameters
    second.set_state(trainer.state())
    trainer.run(X, y, 3)
    second.run(X, y, 3)
    np.testing.assert_array_equal(net.parameters, other.parameters)
    assert trainer.n_steps == second.n_steps


def test_patience_and_the_best_epoch_are_resumed(rng, tmp_path):
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    options = {
        "optimizer": fastrna.SGD(0.1, momentum=0.9),
        "validation": 0.3,
        "patience": 15,
        "seed": 1,
    }
    whole = network()
    expected = fastrna.train(whole, X, y, epochs=500, **options)
    assert expected.stopped_by == "patience"
    best = int(expected.validation_cost.argmin())
    for epochs in best + 1, best + 8:  # the best epoch is the last, or lies behind
        path = tmp_path / f"{epochs}.npz"
        fastrna.train(network(), X, y, epochs=epochs, checkpoint=path, **options)
        resumed = fastrna.Trainer.load(path)
        seen = resumed.run(X, y, 500)
        assert epochs + seen.n_epochs == expected.n_epochs
        np.testing.assert_array_equal(resumed.network.parameters, whole.parameters)
        assert resumed.state()["best"] is None  # a run that is over is not gone on with


def test_a_run_that_failed_is_not_gone_on_with(problem):
    def fail(trainer, history):
        assert trainer.state()["best"]["parameters"].size == trainer.network.n_parameters
        raise LookupError

    trainer = fastrna.Trainer(network(), validation=0.3, seed=0, callbacks=[fail])
    with pytest.raises(LookupError):
        trainer.run(*problem, 3)
    assert trainer.state()["best"] is None


def test_without_a_seed_what_is_held_out_stays_held_out(problem, tmp_path):
    trainer = fastrna.Trainer(network(), validation=0.3, restore_best=False, shuffle=False)
    trainer.run(*problem, 3)
    trainer.save(tmp_path / "trainer.npz")
    resumed = fastrna.Trainer.load(tmp_path / "trainer.npz")
    np.testing.assert_array_equal(trainer.run(*problem, 3).cost, resumed.run(*problem, 3).cost)


def test_a_state_is_the_trainers_own(problem):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.Adam(0.01), seed=0)
    trainer.run(*problem, 1)
    state = trainer.state()
    trainer.set_state(state)
    state["first_moment"][:] = 1e9
    assert np.abs(trainer.state()["first_moment"]).max() < 1e3


def test_the_best_epoch_of_a_checkpoint_is_not_put_back_over_later_ones(rng, tmp_path):
    """Where the examples to validate on are not given again."""
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    options = {"optimizer": fastrna.SGD(0.1, momentum=0.9), "seed": 1}
    path = tmp_path / "checkpoint.npz"
    fastrna.train(
        network(), X, y, epochs=30, checkpoint=path, validation=(X[:9], -y[:9]), **options
    )
    nets = []
    for callbacks in [], [lambda *_: None]:
        trainer = fastrna.Trainer.load(path)
        assert trainer.state()["best"] is not None
        trainer.callbacks = callbacks
        trainer.run(X, y, 20)
        assert trainer.state()["best"] is None
        trainer.run(X, y, 1)
        nets.append(trainer.network.parameters)
    np.testing.assert_array_equal(*nets)
    with pytest.raises(TypeError, match="callbacks is 3; expected a list of callables"):
        trainer.callbacks = 3


def test_a_run_within_a_run_leaves_its_best_epoch(problem):
    seen = []

    def run_another(trainer, history):
        if not seen:
            seen.append(None)
            trainer.run(*problem, 1)
        seen.append(trainer.state()["best"]["cost"])

    trainer = fastrna.Trainer(network(), validation=0.3, seed=0, callbacks=[run_another])
    history = trainer.run(*problem, 3)
    assert seen[-1] == history.validation_cost.min()


def test_masks_go_on_where_the_optimizer_begins_anew(problem):
    trainer = fastrna.Trainer(network(), optimizer=fastrna.SGD(0.1), dropout=0.5, seed=0)
    start = trainer.network.parameters.copy()
    updates = []
    for _ in range(2):
        trainer.network.parameters = start
        trainer.step(*problem)
        updates.append(trainer.network.parameters - start)
        trainer.optimizer = "adam"
        trainer.optimizer = fastrna.SGD(0.1)
    assert not np.array_equal(*updates)


def test_a_trainer_whose_scaler_does_not_fit_is_not_saved(problem, tmp_path):
    net, path = network(), tmp_path / "trainer.npz"
    net.scaler = fastrna.Scaler("max").fit(problem[0])
    trainer = fastrna.Trainer(net)
    trainer.save(path)
    net.scaler.fit(problem[0][:, :2])
    with pytest.raises(ValueError, match="scaler was fitted on 2 columns"):
        trainer.save(path)
    assert fastrna.Trainer.load(path).network.scaler.scale_.size == 3
