"""The estimators against scikit-learn: its checks, its own tests, its results, its tools."""

import pathlib
import pickle
import warnings

import numpy as np
import pytest

# What is matched is the interface of this version.
pytest.importorskip("sklearn", minversion="1.9")

import joblib
import scipy.sparse
import sklearn.neural_network as theirs
from sklearn import datasets
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastrna as ours

# scikit-learn's tests and checks stop training early on purpose, and are not ours to warn about.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("default"),
]

FLOAT64 = {"rtol": 1e-6, "atol": 1e-9}


# --------------------------------------------------------------------- scikit-learn's checks


@parametrize_with_checks(
    [
        ours.MLPClassifier(max_iter=100),
        ours.MLPClassifier(max_iter=100, solver="sgd"),
        ours.MLPRegressor(max_iter=100),
        ours.MLPRegressor(max_iter=100, solver="sgd"),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(
    "estimator",
    [
        ours.MLPClassifier(max_iter=100, solver="lbfgs"),
        ours.MLPRegressor(max_iter=100, solver="sgd", tol=1e-2, random_state=42),
    ],
)
def test_sample_weight_equivalence(estimator, kind):
    """With the parameters scikit-learn checks its own with."""
    check = getattr(estimator_checks, f"check_sample_weight_equivalence_on_{kind}_data")
    check(type(estimator).__name__, estimator)


# ------------------------------------------------------------------ scikit-learn's own tests

# Tests of scikit-learn that use private names of its implementation, and the test here of the
# behaviour they are about.
PRIVATE = {
    "test_gradient": "calls _loss_grad_lbfgs; see test_estimators.test_gradient",
    "test_learning_rate_warmstart": "reads _optimizer; see test_estimators.test_schedule",
    "test_adaptive_learning_rate": "reads _optimizer; see test_estimators.test_adaptive_rate",
}


def _their_tests():
    """Run scikit-learn's test file with the import replaced; return the tests it defines."""
    path = pathlib.Path(theirs.__file__).parent / "tests" / "test_mlp.py"
    if not path.exists():
        return {}
    source = path.read_text(encoding="utf-8")
    line = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
    assert source.count(line) == 1
    namespace = {"__name__": "sklearn_test_mlp"}
    exec(
        compile(
            source.replace(line, line.replace("sklearn.neural_network", "fastrna")), path, "exec"
        ),
        namespace,
    )
    return {name: value for name, value in namespace.items() if name.startswith("test_")}


for _name, _test in _their_tests().items():
    if _name in PRIVATE:
        # Strict: a test that passes after all leaves the list.
        _test = pytest.mark.xfail(reason=PRIVATE[_name], raises=AttributeError, strict=True)(_test)
    globals()[f"test_of_sklearn_{_name.removeprefix('test_')}"] = _test


@pytest.fixture
def global_random_seed():
    """Stand for the fixture of scikit-learn's configuration of pytest."""
    return 42


# --------------------------------------------------------------------- scikit-learn's results


def scaled(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def indicator(n_labels=4):
    return datasets.make_multilabel_classification(60, n_classes=n_labels, random_state=0)


PROBLEMS = {
    "three classes": ("MLPClassifier", lambda: scaled(datasets.load_wine)),
    "two classes": ("MLPClassifier", lambda: scaled(datasets.load_breast_cancer)),
    "labels": ("MLPClassifier", indicator),
    "one output": ("MLPRegressor", lambda: scaled(datasets.load_diabetes)),
}
RUNS = {
    "nesterov": {"solver": "sgd"},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    "heavy": {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-5},
    "plain": {"solver": "sgd", "momentum": 0.0, "shuffle": False},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
    "adam": {},
    "adam, two layers": {"hidden_layer_sizes": (9, 7), "activation": "tanh"},
    "logistic": {"activation": "logistic", "alpha": 0.1},
    "identity": {"activation": "identity", "hidden_layer_sizes": [5]},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "early stopping": {"early_stopping": True},
    "clipped batch": {"batch_size": 10_000},
    "stops": {"tol": 1.0, "n_iter_no_change": 2, "max_iter": 50},
    "lbfgs": {"solver": "lbfgs", "hidden_layer_sizes": 5},
}


def both(name, **parameters):
    parameters = {"max_iter": 5, "random_state": 3, "batch_size": 32, **parameters}
    return [getattr(library, name)(**parameters) for library in (ours, theirs)]


def fit_both(name, data, weights=None, **parameters):
    models = both(name, **parameters)
    for model in models:
        model.fit(*data, sample_weight=weights)
    return models


def assert_same_run(model, reference, **tolerance):
    tolerance = tolerance or FLOAT64
    mine, expected = (m.coefs_ + m.intercepts_ for m in (model, reference))
    for a, b in zip(mine, expected, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(model, name) == getattr(reference, name), name
    for name in ("loss_", "best_loss_", "loss_curve_", "validation_scores_"):
        expected = getattr(reference, name, None)
        if expected is not None:
            np.testing.assert_allclose(getattr(model, name), expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_same_run(problem, run):
    """The same data, parameters and random_state give the same coefficients."""
    name, make = PROBLEMS[problem]
    model, reference = fit_both(name, make(), **RUNS[run])
    assert_same_run(model, reference)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_same_run_weighted(name):
    """With weights the coefficients agree; the loss of an epoch weighs its batches."""
    X, y = scaled(datasets.load_wine)
    weights = np.random.RandomState(0).uniform(0.1, 3.0, len(y))
    model, reference = fit_both(name, (X, y), weights, solver="sgd")
    for a, b in zip(model.coefs_, reference.coefs_, strict=True):
        np.testing.assert_allclose(a, b, **FLOAT64)


def test_same_run_of_numpy_scalars():
    numbers = {
        "alpha": np.float32(0.1),
        "batch_size": np.int64(50),
        "learning_rate_init": np.float32(0.01),
        "max_iter": np.int64(3),
        "momentum": np.float64(0.5),
        "nesterovs_momentum": np.bool_(True),
        "hidden_layer_sizes": np.array([5, 4]),
    }
    data = scaled(datasets.load_wine)
    assert_same_run(*fit_both("MLPClassifier", data, solver="sgd", **numbers))


def test_same_run_poisson():
    X, y = scaled(datasets.load_diabetes)
    model, reference = fit_both("MLPRegressor", (X, y), loss="poisson")
    assert_same_run(model, reference)


def test_same_run_several_outputs():
    """The gradient is scikit-learn's; the loss that is reported is the one it belongs to."""
    X, y = datasets.make_regression(80, 6, n_targets=3, random_state=0)
    model, reference = fit_both("MLPRegressor", (X, y / 100), solver="sgd", alpha=0.0)
    for a, b in zip(model.coefs_, reference.coefs_, strict=True):
        np.testing.assert_allclose(a, b, **FLOAT64)
    np.testing.assert_allclose(model.loss_curve_, 3 * np.array(reference.loss_curve_), rtol=1e-9)


def test_same_run_float32():
    """float32 begins with the same draws, and stays float32."""
    X, y = scaled(datasets.load_wine)
    model, reference = fit_both("MLPClassifier", (X.astype(np.float32), y), solver="sgd")
    assert {a.dtype for a in model.coefs_ + model.intercepts_} == {np.dtype("float32")}
    for a, b in zip(model.coefs_, reference.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_same_run_sparse(container, solver):
    X, y = datasets.load_digits(return_X_y=True)
    X = container(X[:300] / 16.0)
    model, reference = fit_both("MLPClassifier", (X, y[:300]), solver=solver)
    assert_same_run(model, reference, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), rtol=1e-4)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_same_run_partial_fit(solver):
    X, y = scaled(datasets.load_wine)
    models = both("MLPClassifier", solver=solver)
    for model in models:
        for start in (0, 50, 100, 0):
            model.partial_fit(X[start : start + 78], y[start : start + 78], classes=[0, 1, 2])
    assert_same_run(*models)


def test_same_run_after_warm_starts():
    X, y = scaled(datasets.load_wine)
    models = both("MLPClassifier", solver="sgd", warm_start=True, learning_rate="invscaling")
    for model in models:
        model.fit(X, y).fit(X, y)
        assert model.n_iter_ == 5
        assert len(model.loss_curve_) == 10
    assert_same_run(*models)


def test_same_run_after_warm_starts_that_stop_early():
    """The last parameters are kept by a warm start that finds no better score than before."""
    X, y = scaled(datasets.load_wine)
    options = {"warm_start": True, "early_stopping": True, "n_iter_no_change": 3, "max_iter": 100}
    models = both("MLPClassifier", solver="sgd", learning_rate_init=0.05, **options)
    for model in models:
        model.fit(X, y)
        best = model.best_validation_score_
        model.fit(X, y).fit(X, y)
        assert model.best_validation_score_ == best
    assert_same_run(*models)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("MLPClassifier", datasets.load_digits),
        ("MLPClassifier", datasets.load_breast_cancer),
        ("MLPClassifier", datasets.load_wine),
        ("MLPRegressor", datasets.load_diabetes),
    ],
)
def test_same_accuracy(name, load):
    """Trained to the end in float64, by the same rules, over three shuffled folds."""
    X, y = scaled(load)
    alpha = 100.0 if name == "MLPRegressor" else 1e-4
    scores = [
        cross_val_score(model, X, y, cv=3)
        for model in both(name, max_iter=25, learning_rate_init=0.01, alpha=alpha)
    ]
    assert abs(scores[0].mean() - scores[1].mean()) < 0.02


# ----------------------------------------------------------------------- scikit-learn's tools


@pytest.fixture(scope="module")
def wine():
    return datasets.load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def model(wine):
    return make_pipeline(
        StandardScaler(), ours.MLPClassifier(10, solver="lbfgs", random_state=0)
    ).fit(*wine)


def test_grid_search(wine):
    pipeline = make_pipeline(StandardScaler(), ours.MLPClassifier(solver="lbfgs", random_state=0))
    grid = {"mlpclassifier__hidden_layer_sizes": [(5,), (20,)]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(*wine)
    assert search.best_score_ > 0.9


def test_cross_validation(model, wine):
    assert cross_val_score(model, *wine, cv=3, n_jobs=2).mean() > 0.9


def test_calibration(model, wine):
    X, y = wine
    probabilities = CalibratedClassifierCV(model, cv=3).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_permutation_importance(model, wine):
    importance = permutation_importance(model, *wine, n_repeats=2, random_state=0)
    assert importance.importances_mean.max() > 0.0


def test_threads_of_joblib(model, wine):
    """One fitted model, used by several threads at a time."""
    X, _ = wine
    expected = model.predict_proba(X)
    results = joblib.Parallel(n_jobs=4, prefer="threads")(
        joblib.delayed(model.predict_proba)(X) for _ in range(32)
    )
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_clone(model):
    copy = clone(model)
    assert not hasattr(copy[-1], "coefs_")
    assert copy[-1].get_params() == model[-1].get_params()


def copies(model, tmp_path):
    joblib.dump(model, tmp_path / "model.joblib")
    yield pickle.loads(pickle.dumps(model))
    yield joblib.load(tmp_path / "model.joblib")
    yield joblib.load(tmp_path / "model.joblib", mmap_mode="r")


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_round_trip_goes_on(solver, wine, tmp_path):
    """A copy predicts the same, and trains on with the state of the optimizer."""
    X, y = scaled(datasets.load_wine)
    model = ours.MLPClassifier(8, solver=solver, max_iter=5, random_state=0, dropout=0.1).fit(X, y)
    several = list(copies(model, tmp_path))
    for copy in several:
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    model.partial_fit(X, y)
    for copy in several:
        copy.partial_fit(X, y)
        for a, b in zip(copy.coefs_, model.coefs_, strict=True):
            np.testing.assert_array_equal(a, b)


def test_metadata_routing(wine):
    from sklearn import config_context

    X, y = wine
    with config_context(enable_metadata_routing=True):
        mlp = ours.MLPClassifier(5, max_iter=5, random_state=0).set_fit_request(sample_weight=True)
        weights = np.linspace(0.0, 1.0, len(y))
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, mlp).fit(X, y, sample_weight=weights)
    X = StandardScaler().fit_transform(X)
    alone = ours.MLPClassifier(5, max_iter=5, random_state=0).fit(X, y, weights)
    np.testing.assert_array_equal(pipeline[-1].coefs_[0], alone.coefs_[0])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_feature_names(library):
    frames = pytest.importorskip(library)
    X = frames.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = ours.MLPClassifier(3, max_iter=5).fit(X, ["no", "yes", "no", "yes"])
    assert list(model.feature_names_in_) == ["a", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            model.predict(X.to_numpy())
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[["b", "a"]])


def test_warns_as_scikit_learn_does(wine):
    X, y = wine
    for model in both("MLPClassifier", max_iter=2):
        with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
            model.fit(X, y)
    for model in both("MLPClassifier", max_iter=2, solver="lbfgs"):
        with pytest.warns(ConvergenceWarning, match=r"lbfgs failed to converge after 2 iter"):
            model.fit(X, y)


@pytest.mark.parametrize("verbose", [True, 10])
def test_prints_as_scikit_learn_does(verbose, wine, capsys):
    printed = []
    for model in both(
        "MLPClassifier",
        verbose=verbose,
        solver="sgd",
        early_stopping=True,
        tol=1.0,
        n_iter_no_change=1,
        learning_rate="adaptive",
    ):
        model.fit(StandardScaler().fit_transform(wine[0]), wine[1])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": -1},
        {"solver": "newton"},
        {"hidden_layer_sizes": -1},
        {"hidden_layer_sizes": (-1,)},
        {"learning_rate_init": 0},
        {"momentum": 2},
        {"shuffle": "yes"},
        {"early_stopping": True, "validation_fraction": 0.001},
    ],
)
def test_refuses_as_scikit_learn_does(parameters, wine):
    messages = []
    for model in both("MLPClassifier", **parameters):
        with pytest.raises(ValueError) as refusal:
            model.fit(*wine)
        # The options of a parameter are a set, of which the order is anyone's.
        messages.append(sorted(str(refusal.value).rstrip(".")))
    assert messages[0] == messages[1]


def test_same_signature():
    """Every parameter of theirs is one of ours, in its place and with its default."""
    from inspect import Parameter, signature

    for name in ("MLPClassifier", "MLPRegressor"):
        mine = signature(getattr(ours, name)).parameters
        expected = signature(getattr(theirs, name)).parameters
        assert list(mine)[: len(expected)] == list(expected)
        for key, parameter in expected.items():
            assert mine[key] == parameter
        assert all(mine[k].kind is Parameter.KEYWORD_ONLY for k in list(mine)[len(expected) :])


# ------------------------------------------------------------------- scikit-learn's callbacks


class Recorder:
    """Follows scikit-learn's protocol, and asks to stop after some epochs."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        if context.task_name == "epoch" and fitted_estimator is not None:
            self.score = fitted_estimator.score(X, y)
            return context.task_id + 1 == self.stop_after


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("stop_after", [None, 2])
def test_protocol_of_callbacks(solver, stop_after, wine):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder(stop_after)
    X, y = wine
    X = StandardScaler().fit_transform(X)
    model = ours.MLPClassifier(5, solver=solver, max_iter=4, random_state=0)
    model.set_callbacks(recorder).fit(X, y)
    n = stop_after or 4
    assert model.n_iter_ == n
    epochs = ["begin epoch", "end epoch"] * n
    assert recorder.calls == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert recorder.score == pytest.approx(model.score(X, y))


def test_every_task_ends(wine):
    """Be it that L-BFGS gives up, or that it has nothing to do."""
    pytest.importorskip("sklearn.callback")
    for parameters in ({"max_fun": 1}, {"tol": 1e9}):
        recorder = Recorder()
        model = ours.MLPClassifier(5, solver="lbfgs", random_state=0, **parameters)
        model.set_callbacks(recorder).fit(*wine)
        assert recorder.calls.count("begin epoch") == recorder.calls.count("end epoch") > 0


def test_scoring_monitor(wine):
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    ours.MLPClassifier(5, max_iter=3).set_callbacks(monitor).fit(*wine)
    assert len(monitor.get_logs().data) == 4


@pytest.mark.parametrize("activation", ["logistic", "tanh"])
def test_initial_weights_without_a_hidden_layer(activation, wine):
    """The width of scikit-learn's draw goes by the activation, even if there is none to go by."""
    fitted = [
        library.MLPClassifier(
            (), activation=activation, solver="sgd", learning_rate_init=1e-12, max_iter=1,
            random_state=0,
        ).fit(*wine)
        for library in (ours, theirs)
    ]  # fmt: skip
    np.testing.assert_allclose(*(model.coefs_[0] for model in fitted), atol=1e-6)
