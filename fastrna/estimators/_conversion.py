"""The way in from scikit-learn."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.neural_network import MLPClassifier as _TheirClassifier
from sklearn.neural_network import MLPRegressor as _TheirRegressor

from ._classifier import MLPClassifier
from ._regressor import MLPRegressor

_RECORDS = (
    "classes_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "t_",
    "n_iter_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "n_features_in_",
    "feature_names_in_",
    "_no_improvement_count",
)


def from_sklearn(mlp):
    """Make a fastrna estimator of one of scikit-learn's multilayer perceptrons.

    Parameters
    ----------
    mlp : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        Fitted or not; left as it is.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With its parameters and, if it is fitted, copies of its weights: the same predictions,
        faster. `partial_fit` and ``warm_start`` go on from these weights, with an optimizer that
        starts afresh.

    Raises
    ------
    TypeError
        If `mlp` is neither, or a subclass with parameters of its own.

    Examples
    --------
    >>> from fastrna import from_sklearn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> theirs = MLPClassifier(5, solver="lbfgs", max_iter=2000, random_state=0).fit(X, y)
    >>> ours = from_sklearn(theirs)
    >>> bool((ours.predict(X) == theirs.predict(X)).all())
    True
    """
    if isinstance(mlp, _TheirClassifier):
        kind = MLPClassifier
    elif isinstance(mlp, _TheirRegressor):
        kind = MLPRegressor
    else:
        raise TypeError(
            f"mlp is a {type(mlp).__name__}, but from_sklearn takes an MLPClassifier or an "
            "MLPRegressor of sklearn.neural_network."
        )
    parameters = mlp.get_params(deep=False)
    others = set(parameters).difference(kind().get_params(deep=False))
    if others:
        raise TypeError(
            f"mlp is a {type(mlp).__name__} with the parameters {', '.join(sorted(others))} of its "
            "own, which from_sklearn does not know."
        )
    model = kind(**parameters)
    if hasattr(mlp, "_metadata_request"):
        model._metadata_request = copy.deepcopy(mlp._metadata_request)
    if not hasattr(mlp, "coefs_"):
        return model
    model._begin_records(first_pass=True)
    if mlp.solver == "lbfgs":
        model.best_loss_ = mlp.loss_
    elif hasattr(mlp, "_optimizer"):
        optimizer = mlp._optimizer  # whose `learning_rate`, of Adam's, is that of its last step
        adam = mlp.solver == "adam"
        model.learning_rate_ = optimizer.learning_rate_init if adam else optimizer.learning_rate
    for name in _RECORDS:
        if hasattr(mlp, name):
            value = getattr(mlp, name)
            setattr(model, name, value.copy() if isinstance(value, (list, np.ndarray)) else value)
    if isinstance(mlp, _TheirClassifier):
        binarizer = mlp._label_binarizer
        model._target_kind, model._sparse_targets = binarizer.y_type_, binarizer.sparse_input_
    model.scaler_ = None
    model.coefs_, model.intercepts_ = list(mlp.coefs_), list(mlp.intercepts_)
    model._adopt_coefficients()
    return model
