"""One run of a trainer: its epochs, or iterations of L-BFGS, and what happens between them."""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np

from fastrna import validation as check
from fastrna.history import Best, History, Progress
from fastrna.lbfgs import minimise
from fastrna.optimizers import Adaptive
from fastrna.scores import score_of

_EPOCHS_A_CALL = 1 << 16  # of the engine, which takes memory for each


class DivergenceError(ArithmeticError):
    """The cost is no longer finite; the network holds the last finite epoch's parameters."""


def hold_out(fraction, seed, X, y, sample_weight):
    """Split off a fraction of examples, which are checked already, to validate on.

    Returns what is left of X, y and sample_weight, and (X, y) to validate on.
    """
    X, y = X.tocsr() if check.is_sparse(X) else np.asarray(X), np.asarray(y)
    m = X.shape[0]
    held = round(fraction * m)
    if not 0 < held < m:
        raise ValueError(
            f"validation is {fraction}, which leaves {held} of {m} examples to validate on; "
            "expected at least one there and one to train on."
        )
    # A generator of its own: the order of the epochs is the same with and without validation.
    place = np.random.default_rng([seed, 1]).permutation(m)
    test, rest = place[:held], np.sort(place[held:])
    if sample_weight is not None:
        sample_weight = check.weights_of_examples(sample_weight, m)[rest]
    return X[rest], y[rest], sample_weight, (X[test], y[test])


class Run:
    """What one run keeps from epoch to epoch: history, bar, best parameters, what to validate on.

    Parameters
    ----------
    trainer : Trainer
    epochs : int
        At most so many.
    held_out : (X, y) or None
        Examples to validate on.

    Raises
    ------
    ValueError, TypeError
        If the examples to validate on do not fit the network.
    """

    def __init__(self, trainer, epochs, held_out):
        self._trainer, self._epochs, self._held_out = trainer, epochs, held_out
        if held_out is not None:
            X, y = held_out
            self._held_out = X, y, trainer._prepared(X, y, names=("validation X", "validation y"))
            trainer.network._blame(X, "validation X")  # now: the first score would come too late
        self.history = History()
        # The trainer's while the run lasts, as a checkpoint is to know it; then again that of a run
        # in one of whose callbacks this one is made.
        resumed, trainer._resumed, self._outer = trainer._resumed, None, trainer._best
        self._best = trainer._best = None if held_out is None else resumed or Best()
        self._progress = Progress(epochs, trainer.progress)

    def descend(self, prepared):
        """Go down by epochs of gradient descent, in as few calls of the engine as may be."""
        trainer, history = self._trainer, self.history
        between = trainer.callbacks or trainer.progress or self._held_out or trainer.checkpoint
        one_by_one = between or isinstance(trainer.optimizer.schedule, Adaptive)
        try:
            if one_by_one:
                self._descend_epoch_by_epoch(prepared)
            else:
                self._descend_at_once(prepared)
        except KeyboardInterrupt:
            if not one_by_one:  # not in the engine, which would have told how far it came
                raise
            history.stopped_by = "interrupt"
        finally:
            self._close()
        self._restore()
        return history

    def _descend_at_once(self, prepared):
        for done in range(0, self._epochs, _EPOCHS_A_CALL):
            self._descend(prepared, min(self._epochs - done, _EPOCHS_A_CALL))
            if self.history.stopped_by != "epochs":
                break

    def _descend_epoch_by_epoch(self, prepared):
        for _ in range(self._epochs):
            costs = self._descend(prepared, 1)
            if not len(costs):
                break
            self._trainer._adapt(costs[0])
            if self._end_epoch():
                break

    def _descend(self, prepared, count):
        """Train so many epochs in one call of the engine; return the costs of those finished."""
        rates = self._trainer._rates(count)
        costs, seconds, ending = self._trainer._descend(prepared.data, prepared.X, rates)
        self.history._extend(cost=costs, seconds=seconds, learning_rate=rates[: len(costs)])
        self.history.stopped_by = ending
        return costs

    def minimise(self, twin, prepared):
        """Go down by iterations of L-BFGS, whose costs and gradients are of the trainer `twin`."""
        trainer, history, epochs = self._trainer, self.history, self._epochs
        clock = perf_counter()

        def loss_and_gradient(parameters):
            twin.network.parameters = parameters
            return twin.loss_and_gradient(prepared)

        def end_iteration(cost):
            nonlocal clock
            now = perf_counter()
            history._extend(cost=[cost], seconds=[now - clock], learning_rate=[0.0])
            trainer.n_epochs += 1
            target = trainer.settings.target_cost
            if target is not None and cost <= target:
                history.stopped_by = "target_cost"
            stop = self._end_epoch()
            clock = perf_counter()
            return stop

        try:
            result = minimise(
                trainer.network, loss_and_gradient, end_iteration, maxiter=epochs,
                maxfun=20 * epochs + 20, ftol=1e-14, gtol=trainer.optimizer.tolerance,
                maxcor=trainer.optimizer.history_size,
            )  # fmt: skip
            if math.isnan(result.fun):
                raise DivergenceError(
                    "The cost is not finite at the start, where LBFGS cannot begin; expected "
                    "smaller weights or scaled inputs."
                )
            if history.stopped_by == "epochs" and history.n_epochs < epochs:
                history.stopped_by = "patience"
        except KeyboardInterrupt:
            history.stopped_by = "interrupt"
        finally:
            self._close()
        self._restore()
        return history

    def _end_epoch(self):
        """Validate, keep the best, call back, save; return whether to stop."""
        trainer, history = self._trainer, self.history
        cost = watched = history._columns["cost"][-1]
        if self._held_out is not None:
            watched = self._validate()
        patience = trainer.settings.patience
        if self._best is not None:
            self._best.see(watched, trainer.network)
        self._progress.show(history.n_epochs, cost)
        stop = any([_stops(callback(trainer, history)) for callback in trainer.callbacks])
        if trainer.checkpoint is not None:
            trainer.save(trainer.checkpoint)  # after the callbacks, of which it is to know
        if history.stopped_by == "epochs":
            if stop:
                history.stopped_by = "callback"
            elif patience is not None and self._best and self._best.epochs_since >= patience:
                history.stopped_by = "patience"
        return history.stopped_by != "epochs"

    def _validate(self):
        """Return the validation cost, and note it and the score."""
        (X, y, data), trainer = self._held_out, self._trainer
        cost = score = math.nan  # one entry an epoch, if an interrupt comes meanwhile
        try:
            cost = trainer.evaluate(data)
            predicted = trainer.network.predict(X, n_threads=trainer.settings.n_threads)
            score = score_of(predicted, y, trainer.network.activations[-1][0])
        finally:
            self.history._extend(validation_cost=[cost], validation_score=[score])
        return cost

    def _close(self):
        self._progress.close()
        self._trainer._best = self._outer
        self.history._even()

    def _restore(self):
        best = self._best
        if best is None:
            return
        # An interrupt may have come in the epoch after the best, of which the network has a part.
        passed = best.epochs_since or self.history.stopped_by == "interrupt"
        if passed and self._trainer.settings.restore_best and best.parameters is not None:
            self._trainer.network.parameters = best.parameters


def _stops(value):
    """Whether what a callback returned is true; arrays of several numbers are neither."""
    try:
        return bool(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"A callback returned an object of type {type(value).__name__}, which is neither true "
            "nor false; expected True to stop, or None."
        ) from None
