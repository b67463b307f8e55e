"""Estimators from scikit-learn's, and networks from estimators."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import sklearn
import sklearn.neural_network as theirs
from estimators import BOTH, parameters_of, small
from sklearn.preprocessing import StandardScaler

from fastrna import MLPClassifier, MLPRegressor, from_sklearn

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Most trainings here are a few epochs long.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@BOTH
def test_to_network(Estimator, wine):
    X, y = wine
    model = small(Estimator, input_scaling="minmax").fit(X * 3 + 1, y)
    net = model.to_network()
    outputs = model.predict_proba if Estimator is MLPClassifier else model.predict
    np.testing.assert_allclose(net.predict(X * 3 + 1).squeeze(), outputs(X * 3 + 1), rtol=1e-12)
    net.parameters[:] = 0.0
    assert parameters_of(model).any()


class TestFromSklearn:
    """Models fitted by scikit-learn, taken over."""

    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_classifier(self, activation, dtype, wine):
        X, y = wine[0].astype(dtype), np.array(["a", "b", "c"])[wine[1]]
        reference = theirs.MLPClassifier((6, 5), activation, max_iter=5, random_state=0).fit(X, y)
        model = from_sklearn(reference)
        assert model.coefs_[0].dtype == dtype
        np.testing.assert_allclose(
            model.predict_proba(X), reference.predict_proba(X), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(model.predict(X), reference.predict(X))
        assert model.get_params().items() >= reference.get_params().items()
        assert model.loss_curve_ == reference.loss_curve_
        model.partial_fit(X, y)
        assert len(reference.loss_curve_) == 5

    @pytest.mark.parametrize("loss", ["squared_error", "poisson"])
    def test_regressor(self, loss, wine):
        parameters = {"hidden_layer_sizes": 6, "max_iter": 5, "random_state": 0, "loss": loss}
        if "loss" not in theirs.MLPRegressor().get_params():  # before scikit-learn 1.7
            if loss != "squared_error":
                pytest.skip("this scikit-learn has no other loss")
            del parameters["loss"]
        reference = theirs.MLPRegressor(**parameters).fit(*wine)
        model = from_sklearn(reference)
        np.testing.assert_allclose(model.predict(wine[0]), reference.predict(wine[0]), rtol=1e-12)
        model.coefs_[0][:] = 0.0
        assert reference.coefs_[0].any()

    def test_two_classes_and_labels(self, wine):
        X, y = wine
        for Y in (y > 0, np.eye(3, dtype=int)[y]):
            reference = theirs.MLPClassifier(6, max_iter=5, random_state=0).fit(X, Y)
            model = from_sklearn(reference)
            np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X))
            np.testing.assert_array_equal(model.predict(X), reference.predict(X))

    def test_names_of_columns(self, wine):
        frames = pytest.importorskip("pandas")
        X = frames.DataFrame(wine[0]).add_prefix("c")
        model = from_sklearn(theirs.MLPClassifier(4, max_iter=2).fit(X, wine[1]))
        assert list(model.feature_names_in_) == list(X.columns)
        model.predict(X)

    def test_not_fitted(self):
        model = from_sklearn(theirs.MLPRegressor(alpha=0.5))
        assert isinstance(model, MLPRegressor)
        assert model.alpha == 0.5
        assert not hasattr(model, "coefs_")

    def test_refuses(self):
        with pytest.raises(TypeError, match="mlp is a StandardScaler"):
            from_sklearn(StandardScaler())


class TestWhatComesAlong:
    """Requests of metadata, and all attributes of a model that was fitted here."""

    def test_requests(self):
        with sklearn.config_context(enable_metadata_routing=True):
            model = from_sklearn(theirs.MLPClassifier().set_fit_request(sample_weight=True))
            assert model.get_metadata_routing().fit.requests["sample_weight"] is True

    @pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
    @pytest.mark.parametrize("early_stopping", [False, True])
    def test_attributes(self, solver, early_stopping, wine):
        options = {"solver": solver, "early_stopping": early_stopping, "random_state": 0}
        model = from_sklearn(theirs.MLPClassifier(6, max_iter=5, **options).fit(*wine))
        own = MLPClassifier(6, max_iter=5, **options).fit(*wine)
        public = {name for name in vars(own) if name.endswith("_")}
        assert {name for name in vars(model) if name.endswith("_")} == public
        for name in public - {"coefs_", "intercepts_", "loss_curve_", "validation_loss_curve_"}:
            if isinstance(getattr(own, name), float):
                assert getattr(model, name) == pytest.approx(getattr(own, name), rel=1e-3)

    def test_refuses_parameters_it_does_not_know(self):
        class Theirs(theirs.MLPClassifier):
            def __init__(self, extra=1):
                super().__init__()
                self.extra = extra

        with pytest.raises(TypeError, match=r"mlp is a Theirs with the parameters extra of its"):
            from_sklearn(Theirs())
