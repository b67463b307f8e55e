"""The estimators: what scikit-learn's do only in private, predictions, copies."""

import copy
import doctest
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import scipy.optimize
import scipy.sparse
import sklearn.neural_network as theirs
from estimators import BOTH, parameters_of, small
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastrna import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Most trainings here are a few epochs long.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


# ---------------------------------------------------------------------------- the import


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_leaves_scikit_learn_alone():
    done = run("import fastrna, sys; assert 'sklearn' not in sys.modules, 'imported'")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor", "from_sklearn"])
def test_import_without_scikit_learn(name):
    """Asking for an estimator says which extra to install."""
    done = run(f"import sys; sys.modules['sklearn'] = None; from fastrna import {name}")
    assert "ImportError" in done.stderr
    assert "pip install 'fastrna[sklearn]'" in done.stderr


# ----------------------------------------------------- behaviour scikit-learn tests privately


@BOTH
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "gelu", ["silu", "elu"]])
def test_gradient(Estimator, activation, wine):
    """The gradient L-BFGS follows is the derivative of the loss that is reported."""
    X, y = wine
    Y = np.column_stack([y, y**2]) if Estimator is MLPRegressor else y
    model = small(
        Estimator,
        activation=activation,
        hidden_layer_sizes=(4, 3),
        solver="lbfgs",
        max_iter=1,
        alpha=0.5,
    ).fit(X, Y)
    net = model.to_network()
    error = scipy.optimize.check_grad(
        lambda w: loss_at(net, w, X, Y)[0],
        lambda w: loss_at(net, w, X, Y)[1],
        net.parameters.copy(),
    )
    assert error < 1e-5
    loss, _ = loss_at(net, net.parameters.copy(), X, Y, l2=model.alpha / len(X))
    assert loss == pytest.approx(model.loss_)


def loss_at(net, parameters, X, y, l2=0.01):
    net.parameters[:] = parameters
    return net.loss_and_gradient(X, y, l2=l2)


@pytest.mark.parametrize("learning_rate", ["constant", "invscaling"])
def test_schedule(learning_rate):
    """The rate goes on over warm starts: it depends on the examples seen."""
    X, y = [[3.0, 2], [1, 6], [5, 6], [-2, -4]], [1, 1, 1, 0]
    model = small(
        solver="sgd", learning_rate=learning_rate, max_iter=1, power_t=0.25, warm_start=True
    )
    rates = [model.fit(X, y).learning_rate_ for _ in range(3)]
    expected = {
        "constant": [0.001] * 3,
        "invscaling": [0.001 / (4 * epoch + 1) ** 0.25 for epoch in (1, 2, 3)],
    }
    assert rates == pytest.approx(expected[learning_rate])


def test_adaptive_rate():
    model = MLPClassifier(tol=0.5, max_iter=3000, solver="sgd", learning_rate="adaptive")
    model.fit([[3.0, 2], [1, 6]], [1, 0])
    assert model.n_iter_ < 3000
    assert model.learning_rate_ < 1e-6


@BOTH
@pytest.mark.parametrize("how", ["entries", "lists", "in place"])
def test_given_coefficients(Estimator, how, wine):
    """Whatever stands in coefs_ and intercepts_ is what predicts, and what is trained on."""
    X, y = wine
    model, other = small(Estimator).fit(X, y), small(Estimator, random_state=1).fit(X, y)
    coefs, intercepts = copy.deepcopy(other.coefs_), copy.deepcopy(other.intercepts_)
    if how == "lists":
        model.coefs_, model.intercepts_ = coefs, intercepts
    for layer in range(2):
        if how == "entries":
            model.coefs_[layer], model.intercepts_[layer] = coefs[layer], intercepts[layer]
        elif how == "in place":
            model.coefs_[layer][:], model.intercepts_[layer][:] = coefs[layer], intercepts[layer]
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    # An optimizer without a past makes the two comparable.
    model.set_params(warm_start=True, solver="sgd", random_state=2).fit(X, y)
    other.set_params(warm_start=True, solver="sgd", random_state=2).fit(X, y)
    np.testing.assert_array_equal(parameters_of(model), parameters_of(other))
    assert not np.array_equal(coefs[0], model.coefs_[0])


def test_given_coefficients_before_any_fit():
    """Training goes on from coefficients given to an estimator that was never fitted."""
    X, y = np.array([[0.6, 0.8, 0.7]]), [2.0]
    model = MLPRegressor(
        solver="sgd",
        hidden_layer_sizes=1,
        activation="identity",
        momentum=0.0,
        alpha=0.0,
        learning_rate_init=0.1,
    )
    model.coefs_ = [np.ones((3, 1)), np.ones((1, 1))]
    model.intercepts_ = [np.zeros(1), np.zeros(1)]
    model.partial_fit(X, y)  # prediction 2.1, error 0.1
    np.testing.assert_allclose(model.coefs_[0][:, 0], 1 - 0.1 * 0.1 * X[0])
    np.testing.assert_allclose(model.coefs_[1], 1 - 0.1 * 0.1 * 2.1)


def test_wrong_coefficients(wine):
    model = small().fit(*wine)
    model.coefs_[0] = model.coefs_[0][:, :3]
    with pytest.raises(ValueError, match="coefs_ has the shapes"):
        model.predict(wine[0])


def test_patience_is_exceeded_not_met(wine):
    model = small(tol=10.0, n_iter_no_change=3, max_iter=100).fit(*wine)
    # The first epoch always counts as progress.
    assert model.n_iter_ == 5


def test_weightless_batches_teach_nothing(wine):
    """scikit-learn divides by the sum of the weights of a mini-batch, zero or not."""
    X, y = wine
    weights = np.repeat([0.0, 1.0], [100, 78])
    fit = {"solver": "sgd", "shuffle": False, "batch_size": 50, "alpha": 0.0, "momentum": 0.0}
    model = small(**fit).partial_fit(X, y, weights, classes=[0, 1, 2])
    alone = small(**fit).partial_fit(X[100:], y[100:], classes=[0, 1, 2])
    np.testing.assert_allclose(parameters_of(model), parameters_of(alone), rtol=1e-12)


def test_warnings_point_at_the_caller(wine):
    for parameters in ({}, {"solver": "lbfgs"}, {"batch_size": 1000}):
        with pytest.warns() as given:
            small(**parameters).fit(*wine)
        assert {warning.filename for warning in given} == {__file__}


def test_interrupt_keeps_the_model(wine):
    def interrupt(model):
        if model.n_iter_ == 2:
            raise KeyboardInterrupt

    model = small(callbacks=interrupt)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*wine)
    assert model.n_iter_ == 2
    assert model.score(*wine) > 0


# ------------------------------------------------------------------------------ partial_fit


@BOTH
def test_no_partial_fit_with_lbfgs(Estimator):
    assert hasattr(small(Estimator), "partial_fit")
    assert not hasattr(small(Estimator, solver="lbfgs"), "partial_fit")


def test_partial_fit_follows_its_parameters(wine):
    """A new batch size or penalty holds from the next call on; the momentum is kept."""
    X, y = wine
    model = small(solver="sgd", batch_size=10).partial_fit(X, y, classes=[0, 1, 2])
    reference = theirs.MLPClassifier(6, solver="sgd", batch_size=10, random_state=0)
    reference.partial_fit(X, y, classes=[0, 1, 2])
    for each in (model, reference):
        each.set_params(batch_size=50, alpha=0.5).partial_fit(X, y)
    np.testing.assert_allclose(parameters_of(model), parameters_of(reference), rtol=1e-9)


def test_partial_fit_of_chunks_of_any_size(wine):
    X, y = wine
    model = small(solver="adam", batch_size=40)
    reference = theirs.MLPClassifier(6, batch_size=40, random_state=0)
    for each in (model, reference):
        for rows in (slice(0, 120), slice(0, 120), slice(60, 178), slice(50, 100)):
            each.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    np.testing.assert_allclose(parameters_of(model), parameters_of(reference), rtol=1e-9)


def test_partial_fit_of_unknown_labels(wine):
    X, y = wine
    model = small().partial_fit(X[:50], y[:50], classes=[0, 1])
    with pytest.raises(ValueError, match="has classes not in"):
        model.partial_fit(X, y)


# ------------------------------------------------------------------------------ predictions


@pytest.fixture(scope="module", params=["float32", "float64"])
def fitted(request, wine):
    X, y = wine
    return small().fit(X.astype(request.param), y), X.astype(request.param)


def test_predictions_of_any_layout(fitted):
    """The short way and scikit-learn's validation lead to the same numbers."""
    model, X = fitted
    expected = model.predict_proba(X)
    assert expected.dtype == X.dtype
    wide = np.zeros((len(X), 2 * X.shape[1]), X.dtype)
    wide[:, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for layout in (
        np.asfortranarray(X),
        wide[:, ::2],
        read_only,
        X.tolist(),
        X.astype("float64"),
        X.astype(">f8"),
        scipy.sparse.csr_array(X),
        scipy.sparse.csc_matrix(X),
    ):
        np.testing.assert_allclose(model.predict_proba(layout), expected, rtol=1e-5)
    rows = np.vstack([model.predict_proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("m", [1, 50])
def test_predictions_of_what_is_not_finite(fitted, bad, m):
    model, X = fitted
    X = X[:m].copy()
    X[-1, -1] = bad
    with pytest.raises(ValueError, match="Input X contains"):
        model.predict(X)


def test_predictions_of_large_numbers(fitted):
    """The sum of squares overflows, the numbers are finite: nothing to refuse."""
    model, X = fitted
    X = X[:1].copy()
    X[0, 0] = np.sqrt(np.finfo(X.dtype).max) * 2
    assert model.predict(X).shape == (1,)


@pytest.mark.parametrize("shape", [(13,), (1, 12), (0, 13), (1, 1, 13)])
def test_predictions_of_the_wrong_shape(fitted, shape):
    model, X = fitted
    with pytest.raises(ValueError):
        model.predict(np.zeros(shape, X.dtype))


@BOTH
def test_not_fitted(Estimator, wine):
    for ask in (lambda m: m.predict(wine[0]), lambda m: m.to_network()):
        with pytest.raises(NotFittedError):
            ask(small(Estimator))


def test_one_class(wine):
    """Probabilities have the columns of classes_, be it one."""
    model = small().fit(wine[0], np.full(len(wine[1]), "only"))
    assert list(model.predict(wine[0][:2])) == ["only", "only"]
    np.testing.assert_array_equal(model.predict_proba(wine[0][:2]), [[1.0], [1.0]])


def test_labels_of_every_kind(wine):
    X, y = wine
    expected = small().fit(X, y).predict(X)
    for names in (
        np.array(["a", "b", "c"]),
        np.array(["a", "b", "c"], object),
        [-5, 7, 10**6],
        [0.0, 1.0, 2.0],
        np.array([3, 4, 250], np.uint8),
    ):
        names = np.asarray(names)
        np.testing.assert_array_equal(small().fit(X, names[y]).predict(X), names[expected])


def test_sparse_indicator_matrix():
    X, Y = datasets.make_multilabel_classification(50, random_state=0)
    dense = small().fit(X, Y).predict(X)
    sparse = small().fit(X, scipy.sparse.csr_array(Y)).predict(X)
    assert scipy.sparse.issparse(sparse)
    np.testing.assert_array_equal(sparse.toarray(), dense)


# --------------------------------------------------------------------------------- copies


@BOTH
def test_copies_are_their_own(Estimator, wine):
    X, y = wine
    model = small(Estimator).fit(X, y)
    before = parameters_of(model)
    for make in (copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        twin = make(model)
        twin.partial_fit(X, y)
        assert not np.array_equal(parameters_of(twin), before)
    np.testing.assert_array_equal(parameters_of(model), before)


def test_pickle_holds_no_compiled_object(wine):
    model = small().fit(*wine)
    assert not {"_network", "_trainer", "_views"} & set(model.__getstate__())
    before = set(vars(model))
    twin = pickle.loads(pickle.dumps(model))
    twin.predict(wine[0])
    assert set(vars(twin)) - before <= {"_trainer_state"}
    assert not hasattr(clone(model), "_network")


# ------------------------------------------------------------------------------------ docs


def test_page():
    pytest.importorskip("sklearn.callback")
    page = pathlib.Path(__file__).parents[1] / "docs" / "scikit-learn.md"
    failures, examples = doctest.testfile(str(page), module_relative=False)
    assert examples > 20
    assert failures == 0


@BOTH
def test_an_interrupt_of_lbfgs_keeps_the_model(Estimator, wine):
    """As one of the other solvers does: with a warning, and the point accepted last."""

    def interrupt(model):
        if model.n_iter_ == 3:
            raise KeyboardInterrupt

    model = Estimator(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0, callbacks=interrupt)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*wine)
    assert model.n_iter_ == len(model.loss_curve_) == 3
    expected = Estimator(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0, max_iter=3)
    np.testing.assert_array_equal(model.coefs_[0], expected.fit(*wine).coefs_[0])
