"""Time the estimators against scikit-learn's, turn by turn: medians and ratios.

Both libraries run in this process with the same data, parameters and random_state, one after the
other in every round, so that whatever slows the machine down slows both. Epochs are timed by
`fit` with max_iter, validation and all, divided by the number of epochs.

    python bench/estimators.py [--rounds 7] [--only digits]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import sklearn.neural_network as theirs
from sklearn import datasets

import fastrna as ours

# Seconds in which the threads of the other library, which wait awake for a while, go to sleep.
REST = 0.05

# The ratios that are meant to be reached.
TARGETS = {
    "fit digits, sgd, float64": 8.0,
    "fit digits, sgd, float32": 8.0,
    "predict one row": 5.0,
}


def digits(dtype):
    """Return the 1797 digits of scikit-learn, between 0 and 1."""
    X, y = datasets.load_digits(return_X_y=True)
    return (X / 16).astype(dtype), y


def teacher(m=20_000, n=8):
    """Return a smooth function of eight variables, with noise."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (m, n))
    return X, np.sin(X @ rng.normal(size=n)) + 0.1 * rng.normal(size=m)


def fits():
    """Yield (name, class, parameters, data) of every training that is timed."""
    never_stop = {"tol": 0.0, "n_iter_no_change": np.inf, "random_state": 0}
    sgd = {**never_stop, "solver": "sgd", "batch_size": 32, "max_iter": 20}
    for dtype in ("float64", "float32"):
        yield f"fit digits, sgd, {dtype}", "MLPClassifier", sgd, digits(dtype)
    adam = {**sgd, "solver": "adam"}
    yield "fit digits, adam, float64", "MLPClassifier", adam, digits("float64")
    early = {**adam, "early_stopping": True}
    yield "fit digits, adam, early stopping", "MLPClassifier", early, digits("float64")
    iris = datasets.load_iris(return_X_y=True)
    yield "fit iris, defaults", "MLPClassifier", {**never_stop, "max_iter": 50}, iris
    lbfgs = {"solver": "lbfgs", "max_iter": 50, "random_state": 0}
    yield "fit digits, lbfgs", "MLPClassifier", lbfgs, digits("float64")
    deep = {**never_stop, "hidden_layer_sizes": (64, 64), "activation": "tanh", "max_iter": 10}
    yield "fit 20000 x 8, 64-64, tanh, adam", "MLPRegressor", deep, teacher()


def fit_time(library, name, parameters, data):
    """Seconds an epoch."""
    model = getattr(library, name)(**parameters)
    time.sleep(REST)
    start = time.perf_counter()
    model.fit(*data)
    return (time.perf_counter() - start) / model.n_iter_


def call_time(function, seconds=0.02):
    """Seconds a call, of as many calls as take a while."""
    calls = 1
    time.sleep(REST)
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        took = time.perf_counter() - start
        if took > seconds:
            return took / calls
        calls *= 2


def calls():
    """Yield (name, function of fastrna, function of scikit-learn) of every prediction timed."""
    X, y = digits("float64")
    parameters = {"max_iter": 5, "random_state": 0}
    models = [library.MLPClassifier(**parameters).fit(X, y) for library in (ours, theirs)]
    binary = [library.MLPClassifier(**parameters).fit(X, y > 4) for library in (ours, theirs)]
    numbers = [library.MLPRegressor(**parameters).fit(X, y) for library in (ours, theirs)]
    row = X[:1].copy()
    yield "predict one row", *(lambda m=m: m.predict(row) for m in models)
    yield "predict_proba of one row", *(lambda m=m: m.predict_proba(row) for m in models)
    yield "predict one row, two classes", *(lambda m=m: m.predict(row) for m in binary)
    yield "predict one row, regressor", *(lambda m=m: m.predict(row) for m in numbers)
    yield "predict 1797 rows", *(lambda m=m: m.predict(X) for m in models)
    net, x = models[0].to_network(), row[0].copy()
    yield "to_network().predict_one", lambda: net.predict_one(x), lambda: models[1].predict(row)


def report(name, mine, reference, unit):
    """Print one line."""
    scale = {"ms": 1e3, "us": 1e6}[unit]
    a, b = statistics.median(mine), statistics.median(reference)
    ratio = statistics.median(r / m for m, r in zip(mine, reference, strict=True))
    target = TARGETS.get(name)
    verdict = "" if target is None else f"  target {target:g}: {'yes' if ratio >= target else 'NO'}"
    print(f"{name:34s} {a * scale:10.3f} {b * scale:10.3f} {unit} {ratio:8.1f}x{verdict}")


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="times everything is timed")
    parser.add_argument("--only", default="", help="a word the name must contain")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"fastrna {ours.isa()}; medians of {options.rounds} rounds")
    print(f"{'':34s} {'fastrna':>10s} {'sklearn':>10s}      ratio")
    for name, estimator, parameters, data in fits():
        if options.only in name:
            times = ([], [])
            for _ in range(options.rounds):
                for library, taken in zip((ours, theirs), times, strict=True):
                    taken.append(fit_time(library, estimator, parameters, data))
            report(name, *times, "ms")
    for name, mine, reference in calls():
        if options.only in name:
            times = ([], [])
            for _ in range(options.rounds):
                for function, taken in zip((mine, reference), times, strict=True):
                    taken.append(call_time(function))
            report(name, *times, "us")


if __name__ == "__main__":
    main()
