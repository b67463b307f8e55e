"""scikit-learn as a peer of peers.py: MLPClassifier and MLPRegressor, many epochs a call."""

from __future__ import annotations

import os
import warnings

import sklearn
from cases import Case
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits
from workers import Unsupported, Way, statement

NAMES = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}
N_THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def versions() -> dict:
    """Version of what is timed here."""
    return {"scikit-learn": sklearn.__version__}


def _model(case: Case):
    """Make an estimator, train it once, put it back to the weights all peers start from."""
    if case.hidden not in NAMES:
        raise Unsupported(f"no {case.hidden}")
    if case.dropout:
        raise Unsupported("no dropout")
    if case.output == "softmax" and case.sizes[-1] < 3:
        raise Unsupported("no softmax over two classes")
    kind = MLPClassifier if case.output == "softmax" else MLPRegressor
    model = kind(
        hidden_layer_sizes=case.sizes[1:-1],
        activation=NAMES[case.hidden],
        solver="sgd",
        alpha=0.0,
        batch_size=min(case.batch or case.m, case.m),
        learning_rate_init=case.learning_rate,
        momentum=case.momentum,
        nesterovs_momentum=False,
        n_iter_no_change=10**9,
        warm_start=True,
        max_iter=1,
        random_state=0,
    )
    X, y = case.data
    if case.output == "softmax":
        model.partial_fit(X, y, classes=range(case.sizes[-1]))
    else:
        model.partial_fit(X, y.ravel() if case.sizes[-1] == 1 else y)
    for level, (W, b) in enumerate(case.weights):
        model.coefs_[level][:], model.intercepts_[level][:] = W, b
    return model


def epoch(case: Case) -> list[Way]:
    """`fit(max_iter=n)` from where it was, which pays the checks of the data once in n epochs.

    BLAS on all cores and on one core are both tried: small networks prefer one.
    """
    X, y = case.data
    if case.output != "softmax" and case.sizes[-1] == 1:
        y = y.ravel()
    warnings.simplefilter("ignore", ConvergenceWarning)

    def way(n_threads):
        model = _model(case)

        def run(n):
            model.max_iter = n
            model.loss_curve_ = []  # else every call's count of epochs goes on from the last
            model.n_iter_ = 0
            with threadpool_limits(n_threads):
                model.fit(X, y)

        def weights():
            return list(zip(model.coefs_, model.intercepts_, strict=True))

        return Way(f"fit, {n_threads} threads", run, weights)

    return [way(n) for n in sorted({1, N_THREADS})]


def predict(case: Case) -> list[Way]:
    """`predict_proba` or `predict` over all rows."""
    if case.m == 1:
        case = Case(case.sizes, case.hidden, case.output, 100)
        X = case.data[0][:1]
    else:
        X = case.data[0]
    model = _model(case)
    call = model.predict_proba if case.output == "softmax" else model.predict
    return [Way("predict", statement("f(X)", f=call, X=X))]


predict_one = predict
