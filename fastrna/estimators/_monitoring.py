"""What looks on while an estimator trains: held-out examples, callbacks, a progress bar."""

from __future__ import annotations

import inspect
import math

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing

from fastrna.history import Progress
from fastrna.scores import score_of

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
except ImportError:

    class CallbackSupport:
        """Stands for the mixin of scikit-learn 1.9 where an older one is installed."""


class HeldOut:
    """Examples the network is not trained on, whose loss and score are taken after every epoch.

    Parameters
    ----------
    X : array or CSR matrix
        The examples, as the network takes them.
    y : array
        Their targets, as the user gave them.
    targets : array
        Their targets, encoded.
    weights : array or None
        Their weights in the loss and in the default score.
    sample_weight : array or None
        Their weights as the user gave them, for a scorer.
    given : object
        The data of the user, of which X is the rows `rows` (all of them where None): a scorer is
        to see the columns by name, where they have one.
    """

    def __init__(self, X, y, targets, *, weights, sample_weight, given, rows=None):
        self._X, self._y, self._targets = X, y, targets
        self._weights, self._sample_weight = weights, sample_weight
        self._given, self._rows = given, rows

    def follow(self, model, trainer) -> None:
        """Get ready for the epochs of a trainer."""
        self._trainer = trainer
        self._data = trainer.prepare(self._X, self._targets, self._weights)
        self._scorer = None
        if model.scorer is not None:
            self._scorer = check_scoring(model, scoring=model.scorer)
            self._scored_with = {}
            if self._sample_weight is not None and _takes_weights(self._scorer):
                self._scored_with["sample_weight"] = self._sample_weight
            if self._rows is not None:
                if hasattr(self._given, "tocsr"):  # some sparse matrices have no rows to take
                    self._given = self._given.tocsr()
                self._given = _safe_indexing(self._given, self._rows)
        # Without early stopping there are no scores before the first validation_data.
        if model.validation_scores_ is None:
            model.validation_scores_ = []
        if model.validation_loss_curve_ is None:
            model.validation_loss_curve_ = []

    def record(self, model, diverged=False) -> None:
        """Add the loss and the score of this epoch to the model's curves."""
        loss, score = math.nan, math.nan
        if not diverged:
            loss, score = self._trainer.evaluate(self._data), self._score(model)
        model.validation_loss_curve_.append(loss)
        model.validation_scores_.append(score)
        if model.verbose:
            print(f"Validation score: {model.validation_scores_[-1]:f}")

    def _score(self, model) -> float:
        if self._scorer is not None:
            return float(self._scorer(model, self._given, self._y, **self._scored_with))
        outputs = model._network.predict(self._X, n_threads=model.n_threads)
        if not np.isfinite(outputs).all():
            return math.nan
        classes = getattr(model, "classes_", None)
        if classes is not None and len(classes) == 1 and self._y.ndim == 1:
            return 1.0  # there is one answer only
        output = model._network.activations[-1][0]
        return score_of(outputs, self._targets, output, self._weights)


def _takes_weights(scorer) -> bool:
    try:
        return "sample_weight" in inspect.signature(scorer).parameters
    except (TypeError, ValueError):
        return False


class Monitor:
    """Tells callbacks of two kinds, and a progress bar, of every epoch; a context manager.

    The callbacks of scikit-learn, those given to `set_callbacks`, follow its protocol: a task for
    the fit and a task for every epoch. Those of the parameter `callbacks` are called with the
    estimator after every epoch. Either kind ends the training by returning True.

    Parameters
    ----------
    model : BaseMLP
        The estimator being fitted.
    X, y, sample_weight : object
        What `fit` was given.
    incremental : bool
        Whether this is `partial_fit`, of which scikit-learn's callbacks do not hear.
    """

    def __init__(self, model, X, y, sample_weight, *, incremental):
        self._model = model
        self._tasks = {"estimator": model, "X": X, "y": y}
        if sample_weight is not None:
            self._tasks["metadata"] = {"sample_weight": sample_weight}
        self._fit_task = self._epoch_task = None
        self._incremental = incremental
        callbacks = model.callbacks or ()
        self._callbacks = (callbacks,) if callable(callbacks) else tuple(callbacks)
        if not all(map(callable, self._callbacks)):
            raise TypeError(f"callbacks is {callbacks!r}; expected a list of callables.")
        self._progress = Progress(1 if incremental else model.max_iter, model.progress)
        self.begun = self.stopped = False

    def __enter__(self):
        model = self._model
        if not self._incremental and hasattr(model, "_init_callback_context"):
            self._fit_task = model._init_callback_context(max_subtasks=model.max_iter)
            self._fit_task.call_on_fit_task_begin(**self._tasks)
        return self

    def __exit__(self, kind, error, traceback):
        self._progress.close()
        if self._fit_task is None or kind is not None:
            return
        if self._epoch_task is not None:  # L-BFGS gave up in the middle of an iteration.
            self._epoch_task.call_on_fit_task_end(**self._tasks)
        self._fit_task.call_on_fit_task_end(**self._tasks, reconstruction_attributes={})

    def begin_epoch(self) -> None:
        """Say that an epoch begins, unless one is under way."""
        self.begun = True
        if (
            self._epoch_task is None
            and self._fit_task is not None
            and hasattr(self._model, "_skl_callbacks")
        ):
            self._epoch_task = self._fit_task.subcontext(task_name="epoch")
            self._epoch_task.call_on_fit_task_begin(**self._tasks)

    def end_epoch(self) -> bool:
        """Say that an epoch has ended, and return whether anyone asks to stop."""
        if self._model.progress:
            self._progress.show(self._model.n_iter_, self._model.loss_curve_[-1])
        for callback in self._callbacks:
            self.stopped |= bool(callback(self._model))
        if self._epoch_task is not None:
            self.stopped |= self._epoch_task.call_on_fit_task_end(
                **self._tasks, reconstruction_attributes={}
            )
            self._epoch_task = None
        return self.stopped
