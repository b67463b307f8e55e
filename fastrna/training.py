"""Trainer and train: what happens between epochs; an epoch is one call of the engine."""

from __future__ import annotations

import dataclasses
import math
import numbers
from time import perf_counter

import numpy as np

from fastrna import kernels
from fastrna import validation as check
from fastrna.history import Best, History, Progress
from fastrna.network import Network
from fastrna.optimizers import LBFGS, OPTIMIZERS, SCHEDULES, SGD, Adaptive, optimizer_of


class DivergenceError(ArithmeticError):
    """The cost is no longer finite; the network holds the last finite epoch's parameters."""


class Trainer:
    """Training with memory: it keeps the workspace, the velocity, the random generator, the epoch.

    Parameters
    ----------
    net : Network
        Trained in place.
    loss, optimizer, batch_size, target_cost, shuffle, seed, class_weight, l1, l2, dropout, \
validation, patience, restore_best, callbacks, progress, checkpoint, n_threads
        As for `train`.
    l2_over_batch : bool, default False
        Whether the penalties are divided by the weight of each mini-batch, as scikit-learn does.

    Attributes
    ----------
    network : Network
    learning_rate : float
        Rate of the next epoch before its schedule; may be set.
    n_epochs, n_steps : int
        Epochs and mini-batches since the trainer was made.
    n_threads_used : int
        Threads of the last epochs.
    workspace_bytes : int
        Memory beside the data and the network.

    Raises
    ------
    ValueError, TypeError
        If an option is not as `train` takes it.

    Examples
    --------
    >>> import fastrna
    >>> net = fastrna.Network([1, 1], dtype="float64", init="zeros")
    >>> trainer = fastrna.Trainer(net, optimizer=fastrna.SGD(0.5))
    >>> trainer.step([[1.0]], [2.0])
    2.0
    >>> net.parameters
    array([1., 1.])
    """

    def __init__(self, net, *, loss="auto", optimizer="sgd", batch_size=32,
                 target_cost=None, shuffle=True, seed=None, class_weight=None, l1=0.0, l2=0.0,
                 dropout=0.0, l2_over_batch=False, validation=None, patience=None,
                 restore_best=True, callbacks=(), progress=False, checkpoint=None,
                 n_threads=None):  # fmt: skip
        if not isinstance(net, Network):
            raise TypeError(f"net is {net!r}; expected a Network.")
        self.network = net
        self.loss = check.cost(loss, net.activations[-1][0])
        self.optimizer = optimizer_of(optimizer)
        self.batch_size = None if batch_size is None else check.integer(batch_size, "batch_size")
        self.target_cost = None if target_cost is None else check.real(target_cost, "target_cost")
        self.shuffle, self.restore_best, self.progress = bool(shuffle), bool(restore_best), progress
        self.seed = None if seed is None else check.integer(seed, "seed", 0)
        self.class_weight = class_weight
        self.l1, self.l2 = check.real(l1, "l1", 0), check.real(l2, "l2", 0)
        self.dropout = check.real(dropout, "dropout", 0, 1, high_open=True)
        self.l2_over_batch = bool(l2_over_batch)
        self.validation = _check_validation(validation)
        self.patience = None if patience is None else check.integer(patience, "patience")
        if self.patience is not None and self.validation is None:
            raise ValueError(
                f"patience is {patience} without validation; expected validation examples to "
                "follow, or patience None."
            )
        if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
            raise TypeError(f"callbacks is {callbacks!r}; expected a list of callables.")
        self.callbacks = list(callbacks)
        self.checkpoint = checkpoint
        self.n_threads = None if n_threads is None else check.integer(n_threads, "n_threads")
        self._learning_rate = getattr(self.optimizer, "learning_rate", 0.0)
        self._even_rates = None  # as `_rates` made them, until the learning rate changes
        self.n_epochs = 0
        self._rng = np.random.default_rng(self.seed)
        self._dropout_seed = self.seed
        if self.seed is None:
            self._dropout_seed = int(np.random.default_rng().integers(2**63)) if dropout else 0
        self._lowest, self._stagnant, self._last_finite = math.inf, 0, None
        self._engine, self._engine_options, self._moments = None, None, (0, None, None)
        self._engine_serves = None

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch, before its schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        """Set the rate, above 0, from the next epoch on."""
        self._learning_rate = check.real(value, "learning_rate", 0, low_open=True)
        self._even_rates = None

    # -- the engine ------------------------------------------------------------------------------

    @property
    def n_steps(self) -> int:
        """Mini-batches since the trainer was made."""
        return int(self._engine.n_steps) if self._engine is not None else self._moments[0]

    @property
    def workspace_bytes(self) -> int:
        """Memory the workspace takes now, beside the data and the network."""
        return int(self._engine.workspace_bytes) if self._engine is not None else 0

    @property
    def n_threads_used(self) -> int:
        """Threads of the last epochs: what `n_threads` allows and the work repays; 0 before any."""
        return int(self._engine.team) if self._engine is not None else 0

    def _engine_for(self, data, rows):
        """Return the engine, rebuilt only where a larger one is needed; its state moves along."""
        batches = rows, data.is_sparse
        if self._engine is not None and batches == self._engine_serves:
            return self._engine
        options = {"rows": rows, "sparse": data.is_sparse}
        old = self._engine_options
        if old is not None:
            options["rows"] = max(rows, old["rows"])
        if options != old:
            moments = self._take_moments()
            self._engine = self.network._engine(
                self._kind(), self.loss, dropout=self.dropout, **options
            )
            self._engine_options = options
            self._give_moments(*moments)
        self._engine_serves = batches  # only now that there is one: memory may have run out before
        return self._engine

    def _kind(self):
        if isinstance(self.optimizer, SGD):
            if self.optimizer.momentum == 0:
                return "sgd"
            return "nesterov" if self.optimizer.nesterov else "momentum"
        return "none" if isinstance(self.optimizer, LBFGS) else "adam"

    def _take_moments(self):
        if self._engine is None:
            return self._moments
        return int(self._engine.n_steps), self._engine.get_moment(1), self._engine.get_moment(2)

    def _give_moments(self, n_steps, first, second):
        self._engine.n_steps = n_steps
        for which, moment in ((1, first), (2, second)):
            if moment is not None and self._engine.get_moment(which) is not None:
                self._engine.set_moment(which, np.ascontiguousarray(moment, self.network.dtype))

    def _descend(self, data, rates, order=None, batch_size=None, shuffle=None):
        """Epochs in one call of the engine: (costs, seconds, ending); raises on divergence."""
        net, optimizer = self.network, self.optimizer
        rows = min(batch_size or self.batch_size or data.m, data.m)
        engine = self._engine_for(data, rows)
        shuffle = self.shuffle if shuffle is None else shuffle
        adam = self._kind() == "adam"
        costs, seconds, ending, last = engine.train(
            net.parameters,
            data,
            rows,
            rates,
            order=order,
            generator=self._rng.bit_generator if shuffle and order is None else None,
            target_cost=-math.inf if self.target_cost is None else self.target_cost,
            momentum=optimizer.beta_1 if adam else optimizer.momentum,
            beta_2=optimizer.beta_2 if adam else 0.0,
            epsilon=optimizer.epsilon if adam else 0.0,
            l1=self.l1,
            l2=self.l2,
            over_batch=self.l2_over_batch,
            dropout_seed=self._dropout_seed,
            n_threads=kernels.team(self.n_threads),
            fewer=self.n_threads is None,
        )
        self.n_epochs += len(costs)
        if ending == "divergence":
            self._raise_divergence(costs, last)
        return costs, seconds, ending

    def _raise_divergence(self, costs, last):
        if len(costs):
            self._last_finite = costs[-1]
        before = "no epoch was finite before"
        if self._last_finite is not None:
            before = f"the last finite cost was {self._last_finite:.6g}"
        raise DivergenceError(
            f"The cost became {last} in epoch {self.n_epochs + 1}; {before}. The network holds the "
            "parameters from before that epoch. Try a smaller learning_rate "
            f"(it was {self.learning_rate:g}), scaled inputs, or a smaller momentum."
        )

    def _rates(self, count):
        schedule = getattr(self.optimizer, "schedule", None)
        if schedule is None or isinstance(schedule, Adaptive):
            if self._even_rates is None or len(self._even_rates) != count:
                self._even_rates = np.full(count, self._learning_rate, np.float64)
            return self._even_rates
        return np.array(
            [schedule.rate(self.learning_rate, self.n_epochs + i) for i in range(count)], np.float64
        )

    def _adapt(self, cost):
        """Cut the learning rate, where the schedule is adaptive, after an epoch."""
        schedule = getattr(self.optimizer, "schedule", None)
        if not isinstance(schedule, Adaptive):
            return
        if cost < self._lowest - schedule.tolerance:
            self._lowest, self._stagnant = cost, 0
            return
        self._stagnant += 1
        if self._stagnant >= schedule.patience:
            self._stagnant = 0
            self.learning_rate = max(
                self.learning_rate * schedule.factor, min(schedule.minimum, self.learning_rate)
            )

    # -- examples --------------------------------------------------------------------------------

    def prepare(self, X, y, sample_weight=None):
        """Check examples once, for many calls of `epoch`, `evaluate` and `loss_and_gradient`.

        Parameters
        ----------
        X, y, sample_weight
            As for `train`.

        Returns
        -------
        object
            Refers to the arrays, which must not change meanwhile; copies X only if it must.

        Raises
        ------
        ValueError, TypeError
            If they do not fit the network.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([1, 1], init="zeros")
        >>> trainer = fastrna.Trainer(net)
        >>> trainer.evaluate(trainer.prepare([[1.0]], [2.0]))
        2.0
        """
        return self._prepare(X, y, sample_weight, ("X", "y"))

    def _prepare(self, X, y, sample_weight, names):
        self.network._check_parameters()
        data = self.network._examples(X, y, self.loss[0], sample_weight, names)
        if self.class_weight is None:
            return data
        by_class = check.weights_of_classes(self.class_weight, y, self.network.sizes[-1])
        weight = by_class if sample_weight is None else by_class * np.asarray(sample_weight, float)
        return self.network._examples(X, y, self.loss[0], weight, names)

    def epoch(self, data, order=None) -> float:
        """Train one epoch on prepared examples.

        Parameters
        ----------
        data : object
            From `prepare`.
        order : ndarray of int64, optional
            Examples to visit, in order; by default all, shuffled as the trainer's options say.

        Returns
        -------
        float
            The epoch's cost.

        Raises
        ------
        DivergenceError
            If the cost is no longer finite.
        KeyboardInterrupt
            On Ctrl-C, between two mini-batches.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([1, 1], init="zeros")
        >>> trainer = fastrna.Trainer(net)
        >>> trainer.epoch(trainer.prepare([[1.0]], [2.0]))
        2.0
        """
        self._check_data(data)
        if order is not None:
            order = np.asarray(order)
            whole = order.ndim == 1 and order.dtype.kind in "iu" and len(order)
            if not whole or order.min() < 0 or order.max() >= data.m:
                raise ValueError(
                    f"order is not a list of places in the {data.m} examples; expected (k,) "
                    f"integers from 0 to {data.m - 1}."
                )
            order = np.ascontiguousarray(order, np.int64)
        costs, _, ending = self._descend(data, self._rates(1), order)
        if ending == "interrupt":
            raise KeyboardInterrupt
        self._last_finite = costs[0]
        self._adapt(costs[0])
        return float(costs[0])

    def _check_data(self, data):
        net = self.network
        fits = isinstance(data, net._kernel.Data) and data.n_x == net.sizes[0]
        if not (fits and data.n_y == net.sizes[-1]):
            raise ValueError(
                "data was not prepared for this network; expected what Trainer.prepare returned."
            )

    def step(self, X, y, sample_weight=None) -> float:
        """Take one step on a mini-batch: for examples that come one by one.

        Parameters
        ----------
        X, y, sample_weight
            The mini-batch, as for `train`.

        Returns
        -------
        float
            Its cost before the step.

        Raises
        ------
        ValueError, TypeError, DivergenceError
            As for `train`.

        Examples
        --------
        See `Trainer`.
        """
        if isinstance(self.optimizer, LBFGS):
            raise TypeError("optimizer is LBFGS, which has no steps; expected SGD or Adam.")
        data = self.prepare(X, y, sample_weight)
        costs, _, ending = self._descend(
            data, np.array([self._learning_rate], np.float64), batch_size=data.m, shuffle=False
        )
        self.n_epochs -= len(costs)
        if ending == "interrupt":
            raise KeyboardInterrupt
        return float(costs[0])

    def evaluate(self, data) -> float:
        """Return the cost of prepared examples, without penalties, dropout or update.

        Parameters
        ----------
        data : object
            From `prepare`.

        Returns
        -------
        float

        Examples
        --------
        See `prepare`.
        """
        self._check_data(data)
        return self.network._evaluate(data, self.loss, self.n_threads)

    def loss_and_gradient(self, data):
        """Return the cost of prepared examples and its gradient, with the trainer's penalties.

        Parameters
        ----------
        data : object
            From `prepare`.

        Returns
        -------
        cost : float
        gradient : ndarray (n_parameters,)

        Examples
        --------
        >>> import fastrna
        >>> trainer = fastrna.Trainer(fastrna.Network([1, 1], init="zeros", dtype="float64"))
        >>> trainer.loss_and_gradient(trainer.prepare([[1.0]], [2.0]))
        (2.0, array([-2., -2.]))
        """
        self._check_data(data)
        factor = 1 / data.total_weight if self.l2_over_batch else 1.0
        return self.network._gradient(
            data, self.loss, self.l1 * factor, self.l2 * factor, self.n_threads
        )

    # -- many epochs -----------------------------------------------------------------------------

    def run(self, X, y, epochs, sample_weight=None) -> History:
        """Train on, from where the last run ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `train`.
        epochs : int
            At most so many.

        Returns
        -------
        History
            Of this run.

        Raises
        ------
        ValueError, TypeError, DivergenceError, KeyboardInterrupt
            As for `train`.

        Examples
        --------
        >>> import fastrna
        >>> net = fastrna.Network([1, 1], seed=0)
        >>> trainer = fastrna.Trainer(net, seed=0)
        >>> trainer.run([[0.0], [1.0]], [1.0, 2.0], epochs=3).n_epochs
        3
        """
        epochs = check.integer(epochs, "epochs")
        X, y, sample_weight, held_out = self._hold_out(X, y, sample_weight)
        data = self.prepare(X, y, sample_weight)
        if held_out is not None:
            held_out = (*held_out, self._prepare(*held_out, None, ("validation X", "validation y")))
        if isinstance(self.optimizer, LBFGS):
            return self._run_lbfgs(data, epochs, held_out)
        history = History()
        schedule = self.optimizer.schedule
        between = self.callbacks or self.patience or self.progress or held_out or self.checkpoint
        if between or isinstance(schedule, Adaptive):
            self._run_epoch_by_epoch(data, epochs, held_out, history)
            return history
        rates = self._rates(epochs)
        costs, seconds, ending = self._descend(data, rates)
        history._extend(cost=costs, seconds=seconds, learning_rate=rates[: len(costs)])
        history.stopped_by = ending
        return history

    def _run_epoch_by_epoch(self, data, epochs, held_out, history):
        best, progress = Best(), Progress(epochs, self.progress)
        try:
            for _ in range(epochs):
                rates = self._rates(1)
                costs, seconds, ending = self._descend(data, rates)
                history.stopped_by = ending
                if ending == "interrupt":
                    break
                self._last_finite = costs[0]
                self._adapt(costs[0])
                history._extend(cost=costs, seconds=seconds, learning_rate=rates)
                stop = self._end_epoch(history, held_out, best, progress)
                if ending != "epochs" or stop:
                    break
        except KeyboardInterrupt:
            history.stopped_by = "interrupt"
        finally:
            progress.close()
        self._restore(best)

    def _end_epoch(self, history, held_out, best, progress):
        """Validate, keep the best, call back, save; return whether to stop."""
        watched = history._columns["cost"][-1]
        if held_out is not None:
            X, y, data = held_out
            watched = self.evaluate(data)
            history._extend(validation_cost=[watched], validation_score=[self._score(X, y)])
        if self.patience is not None or held_out is not None:
            best.see(watched, self.network)
        progress.show(history)
        if self.checkpoint is not None:
            self.save(self.checkpoint)
        if history.stopped_by == "epochs":
            if any([callback(self, history) is True for callback in self.callbacks]):
                history.stopped_by = "callback"
            elif self.patience is not None and best.epochs_since >= self.patience:
                history.stopped_by = "patience"
        else:
            for callback in self.callbacks:
                callback(self, history)
        return history.stopped_by != "epochs"

    def _restore(self, best):
        if self.restore_best and best.parameters is not None and best.epochs_since:
            self.network.parameters = best.parameters

    def _score(self, X, y):
        """Accuracy where the output is a class, else R^2."""
        predicted, output = self.network.predict(X, n_threads=self.n_threads), self._output()
        y = np.asarray(y).reshape(len(predicted), -1)
        if output == "softmax":
            classes = y[:, 0] if y.shape[1] == 1 < predicted.shape[1] else y.argmax(axis=1)
            return float((predicted.argmax(axis=1) == classes).mean())
        if output in ("sigmoid", "step", "sign"):
            middle = 0.0 if output == "sign" else 0.5
            return float(((predicted > middle) == (y > middle)).all(axis=1).mean())
        residual = ((y - predicted) ** 2).sum(axis=0, dtype=np.float64)
        total = ((y - y.mean(axis=0)) ** 2).sum(axis=0, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(total > 0, 1 - residual / total, (residual == 0).astype(float))
        return float(scores.mean())

    def _output(self):
        return self.network.activations[-1][0]

    def _hold_out(self, X, y, sample_weight):
        """Split off the validation examples, where they come as a fraction."""
        if self.validation is None or isinstance(self.validation, tuple):
            return X, y, sample_weight, self.validation
        X = X.tocsr() if check.is_sparse(X) else check.inputs(X, self.network.sizes[0])
        y = np.asarray(y)
        m = X.shape[0]
        if len(y) != m:
            raise ValueError(f"y has {len(y)} examples and X has {m}; expected as many.")
        held = round(self.validation * m)
        if not 0 < held < m:
            raise ValueError(
                f"validation is {self.validation}, which leaves {held} of {m} examples to validate "
                "on; expected at least one there and one to train on."
            )
        # A generator of its own: the order of the epochs is the same with and without validation.
        place = np.random.default_rng(None if self.seed is None else [self.seed, 1]).permutation(m)
        test, rest = place[:held], np.sort(place[held:])
        if sample_weight is not None:
            sample_weight = check.weights_of_examples(sample_weight, m)[rest]
        return X[rest], y[rest], sample_weight, (X[test], y[test])

    def _run_lbfgs(self, data, epochs, held_out):
        try:
            from scipy.optimize import minimize
        except ImportError as error:
            raise ImportError(
                "optimizer LBFGS needs SciPy; install it with: pip install 'fastrna[scipy]'."
            ) from error

        history, best, net = History(), Best(), self.network
        progress = Progress(epochs, self.progress)
        clock = perf_counter()
        latest = math.inf

        def evaluate(parameters):
            nonlocal latest
            net.parameters = parameters
            latest, gradient = self.loss_and_gradient(data)
            if not math.isfinite(latest):
                return 1e300, np.zeros_like(parameters)
            return latest, gradient.astype(np.float64)

        def end_iteration(parameters):
            nonlocal clock
            net.parameters = parameters
            now = perf_counter()
            # The line search ends on the point it accepts, whose cost is therefore the latest.
            history._extend(cost=[latest], seconds=[now - clock], learning_rate=[0.0])
            self.n_epochs += 1
            if self.target_cost is not None and latest <= self.target_cost:
                history.stopped_by = "target_cost"
            if self._end_epoch(history, held_out, best, progress):
                raise StopIteration
            clock = perf_counter()

        start = net.parameters.astype(np.float64)
        try:
            result = minimize(
                evaluate, start, jac=True, method="L-BFGS-B", callback=end_iteration,
                options={"maxiter": epochs, "maxfun": 20 * epochs + 20, "ftol": 1e-14,
                         "gtol": self.optimizer.tolerance, "maxcor": self.optimizer.history_size},
            )  # fmt: skip
            net.parameters = result.x
            if history.stopped_by == "epochs" and history.n_epochs < epochs:
                history.stopped_by = "patience"
        except KeyboardInterrupt:
            history.stopped_by = "interrupt"
        finally:
            progress.close()
        self._restore(best)
        return history

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict:
        """Return options, optimizer state, random state and counters: arrays and plain values.

        Callbacks, validation, progress and checkpoint are not part of it.

        Returns
        -------
        dict

        Examples
        --------
        >>> import fastrna
        >>> fastrna.Trainer(fastrna.Network([1, 1], seed=0)).state()["n_epochs"]
        0
        """
        n_steps, first, second = self._take_moments()
        optimizer = dataclasses.asdict(self.optimizer)
        schedule = getattr(self.optimizer, "schedule", None)
        if schedule is not None:
            optimizer["schedule"] = {"kind": type(schedule).__name__} | optimizer["schedule"]
        weight = self.class_weight
        return {
            "optimizer": {"kind": type(self.optimizer).__name__} | optimizer,
            "loss": list(self.loss),
            "class_weight": [list(pair) for pair in weight.items()]
            if isinstance(weight, dict)
            else weight,
            "options": {name: getattr(self, name) for name in _SAVED_OPTIONS},
            "n_epochs": self.n_epochs,
            "n_steps": n_steps,
            "learning_rate": float(self.learning_rate),
            "lowest": self._lowest,
            "stagnant": self._stagnant,
            "dropout_seed": self._dropout_seed,
            "first_moment": first,
            "second_moment": second,
            "random": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict) -> None:
        """Put back what `state` returned: training goes on exactly as it would have.

        Parameters
        ----------
        state : dict
            From `state`, of a trainer of a network of the same sizes.

        Raises
        ------
        KeyError, ValueError
            If something is missing or does not fit.

        Examples
        --------
        >>> import fastrna
        >>> trainer = fastrna.Trainer(fastrna.Network([1, 1], seed=0))
        >>> trainer.set_state(trainer.state())
        """
        settings = dict(state["optimizer"])
        kinds = {kind.__name__: kind for kind in OPTIMIZERS.values()}
        kind = kinds[settings.pop("kind")]
        if settings.get("schedule") is not None:
            schedule = dict(settings["schedule"])
            settings["schedule"] = SCHEDULES[schedule.pop("kind")](**schedule)
        for moment in (state["first_moment"], state["second_moment"]):
            if moment is not None and np.shape(moment) != (self.network.n_parameters,):
                raise ValueError(
                    f"state has moments of shape {np.shape(moment)}; expected "
                    f"({self.network.n_parameters},), one a parameter."
                )
        self.optimizer = kind(**settings)
        self.loss = tuple(state["loss"])
        weight = state["class_weight"]
        self.class_weight = dict(weight) if isinstance(weight, (list, tuple)) else weight
        for name in _SAVED_OPTIONS:
            setattr(self, name, state["options"][name])
        self.n_epochs = state["n_epochs"]
        self._learning_rate = state["learning_rate"]
        self._even_rates = None
        self._lowest, self._stagnant = state["lowest"], state["stagnant"]
        self._dropout_seed = state["dropout_seed"]
        self._rng.bit_generator.state = state["random"]
        self._engine, self._engine_options = None, None
        self._moments = (state["n_steps"], state["first_moment"], state["second_moment"])

    def save(self, path) -> None:
        """Save the network and the trainer's state; `load` resumes exactly.

        Parameters
        ----------
        path : str or path
            A ``.npz`` file, or ``.safetensors`` with the extra of that name.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> trainer.save("trainer.npz")  # doctest: +SKIP
        """
        from fastrna.persistence import save_trainer

        save_trainer(self, path)

    @staticmethod
    def load(path) -> Trainer:
        """Return the trainer saved at `path`, with its network.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read or holds something else.

        Examples
        --------
        >>> trainer = fastrna.Trainer.load("trainer.npz")  # doctest: +SKIP
        """
        from fastrna.persistence import load_trainer

        return load_trainer(path)


_SAVED_OPTIONS = (
    "batch_size", "target_cost", "shuffle", "seed", "l1", "l2", "dropout",
    "l2_over_batch", "patience", "restore_best", "n_threads",
)  # fmt: skip


def _check_validation(validation):
    """None, a fraction, or a pair (X, y)."""
    if validation is None:
        return None
    if isinstance(validation, numbers.Real):
        return check.real(validation, "validation", 0, 1, low_open=True, high_open=True)
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise TypeError(
            f"validation is {type(validation).__name__}; expected (X, y), or the fraction of the "
            "examples to hold out."
        )
    return tuple(validation)


def train(net, X, y, *, loss="auto", optimizer="sgd", batch_size=32, epochs=100, target_cost=None,
          shuffle=True, seed=None, sample_weight=None, class_weight=None, l1=0.0, l2=0.0,
          dropout=0.0, validation=None, patience=None, restore_best=True, callbacks=(),
          progress=False, checkpoint=None, n_threads=None) -> History:  # fmt: skip
    """Train a network in place by gradient descent on mini-batches.

    Parameters
    ----------
    net : Network
        Trained in place.
    X : array_like or SciPy sparse matrix (m, n_x)
        Inputs. A float or integer array of any strides is read where it stands.
    y : array_like (m, n_y), (m,) where n_y = 1, or (m,) classes where the output is softmax
        Targets.
    loss : str or (str, float), default "auto"
        "squared_error", "log_loss", "perceptron", "absolute_error", "huber", "poisson",
        "quantile", or a pair with a parameter as ("quantile", 0.9). "auto" takes log_loss for
        sigmoid and softmax, perceptron for step and sign, poisson for exp, else squared_error.
    optimizer : SGD, Adam, LBFGS or {"sgd", "adam", "lbfgs"}, default "sgd"
        How a gradient becomes an update.
    batch_size : int or None, default 32
        Examples a step: 1 is stochastic, None batch gradient descent. The last, short mini-batch is
        trained on too.
    epochs : int, default 100
        Passes over the examples at most.
    target_cost : float, optional
        Stop once an epoch's cost is at or below it.
    shuffle : bool, default True
        Whether each epoch visits the examples in a new order,
        ``numpy.random.default_rng(seed).permutation(m)`` drawn afresh from the one generator.
    seed : int, optional
        Seed of the order and of dropout.
    sample_weight : array_like (m,), optional
        Weights of the examples, at least 0.
    class_weight : dict, "balanced" or None, default None
        Weights by class.
    l1, l2 : float, default 0.0
        Penalties ``l1 sum |W|`` and ``l2/2 sum W^2``, biases excluded.
    dropout : float, default 0.0
        Rate at which activations of hidden layers are dropped (inverted dropout).
    validation : (X, y) or float, optional
        Examples, or a fraction to hold out, to follow and to stop by.
    patience : int, optional
        Stop after so many epochs without a better validation cost (cost, without validation).
    restore_best : bool, default True
        Whether to end with the parameters of the best validation cost.
    callbacks : sequence of callables
        Called as ``callback(trainer, history)`` after each epoch; True stops.
    progress : bool, default False
        Show a bar (tqdm where installed, else a line on a terminal).
    checkpoint : path, optional
        File in which the trainer is saved after each epoch.
    n_threads : int or None, default None
        Threads; None takes as many as pay. The result is the same bit for bit.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above; nothing is trained then.
    DivergenceError
        If the cost is no longer finite; the network holds the last finite epoch's parameters.

    Notes
    -----
    The cost of an epoch is the example-weighted mean of its mini-batches' costs, each taken before
    its update, plus the penalties. Ctrl-C ends training between two mini-batches: the history so
    far is returned with ``stopped_by="interrupt"``.

    Examples
    --------
    >>> import fastrna
    >>> net = fastrna.Network([2, 8, 1], hidden="tanh", output="sigmoid", seed=0)
    >>> X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> history = fastrna.train(net, X, y, optimizer=fastrna.SGD(1.0, momentum=0.9),
    ...                         batch_size=None, epochs=200)
    >>> net.predict(X).round().ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    trainer = Trainer(
        net, loss=loss, optimizer=optimizer, batch_size=batch_size,
        target_cost=target_cost, shuffle=shuffle, seed=seed, class_weight=class_weight, l1=l1,
        l2=l2, dropout=dropout, validation=validation, patience=patience,
        restore_best=restore_best, callbacks=callbacks, progress=progress, checkpoint=checkpoint,
        n_threads=n_threads,
    )  # fmt: skip
    return trainer.run(X, y, epochs, sample_weight)
