"""The two ways of training an estimator: epochs of mini-batches, and L-BFGS.

The stopping rules, the schedules and what is counted are scikit-learn's, so that a run can be
compared with one of its own, epoch by epoch. An epoch is one call of `Trainer.epoch`; what stands
around it here costs a few microseconds and the drawing of the order of the examples.

Two things differ on purpose. A training whose loss is no longer finite ends at once, instead of
running to `max_iter` with parameters that are not finite either. And L-BFGS works in float64 even
for a float32 network: see `fastrna.lbfgs`.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastrna import SGD, Adam, DivergenceError, Trainer
from fastrna import validation as check
from fastrna.kernels import TeamChoice
from fastrna.lbfgs import minimise

# scikit-learn's batch_size="auto", and the rate at which learning_rate="adaptive" gives up.
AUTO_BATCH_SIZE = 200
SMALLEST_RATE = 1e-6

NON_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


def fit_stochastic(model, X, targets, weights, held_out, monitor, random, incremental):
    """Train by SGD or Adam until the rules of `model` say stop.

    Parameters
    ----------
    model : BaseMLP
        Its network is trained, its counters and curves go on.
    X, targets, weights : array or CSR matrix, array, array or None
        The training examples, encoded.
    held_out : HeldOut or None
        Examples to score after every epoch.
    monitor : Monitor
        Hears of every epoch.
    random : numpy.random.RandomState
        Draws the order of the examples.
    incremental : bool
        One epoch only, with the state the optimizer was left in.
    """
    n = X.shape[0]
    trainer = _stochastic_trainer(model, n, random, incremental)
    data = trainer.prepare(X, targets, weights)
    if held_out is not None:
        held_out.follow(model, trainer)
    stops_early = model._stops_early()
    schedule, initial_rate, power = model._schedule
    # As in scikit-learn, a warm start keeps the last parameters unless a score is the best of all.
    parameters = model._network.parameters
    best = parameters.copy() if stops_early and model.t_ == 0 else None
    order = np.arange(n) if model.shuffle else None
    train_epoch = _on_paying_threads(trainer.epoch, model, trainer, n)
    divergence = None

    model.n_iter_ = 0
    try:
        for _ in range(1 if incremental else model.max_iter):
            monitor.begin_epoch()
            if order is not None:
                # scikit-learn shuffles what the epoch before left, so the orders accumulate.
                order = order[random.permutation(n)]
            try:
                loss = train_epoch(data, order)
            except DivergenceError as error:
                loss, divergence = math.nan, error

            model.n_iter_ += 1
            model.loss_ = loss
            model.t_ += n
            model.loss_curve_.append(loss)
            if model.verbose:
                print(f"Iteration {model.n_iter_}, loss = {loss:.8f}")
            if held_out is not None:
                held_out.record(model, diverged=divergence is not None)
            if divergence is not None:
                break
            if stops_early and model.validation_scores_[-1] > model.best_validation_score_:
                best = parameters.copy()
            _count_stagnation(model, stops_early, held_out)
            if schedule == "invscaling":
                trainer.learning_rate = initial_rate / (model.t_ + 1) ** power
            model.learning_rate_ = trainer.learning_rate

            stop = monitor.end_epoch()
            if model._current_network() is not trainer.network:
                raise ValueError(
                    "A callback put arrays of other shapes into coefs_ and intercepts_; expected "
                    "those of the network that is being trained."
                )
            if model._no_improvement_count > model.n_iter_no_change:
                watched = "Validation score" if stops_early else "Training loss"
                message = (
                    f"{watched} did not improve more than tol={model.tol:f} for "
                    f"{model.n_iter_no_change} consecutive epochs."
                )
                if schedule != "adaptive":
                    message += " Stopping."
                    stop = True
                elif trainer.learning_rate <= SMALLEST_RATE:
                    message += " Learning rate too small. Stopping."
                    stop = True
                else:
                    trainer.learning_rate /= 5.0
                    model.learning_rate_ = trainer.learning_rate
                    model._no_improvement_count = 0
                    message += f" Setting learning rate to {trainer.learning_rate:f}"
                if model.verbose:
                    print(message)
            if stop:
                break
            if model.n_iter_ == model.max_iter and not incremental:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) reached and "
                    "the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    if divergence is not None:
        if best is None:
            raise ValueError(NON_FINITE) from divergence
        warnings.warn(
            f"The training diverged in epoch {model.n_iter_}; the parameters of the best "
            "validation score are kept. Lower learning_rate_init, or scale the inputs, e.g. with "
            "input_scaling='zscore'.",
            ConvergenceWarning,
            stacklevel=5,
        )
    if best is not None:
        parameters[:] = best


def fit_lbfgs(model, X, targets, weights, held_out, monitor):
    """Train by L-BFGS-B on the whole of the data until its gradient is small.

    Parameters
    ----------
    model, X, targets, weights, held_out, monitor
        As `fit_stochastic` takes them; an epoch is an iteration of L-BFGS.
    """
    net = model._network
    work = net if net.dtype == np.float64 else net.copy("float64")
    trainer = Trainer(
        work,
        loss=model._loss(),
        batch_size=None,
        l2=float(model.alpha),
        l2_over_batch=True,
        n_threads=model.n_threads,
    )
    data = trainer.prepare(X, targets, weights)
    if held_out is not None:
        held_out.follow(model, trainer)
    evaluate = _on_paying_threads(trainer.loss_and_gradient, model, trainer, X.shape[0])

    def loss_and_gradient(parameters):
        monitor.begin_epoch()
        work.parameters = parameters
        return evaluate(data)

    def end_iteration(loss):
        model.n_iter_ += 1
        model.loss_ = loss
        model.loss_curve_.append(loss)
        if model.verbose:
            print(f"Iteration {model.n_iter_}, loss = {loss:.8f}")
        if held_out is not None:
            held_out.record(model)
            _note_best_score(model)
        accepted = net.parameters.copy()
        stop = monitor.end_epoch()
        if not np.array_equal(model._current_network().parameters, accepted):
            raise ValueError(
                "A callback changed the weights, with which solver 'lbfgs' cannot go on; expected "
                "solver 'sgd' or 'adam' for that."
            )
        return stop

    model.n_iter_ = 0
    limits = {"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol}
    try:
        result = minimise(net, loss_and_gradient, end_iteration, **limits)
    except KeyboardInterrupt:
        if model.n_iter_ == 0:
            raise
        warnings.warn("Training interrupted by user.", stacklevel=5)
        return
    model.n_iter_ = min(result.nit, model.max_iter)
    model.loss_ = model.best_loss_ = float(result.fun)
    if not (math.isfinite(model.loss_) and np.isfinite(net.parameters).all()):
        raise ValueError(NON_FINITE)
    if not result.success and not monitor.stopped:
        advice = "Scaling the inputs may help, e.g. with input_scaling='zscore'."
        if model.n_iter_ == model.max_iter:
            advice = f"More iterations may help (max_iter={model.max_iter}). {advice}"
        warnings.warn(
            f"lbfgs failed to converge after {model.n_iter_} iteration(s) "
            f"(status={result.status}): {result.message}. {advice}",
            ConvergenceWarning,
            stacklevel=5,
        )


def _stochastic_trainer(model, n, random, incremental):
    """Return the trainer of an epoch over n examples, the one in use where it goes on."""
    if model.batch_size == "auto":
        batch_size = min(AUTO_BATCH_SIZE, n)
    else:
        if model.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=6,
            )
        batch_size = min(int(model.batch_size), n)
    trainer = model._trainer if incremental else None
    state = vars(model).pop("_trainer_state", None)
    # The loss is the parameter's of today.
    loss = check.cost(model._loss(), model._network.activations[-1][0])
    if trainer is not None and trainer.loss != loss:
        trainer, state = None, trainer.state()
    if trainer is None:
        goes_on = incremental and state is not None
        trainer = model._trainer = _new_trainer(
            model, 0 if goes_on else _dropout_seed(model, random)
        )
        if goes_on:
            trainer.set_state(state | {"loss": loss})
        if not goes_on or not hasattr(model, "_schedule"):
            schedule = model.learning_rate if model.solver == "sgd" else "constant"
            model._schedule = schedule, model.learning_rate_init, model.power_t
    # The rest is what the optimizer was made with, as in scikit-learn: its schedule too.
    trainer.settings = replace(
        trainer.settings, batch_size=batch_size, l2=float(model.alpha), n_threads=model.n_threads
    )
    return trainer


def _dropout_seed(model, random):
    """Draw the seed of the masks; without them nothing is drawn, as in scikit-learn."""
    return int(random.randint(np.iinfo(np.int32).max)) if model.dropout > 0 else 0


def _new_trainer(model, seed):
    if model.solver == "adam":
        optimizer = Adam(
            learning_rate=float(model.learning_rate_init),
            beta_1=model.beta_1,
            beta_2=model.beta_2,
            epsilon=model.epsilon,
        )
    else:
        optimizer = SGD(
            learning_rate=float(model.learning_rate_init),
            # scikit-learn allows a momentum of 1, the library what is below it.
            momentum=min(float(model.momentum), math.nextafter(1.0, 0.0)),
            nesterov=bool(model.nesterovs_momentum and model.momentum > 0),
        )
    return Trainer(
        model._network,
        loss=model._loss(),
        optimizer=optimizer,
        shuffle=False,
        seed=seed,
        l2_over_batch=True,
        dropout=model.dropout,
    )


def _on_paying_threads(work, model, trainer, n):
    """Do the same work over and over on as many threads as pay, by the clock.

    Where other programs keep the processors busy, threads that wait for one another around a short
    piece of work can take fifty times as long as one thread alone. The result is the same for any
    number of them, so the faster of the two, the library's choice or one thread, may be taken anew
    for every call; the other is tried again after twice as many calls as the last time.

    Parameters
    ----------
    work : callable
        A method of the trainer that passes once over n examples.
    model : BaseMLP
        Says how many threads to use; anything but None is done as told.
    trainer : Trainer
        Its `n_threads` is set before every call.
    n : int
        Examples.

    Returns
    -------
    callable
        With the arguments and the result of `work`.
    """
    operations = n * model._network.n_parameters
    if model.n_threads is not None or operations > TeamChoice.LONG:
        return work
    choice, started = TeamChoice(), None

    def timed(*arguments):
        nonlocal started
        # From call to call, as threads that wait awake slow down what comes in between as well.
        before, started = started, time.perf_counter()
        if before is not None:
            choice.note(trainer.settings.n_threads or 0, (started - before) / operations)
        trainer.settings.n_threads = choice.pick(0) or None  # 0 stands for the library's own choice
        return work(*arguments)

    return timed


def _count_stagnation(model, stops_early, held_out):
    """Count the epochs without progress, by scikit-learn's rules."""
    if stops_early:
        stagnates = model.validation_scores_[-1] < model.best_validation_score_ + model.tol
    else:
        stagnates = model.loss_ > model.best_loss_ - model.tol
        model.best_loss_ = min(model.loss_, model.best_loss_)
    model._no_improvement_count = model._no_improvement_count + 1 if stagnates else 0
    if held_out is not None:
        _note_best_score(model)


def _note_best_score(model):
    score = model.validation_scores_[-1]
    if model.best_validation_score_ is None or score > model.best_validation_score_:
        model.best_validation_score_ = score
