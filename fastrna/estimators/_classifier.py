"""The classifier: labels, class weights, probabilities."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from ._base import BaseMLP

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron that classifies, with the interface of scikit-learn's.

    Minimises the log-loss plus ``alpha / 2 * sum W^2 / n`` by mini-batch gradient descent, Adam
    or L-BFGS, where n is the number of examples in the mini-batch. The output is a softmax over
    the classes; with two classes, or with several labels an example, a logistic function for
    each output.

    The parameters up to `max_fun` are those of `sklearn.neural_network.MLPClassifier`, with its
    defaults and, for the same `random_state`, its initial weights and its order of examples. The
    rest is beyond it.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Width of every hidden layer; a number alone is one layer.
    activation : str, (str, float) or list of these, default="relu"
        Activation of the hidden layers: "identity", "logistic" (or "sigmoid"), "tanh", "relu",
        "leaky_relu", "elu", "softplus", "gelu" or "silu"; with a parameter, ``("elu", 0.5)`` or
        ``("leaky_relu", 0.01)``; or a list with one for every hidden layer.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        The optimizer. "lbfgs" uses the whole data at every step and suits small data sets.
    alpha : float, default=0.0001
        Strength of the L2 penalty on the weights.
    batch_size : int or "auto", default="auto"
        Examples in a mini-batch; "auto" is 200, or all of them where there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        Schedule of "sgd": constant; ``learning_rate_init / (t + 1)^power_t``, t being the number
        of examples seen, renewed every epoch; or divided by 5 whenever progress stalls.
    learning_rate_init : float, default=0.001
        The learning rate to begin with.
    power_t : float, default=0.5
        The exponent of "invscaling".
    max_iter : int, default=200
        Most epochs ("sgd", "adam") or iterations ("lbfgs").
    shuffle : bool, default=True
        Whether the examples are shuffled before every epoch.
    random_state : int, RandomState instance or None, default=None
        Decides the initial weights, the validation split, the order of the examples, dropout.
    tol : float, default=1e-4
        Progress smaller than this in the loss (in the score, with `early_stopping`) counts as
        none; for "lbfgs", the largest entry of the gradient at which it has converged.
    verbose : bool, default=False
        Whether to print every epoch's loss.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last `fit`.
    momentum : float, default=0.9
        Momentum of "sgd".
    nesterovs_momentum : bool, default=True
        Whether that momentum is Nesterov's.
    early_stopping : bool, default=False
        Whether to stop by the score on held-out examples, and to keep the best weights.
    validation_fraction : float, default=0.1
        The fraction of the examples held out for it, unless `fit` is given `validation_data`.
        Stratified where there are two classes.
    beta_1, beta_2 : float, default=0.9 and 0.999
        Decay of Adam's first and second moment.
    epsilon : float, default=1e-8
        What Adam adds to its denominator.
    n_iter_no_change : int or inf, default=10
        Training stops when more epochs than this in a row have brought no progress.
    max_fun : int, default=15000
        Most evaluations of the loss by "lbfgs".
    class_weight : dict, "balanced", list of dict or None, default=None
        Weight of every class in the loss and in the default validation score, multiplied into
        `sample_weight`: a dictionary from label to weight (1 where a label is missing);
        "balanced" for ``n / (n_classes * n_c)``. With several labels an example, "balanced" or
        a list with one dictionary a label.
    dropout : float, default=0.0
        Probability with which every hidden unit is dropped at every training step, the others
        being divided by ``1 - dropout``. Not for "lbfgs".
    input_scaling : {"zscore", "minmax", "mean", "max"} or None, default=None
        Scaling of the inputs, learnt from the training examples and carried by the model.
    scorer : str, callable or None, default=None
        What early stopping maximises: a name or a callable as `sklearn.metrics.check_scoring`
        takes it; None is the accuracy.
    callbacks : callable, list of callable or None, default=None
        Called with the estimator after every epoch; one that returns True ends the training.
        Callbacks of scikit-learn 1.9's own protocol go to `set_callbacks` instead.
    progress : bool, default=False
        Whether to show a progress bar.
    n_threads : int or None, default=None
        Threads to use; None leaves it to the library. The result is the same for any number.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of every layer: views of the parameters of the
        network. They can be written to, or replaced by arrays of the same shape.
    loss_ : float
        The loss of the last epoch.
    best_loss_ : float or None
        The smallest loss so far; None with early stopping.
    loss_curve_ : list of float
        The loss of every epoch.
    validation_loss_curve_ : list of float or None
        The loss, without penalty, on the held-out examples after every epoch.
    validation_scores_ : list of float or None
        The score on the held-out examples after every epoch; None if none were held out.
    best_validation_score_ : float or None
        The largest of them.
    t_ : int
        Examples seen by "sgd" or "adam".
    n_iter_ : int
        Epochs of the last `fit`, or iterations.
    learning_rate_ : float
        The learning rate after the last epoch, of "sgd" or "adam".
    n_layers_, n_outputs_ : int
        Layers, the inputs included; outputs of the last.
    out_activation_ : {"softmax", "logistic"}
        Activation of the output layer.
    scaler_ : Scaler or None
        The scaling of the inputs.
    n_features_in_ : int
        Inputs.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    MLPRegressor : The same for real targets.
    from_sklearn : Take over a model fitted by scikit-learn.

    Examples
    --------
    >>> from fastrna import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(hidden_layer_sizes=10, solver="lbfgs", max_iter=1000,
    ...                       input_scaling="zscore", random_state=0).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.score(X, y) > 0.97
    True
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }
    _real_targets = False
    # Not a parameter; scikit-learn's classifier has the attribute, and so code may ask for it.
    loss = "log_loss"

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        class_weight=None,
        dropout=0.0,
        input_scaling=None,
        scorer=None,
        callbacks=None,
        progress=False,
        n_threads=None,
    ):
        self._store_parameters(locals())

    # ----------------------------------------------------------------------------- labels

    def _learn_targets(self, y, incremental):
        kind = _target_kind(y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self.classes_ = _labels(y)
            self._target_kind, self._sparse_targets = kind, hasattr(y, "tocsr")
            return
        if not hasattr(self, "_target_kind"):
            # The first partial_fit has been told the classes, and y may hold fewer of them.
            several = kind == "multilabel-indicator"
            self._target_kind = kind if several else _target_kind(self.classes_)
            self._sparse_targets = hasattr(y, "tocsr")
        if not self.warm_start:
            return
        labels = _labels(y)
        if set(labels) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {labels}"
            )

    def _encode(self, y, dtype):
        """Return class indices (n,), or 0 and 1 for every logistic output (n, n_outputs)."""
        several = self._target_kind == "multilabel-indicator"
        if several != (y.ndim == 2):
            raise ValueError(
                f"`y` has shape {y.shape}, but this classifier is fitted on "
                f"{'an indicator matrix' if several else 'one label'} for each example."
            )
        if several:
            if y.shape[1] != len(self.classes_):
                raise ValueError(
                    f"`y` has {y.shape[1]} columns, but the classifier has {len(self.classes_)} "
                    "labels."
                )
            y = y.toarray() if hasattr(y, "tocsr") else y
            return (y != 0).astype(dtype)
        index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[index], y):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {_labels(y)}."
            )
        return index if self._target_kind == "multiclass" else index.astype(dtype).reshape(-1, 1)

    def _output(self, targets):
        if targets.ndim == 1:
            return len(self.classes_), "softmax"
        return targets.shape[1], "logistic"

    def _loss(self):
        return "log_loss"

    def _decode(self, outputs):
        """Return the labels of what the network returned."""
        if self._target_kind == "multiclass":
            return self.classes_.take(outputs.argmax(axis=1))
        if self._target_kind == "binary":
            above = (outputs[:, 0] > 0.5).view(np.int8)
            return self.classes_.take(above, mode="clip")
        labels = (outputs > 0.5).astype(np.int64)
        return csr_matrix(labels) if self._sparse_targets else labels

    # ---------------------------------------------------------------------------- weights

    def _learn_weights(self, targets, sample_weight, incremental):
        if self.class_weight is None:
            return
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight is 'balanced', which partial_fit cannot know from a part of the "
                "data: compute the weights of all of it and pass them as a dictionary."
            )
        if self._target_kind == "multilabel-indicator":
            if self.class_weight == "balanced":
                ones = np.count_nonzero(targets, axis=0)
                counts = np.stack([len(targets) - ones, ones], axis=1)
                present = np.count_nonzero(counts, axis=1, keepdims=True)
                self._class_weights = len(targets) / (
                    present * np.where(counts == 0, np.inf, counts)
                )
            return
        if isinstance(self.class_weight, list):
            raise ValueError(
                "class_weight is a list, which goes with several labels for each example; give a "
                "dictionary from label to weight."
            )
        index = targets.reshape(-1).astype(np.intp)
        if self.class_weight != "balanced":
            y = self.classes_.take(index)
            present = {k: v for k, v in self.class_weight.items() if k in set(self.classes_)}
            self._class_weights = compute_class_weight(present or None, classes=self.classes_, y=y)
            return
        counts = np.bincount(index, weights=sample_weight, minlength=len(self.classes_))
        # A class that only weightless examples have takes part in nothing, and divides by zero.
        self._class_weights = counts.sum() / (len(counts) * np.where(counts == 0, np.inf, counts))

    def _total_weight(self, y, targets, sample_weight):
        if self.class_weight is None:
            return sample_weight
        if self._target_kind == "multilabel-indicator" and self.class_weight == "balanced":
            labels = np.arange(targets.shape[1])
            weights = self._class_weights[labels, targets.astype(np.intp)].prod(axis=1)
        elif self._target_kind == "multilabel-indicator":
            weights = compute_sample_weight(self.class_weight, y)
        else:
            weights = self._class_weights[targets.reshape(-1).astype(np.intp)]
        return weights if sample_weight is None else weights * sample_weight

    # --------------------------------------------------------------------- public methods

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train for one epoch more on X and y, going on with the state of the optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of every example in the loss.
        classes : array-like of shape (n_classes,), optional
            All the labels there will be; needed by the first call.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If a parameter, the data or the classes are not valid, or if the training diverged.
        AttributeError
            If the solver is "lbfgs".
        """
        if _check_partial_fit_first_call(self, classes):
            self.__dict__.pop("_target_kind", None)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X):
        """Return the label of every example.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            The most probable class; with several labels an example, 1 for those more probable
            than not.
        """
        return self._decode(self._forward(X))

    def predict_proba(self, X):
        """Return the probability of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        outputs = self._forward(X)
        if self._target_kind != "binary":
            return outputs
        if len(self.classes_) == 1:
            return np.ones_like(outputs)
        probabilities = np.empty((len(outputs), 2), outputs.dtype)
        probabilities[:, 1] = outputs[:, 0]
        np.subtract(1, outputs[:, 0], out=probabilities[:, 0])
        return probabilities

    def predict_log_proba(self, X):
        """Return the logarithm of the probability of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _target_kind(y) -> str:
    """Return "binary", "multiclass" or "multilabel-indicator"; refuse anything else."""
    kind = type_of_target(y, input_name="y")
    if kind in ("binary", "multiclass", "multilabel-indicator"):
        return kind
    if "multioutput" in kind:
        raise ValueError("Multioutput target data is not supported with label binarization")
    raise ValueError(
        f"Unknown label type: {kind}. The targets of a classifier are classes; for numbers, use "
        "MLPRegressor."
    )


def _labels(y):
    """Return the labels that occur, sorted; all columns of an indicator matrix."""
    return np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
