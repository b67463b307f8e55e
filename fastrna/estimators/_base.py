"""What the classifier and the regressor share: parameters, validation, the network, prediction.

The fitted state of an estimator is plain: `coefs_`, `intercepts_` and a few numbers. The compiled
`Network` behind it is derived from that state and never pickled; `coefs_` and `intercepts_` are
views of its flat parameters, so that whatever changes the ones changes the other. A user may also
put arrays of his own in their place: `_current_network` notices, by identity, and takes their
values over before anything is computed.

Validation is what a prediction of one row costs in scikit-learn. Here an array that is what the
network wants (dtype, width, C order) goes straight to it, which refuses numbers that are not
finite; everything else goes through scikit-learn's `validate_data`, which converts it or says what
is wrong with it.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from itertools import chain, pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastrna import Network, Scaler

from ._monitoring import CallbackSupport, HeldOut, Monitor
from ._solvers import fit_lbfgs, fit_stochastic

# scikit-learn's names, and the library's own.
HIDDEN_ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "softplus": "softplus",
    "gelu": "gelu",
    "silu": "silu",
}
OUTPUT_ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "softmax": "softmax",
    "exp": "exp",
}

# Objects made from the fitted state, or by the process it was fitted in.
_DERIVED = ("_network", "_views", "_trainer")


class BaseMLP(CallbackSupport, BaseEstimator, ABC):
    """The common part of `MLPClassifier` and `MLPRegressor`; of no use by itself."""

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(HIDDEN_ACTIVATIONS)), list, tuple],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {math.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "input_scaling": [StrOptions({"minmax", "max", "mean", "zscore"}), None],
        "scorer": [StrOptions(set(get_scorer_names())), callable, None],
        "callbacks": [list, tuple, callable, None],
        "progress": ["boolean"],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    }

    # Whether the targets are real numbers rather than labels.
    _real_targets: bool

    # --------------------------------------------------------------- what the two tell apart

    @abstractmethod
    def _learn_targets(self, y: np.ndarray, incremental: bool) -> None:
        """Learn the labels of the training data, or check them against those learnt before."""

    @abstractmethod
    def _encode(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return targets as `Trainer.prepare` takes them."""

    @abstractmethod
    def _output(self, targets: np.ndarray) -> tuple[int, str]:
        """Return the width of the output layer and its activation, by scikit-learn's name."""

    @abstractmethod
    def _loss(self) -> str | tuple[str, float]:
        """Return the loss, by the library's name."""

    def _learn_weights(self, targets: np.ndarray, sample_weight: Any, incremental: bool) -> None:
        """Learn the weight of every class, where classes are weighted."""

    def _total_weight(self, y: np.ndarray, targets: np.ndarray, sample_weight: Any) -> Any:
        """Return the weights of the examples in the loss, or None where they are all one."""
        return sample_weight

    # ------------------------------------------------------------------------- parameters

    def _store_parameters(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of the constructor, `locals()` there, just as they came."""
        for name, value in arguments.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if any(not isinstance(size, Integral) or size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def _hidden_activations(self, n_hidden: int) -> list[str | tuple[str, float]]:
        """Return the activation of every hidden layer, by the library's names."""
        given = self.activation
        if isinstance(given, str) or _is_parametrised(given):
            given = [given] * n_hidden
        elif len(given) != n_hidden:
            raise ValueError(
                f"activation lists {len(given)} functions, but the number of hidden layers is "
                f"{n_hidden}: give one function for all of them, or one for each."
            )
        activations = []
        for spec in given:
            name, *parameter = spec if _is_parametrised(spec) else (spec,)
            if name not in HIDDEN_ACTIVATIONS:
                known = ", ".join(map(repr, HIDDEN_ACTIVATIONS))
                raise ValueError(
                    f"activation names {name!r}, but a hidden layer takes one of {known}."
                )
            name = HIDDEN_ACTIVATIONS[name]
            activations.append((name, *parameter) if parameter else name)
        return activations

    def _stops_early(self) -> bool:
        """Whether a validation score, rather than the training loss, decides when to stop."""
        return bool(self.early_stopping) and self.solver != "lbfgs"

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for the stochastic solvers, 'sgd' and 'adam', "
                f"but solver is {self.solver!r}."
            )
        return True

    # ---------------------------------------------------------------------------- fitting

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, validation_data=None):
        """Train the network on X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples. float32 is trained in float32 and everything else in float64; a sparse
            matrix is never made dense.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels for a classifier (an indicator matrix where an example has several), real
            numbers for a regressor.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of every example in the loss.
        validation_data : tuple (X, y) or (X, y, sample_weight), optional
            Examples to follow the training on: their loss and their score are recorded after
            every epoch. With ``early_stopping=True`` they decide when to stop, in place of a
            fraction of X.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or if the training diverged.
        """
        return self._fit(X, y, sample_weight, validation_data=validation_data, incremental=False)

    def _fit(self, X, y, sample_weight, *, validation_data=None, incremental):
        before, monitor = dict(vars(self)), None
        try:
            monitor = Monitor(self, X, y, sample_weight, incremental=incremental)
            X, targets, weights, held_out, random = self._make_ready(
                X, y, sample_weight, validation_data, incremental
            )
            with monitor:
                if self.solver == "lbfgs":
                    fit_lbfgs(self, X, targets, weights, held_out, monitor)
                else:
                    fit_stochastic(
                        self, X, targets, weights, held_out, monitor, random, incremental
                    )
        except BaseException:
            if monitor is None or not monitor.begun:
                self._put_back(before)
            raise
        return self

    def _put_back(self, before) -> None:
        """Be as before a call that was refused; scikit-learn ends its callbacks itself."""
        theirs = {name: v for name, v in vars(self).items() if "callback" in name}
        vars(self).clear()
        vars(self).update(theirs | before)

    def _make_ready(self, X, y, sample_weight, validation_data, incremental):
        """Check everything and make the network, where there is none to go on with.

        Returns X, targets and weights as `Trainer.prepare` takes them, the examples held out and
        the generator of the epochs' orders.
        """
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.dropout > 0 and self.solver == "lbfgs":
            raise ValueError(
                f"dropout is {self.dropout}, but solver is 'lbfgs', which needs the same loss "
                "for the same weights: use 'sgd' or 'adam', or dropout=0.0."
            )
        hidden_sizes = self._hidden_sizes()
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        given = X
        dtype = (np.float64, np.float32) if first_pass else _common_dtype(self.coefs_)
        X, y = self._check_data(X, y, dtype, reset=first_pass)
        if self.input_scaling not in (None, "max") and hasattr(X, "tocsr"):
            raise ValueError(
                f"input_scaling is {self.input_scaling!r}, but X is sparse, and a shift would "
                "fill its zeros: take 'max', or scale it first."
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self._learn_targets(y, incremental)
        targets = self._encode(y, X.dtype)
        self._learn_weights(targets, sample_weight, incremental)
        weights = self._total_weight(y, targets, sample_weight)

        n_outputs, activation = self._output(targets)
        sizes = [X.shape[1], *hidden_sizes, n_outputs]
        random = check_random_state(self.random_state)
        if first_pass or not hasattr(self, "out_activation_"):  # else that of the network there is
            self.n_outputs_, self.out_activation_ = n_outputs, activation
            self.n_layers_ = len(sizes)
        if first_pass:
            self._initialize(sizes, X.dtype, random)
        elif (present := list(self._current_network().sizes)) != sizes:
            raise ValueError(
                f"the network to go on with has layers of {present} units, but the parameters "
                f"and the data ask for {sizes}: fit a new estimator, or set warm_start=False."
            )
        self._begin_records(first_pass)

        held_out = None
        if validation_data is not None:
            held_out = self._given_validation(validation_data)
        elif self._stops_early():
            rows, held_out = self._split(given, X, y, targets, sample_weight, weights, random)
            X, targets = X[rows], targets[rows]
            weights = None if weights is None else weights[rows]
        if first_pass:
            self.scaler_ = None
            if self.input_scaling is not None:
                self.scaler_ = self._network.scaler = Scaler(self.input_scaling).fit(X)
        return X, targets, weights, held_out, random

    def _check_data(self, X, y, dtype, reset):
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=self._real_targets,
            dtype=dtype,
            reset=reset,
        )
        if self._real_targets and hasattr(y, "tocsr"):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _initialize(self, sizes, dtype, random) -> None:
        """Make the network, with the parameters scikit-learn draws."""
        activations = self._hidden_activations(len(sizes) - 2)
        net = Network(
            sizes,
            hidden=activations,
            output=OUTPUT_ACTIVATIONS[self.out_activation_],
            dtype=dtype.name,
            init="zeros",
        )
        # scikit-learn has one activation, which decides the width of the draw in every layer, the
        # last included. Where every layer has its own, the last goes by the one before it.
        alone = "sigmoid" if self.activation == "logistic" else "identity"
        names = [name for name, _ in net.activations[:-1]] or [alone]
        for W, b, name in zip(net.weights, net.biases, [*names, names[-1]], strict=False):
            bound = math.sqrt((2.0 if name == "sigmoid" else 6.0) / sum(W.shape))
            W[...] = random.uniform(-bound, bound, W.shape)
            b[...] = random.uniform(-bound, bound, b.shape)
        self._bind(net)

    def _begin_records(self, first_pass: bool) -> None:
        """Set what is counted over several calls, where it is not counted yet."""
        stops_early = self._stops_early()
        starts = {
            "t_": 0,
            "loss_curve_": [],
            "validation_loss_curve_": None,
            "validation_scores_": [] if stops_early else None,
            "best_validation_score_": -math.inf if stops_early else None,
            "best_loss_": None if stops_early else math.inf,
            "_no_improvement_count": 0,
        }
        for name, start in starts.items():
            # A warm start may turn early stopping on or off: what it then needs starts here.
            if first_pass or getattr(self, name, None) is None:
                setattr(self, name, start)
        if first_pass:
            self.__dict__.pop("_trainer_state", None)

    # ---------------------------------------------------------------------- held-out examples

    def _split(self, given, X, y, targets, sample_weight, weights, random):
        """Set a fraction of the examples aside, the same ones as scikit-learn would."""
        # scikit-learn takes its encoded targets for strata, where they are a single column.
        binary = not self._real_targets and self.n_outputs_ == 1
        rows, kept = train_test_split(
            np.arange(X.shape[0]),
            random_state=random,
            test_size=self.validation_fraction,
            stratify=targets.astype(bool) if binary else None,
        )
        if len(kept) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        held_out = HeldOut(
            X[kept],
            y[kept],
            targets[kept],
            weights=None if weights is None else weights[kept],
            sample_weight=None if sample_weight is None else sample_weight[kept],
            given=given,
            rows=kept,
        )
        return rows, held_out

    def _given_validation(self, validation_data) -> HeldOut:
        """Check ``fit(..., validation_data=(X, y))``."""
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise ValueError(
                "validation_data must be a pair (X, y) or a triple (X, y, sample_weight), but it "
                f"is {type(validation_data).__name__}."
            )
        given, y, sample_weight = (*validation_data, None)[:3]
        X, y = self._check_data(given, y, self._network.dtype, reset=False)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        targets = self._encode(y, X.dtype)
        if self._output(targets)[0] != self.n_outputs_:
            raise ValueError(
                f"validation_data has targets of shape {y.shape}, which do not go with the "
                f"{self.n_outputs_} outputs of the network."
            )
        weights = self._total_weight(y, targets, sample_weight)
        return HeldOut(X, y, targets, weights=weights, sample_weight=sample_weight, given=given)

    # ------------------------------------------------------------------------ the network

    def _bind(self, net: Network) -> None:
        """Make `coefs_` and `intercepts_` views of a network's parameters."""
        self._network = net
        self._activations = net.activations[:-1]
        self._trainer = None
        self.coefs_ = list(net.weights)
        self.intercepts_ = list(net.biases)
        self._views = (*self.coefs_, *self.intercepts_)

    def _current_network(self) -> Network:
        """Return the network, once it has taken over arrays put in place of its views."""
        views = self.__dict__.get("_views", ())
        present = (*self.coefs_, *self.intercepts_)
        if len(views) == len(present) and all(map(operator.is_, views, present)):
            return self._network
        return self._adopt_coefficients()

    def _adopt_coefficients(self) -> Network:
        """Copy `coefs_` and `intercepts_` into the network, or into a new one of their shape."""
        coefs = [np.asarray(W) for W in self.coefs_]
        intercepts = [np.asarray(b) for b in self.intercepts_]
        shapes = [W.shape for W in coefs]
        fit_together = (
            len(coefs) == len(intercepts) > 0
            and all(W.ndim == 2 for W in coefs)
            and all(W.shape[1:] == b.shape for W, b in zip(coefs, intercepts, strict=True))
            and all(before[1] == after[0] for before, after in pairwise(shapes))
        )
        if not fit_together:
            raise ValueError(
                f"coefs_ has the shapes {shapes} and intercepts_ {[b.shape for b in intercepts]}, "
                "but layer l needs (n_l, n_l+1) and (n_l+1,)."
            )
        sizes = [shapes[0][0], *(shape[1] for shape in shapes)]
        net, trainer = self.__dict__.get("_network"), self.__dict__.get("_trainer")
        if net is None or list(net.sizes) != sizes:
            activations = self.__dict__.get("_activations", ())
            if len(activations) != len(sizes) - 2:
                activations = self._hidden_activations(len(sizes) - 2)
            net = Network(
                sizes,
                hidden=activations,
                output=OUTPUT_ACTIVATIONS[self.out_activation_],
                dtype=_common_dtype(coefs).name,
                init="zeros",
            )
            net.scaler = self.__dict__.get("scaler_")
            trainer = None
        views = chain(net.weights, net.biases)
        for view, array in zip(views, chain(coefs, intercepts), strict=True):
            view[...] = array
        self._bind(net)
        self._trainer = trainer
        return net

    def to_network(self) -> Network:
        """Return a copy of the fitted network, for predictions in a microsecond or two.

        Returns
        -------
        Network
            It takes raw inputs, scaling included, and returns what `predict_proba` is made of
            (one column where there are two classes) or, for a regressor, what `predict` returns.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self, "coefs_")
        return self._current_network().copy()

    # ------------------------------------------------------------------------- prediction

    def _forward(self, X) -> np.ndarray:
        """Check X and return what the network makes of it, (n_samples, n_outputs)."""
        fitted = self.__dict__
        if "coefs_" not in fitted:
            check_is_fitted(self)
        net = self._current_network()
        as_wanted = (
            type(X) is np.ndarray
            and X.dtype == net.dtype
            and X.ndim == 2
            and X.shape[1] == net.sizes[0]
            and X.flags.c_contiguous
            and "feature_names_in_" not in fitted
        )
        if as_wanted:
            try:
                if X.shape[0] == 1:
                    return net.predict_one(X[0])[np.newaxis]
                return net.predict(X, n_threads=self.n_threads)
            except ValueError:
                pass  # Not finite, or empty, which is said below in scikit-learn's words.
        X = validate_data(self, X, accept_sparse="csr", dtype=net.dtype, reset=False)
        return net.predict(X, n_threads=self.n_threads)

    # -------------------------------------------------------------------------- machinery

    def __getstate__(self):
        state = {k: v for k, v in super().__getstate__().items() if k not in _DERIVED}
        trainer = self.__dict__.get("_trainer")
        if trainer is not None:
            state["_trainer_state"] = trainer.state()
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "_activations" in self.__dict__:
            self._adopt_coefficients()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.input_scaling in (None, "max")
        return tags


def _is_parametrised(spec: Any) -> bool:
    """Tell ("elu", 0.5), one function, from ("relu", "tanh"), one function a layer."""
    return (
        isinstance(spec, (tuple, list))
        and len(spec) == 2
        and isinstance(spec[0], str)
        and isinstance(spec[1], Real)
    )


def _common_dtype(arrays) -> np.dtype:
    """Return float32 where all the arrays are, float64 otherwise."""
    narrow = all(np.asarray(array).dtype == np.float32 for array in arrays)
    return np.dtype(np.float32 if narrow else np.float64)
