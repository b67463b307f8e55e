"""What the estimators have beside scikit-learn's interface, and when training diverges."""

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import scipy.sparse
import sklearn.neural_network as theirs
from estimators import BOTH, parameters_of, small
from sklearn import datasets
from sklearn.metrics import log_loss, r2_score
from sklearn.utils import compute_sample_weight

import fastrna
from fastrna import MLPRegressor

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Most trainings here are a few epochs long.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.mark.parametrize(
    "activation",
    ["leaky_relu", "elu", "softplus", "gelu", "silu", "sigmoid", ("leaky_relu", 0.3), ("elu", 2.0)],
)
def test_activations(activation, wine):
    model = small(activation=activation, max_iter=200, learning_rate_init=0.02).fit(*wine)
    assert model.score(*wine) > 0.9


def test_activation_of_every_layer(wine):
    model = small(hidden_layer_sizes=(5, 4, 3), activation=["tanh", ("elu", 0.5), "logistic"])
    net = model.fit(*wine).to_network()
    assert [name for name, _ in net.activations] == ["tanh", "elu", "sigmoid", "softmax"]
    assert net.activations[1] == ("elu", 0.5)
    # The fitted network stays what it is whatever the parameters say afterwards.
    expected = model.predict_proba(wine[0])
    model.set_params(activation="relu")
    np.testing.assert_array_equal(model.predict_proba(wine[0]), expected)
    np.testing.assert_array_equal(copy.copy(model).predict_proba(wine[0]), expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": ["relu"], "hidden_layer_sizes": (3, 3)}, "activation lists 1 function"),
        ({"activation": ["relu", "sin"], "hidden_layer_sizes": (3, 3)}, "activation names 'sin'"),
        ({"activation": "sin"}, "'activation' parameter"),
        ({"dropout": 1.0}, "'dropout' parameter"),
        ({"dropout": 0.5, "solver": "lbfgs"}, "dropout is 0.5, but solver is 'lbfgs'"),
        ({"input_scaling": "robust"}, "'input_scaling' parameter"),
        ({"scorer": "beauty"}, "'scorer' parameter"),
        ({"class_weight": "fair"}, "'class_weight' parameter"),
        ({"class_weight": [{0: 1}]}, "class_weight is a list"),
        ({"n_threads": 0}, "'n_threads' parameter"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes must be > 0"),
    ],
)
def test_refuses(parameters, message, wine):
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(*wine)


def test_warm_start_of_another_shape(wine):
    model = small(warm_start=True).fit(*wine)
    with pytest.raises(ValueError, match="the network to go on with has layers of"):
        model.set_params(hidden_layer_sizes=7).fit(*wine)


@BOTH
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_dropout(Estimator, solver, wine):
    """Seeded, and the same for any number of threads."""
    runs = [
        small(Estimator, solver=solver, dropout=0.3, n_threads=n).fit(*wine) for n in (1, 1, 2, 3)
    ]
    for other in runs[1:]:
        np.testing.assert_array_equal(parameters_of(other), parameters_of(runs[0]))
    for other in (small(Estimator, solver=solver), small(Estimator, dropout=0.3, random_state=1)):
        assert not np.allclose(parameters_of(other.fit(*wine)), parameters_of(runs[0]))


class TestClassWeight:
    """As `sample_weight`, by label."""

    def test_dictionary(self, wine):
        X, y = wine
        weights = np.array([1.0, 5.0, 0.5])
        a = small(class_weight={1: 5.0, 2: 0.5}).fit(X, y)
        b = small().fit(X, y, sample_weight=weights[y])
        np.testing.assert_array_equal(parameters_of(a), parameters_of(b))

    def test_balanced(self, wine):
        X, y = wine
        weights = len(y) / (3 * np.bincount(y))
        a = small(class_weight="balanced").fit(X, y)
        b = small().fit(X, y, sample_weight=weights[y])
        np.testing.assert_allclose(parameters_of(a), parameters_of(b), rtol=1e-12)

    def test_balanced_counts_weights(self, wine):
        """An example of weight 2 counts as two examples."""
        X, y = wine
        weights = 1 + (y == 1)
        twice = np.repeat(np.arange(len(y)), weights)
        a = small(class_weight="balanced", solver="lbfgs", max_iter=3).fit(X, y, weights)
        b = small(class_weight="balanced", solver="lbfgs", max_iter=3).fit(X[twice], y[twice])
        np.testing.assert_allclose(parameters_of(a), parameters_of(b), rtol=1e-6)

    def test_times_sample_weight(self, wine):
        X, y = wine
        given = np.linspace(0.5, 1.5, len(y))
        a = small(class_weight={0: 3.0}).fit(X, y, given)
        b = small().fit(X, y, given * np.where(y == 0, 3.0, 1.0))
        np.testing.assert_array_equal(parameters_of(a), parameters_of(b))

    def test_of_strings_in_parts(self, wine):
        X, y = wine
        names = np.array(["a", "b", "c"])[y]
        a, b = small(class_weight={"b": 4.0}), small()
        a.partial_fit(X, names, classes=["a", "b", "c"])
        b.partial_fit(X, names, np.where(y == 1, 4.0, 1.0), classes=["a", "b", "c"])
        np.testing.assert_array_equal(parameters_of(a), parameters_of(b))
        with pytest.raises(ValueError, match="class_weight is 'balanced'"):
            small(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])

    def test_of_labels(self):
        X, Y = datasets.make_multilabel_classification(50, n_classes=2, random_state=0)
        a = small(class_weight=[{0: 1, 1: 2}, {0: 1, 1: 3}]).fit(X, Y)
        b = small().fit(X, Y, np.where(Y[:, 0], 2.0, 1.0) * np.where(Y[:, 1], 3.0, 1.0))
        np.testing.assert_array_equal(parameters_of(a), parameters_of(b))

    def test_moves_the_boundary(self):
        X, y = datasets.make_classification(400, weights=[0.95], flip_y=0.1, random_state=0)
        found = [
            small(class_weight=w, max_iter=30).fit(X, y).predict(X).sum()
            for w in (None, "balanced")
        ]
        assert found[1] > 2 * found[0]


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantile(q):
    rng = np.random.RandomState(0)
    X, y = np.zeros((2000, 1)), rng.exponential(size=2000)
    model = MLPRegressor(
        ("quantile", q), 2, learning_rate_init=0.01, max_iter=60, alpha=0, random_state=0
    ).fit(X, y)
    assert np.mean(y <= model.predict(X[:1])[0]) == pytest.approx(q, abs=0.03)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", ("huber", 0.1)])
def test_robust_losses(loss):
    """One wild target in ten hardly moves them."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (400, 2))
    clean = X @ [1.0, -2.0]
    y = np.where(rng.uniform(size=400) < 0.1, 30.0, clean)
    fit = {"hidden_layer_sizes": 10, "max_iter": 300, "learning_rate_init": 0.01, "random_state": 0}
    robust = MLPRegressor(loss, **fit).fit(X, y)
    squared = MLPRegressor(**fit).fit(X, y)
    assert r2_score(clean, robust.predict(X)) > 0.8 > r2_score(clean, squared.predict(X))


@pytest.mark.parametrize("loss", ["hinge", ("quantile", "a"), ("poisson", 1.0), ("huber",)])
def test_refuses_losses(loss, wine):
    with pytest.raises(ValueError, match="loss"):
        small(MLPRegressor, loss=loss).fit(*wine)


def test_refuses_negative_counts(wine):
    with pytest.raises(ValueError, match="negative"):
        small(MLPRegressor, loss="poisson").fit(wine[0], wine[1] - 1.0)


class TestValidation:
    """Held-out examples, given or set aside."""

    def test_curves(self, parts):
        X, Xv, y, yv = parts
        model = small(max_iter=8).fit(X, y, validation_data=(Xv, yv))
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 8
        assert model.validation_loss_curve_[-1] == pytest.approx(
            log_loss(yv, model.predict_proba(Xv))
        )
        assert model.validation_scores_[-1] == pytest.approx(model.score(Xv, yv))
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert all(type(score) is float for score in model.validation_scores_)
        # They are looked at, and change nothing.
        alone = small(max_iter=8).fit(X, y)
        np.testing.assert_array_equal(parameters_of(model), parameters_of(alone))
        assert model.best_loss_ == min(model.loss_curve_)

    @pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
    def test_every_solver(self, solver, parts):
        X, Xv, y, yv = parts
        model = small(MLPRegressor, solver=solver).fit(X, y, validation_data=[Xv, yv])
        assert len(model.validation_loss_curve_) == len(model.loss_curve_) == model.n_iter_
        assert model.validation_scores_[-1] == pytest.approx(r2_score(yv, model.predict(Xv)))

    @BOTH
    def test_early_stopping_on_given_data(self, Estimator, parts):
        X, Xv, y, yv = parts
        model = small(
            Estimator,
            early_stopping=True,
            max_iter=500,
            n_iter_no_change=5,
            learning_rate_init=0.01,
        ).fit(X, y, validation_data=(Xv, yv))
        assert model.n_iter_ < 500
        assert model.score(Xv, yv) == pytest.approx(model.best_validation_score_)
        # None of X is set aside.
        assert model.t_ == model.n_iter_ * len(X)

    def test_set_aside(self, wine):
        model = small(early_stopping=True, max_iter=4).fit(*wine)
        assert len(model.validation_loss_curve_) == 4
        assert model.t_ == 4 * 160
        model = small(max_iter=4).fit(*wine)
        assert model.validation_loss_curve_ is None

    def test_weights(self, parts):
        X, Xv, y, yv = parts
        weights = np.linspace(0, 1, len(yv))
        model = small().fit(X, y, validation_data=(Xv, yv, weights))
        assert model.validation_scores_[-1] == pytest.approx(model.score(Xv, yv, weights))
        assert model.validation_loss_curve_[-1] == pytest.approx(
            log_loss(yv, model.predict_proba(Xv), sample_weight=weights)
        )

    def test_several_outputs(self):
        X, Y = datasets.make_regression(60, 5, n_targets=3, random_state=0)
        Y /= 100
        model = small(MLPRegressor).fit(X, Y, validation_data=(X, Y))
        assert model.validation_scores_[-1] == pytest.approx(r2_score(Y, model.predict(X)))
        X, Y = datasets.make_multilabel_classification(60, random_state=0)
        model = small().fit(X, Y, validation_data=(X, Y))
        assert model.validation_scores_[-1] == pytest.approx(model.score(X, Y))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("Xy", "validation_data must be a pair"),
            (([[0.0]], [1]), "features"),
            ((np.zeros((1, 13)), [9]), "has classes not in"),
            ((np.zeros((2, 13)), [[0, 1], [1, 0]]), "`y` has shape"),
        ],
    )
    def test_refuses(self, data, message, wine):
        with pytest.raises(ValueError, match=message):
            small().fit(*wine, validation_data=data)

    def test_refuses_other_outputs(self, wine):
        with pytest.raises(ValueError, match="validation_data has targets of shape"):
            small(MLPRegressor).fit(*wine, validation_data=(wine[0][:2], np.zeros((2, 2))))

    def test_named_columns(self, wine):
        """Names are kept from the data to the scorer, and no warning is given."""
        frames = pytest.importorskip("pandas")
        X = frames.DataFrame(wine[0], columns=[f"c{i}" for i in range(13)])
        model = small(early_stopping=True, scorer="accuracy").fit(X, wine[1])
        model.fit(X, wine[1], validation_data=(X, wine[1]))
        assert model.validation_scores_[-1] <= model.best_validation_score_


class TestScorer:
    """What early stopping maximises."""

    def test_name(self, parts):
        X, Xv, y, yv = parts
        model = small(scorer="neg_log_loss", early_stopping=True, max_iter=20)
        model.fit(X, y, validation_data=(Xv, yv))
        np.testing.assert_allclose(
            model.validation_scores_, -np.array(model.validation_loss_curve_), rtol=1e-9
        )
        assert -log_loss(yv, model.predict_proba(Xv)) == pytest.approx(model.best_validation_score_)

    def test_callable(self, wine):
        scores = iter(np.linspace(1, 0, 20))
        model = small(
            scorer=lambda estimator, X, y: next(scores),
            early_stopping=True,
            n_iter_no_change=2,
            max_iter=20,
        ).fit(*wine)
        assert model.n_iter_ == 4
        assert model.best_validation_score_ == 1.0

    def test_weights(self, parts):
        X, Xv, y, yv = parts
        weights = np.linspace(0, 1, len(yv))
        model = small(scorer="accuracy").fit(X, y, validation_data=(Xv, yv, weights))
        assert model.validation_scores_[-1] == pytest.approx(model.score(Xv, yv, weights))


class TestInputScaling:
    """Learnt inside fit, carried by the model."""

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "mean", "max"])
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_is_scaling_first(self, kind, solver):
        X, y = datasets.load_wine(return_X_y=True)
        model = small(input_scaling=kind, solver=solver).fit(X, y)
        scaler = fastrna.Scaler(kind)
        alone = small(solver=solver).fit(scaler.fit_transform(X), y)
        np.testing.assert_allclose(parameters_of(model), parameters_of(alone), rtol=1e-9)
        np.testing.assert_allclose(
            model.predict_proba(X), alone.predict_proba(scaler.transform(X)), rtol=1e-9
        )
        np.testing.assert_array_equal(model.scaler_.scale_, scaler.scale_)

    def test_is_learnt_from_the_training_part(self):
        X, y = datasets.load_wine(return_X_y=True)
        model = small(input_scaling="minmax", early_stopping=True).fit(X, y)
        assert not np.array_equal(model.scaler_.scale_, fastrna.Scaler("minmax").fit(X).scale_)

    def test_survives(self):
        X, y = datasets.load_wine(return_X_y=True)
        model = small(input_scaling="zscore", warm_start=True).fit(X, y)
        scaler = model.scaler_
        twin = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
        assert model.fit(X * 2, y).scaler_ is scaler
        assert model.to_network().scaler is not None

    def test_makes_the_difference(self):
        X, y = datasets.load_wine(return_X_y=True)
        plain, with_scaling = (
            small(input_scaling=kind, max_iter=100, learning_rate_init=0.01).fit(X, y).score(X, y)
            for kind in (None, "zscore")
        )
        assert with_scaling > 0.97 > plain

    def test_refuses_sparse(self, wine):
        with pytest.raises(ValueError, match="input_scaling is 'zscore', but X is sparse"):
            small(input_scaling="zscore").fit(scipy.sparse.csr_array(wine[0]), wine[1])

    def test_scales_sparse_by_its_maximum(self, wine):
        X, y = wine[0] * (wine[0] > 0) * 100, wine[1]
        dense, sparse = (
            small(input_scaling="max", random_state=0).fit(given, y)
            for given in (X, scipy.sparse.csr_array(X))
        )
        np.testing.assert_allclose(
            dense.predict_proba(X), sparse.predict_proba(scipy.sparse.csr_array(X)), atol=1e-6
        )


@BOTH
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_callbacks(Estimator, solver, wine):
    seen = []

    def first(model):
        seen.append((model.n_iter_, model.loss_, model.score(*wine)))

    def second(model):
        return model.n_iter_ == 3

    model = small(Estimator, solver=solver, max_iter=10, callbacks=[first, second]).fit(*wine)
    assert [n for n, _, _ in seen] == [1, 2, 3]
    assert model.n_iter_ == 3
    assert [loss for _, loss, _ in seen] == model.loss_curve_
    assert seen[-1][2] == model.score(*wine)


def test_threads(wine):
    """Any number of threads gives the same bits."""
    fits = [small(hidden_layer_sizes=(90, 50), n_threads=n).fit(*wine) for n in (1, 2, 3)]
    for model in fits[1:]:
        np.testing.assert_array_equal(parameters_of(model), parameters_of(fits[0]))
        np.testing.assert_array_equal(model.predict_proba(wine[0]), fits[0].predict_proba(wine[0]))


def test_progress(wine, capsys):
    pytest.importorskip("tqdm")
    small(progress=True).fit(*wine)
    assert "5" in capsys.readouterr().err


def test_lbfgs_records(wine, capsys):
    model = small(solver="lbfgs", max_iter=6, verbose=True).fit(*wine)
    assert len(model.loss_curve_) == model.n_iter_ == 6
    assert model.loss_ == model.best_loss_ == model.loss_curve_[-1]
    assert "Iteration 6, loss = " in capsys.readouterr().out


def test_lbfgs_of_float32(wine):
    """It works in float64 and leaves a float32 network."""
    X, y = wine
    a = small(solver="lbfgs", max_iter=30).fit(X.astype(np.float32), y)
    b = small(solver="lbfgs", max_iter=30).fit(X.astype(np.float32).astype(np.float64), y)
    assert a.coefs_[0].dtype == np.float32
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=1e-2, atol=1e-4)


# ------------------------------------------------------------------------------- divergence


def test_divergence_is_an_error():
    X, y = datasets.make_regression(50, 3, random_state=0)
    model = MLPRegressor(
        "squared_error", 5, "identity", solver="sgd", learning_rate_init=10.0, random_state=0
    )
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        model.fit(X, y)


def test_divergence_with_early_stopping_keeps_the_best():
    X, y = datasets.make_regression(50, 3, random_state=0)
    model = MLPRegressor(
        hidden_layer_sizes=5,
        activation="identity",
        solver="sgd",
        learning_rate_init=10.0,
        random_state=0,
        early_stopping=True,
    )
    with pytest.warns(UserWarning, match="The training diverged in epoch"):
        model.fit(X, y)
    assert np.isfinite(parameters_of(model)).all()
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ < model.max_iter


# --------------------------------------------------------------------- what a callback changes


def halve(model):
    """Put halved weights in place of those there are."""
    model.coefs_ = [W / 2 for W in model.coefs_]


def halve_in_place(model):
    for W in model.coefs_:
        W /= 2


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_training_goes_on_from_what_a_callback_puts_in_place(solver, early_stopping, wine):
    models = [
        small(solver=solver, max_iter=12, early_stopping=early_stopping, callbacks=callback)
        for callback in (halve, halve_in_place)
    ]
    for model in models:
        model.fit(*wine)
        assert model.to_network().parameters.tolist() == model._network.parameters.tolist()
    np.testing.assert_array_equal(*map(parameters_of, models))
    assert models[0].loss_ == models[1].loss_


@pytest.mark.parametrize("change", [halve, halve_in_place])
def test_lbfgs_cannot_go_on_from_other_weights(change, wine):
    with pytest.raises(ValueError, match="A callback changed the weights, with which solver"):
        small(solver="lbfgs", callbacks=change).fit(*wine)


def test_a_callback_cannot_put_another_network_in_place(wine):
    def widen(model):
        model.coefs_ = [np.ones((13, 7)), np.ones((7, 3))]
        model.intercepts_ = [np.ones(7), np.ones(3)]

    with pytest.raises(ValueError, match="A callback put arrays of other shapes"):
        small(callbacks=widen).fit(*wine)


# ------------------------------------------------------------------------ calls that are refused


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"activation": ["relu", "tanh"]}, {}),
        ({"callbacks": [1]}, {}),
        ({"class_weight": {0: -1.0}}, {}),
        ({}, {"sample_weight": np.full(178, -1.0)}),
        ({"hidden_layer_sizes": (7,), "warm_start": True}, {}),
        ({"early_stopping": True, "validation_fraction": 1e-4}, {}),
    ],
)
def test_a_call_that_is_refused_changes_nothing(changes, given, wine):
    X, y = wine
    model = small().fit(X, y)
    before, state = model.predict_proba(X), dict(vars(model))
    model.set_params(**changes)
    with pytest.raises((ValueError, TypeError)):
        model.fit(X, y > 0, **given)
    model.set_params(**{name: state[name] for name in changes})
    assert vars(model).keys() == state.keys()
    assert list(model.classes_) == [0, 1, 2]
    np.testing.assert_array_equal(model.predict_proba(X), before)
    fresh = small(**changes)
    with pytest.raises((ValueError, TypeError)):
        fresh.fit(X, y, **({"sample_weight": np.full(178, -1.0)} | given))
    assert not hasattr(fresh, "coefs_") and not hasattr(fresh, "classes_")


def test_a_warm_start_keeps_the_output(wine):
    """The loss may change, the activation of the outputs is the fitted network's."""
    X, y = wine[0], np.abs(wine[0][:, 0])
    model = small(MLPRegressor, loss="poisson", warm_start=True).fit(X, y)
    model.set_params(loss="squared_error").fit(X, y)
    assert model.out_activation_ == "exp"
    for twin in pickle.loads(pickle.dumps(model)), copy.deepcopy(model):
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    other = small(MLPRegressor, warm_start=True).fit(X, y)
    before = other.predict(X)
    with pytest.raises(ValueError, match="loss 'poisson' does not go with output 'identity'"):
        other.set_params(loss="poisson").fit(X, y)
    with pytest.raises(ValueError, match="loss 'poisson' does not go with output 'identity'"):
        other.partial_fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(other)).predict(X), before)


def test_partial_fit_goes_on_with_another_loss(wine):
    X, y = wine[0], np.abs(wine[0][:, 0])
    model = small(MLPRegressor, loss="poisson", alpha=0.0).partial_fit(X, y)
    squared_error, _ = model.to_network().loss_and_gradient(X, y, "squared_error")
    model.set_params(loss="squared_error").partial_fit(X, y)
    assert model.loss_ == pytest.approx(squared_error)  # of the one mini-batch, before its step


def test_the_schedule_is_what_the_optimizer_was_made_with(wine):
    """As in scikit-learn, whatever the parameters become."""
    options = {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.01}
    model = small(**options)
    twin = theirs.MLPClassifier(6, random_state=0, **options)
    for estimator in model, twin:
        estimator.partial_fit(*wine, classes=[0, 1, 2])
        estimator.set_params(learning_rate_init=0.5, power_t=0.1).partial_fit(*wine)
        estimator.set_params(learning_rate="constant").partial_fit(*wine)
    assert model.learning_rate_ == pytest.approx(twin._optimizer.learning_rate)
    again = pickle.loads(pickle.dumps(model)).partial_fit(*wine)
    assert again.learning_rate_ == pytest.approx(0.01 / (4 * 178 + 1) ** 0.5)


# -------------------------------------------------------------------------- labels and weights


def test_balanced_labels_are_weighed_by_the_training_examples(wine):
    X, Y = wine[0], np.stack([wine[1] == 0, wine[1] > 0, wine[1] == 2], axis=1).astype(int)
    with pytest.raises(ValueError, match="class_weight is 'balanced', which partial_fit cannot"):
        small(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    model = small(class_weight="balanced").fit(X, Y, validation_data=(X[:20], Y[:20]))
    weights = compute_sample_weight("balanced", Y)
    expected, _ = model.to_network().loss_and_gradient(
        X[:20], Y[:20].astype(float), sample_weight=weights[:20]
    )
    assert model.validation_loss_curve_[-1] == pytest.approx(expected)


def test_one_class_is_always_right(wine):
    X, y = wine[0], ["only"] * 178
    model = small(early_stopping=True, max_iter=4).fit(X, y)
    assert model.validation_scores_ == [1.0] * 4 and model.score(X, y) == 1.0
    assert small().fit(X, y, validation_data=(X[:5], y[:5])).validation_scores_ == [1.0] * 5


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("form", ["dia_array", "bsr_array", "coo_array"])
def test_a_scorer_of_sparse_rows(form, wine):
    X = getattr(scipy.sparse, form)(wine[0])
    model = small(early_stopping=True, scorer="accuracy").fit(X, wine[1])
    assert len(model.validation_scores_) == 5


def test_sparse_targets_of_a_regressor(wine):
    X, y = wine[0], wine[0][:, :2]
    models = [small(MLPRegressor).fit(X, given) for given in (y, scipy.sparse.csr_array(y))]
    np.testing.assert_array_equal(*map(parameters_of, models))
