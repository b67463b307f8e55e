"""The regressor: losses, and targets that are numbers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from ._base import BaseMLP, _is_parametrised

__all__ = ["MLPRegressor"]

LOSSES = ("squared_error", "poisson", "absolute_error", "huber", "quantile")


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron for real targets, with the interface of scikit-learn's.

    Minimises the loss, summed over the outputs and averaged over the examples, plus
    ``alpha / 2 * sum W^2 / n`` by mini-batch gradient descent, Adam or L-BFGS, where n is the
    number of examples in the mini-batch. The output is the identity, and for the Poisson loss an
    exponential.

    Parameters
    ----------
    loss : str or (str, float), default="squared_error"
        With r the prediction less the target: "squared_error", ``r^2 / 2``; "poisson", half the
        Poisson deviance, of targets that are not negative; "absolute_error", ``|r|``; "huber",
        ``r^2 / 2`` up to delta and linear beyond; "quantile", the pinball loss of the quantile q.
        ``("huber", 0.5)`` and ``("quantile", 0.9)`` give delta (else 1) and q (else 0.5).
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
    beta_1, beta_2 : float, default=0.9 and 0.999
        Decay of Adam's first and second moment.
    epsilon : float, default=1e-8
        What Adam adds to its denominator.
    n_iter_no_change : int or inf, default=10
        Training stops when more epochs than this in a row have brought no progress.
    max_fun : int, default=15000
        Most evaluations of the loss by "lbfgs".
    dropout : float, default=0.0
        Probability with which every hidden unit is dropped at every training step, the others
        being divided by ``1 - dropout``. Not for "lbfgs".
    input_scaling : {"zscore", "minmax", "mean", "max"} or None, default=None
        Scaling of the inputs, learnt from the training examples and carried by the model.
    scorer : str, callable or None, default=None
        What early stopping maximises: a name or a callable as `sklearn.metrics.check_scoring`
        takes it; None is R^2.
    callbacks : callable, list of callable or None, default=None
        Called with the estimator after every epoch; one that returns True ends the training.
        Callbacks of scikit-learn 1.9's own protocol go to `set_callbacks` instead.
    progress : bool, default=False
        Whether to show a progress bar.
    n_threads : int or None, default=None
        Threads to use; None leaves it to the library. The result is the same for any number.

    Attributes
    ----------
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
    out_activation_ : {"identity", "exp"}
        Activation of the output layer.
    scaler_ : Scaler or None
        The scaling of the inputs.
    n_features_in_ : int
        Inputs.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    MLPClassifier : The same for labels.
    from_sklearn : Take over a model fitted by scikit-learn.

    Examples
    --------
    >>> from fastrna import MLPRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor(hidden_layer_sizes=10, learning_rate_init=0.05, max_iter=1000, tol=1.0,
    ...                      input_scaling="zscore", random_state=0).fit(X, y)
    >>> model.predict(X[:2]).shape
    (2,)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions(set(LOSSES)), tuple, list],
    }
    _real_targets = True

    def __init__(
        self,
        loss="squared_error",
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
        dropout=0.0,
        input_scaling=None,
        scorer=None,
        callbacks=None,
        progress=False,
        n_threads=None,
    ):
        self._store_parameters(locals())

    def _learn_targets(self, y, incremental):
        if self._loss_name() == "poisson" and (y < 0).any():
            raise ValueError("y has negative values, but loss='poisson' needs targets >= 0.")

    def _encode(self, y, dtype):
        return np.ascontiguousarray(y.reshape(len(y), -1), dtype=dtype)

    def _output(self, targets):
        return targets.shape[1], "exp" if self._loss_name() == "poisson" else "identity"

    def _loss(self):
        return self.loss if isinstance(self.loss, str) else tuple(self.loss)

    def _loss_name(self):
        if isinstance(self.loss, str):
            return self.loss
        if not _is_parametrised(self.loss) or self.loss[0] not in ("huber", "quantile"):
            raise ValueError(
                f"loss is {self.loss!r}, but a loss with a parameter is ('huber', delta) or "
                "('quantile', q)."
            )
        return self.loss[0]

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch more on X and y, going on with the state of the optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of every example in the loss.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or if the training diverged.
        AttributeError
            If the solver is "lbfgs".
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X):
        """Return the prediction for every example.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The examples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The output of the network.
        """
        outputs = self._forward(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs
