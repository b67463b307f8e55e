"""Small estimators, for the tests of them."""

import numpy as np
import pytest

from fastrna import MLPClassifier, MLPRegressor

BOTH = pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])


def small(Estimator=MLPClassifier, **parameters):
    """Return an estimator of six hidden units that trains for a moment."""
    return Estimator(**{"hidden_layer_sizes": 6, "max_iter": 5, "random_state": 0, **parameters})


def parameters_of(model):
    """Return all coefficients and intercepts, flat."""
    return np.concatenate([a.ravel() for a in model.coefs_ + model.intercepts_])
