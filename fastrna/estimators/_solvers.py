"""The two ways of training an estimator: epochs of mini-batches, and L-BFGS.

The stopping rules, the schedules and what is counted are scikit-learn's, so that a run can be
compared with one of its own, epoch by epoch. An epoch is one call of `Trainer.epoch`; what stands
around it here costs a few microseconds and the drawing of the order of the examples.

Two things differ on purpose. A training whose loss is no longer finite ends at once, instead of
running to `max_iter` with parameters that are not finite either. And L-BFGS works in float64 even
for a float32 network, because its line search compares losses that float32 cannot tell apart.
"""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning

from fastrna import SGD, Adam, DivergenceError, Network, Trainer

# scikit-learn's batch_size="auto", and the rate at which learning_rate="adaptive" gives up.
AUTO_BATCH_SIZE = 200
SMALLEST_RATE = 1e-6

# Parameters times examples: a tenth of a second on one thread, roughly.
SHORT_WORK = 5e8

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
    adaptive = model.solver == "sgd" and model.learning_rate == "adaptive"
    inverse_scaling = model.solver == "sgd" and model.learning_rate == "invscaling"
    if stops_early and "_best_parameters" not in vars(model):
        model._best_parameters = model._network.parameters.copy()
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
            _count_stagnation(model, stops_early, held_out)
            if inverse_scaling:
                trainer.learning_rate = model.learning_rate_init / (model.t_ + 1) ** model.power_t
            model.learning_rate_ = trainer.learning_rate

            stop = monitor.end_epoch()
            if model._no_improvement_count > model.n_iter_no_change:
                watched = "Validation score" if stops_early else "Training loss"
                message = (
                    f"{watched} did not improve more than tol={model.tol:f} for "
                    f"{model.n_iter_no_change} consecutive epochs."
                )
                if not adaptive:
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
        if not stops_early:
            raise ValueError(NON_FINITE) from divergence
        warnings.warn(
            f"The training diverged in epoch {model.n_iter_}; the parameters of the best "
            "validation score are kept. Lower learning_rate_init, or scale the inputs, e.g. with "
            "input_scaling='zscore'.",
            ConvergenceWarning,
            stacklevel=5,
        )
    if stops_early:
        model._network.parameters[:] = model._best_parameters


def fit_lbfgs(model, X, targets, weights, held_out, monitor):
    """Train by L-BFGS-B on the whole of the data until its gradient is small.

    Parameters
    ----------
    model, X, targets, weights, held_out, monitor
        As `fit_stochastic` takes them; an epoch is an iteration of L-BFGS.
    """
    net = model._network
    work = net if net.dtype == np.float64 else _widened(net)
    trainer = Trainer(
        work,
        loss=model._loss(),
        batch_size=None,
        l2=model.alpha,
        l2_over_batch=True,
        n_threads=model.n_threads,
    )
    data = trainer.prepare(X, targets, weights)
    if held_out is not None:
        held_out.follow(model, trainer)
    latest = math.nan
    evaluate = _on_paying_threads(trainer.loss_and_gradient, model, trainer, X.shape[0])

    def loss_and_gradient(parameters):
        nonlocal latest
        monitor.begin_epoch()
        work.parameters[:] = parameters
        latest, gradient = evaluate(data)
        return latest, gradient

    def end_iteration(parameters):
        # The line search ends on the point it accepts, whose loss is therefore the latest.
        model.n_iter_ += 1
        model.loss_ = latest
        model.loss_curve_.append(latest)
        if model.verbose:
            print(f"Iteration {model.n_iter_}, loss = {latest:.8f}")
        net.parameters[:] = parameters
        if held_out is not None:
            held_out.record(model)
            _note_best_score(model)
        if monitor.end_epoch():
            raise StopIteration

    model.n_iter_ = 0
    result = scipy.optimize.minimize(
        loss_and_gradient,
        work.parameters.astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        callback=end_iteration,
        options={"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol},
    )
    net.parameters[:] = result.x
    model.n_iter_ = min(result.nit, model.max_iter)
    model.loss_ = model.best_loss_ = float(result.fun)
    if not _is_finite(model):
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
    if trainer is None:
        goes_on = incremental and state is not None
        trainer = model._trainer = _new_trainer(
            model, 0 if goes_on else _dropout_seed(model, random)
        )
        if goes_on:
            trainer.set_state(state)
    # The rest is what the optimizer was made with, as in scikit-learn.
    trainer.batch_size, trainer.l2, trainer.n_threads = batch_size, model.alpha, model.n_threads
    return trainer


def _dropout_seed(model, random):
    """Draw the seed of the masks; without them nothing is drawn, as in scikit-learn."""
    return int(random.randint(np.iinfo(np.int32).max)) if model.dropout > 0 else 0


def _new_trainer(model, seed):
    if model.solver == "adam":
        optimizer = Adam(
            learning_rate=model.learning_rate_init,
            beta_1=model.beta_1,
            beta_2=model.beta_2,
            epsilon=model.epsilon,
        )
    else:
        optimizer = SGD(
            learning_rate=model.learning_rate_init,
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
    if model.n_threads is not None or n * model._network.n_parameters > SHORT_WORK:
        return work
    seconds = {None: 0.0, 1: 0.0}
    calls, next_trial, started, was_trial = 0, 4, 0.0, False

    def timed(*arguments):
        nonlocal calls, next_trial, started, was_trial
        # From call to call, as threads that wait awake slow down what comes in between as well.
        before, started = started, time.perf_counter()
        if calls > 0:
            way, took = trainer.n_threads, started - before
            known = 0.0 if was_trial else seconds[way]
            seconds[way] = 0.5 * (known + took) if known > 0 else took
        calls += 1
        was_trial = calls == next_trial
        if was_trial:
            next_trial = 2 * calls
        trainer.n_threads = (max if was_trial else min)(seconds, key=seconds.get)
        return work(*arguments)

    return timed


def _count_stagnation(model, stops_early, held_out):
    """Count the epochs without progress, by scikit-learn's rules, and keep the best."""
    if stops_early:
        score = model.validation_scores_[-1]
        stagnates = score < model.best_validation_score_ + model.tol
        if score > model.best_validation_score_:
            np.copyto(model._best_parameters, model._network.parameters)
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


def _is_finite(model):
    return bool(np.isfinite(model._network.parameters).all())


def _widened(net):
    """Return a float64 copy of a float32 network."""
    wide = Network(
        net.sizes,
        hidden=[name if p is None else (name, p) for name, p in net.activations[:-1]],
        output=net.activations[-1][0],
        dtype="float64",
        init="zeros",
    )
    wide.parameters[:] = net.parameters
    wide.scaler = net.scaler
    return wide
