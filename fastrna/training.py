"""Trainer and train: what training is told and keeps; an epoch is one call of the engine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrna import kernels
from fastrna import validation as check
from fastrna.history import Best, History
from fastrna.network import Inputs, Network, Path, Specification
from fastrna.optimizers import LBFGS, SGD, Adam, Adaptive, from_plain, optimizer_of, plain
from fastrna.prepared import Prepared
from fastrna.runs import DivergenceError, Run, hold_out
from fastrna.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Optimizer: TypeAlias = "SGD | Adam | LBFGS | str"
_IN_USE = (
    "The trainer is in use by another call, of another thread or of the one that a signal's "
    "handler interrupted; expected one call at a time."
)
HeldOut: TypeAlias = "tuple[ArrayLike, ArrayLike] | float"


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
    loss : (str, float or None)
        The cost and its parameter.
    learning_rate : float
        Rate of the next epoch before its schedule; may be set.
    settings : Settings
        `batch_size`, `l1`, `l2`, `n_threads` and the other plain options; may be set between calls,
        each as it may be given.
    optimizer : SGD, Adam or LBFGS
        May be set between calls, as given: from its own learning rate on, with the velocity there
        is where both have momentum, else without what another one remembers. A schedule counts all
        epochs of the trainer.
    validation, callbacks
        As given; may be set between calls.
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
    RuntimeError
        By a call that trains, of another thread or a signal's handler, while one is under way.

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

    def __init__(
        self,
        net: Network,
        *,
        loss: Specification = "auto",
        optimizer: Optimizer = "sgd",
        batch_size: int | None = 32,
        target_cost: float | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        class_weight: dict[Any, float] | str | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        dropout: float = 0.0,
        l2_over_batch: bool = False,
        validation: HeldOut | None = None,
        patience: int | None = None,
        restore_best: bool = True,
        callbacks: Sequence[Callable[[Trainer, History], Any]] = (),
        progress: bool = False,
        checkpoint: Path | None = None,
        n_threads: int | None = None,
    ):
        if not isinstance(net, Network):
            raise TypeError(f"net is {net!r}; expected a Network.")
        self._network = net
        self._loss = check.cost(loss, net.activations[-1][0])
        self.settings = Settings(
            batch_size=batch_size, target_cost=target_cost, shuffle=shuffle, seed=seed, l1=l1,
            l2=l2, dropout=dropout, l2_over_batch=l2_over_batch, patience=patience,
            restore_best=restore_best, n_threads=n_threads,
        )  # fmt: skip
        self._optimizer = optimizer_of(optimizer)
        self._check_dropout()
        self.class_weight = class_weight
        self.validation = validation
        self._check_validation()
        self.callbacks = callbacks
        self.progress = progress
        self.checkpoint = check.optional(check.path, checkpoint, "checkpoint")
        self.n_epochs = 0
        self._rng = np.random.default_rng(self.settings.seed)
        # Of dropout and of what is held out, whatever the settings' becomes.
        self._seed = self.settings.seed
        if self._seed is None:
            self._seed = int(self._rng.integers(2**63))
        self._last_finite = None
        self._begin_rates()
        self._begin_moments(0)
        self._best = None  # of the run under way, where it validates
        self._resumed = None  # of the one that `set_state` put back, for the next to go on with
        self._free = [True]  # empty while a call is under way

    def __getstate__(self):
        # Between calls the engine holds nothing but the moments that is not elsewhere.
        return vars(self) | {
            "_engine": None, "_engine_serves": (0,), "_moments": self._take_moments(),
            "_free": [True],
        }  # fmt: skip

    def _check_validation(self):
        """Check what to validate on, which is not saved where it is examples, and may be set."""
        self.validation, patience = check.held_out(self.validation), self.settings.patience
        if patience is not None and self.validation is None:
            raise ValueError(
                f"patience is {patience} without validation; expected validation examples to "
                "follow, or patience None."
            )

    @property
    def network(self) -> Network:
        """What is trained."""
        return self._network

    @property
    def loss(self) -> tuple[str, float | None]:
        """The cost, and its parameter if it has one."""
        return self._loss

    @property
    def optimizer(self) -> SGD | Adam | LBFGS:
        """How a gradient becomes an update."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: Optimizer) -> None:
        """Go on with another optimizer, or with other settings of the same."""
        if not self._free:
            raise RuntimeError(_IN_USE)
        before, self._optimizer = self._optimizer, optimizer_of(value)
        if self._optimizer.remembers != before.remembers:
            self._begin_moments(self.n_steps)
        self._begin_rates()

    def _check_dropout(self):
        if isinstance(self.optimizer, LBFGS) and self.settings.dropout:
            raise ValueError(
                f"dropout is {self.settings.dropout} with optimizer LBFGS, which needs the same "
                "cost whenever it evaluates it; expected 0."
            )

    def _begin_rates(self):
        """Begin with the optimizer's own learning rate."""
        self._learning_rate = self.optimizer.learning_rate
        self._even_rates = None  # as `_rates` made them, until the learning rate changes
        self._lowest, self._stagnant = math.inf, 0

    def _begin_moments(self, n_steps):
        """Begin without velocity or moments, after so many steps."""
        self._steps_before = n_steps
        # The engine's own count begins at 0, and would drop the same units again.
        self._dropout_seed = (self._seed + n_steps) % 2**64
        self._engine, self._engine_serves = None, (0,)  # the most rows so far, and what decides
        self._moments = (0, None, None)

    @property
    def callbacks(self) -> list[Callable[[Trainer, History], Any]]:
        """What is called after each epoch."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, value: Sequence[Callable[[Trainer, History], Any]]) -> None:
        """Call others, from the next epoch on."""
        if not isinstance(value, (list, tuple)) or not all(map(callable, value)):
            raise TypeError(f"callbacks is {value!r}; expected a list of callables.")
        self._callbacks = list(value)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch, before its schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        """Set the rate, above 0, from the next epoch on."""
        self._learning_rate = check.real(value, "learning_rate", 0, low_open=True)
        self._even_rates = None

    # -- the engine ------------------------------------------------------------------------------

    @property
    def n_steps(self) -> int:
        """Mini-batches since the trainer was made."""
        since = self._engine.n_steps if self._engine is not None else self._moments[0]
        return self._steps_before + int(since)

    @property
    def workspace_bytes(self) -> int:
        """Memory the workspace takes now, beside the data and the network."""
        return int(self._engine.workspace_bytes) if self._engine is not None else 0

    @property
    def n_threads_used(self) -> int:
        """Threads of the last epochs: what `n_threads` allows and the work repays; 0 before any."""
        return int(self._engine.team) if self._engine is not None else 0

    def _engine_for(self, data, rows, rule):
        """Return the engine, rebuilt only where another is needed; its state moves along."""
        most, dropout = self._engine_serves[0], self.settings.dropout
        wanted = rows if rows > most else most, data.is_sparse, rule, dropout
        if wanted != self._engine_serves:
            moments = self._take_moments()
            self._engine = self.network._engine(
                rule, self.loss, wanted[0], dropout=dropout, sparse=data.is_sparse
            )
            self._engine_serves = wanted
            self._give_moments(*moments)
        return self._engine

    def _take_moments(self):
        if self._engine is None:
            return self._moments
        return int(self._engine.n_steps), self._engine.get_moment(1), self._engine.get_moment(2)

    def _give_moments(self, n_steps, first, second):
        self._engine.n_steps = n_steps
        for which, moment in ((1, first), (2, second)):
            if moment is not None and self._engine.get_moment(which) is not None:
                self._engine.set_moment(which, np.ascontiguousarray(moment, self.network.dtype))

    def _descend(self, data, X, rates, order=None, batch_size=None, shuffle=None):
        """Epochs, or with a batch size a step, in one call of the engine: (costs, seconds, ending).

        Raises on divergence, for which X may be to blame, and what a signal's handler raises.
        """
        optimizer, settings = self._optimizer, self.settings  # not by properties: epochs are short
        rule = optimizer.rule
        if rule == "none":
            raise TypeError("optimizer is LBFGS, which has no steps; expected SGD or Adam.")
        rows = min(batch_size or settings.batch_size or data.m, data.m)
        shuffle = settings.shuffle if shuffle is None else shuffle
        adam = rule == "adam"
        taken = False
        try:
            try:
                # Whoever comes meanwhile finds nothing there. Not by a call, after which Python
                # looks for signals: Ctrl-C would come between the taking and the note of it.
                del self._free[0]
            except IndexError:
                raise RuntimeError(_IN_USE) from None
            taken = True
            engine = self._engine_for(data, rows, rule)
            before = engine.n_steps
            costs, seconds, ending, last, error = engine.train(
                self._network.parameters,
                data,
                rows,
                rates,
                order=order,
                generator=self._rng.bit_generator if shuffle and order is None else None,
                target_cost=-math.inf if settings.target_cost is None else settings.target_cost,
                momentum=optimizer.beta_1 if adam else optimizer.momentum,
                beta_2=optimizer.beta_2 if adam else 0.0,
                epsilon=optimizer.epsilon if adam else 0.0,
                l1=settings.l1,
                l2=settings.l2,
                over_batch=settings.l2_over_batch,
                dropout_seed=self._dropout_seed,
                n_threads=kernels.team(settings.n_threads),
                fewer=settings.n_threads is None,
            )
        finally:
            if taken:
                self._free.append(True)
        if batch_size is None:  # else it was one step
            self.n_epochs += len(costs)
        if len(costs):
            self._last_finite = costs[-1]
        if error is not None:
            raise error
        if ending == "divergence":
            # The parameters are those of before that epoch; the moments are not, nor finite.
            steps = -(-(data.m if order is None else len(order)) // rows)
            self._begin_moments(self._steps_before + int(before) + len(costs) * steps)
            self.network._blame(X)
            self._raise_divergence(last)
        return costs, seconds, ending

    def _raise_divergence(self, last):
        before = "no epoch was finite before"
        if self._last_finite is not None:
            before = f"the last finite cost was {self._last_finite:.6g}"
        what = "A parameter became infinite" if math.isfinite(last) else f"The cost became {last}"
        raise DivergenceError(
            f"{what} in epoch {self.n_epochs + 1}; {before}. The network holds the parameters from "
            "before that epoch, and the optimizer begins anew. Try a smaller learning_rate (it was "
            f"{self.learning_rate:g}), scaled inputs, or a smaller momentum."
        )

    def _rates(self, count):
        schedule = self._optimizer.schedule
        if schedule is None or isinstance(schedule, Adaptive):
            if self._even_rates is None or len(self._even_rates) != count:
                self._even_rates = np.full(count, self._learning_rate, np.float64)
            return self._even_rates
        return np.array(
            [schedule.rate(self.learning_rate, self.n_epochs + i) for i in range(count)], np.float64
        )

    def _adapt(self, cost):
        """Cut the learning rate, where the schedule is adaptive, after an epoch."""
        schedule = self._optimizer.schedule
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

    def prepare(self, X: Inputs, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
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
        return self._prepared(X, y, sample_weight)

    def _prepared(self, X, y, sample_weight=None, names=("X", "y")):
        data, net = self._prepare(X, y, sample_weight, names), self.network
        return Prepared(data, X, net, self.loss, net._scaling())

    def _prepare(self, X, y, sample_weight=None, names=("X", "y")):
        self.network._check_parameters()
        data = self.network._examples(X, y, self.loss[0], sample_weight, names)
        if self.class_weight is None:
            return data
        net = self.network
        by_class = check.weights_of_classes(
            self.class_weight, y, net.sizes[-1], net.activations[-1][0]
        )
        weight = by_class if sample_weight is None else by_class * np.asarray(sample_weight, float)
        return self.network._examples(X, y, self.loss[0], weight, names)

    def epoch(self, data: Any, order: ArrayLike | None = None) -> float:
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
        ValueError, TypeError
            If the data were prepared for another kind of network, or for targets of another kind
            than this trainer's cost and output take.
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
        data, X = self._data_of(data), data.X
        if order is not None:
            order = np.asarray(order)
            whole = order.ndim == 1 and order.dtype.kind in "iu" and len(order)
            if not whole or order.min() < 0 or order.max() >= data.m:
                raise ValueError(
                    f"order is not a list of places in the {data.m} examples; expected (k,) "
                    f"integers from 0 to {data.m - 1}."
                )
            order = np.ascontiguousarray(order, np.int64)
        costs, _, ending = self._descend(data, X, self._rates(1), order)
        if ending == "interrupt":
            raise KeyboardInterrupt
        self._adapt(costs[0])
        return float(costs[0])

    def _data_of(self, prepared):
        """Return the examples of `prepare` as the kernels read them, if they fit this trainer."""
        if not isinstance(prepared, Prepared):
            kind = type(prepared).__name__
            raise TypeError(f"data is of type {kind}; expected what Trainer.prepare returned.")
        net = self._network
        if prepared.network is not net or prepared.loss is not self._loss:
            prepared.check_use(net, self._loss)
        if prepared.scaling[0] is not None or net._scaler is not None:
            prepared.check_scaling(net)
        return prepared.data

    def step(self, X: Inputs, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Take one step on a mini-batch: for examples that come one by one.

        At the learning rate of the next epoch; no epoch is counted.

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
        KeyboardInterrupt
            On Ctrl-C.

        Examples
        --------
        See `Trainer`.
        """
        data = self._prepare(X, y, sample_weight)
        costs, _, ending = self._descend(data, X, self._rates(1), batch_size=data.m, shuffle=False)
        if ending == "interrupt":
            raise KeyboardInterrupt
        return float(costs[0])

    def evaluate(self, data: Any) -> float:
        """Return the cost of prepared examples, without penalties, dropout or update.

        Parameters
        ----------
        data : object
            From `prepare`.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As for `epoch`.

        Examples
        --------
        See `prepare`.
        """
        examples = self._data_of(data)
        cost = self.network._evaluate(examples, self.loss, self.settings.n_threads)
        if not math.isfinite(cost):
            self.network._blame(data.X)
        return cost

    def loss_and_gradient(self, data: Any) -> tuple[float, NDArray[Any]]:
        """Return the cost of prepared examples and its gradient, with the trainer's penalties.

        Parameters
        ----------
        data : object
            From `prepare`.

        Returns
        -------
        cost : float
        gradient : ndarray (n_parameters,)

        Raises
        ------
        ValueError, TypeError
            As for `epoch`.

        Examples
        --------
        >>> import fastrna
        >>> trainer = fastrna.Trainer(fastrna.Network([1, 1], init="zeros", dtype="float64"))
        >>> trainer.loss_and_gradient(trainer.prepare([[1.0]], [2.0]))
        (2.0, array([-2., -2.]))
        """
        examples, settings = self._data_of(data), self.settings
        factor = 1 / examples.total_weight if settings.l2_over_batch else 1.0
        cost, gradient = self.network._gradient(
            examples, self.loss, settings.l1 * factor, settings.l2 * factor, settings.n_threads
        )
        if not examples.plain:
            self.network._doubt(data.X, gradient, cost)
        return cost, gradient

    # -- many epochs -----------------------------------------------------------------------------

    def run(
        self, X: Inputs, y: ArrayLike, epochs: int, sample_weight: ArrayLike | None = None
    ) -> History:
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
        ValueError, TypeError, DivergenceError
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
        self._check_validation()
        held_out = self.validation
        if isinstance(held_out, float):
            self._prepare(X, y, sample_weight)  # all of it: in a part rows have other numbers
            self.network._blame(X)
            X, y, sample_weight, held_out = hold_out(held_out, self._seed, X, y, sample_weight)
        if isinstance(self.optimizer, LBFGS):
            self._check_dropout()
            twin = self._float64_twin()
            if twin is not self:  # which takes numbers that this type does not hold
                self._prepare(X, y, sample_weight)
                self.network._blame(X)
            prepared = twin.prepare(X, y, sample_weight)
            return Run(self, epochs, held_out).minimise(twin, prepared)
        prepared = self.prepare(X, y, sample_weight)
        return Run(self, epochs, held_out).descend(prepared)

    def _float64_twin(self):
        """Return what evaluates cost and gradient for L-BFGS: itself, where it is of float64."""
        net, settings = self.network, self.settings
        if net.dtype == np.float64:
            return self
        return Trainer(
            net.copy("float64"), loss=self.loss, class_weight=self.class_weight, l1=settings.l1,
            l2=settings.l2, l2_over_batch=settings.l2_over_batch, n_threads=settings.n_threads,
        )  # fmt: skip

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return options, optimizer state, random state and counters: arrays and plain values.

        During a run, as in a checkpoint or a callback, the best parameters so far too. Callbacks,
        progress, checkpoint and the examples to validate on are not part of it.

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
        weight, best = self.class_weight, self._best or self._resumed
        return {
            "optimizer": plain(self.optimizer),
            "loss": list(self.loss),
            "class_weight": [list(pair) for pair in weight.items()]
            if isinstance(weight, dict)
            else weight,
            "options": dataclasses.asdict(self.settings),
            "validation": None if isinstance(self.validation, tuple) else self.validation,
            "n_epochs": self.n_epochs,
            "n_steps": n_steps,
            "steps_before": self._steps_before,
            "learning_rate": float(self.learning_rate),
            "lowest": self._lowest,
            "stagnant": self._stagnant,
            "dropout_seed": self._seed,
            "first_moment": first,
            "second_moment": second,
            "best": None if best is None else dataclasses.asdict(best),
            "random": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned: training goes on exactly as it would have.

        But for L-BFGS, which begins a new approximation of the Hessian in every run.

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
        optimizer = from_plain(state["optimizer"])
        loss = check.cost(state["loss"], self.network.activations[-1][0])
        settings = Settings(**state["options"])
        n_epochs = check.integer(state["n_epochs"], "n_epochs", 0)
        n_steps = check.integer(state["n_steps"], "n_steps", 0)
        stagnant = check.integer(state["stagnant"], "stagnant", 0)
        seed = check.integer(state["dropout_seed"], "dropout_seed", 0, 2**64 - 1)
        learning_rate = check.real(state["learning_rate"], "learning_rate", 0)
        lowest = float(state["lowest"])
        moments = [self._own(state[name], "moments") for name in ("first_moment", "second_moment")]
        # Files of before had none of these three.
        steps_before = check.integer(state.get("steps_before", 0), "steps_before", 0)
        best = state.get("best")
        if best is not None:
            since = check.integer(best["epochs_since"], "epochs_since", 0)
            parameters = self._own(best["parameters"], "best parameters")
            best = Best(float(best["cost"]), since, parameters)
        validation = check.held_out(state.get("validation"))
        weight = state["class_weight"]
        weight = dict(weight) if isinstance(weight, (list, tuple)) else weight
        rng = np.random.default_rng()
        rng.bit_generator.state = state["random"]
        # All of it fits; before this line nothing has changed.
        self._optimizer, self._loss, self.settings, self.class_weight = (
            optimizer, loss, settings, weight,
        )  # fmt: skip
        self.validation = self.validation if validation is None else validation
        self.n_epochs, self._seed, self._rng = n_epochs, seed, rng
        self._begin_rates()
        self._learning_rate, self._lowest, self._stagnant = learning_rate, lowest, stagnant
        self._begin_moments(steps_before)
        self._moments = (n_steps, *moments)
        self._last_finite, self._resumed = None, best

    def _own(self, values, what):
        """Return numbers of a state, one a parameter, in an array of their own; None for None."""
        if values is not None and np.shape(values) != (self.network.n_parameters,):
            raise ValueError(
                f"state has {what} of shape {np.shape(values)}; expected "
                f"({self.network.n_parameters},), one a parameter."
            )
        return None if values is None else np.array(values, self.network.dtype)

    def save(self, path: Path) -> None:
        """Save the network and the trainer's `state`; `load` resumes exactly.

        Parameters
        ----------
        path : str or path
            Where to, as for `Network.save`.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If `class_weight` has keys that a file cannot hold.
        ImportError
            If the extra ``safetensors`` is asked for and not installed.

        Examples
        --------
        >>> import tempfile, os, fastrna
        >>> X, y = fastrna.datasets.load_gates("xor")
        >>> net = fastrna.Network([2, 4, 1], output="sigmoid", seed=0)
        >>> trainer = fastrna.Trainer(net, seed=0)
        >>> _ = trainer.run(X, y, epochs=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save(os.path.join(folder, "trainer.npz"))
        ...     resumed = fastrna.Trainer.load(os.path.join(folder, "trainer.npz"))
        >>> bool((trainer.run(X, y, epochs=2).cost == resumed.run(X, y, epochs=2).cost).all())
        True
        """
        from fastrna.persistence import save_trainer

        self.network._scaling()  # what does not fit would be found when it is loaded
        save_trainer(self, path)

    @staticmethod
    def load(path: Path) -> Trainer:
        """Return the trainer saved at `path`, with a network of its own; callbacks come anew.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        OSError, ValueError, ImportError
            As for `Network.load`, and if it is not a trainer's.

        Examples
        --------
        See `save`.
        """
        from fastrna.persistence import load_trainer

        return load_trainer(path)


def train(
    net: Network,
    X: Inputs,
    y: ArrayLike,
    *,
    loss: Specification = "auto",
    optimizer: Optimizer = "sgd",
    batch_size: int | None = 32,
    epochs: int = 100,
    target_cost: float | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: dict[Any, float] | str | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    dropout: float = 0.0,
    validation: HeldOut | None = None,
    patience: int | None = None,
    restore_best: bool = True,
    callbacks: Sequence[Callable[[Trainer, History], Any]] = (),
    progress: bool = False,
    checkpoint: Path | None = None,
    n_threads: int | None = None,
) -> History:
    """Train a network in place by gradient descent on mini-batches.

    Parameters
    ----------
    net : Network
        Trained in place.
    X : array_like or SciPy sparse matrix (m, n_x)
        Inputs. An array of float32, float64, integers or booleans, of any strides, is read where it
        stands; one of another type or byte order is converted whole.
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
        Seed of the order, of dropout and of the fraction held out.
    sample_weight : array_like (m,), optional
        Weights of the examples, at least 0.
    class_weight : dict, "balanced" or None, default None
        Weights by class, 1 for those that the dict does not name, where the output is softmax or
        one sigmoid, step or sign; "balanced" is m / (classes that occur * count of the class), of
        the examples given to the call. Of the validation cost too.
    l1, l2 : float, default 0.0
        Penalties ``l1 sum |W|`` and ``l2/2 sum W^2``, biases excluded.
    dropout : float, default 0.0
        Rate at which activations of hidden layers are dropped (inverted dropout).
    validation : (X, y) or float, optional
        Examples, or a fraction to hold out, to follow and to stop by.
    patience : int, optional
        Stop after so many epochs without a better validation cost; needs `validation`.
    restore_best : bool, default True
        Whether to end with the parameters of the best validation cost.
    callbacks : sequence of callables
        Called as ``callback(trainer, history)`` after each epoch; what is true stops.
    progress : bool, default False
        Show a bar (tqdm where installed, else a line on a terminal).
    checkpoint : path, optional
        File in which the trainer is saved after each epoch and its callbacks.
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
