"""The door: every argument is checked and converted here, once, before any kernel sees it.

Each check returns the value in the form the rest of the library uses, or raises a `ValueError` or
`TypeError` whose sentence names the argument, what was wrong and what was expected.
"""

from __future__ import annotations

import functools
import itertools
import math
import numbers
import os

import numpy as np

from fastrna import kernels
from fastrna.scaling import Scaler, real_array

#: Activations and the default of their parameter; None where they take none.
ACTIVATIONS = {
    "step": None,
    "sign": None,
    "identity": None,
    "sigmoid": None,
    "tanh": None,
    "relu": None,
    "leaky_relu": 0.1,
    "elu": 1.0,
    "softplus": None,
    "gelu": None,
    "silu": None,
    "exp": None,
    "softmax": None,
}

#: Costs and the default of their parameter; None where they take none.
LOSSES = {
    "squared_error": None,
    "log_loss": None,
    "perceptron": None,
    "absolute_error": None,
    "huber": 1.0,
    "poisson": None,
    "quantile": 0.5,
}

_THRESHOLDS = ("step", "sign")
_OUTPUTS_OF_CLASSES = ("softmax", "sigmoid", *_THRESHOLDS)
#: Outputs that a cost goes with. Squared error goes with all but thresholds, costs that are not
#: listed with all but thresholds and softmax.
_OUTPUTS_OF = {
    "log_loss": ("sigmoid", "softmax"),
    "perceptron": _THRESHOLDS,
    "poisson": ("exp", "softplus"),
}
_AUTO = {"sigmoid": "log_loss", "softmax": "log_loss", "exp": "poisson"} | dict.fromkeys(
    _THRESHOLDS, "perceptron"
)
#: Costs that are not defined for all targets.
LOSSES_OF_SOME = frozenset(["log_loss", "poisson", "perceptron"])
_BLOCK_ELEMENTS = 1 << 18
_MOST_PARAMETERS = 1 << 40
#: Within which the largest weight of an example may lie: its cost times it is of the net's type.
_WEIGHTS = (1e-20, 1e20)


def known(value, name, names):
    """Return `value` if it is one of `names`."""
    if isinstance(value, str) and value in names:
        return value
    raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, names))}.")


def integer(value, name, least=1, most=None):
    """Return `value` as an int of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    limits = f"at least {least}" if most is None else f"from {least} to {most}"
    if not whole:
        raise TypeError(f"{name} is {value!r}; expected an integer, {limits}.")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {value!r}; expected an integer, {limits}.")
    return int(value)


def flag(value, name):
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; expected True or False.")
    return bool(value)


def optional(check, value, *arguments):
    """Return None for None, else what `check` makes of the value."""
    return None if value is None else check(value, *arguments)


def threads(n_threads):
    """Return n_threads as an int, or None; more than any machine has would only exhaust memory."""
    return optional(integer, n_threads, "n_threads", 1, kernels.MOST_THREADS)


def real(value, name, low=-math.inf, high=math.inf, low_open=False, high_open=False):
    """Return `value` as a finite float within an interval."""
    # Nearly every call passes a float, which is spared the slower questions.
    if type(value) is not float and (
        isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real)
    ):
        raise TypeError(f"{name} is {value!r}; expected a number.")
    number = float(value)
    above = number > low if low_open else number >= low
    below = number < high if high_open else number <= high
    if above and below and math.isfinite(number):
        return number
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'above' if low_open else 'at least'} {low:g}")
    if high < math.inf:
        bounds.append(f"{'below' if high_open else 'at most'} {high:g}")
    wanted = "a finite number" + (", " + " and ".join(bounds) if bounds else "")
    raise ValueError(f"{name} is {value!r}; expected {wanted}.")


def specification(value, name, table):
    """Return (name, parameter) of an activation or a cost given by name or by pair."""
    parameter = None
    chosen = value
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str):
        chosen, parameter = value
    chosen = known(chosen, name, table)
    if table[chosen] is None:
        if parameter is not None:
            raise ValueError(f"{name} {chosen!r} takes no parameter; got {parameter!r}.")
        return chosen, None
    if parameter is None:
        return chosen, table[chosen]
    limits = {"quantile": (0, 1, True, True), "huber": (0, math.inf, True)}.get(chosen, ())
    return chosen, real(parameter, f"the parameter of {name} {chosen!r}", *limits)


def layer_sizes(sizes):
    """Return the widths of the layers as a list of ints, input first."""
    try:
        sizes = list(sizes)
    except TypeError:
        raise TypeError(
            f"sizes is {sizes!r}; expected a sequence of widths, input first, as [64, 100, 10]."
        ) from None
    if len(sizes) < 2:
        raise ValueError(f"sizes is {sizes}; expected at least two layers, input and output.")
    sizes = [integer(n, f"sizes[{i}]") for i, n in enumerate(sizes)]
    numbers_in_all = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))
    if numbers_in_all > _MOST_PARAMETERS:
        raise ValueError(
            f"sizes is {sizes}, with {numbers_in_all} parameters; expected at most "
            f"{_MOST_PARAMETERS}."
        )
    return sizes


def scaler(value, n_x):
    """Raise unless it is None, or a fitted `Scaler` of n_x columns."""
    if value is None:
        return
    if not isinstance(value, Scaler) or not hasattr(value, "scale_"):
        raise TypeError(f"scaler is {value!r}; expected a fitted fastrna.Scaler, or None.")
    for name in ("shift_", "scale_"):
        part = numeric(getattr(value, name), f"the scaler's {name}")
        if part.ndim != 1:
            raise ValueError(
                f"the scaler's {name} has shape {part.shape}; expected ({n_x},), one a column."
            )
        if part.size != n_x:
            raise ValueError(
                f"scaler was fitted on {part.size} columns; expected {n_x}, the width of the "
                "input layer."
            )
        finite(part, f"the scaler's {name}")
    if not np.all(value.scale_):
        raise ValueError("the scaler's scale_ has a 0; expected numbers other than 0.")


def parameters(values, n_parameters, dtype):
    """Return what is to become of all parameters: one number, or one for each."""
    values = numeric(values, "parameters")
    if values.shape not in ((), (n_parameters,)):
        raise ValueError(
            f"parameters has shape {values.shape}; expected ({n_parameters},), all of the "
            "network's, or one number."
        )
    if values.dtype.itemsize > dtype.itemsize:
        with np.errstate(over="ignore"):
            converted = values.astype(dtype)
        if kernels.load(dtype).first_nonfinite(converted) >= 0:
            within_range(values, dtype, "parameters")
        return converted
    return values


def path(value, name="path"):
    """Return where a file is to be written, as a str; its folder must be there."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text:
        raise TypeError(f"{name} is {value!r}; expected the name of a file, a str or a path.")
    folder = os.path.dirname(os.path.abspath(text))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{name} is {text!r}, in a folder that does not exist.")
    if os.path.isdir(text):
        raise IsADirectoryError(f"{name} is {text!r}, a folder; expected the name of a file.")
    return text


def layer_activations(hidden, output, n_hidden):
    """Return one (name, parameter) a layer."""
    table = {name: default for name, default in ACTIVATIONS.items() if name != "softmax"}
    is_pair = (
        isinstance(hidden, (list, tuple))
        and len(hidden) == 2
        and not isinstance(hidden[1], (list, tuple))
        and not (isinstance(hidden[1], str) and hidden[1] in ACTIVATIONS)
    )
    if isinstance(hidden, (list, tuple)) and not is_pair:
        if len(hidden) != n_hidden:
            raise ValueError(
                f"hidden lists {len(hidden)} activations; expected one, or one for each of the "
                f"{n_hidden} hidden layers."
            )
        chosen = list(hidden)
    else:
        chosen = [hidden] * max(n_hidden, 1)
    if "softmax" in chosen:
        raise ValueError(
            "hidden is 'softmax', which is for the output only; expected one of "
            f"{', '.join(map(repr, table))}."
        )
    layers = [specification(h, "hidden", table) for h in chosen][:n_hidden]
    return [*layers, specification(output, "output", ACTIVATIONS)]


def cost(loss, output):
    """Return (name, parameter) of a cost, which must go with the output's activation."""
    return _cost(loss if isinstance(loss, str) else _hashable(loss), output)


def _hashable(loss):
    if not isinstance(loss, (tuple, list)):
        return repr(loss)
    plain = (str, numbers.Real, type(None))
    return tuple(part if isinstance(part, plain) else repr(part) for part in loss)


@functools.lru_cache
def _cost(loss, output):
    if isinstance(loss, str) and loss == "auto":
        loss = _AUTO.get(output, "squared_error")
    elif not isinstance(loss, (tuple, list)):
        known(loss, "loss", ["auto", *LOSSES])
    name, parameter = specification(loss, "loss", LOSSES)
    fitting = _OUTPUTS_OF.get(name) or [
        a
        for a in ACTIVATIONS
        if a not in _THRESHOLDS and (a != "softmax" or name == "squared_error")
    ]
    if output not in fitting:
        raise ValueError(
            f"loss {name!r} does not go with output {output!r}; expected an output among "
            f"{', '.join(map(repr, fitting))}."
        )
    return name, parameter


def float_type(dtype):
    """Return float32 or float64 as a dtype."""
    try:
        chosen = None if dtype is None else np.dtype(dtype)
    except TypeError:
        chosen = None
    if chosen not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'.")
    return chosen


def numeric(array, name):
    """Return `array` as an ndarray of a real type the kernels read, uncopied where it is one."""
    array = real_array(array, name)
    dtype = array.dtype
    if dtype not in kernels.SOURCES:
        return array.astype(np.float64)
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    if not flags.aligned or any(stride % dtype.itemsize for stride in array.strides):
        return array.copy()
    return array


def finite(array, name):
    """Raise unless all numbers are finite, with the place of the first that is not."""
    if array.dtype.kind != "f" or not array.size:
        return array
    if array.flags.c_contiguous:
        place = kernels.load(array.dtype).first_nonfinite(array)
        if place < 0:
            return array
        where = np.unravel_index(place, array.shape)
    else:
        rows = max(1, _BLOCK_ELEMENTS // max(1, array[:1].size))
        for first in range(0, len(array), rows):
            bad = ~np.isfinite(array[first : first + rows])
            if bad.any():
                where = np.unravel_index(bad.argmax(), bad.shape)
                where = (where[0] + first, *where[1:])
                break
        else:
            return array
    raise ValueError(f"{name} has {array[where]} at {_place(where)}; expected finite numbers only.")


def _place(where):
    return ", ".join(
        f"{axis} {int(i)}" for axis, i in zip(("row", "column", "axis 2"), where, strict=False)
    )


def within_range(array, dtype, name):
    """Raise if a number, finite as it is, is infinite in a narrower type.

    For where something has gone wrong, as it takes longer than `finite`.
    """
    array, most = numeric(array, name), np.finfo(dtype).max
    if array.dtype.kind != "f" or array.dtype.itemsize <= most.itemsize:
        return
    finite_ones = np.where(np.isfinite(array), array, 0)
    for extreme in (finite_ones.argmax(), finite_ones.argmin()):
        where = np.unravel_index(extreme, array.shape)
        if abs(array[where]) > most:
            place = f" at {_place(where)}" if where else ""
            raise ValueError(
                f"{name} has {array[where]}{place}, beyond the range of {most.dtype}; "
                f"expected at most {most:.4g}, or a network of float64."
            )


def is_sparse(X):
    """Whether X is one of SciPy's sparse matrices or arrays, without importing SciPy."""
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def inputs(X, n_x, name="X", finite_too=True):
    """Return X (m, n_x) as the kernels read it; float arrays of either type are not copied."""
    X = numeric(X, name)
    if X.ndim != 2:
        hint = f" For one example pass it as a row: {name}.reshape(1, -1)." if X.ndim == 1 else ""
        raise ValueError(
            f"{name} has shape {X.shape}; expected 2 dimensions, (examples, {n_x}).{hint}"
        )
    if X.shape[1] != n_x:
        raise ValueError(
            f"{name} has {X.shape[1]} columns; expected {n_x}, the width of the input layer."
        )
    if X.shape[0] == 0:
        raise ValueError(f"{name} has shape {X.shape}; expected at least one example.")
    return finite(X, name) if finite_too else X


def sparse_inputs(X, n_x, dtype, name="X"):
    """Return (shape, (indptr, indices, values)) of a SciPy sparse X, as CSR of one float type."""
    if X.ndim != 2 or X.shape[1] != n_x:
        raise ValueError(f"{name} has shape {X.shape}; expected (m, {n_x}).")
    if X.shape[0] == 0:
        raise ValueError(f"{name} has shape {X.shape}; expected at least one example.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {X.dtype}; expected real numbers.")
    X = X.tocsr()
    rises = len(X.indptr) == X.shape[0] + 1 and X.indptr[0] == 0 and (np.diff(X.indptr) >= 0).all()
    if not rises or X.indptr[-1] > min(len(X.data), len(X.indices)):
        raise ValueError(
            f"{name} has an indptr that does not rise from 0, row by row, to at most the count of "
            "its numbers and of their columns; expected a valid CSR."
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(X.data, dtype=dtype)
    if not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        row = int(np.searchsorted(X.indptr, place, side="right")) - 1
        raise ValueError(
            f"{name} has {values[place]} at row {row}, column {X.indices[place]}; expected finite "
            "numbers only."
        )
    if len(X.indices) and (X.indices.min() < 0 or X.indices.max() >= n_x):
        raise ValueError(f"{name} has column indices outside 0 to {n_x - 1}.")
    return X.shape, (
        np.ascontiguousarray(X.indptr, dtype=np.int64),
        np.ascontiguousarray(X.indices, dtype=np.int32),
        values,
    )


def targets(y, m, n_y, output, dtype, name="y", X_name="X"):
    """Return y as (m, n_y) numbers of the network's type, or as (m,) int64 classes for softmax."""
    y = numeric(y, name)
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {y.shape}; expected 1 or 2 dimensions.")
    if len(y) != m:
        raise ValueError(
            f"{name} has {len(y)} examples and {X_name} has {m}; expected as many of one as of the "
            "other."
        )
    finite(y, name)
    if y.ndim == 1 and output == "softmax":
        return _classes(y, n_y, name)
    if y.ndim == 1 and n_y != 1:
        raise ValueError(f"{name} has shape ({m},); expected ({m}, {n_y}): one column an output.")
    y = y.reshape(m, -1)
    if y.shape[1] != n_y:
        raise ValueError(
            f"{name} has {y.shape[1]} columns; expected {n_y}, the width of the output layer."
        )
    _within_range(y, output, name)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(y, dtype=dtype)
    if converted.dtype != y.dtype and kernels.load(dtype).first_nonfinite(converted) >= 0:
        within_range(y, dtype, name)
    return converted


def _classes(y, n_y, name):
    with np.errstate(invalid="ignore"):
        classes = y.astype(np.int64)  # of its own: a kernel writes where they say
    if y.dtype.kind == "f" and (classes != y).any():
        row = int(np.argmax(classes != y))
        raise ValueError(f"{name} has {y[row]} at row {row}; expected integer classes.")
    wrong = (classes < 0) | (classes >= n_y)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} has class {y[row]} at row {row}; expected classes from 0 to {n_y - 1}."
        )
    return classes


def _within_range(y, output, name):
    if output == "step":
        _none_wrong(y, (y != 0) & (y != 1), name, "0 or 1, the values of output 'step'")
    elif output == "sign":
        _none_wrong(y, (y != -1) & (y != 1), name, "-1 or 1, the values of output 'sign'")


def _none_wrong(y, wrong, name, wanted):
    if wrong.any():
        row, column = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
        raise ValueError(
            f"{name} has {y[row, column]} at row {row}, column {column}; expected {wanted}."
        )


def targets_of_loss(y, loss, name="y"):
    """Raise unless the targets are such as the cost can be taken of."""
    if y.ndim == 1:
        return
    if loss == "log_loss":
        _none_wrong(y, (y < 0) | (y > 1), name, "numbers from 0 to 1 with loss 'log_loss'")
    elif loss == "poisson":
        _none_wrong(y, y < 0, name, "numbers of at least 0 with loss 'poisson'")


def kind_of_targets(loss, output):
    """Return what targets that were checked for one cost and output have to share with another."""
    return (
        loss if loss in LOSSES_OF_SOME else None,
        output if output == "softmax" or output in _THRESHOLDS else None,
    )


def held_out(validation):
    """Return what is to be held out: None, a fraction, or a pair (X, y)."""
    if validation is None:
        return None
    if isinstance(validation, numbers.Real):
        return real(validation, "validation", 0, 1, low_open=True, high_open=True)
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        count = f" of {len(validation)}" if isinstance(validation, (tuple, list)) else ""
        raise TypeError(
            f"validation is {type(validation).__name__}{count}; expected (X, y), or the fraction "
            "of the examples to hold out."
        )
    return tuple(validation)


def weights_of_examples(sample_weight, m, name="sample_weight"):
    """Return sample_weight as (m,) float64, or None."""
    if sample_weight is None:
        return None
    weight = numeric(sample_weight, name)
    if weight.shape != (m,):
        raise ValueError(f"{name} has shape {weight.shape}; expected ({m},), one a row of X.")
    finite(weight, name)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    if (weight < 0).any():
        row = int(np.argmax(weight < 0))
        raise ValueError(f"{name} has {weight[row]} at row {row}; expected none below 0.")
    if not weight.any():
        raise ValueError(f"{name} is zero for every example; expected at least one above 0.")
    if not _WEIGHTS[0] <= weight.max() <= _WEIGHTS[1]:
        raise ValueError(
            f"{name} is {weight.max():g} at most; expected its largest from {_WEIGHTS[0]:g} to "
            f"{_WEIGHTS[1]:g}."
        )
    return weight


def weights_of_classes(class_weight, y, n_y, output):
    """Return the weight of each example from that of its class: a dict, or "balanced".

    "balanced" weighs class k by m / (number of classes that occur * count of k).
    """
    if output not in _OUTPUTS_OF_CLASSES or (n_y > 1 and output != "softmax"):
        raise ValueError(
            f"class_weight goes with classes, but the network has {n_y} outputs {output!r}; "
            "expected 'softmax', or one output 'sigmoid', 'step' or 'sign'."
        )
    y = np.asarray(y)
    labels = y if y.ndim == 1 else (y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0])
    if isinstance(class_weight, str):
        known(class_weight, "class_weight", ["balanced"])
        found, place, count = np.unique(labels, return_inverse=True, return_counts=True)
        return (len(labels) / (len(found) * count))[place]
    if not isinstance(class_weight, dict):
        raise TypeError(
            f"class_weight is {class_weight!r}; expected a dict of weights by class, 'balanced' or "
            "None."
        )
    weight = np.ones(len(labels))
    classes = (-1, 1) if output == "sign" else range(max(n_y, 2))
    for label, value in class_weight.items():
        value = real(value, f"class_weight[{label!r}]", 0)
        # Targets of one sigmoid may lie between its classes.
        if label not in classes and label not in labels:
            raise ValueError(
                f"class_weight names class {label!r}; expected classes among "
                f"{', '.join(map(str, classes))}."
            )
        weight[labels == label] = value
    if not weight.any():
        raise ValueError("class_weight is zero for every example; expected one above 0.")
    return weight
