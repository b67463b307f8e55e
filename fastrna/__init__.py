"""fastrna: multilayer perceptrons at the speed of the CPU.

>>> import fastrna
>>> X, y = fastrna.datasets.load_digits()
>>> net = fastrna.Network([64, 100, 10], output="softmax", seed=0)
>>> net.scaler = fastrna.Scaler("minmax").fit(X)
>>> history = fastrna.train(net, X, y, optimizer=fastrna.SGD(0.1, momentum=0.9), epochs=5, seed=0)
>>> bool((net.predict(X).argmax(axis=1) == y).mean() > 0.97)
True
"""

import importlib as _importlib

from fastrna.descent import gradient_descent
from fastrna.history import History
from fastrna.kernels import isa
from fastrna.network import Network
from fastrna.optimizers import LBFGS, SGD, Adam, Adaptive, Cosine, InverseScaling, StepDecay
from fastrna.scaling import Scaler
from fastrna.training import DivergenceError, Trainer, train

__version__ = "0.1.0"

# Not the names of _ESTIMATORS, as "import *" would need scikit-learn then.
__all__ = [
    "Adam",
    "Adaptive",
    "Cosine",
    "DivergenceError",
    "History",
    "InverseScaling",
    "LBFGS",
    "Network",
    "SGD",
    "Scaler",
    "StepDecay",
    "Trainer",
    "datasets",
    "gradient_descent",
    "isa",
    "plotting",
    "reference",
    "train",
]

_ESTIMATORS = ("MLPClassifier", "MLPRegressor", "from_sklearn")
_MODULES = ("datasets", "estimators", "plotting", "reference")


def __getattr__(name):
    # What needs an extra, or is rarely needed, is imported when it is asked for.
    if name in _ESTIMATORS:
        return getattr(_importlib.import_module("fastrna.estimators"), name)
    if name in _MODULES:
        return _importlib.import_module(f"fastrna.{name}")
    raise AttributeError(f"module 'fastrna' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_ESTIMATORS, *_MODULES])
