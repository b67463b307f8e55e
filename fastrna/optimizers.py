"""Optimizers and learning-rate schedules: settings only; the arithmetic is in the kernels.

With g = dJ/dw and learning rate alpha:

========  =======================================================================================
SGD       w = w - alpha g; with momentum v = beta v - alpha g, w = w + v;
          with Nesterov's, w = w + beta v - alpha g (v the new one)
Adam      m = beta_1 m + (1 - beta_1) g, v = beta_2 v + (1 - beta_2) g^2,
          w = w - alpha sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
LBFGS     SciPy's L-BFGS-B on the whole batch
========  =======================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from fastrna import validation as check


@dataclass(frozen=True)
class InverseScaling:
    """Learning rate alpha_0 / t^power in epoch t = 1, 2, ...

    Parameters
    ----------
    power : float, default 0.5
        Exponent, above 0.

    Raises
    ------
    ValueError, TypeError
        If the power is out of range or not a number.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.InverseScaling().rate(0.1, 3)
    0.05
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        check.real(self.power, "power", 0, low_open=True)

    def rate(self, initial: float, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Parameters
        ----------
        initial : float
            alpha_0, the optimizer's `learning_rate`.
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        float
        """
        return initial * float(epoch + 1) ** -self.power


@dataclass(frozen=True)
class StepDecay:
    """Learning rate multiplied by `factor` after every `every` epochs.

    Parameters
    ----------
    every : int, default 10
        Epochs at one rate.
    factor : float, default 0.1
        Above 0 and at most 1.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.StepDecay(every=2, factor=0.5).rate(0.1, 5)
    0.025
    """

    every: int = 10
    factor: float = 0.1

    def __post_init__(self) -> None:
        check.integer(self.every, "every")
        check.real(self.factor, "factor", 0, 1, low_open=True)

    def rate(self, initial: float, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Parameters
        ----------
        initial : float
            alpha_0, the optimizer's `learning_rate`.
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        float
        """
        return initial * self.factor ** (epoch // self.every)


@dataclass(frozen=True)
class Cosine:
    """Learning rate on half a cosine, from its initial value to `minimum` over `epochs`.

    alpha = minimum + (alpha_0 - minimum) (1 + cos(pi t / epochs)) / 2 for t = 0, 1, ..., and
    `minimum` from then on (Loshchilov and Hutter, 2017).

    Parameters
    ----------
    epochs : int
        Epochs the descent lasts.
    minimum : float, default 0.0
        Last learning rate.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Examples
    --------
    >>> import fastrna
    >>> round(fastrna.Cosine(epochs=10).rate(0.1, 5), 6)
    0.05
    """

    epochs: int
    minimum: float = 0.0

    def __post_init__(self) -> None:
        check.integer(self.epochs, "epochs")
        check.real(self.minimum, "minimum", 0)

    def rate(self, initial: float, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Parameters
        ----------
        initial : float
            alpha_0, the optimizer's `learning_rate`.
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        float
        """
        t = min(epoch, self.epochs) / self.epochs
        return self.minimum + (initial - self.minimum) * (1 + math.cos(math.pi * t)) / 2


@dataclass(frozen=True)
class Adaptive:
    """Learning rate multiplied by `factor` whenever the cost stops falling.

    Parameters
    ----------
    patience : int, default 2
        Epochs in a row without a fall of more than `tolerance` before the rate is cut.
    tolerance : float, default 1e-4
        Smallest fall of the cost that counts.
    factor : float, default 0.2
        Above 0 and below 1.
    minimum : float, default 1e-6
        Smallest learning rate.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.SGD(learning_rate=0.1, schedule=fastrna.Adaptive(patience=3))
    SGD(learning_rate=0.1, momentum=0.0, nesterov=False, schedule=Adaptive(patience=3, \
tolerance=0.0001, factor=0.2, minimum=1e-06))
    """

    patience: int = 2
    tolerance: float = 1e-4
    factor: float = 0.2
    minimum: float = 1e-6

    def __post_init__(self) -> None:
        check.integer(self.patience, "patience")
        check.real(self.tolerance, "tolerance", 0)
        check.real(self.factor, "factor", 0, 1, low_open=True, high_open=True)
        check.real(self.minimum, "minimum", 0)


SCHEDULES = {kind.__name__: kind for kind in (InverseScaling, StepDecay, Cosine, Adaptive)}


def _check_common(optimizer: SGD | Adam) -> None:
    check.real(optimizer.learning_rate, "learning_rate", 0, low_open=True)
    if optimizer.schedule is not None and type(optimizer.schedule).__name__ not in SCHEDULES:
        raise TypeError(
            f"schedule is {optimizer.schedule!r}; expected None or one of {', '.join(SCHEDULES)}."
        )


@dataclass(frozen=True)
class SGD:
    """Gradient descent: batch, mini-batch or stochastic, by the `batch_size` of training.

    Parameters
    ----------
    learning_rate : float, default 0.01
        alpha, above 0.
    momentum : float, default 0.0
        beta, at least 0 and below 1.
    nesterov : bool, default False
        Whether to look ahead along the velocity (needs momentum above 0 to matter).
    schedule : InverseScaling, StepDecay, Cosine, Adaptive or None, default None
        How the learning rate changes from epoch to epoch; None keeps it.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Notes
    -----
    w = w - alpha g; with momentum v = beta v - alpha g, w = w + v, v_0 = 0 (Polyak, 1964); with
    Nesterov's momentum w = w + beta v - alpha g, with the new v (Sutskever et al., 2013).

    Examples
    --------
    >>> import fastrna
    >>> fastrna.SGD(learning_rate=0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=False, schedule=None)
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    schedule: InverseScaling | StepDecay | Cosine | Adaptive | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        check.real(self.momentum, "momentum", 0, 1, high_open=True)
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"nesterov is {self.nesterov!r}; expected True or False.")

    @property
    def rule(self) -> str:
        """The kernels' name of the update."""
        if self.momentum == 0:
            return "sgd"
        return "nesterov" if self.nesterov else "momentum"

    @property
    def remembers(self) -> str:
        """What it keeps of earlier steps, if anything."""
        return "velocity" if self.momentum else ""


@dataclass(frozen=True)
class Adam:
    """Adaptive moments (Kingma and Ba, 2015), in the efficient form at the end of their section 2.

    Parameters
    ----------
    learning_rate : float, default 0.001
        alpha, above 0.
    beta_1, beta_2 : float, default 0.9 and 0.999
        Decay of the first and of the second moment, at least 0 and below 1.
    epsilon : float, default 1e-8
        Added to the root of the second moment, above 0.
    schedule : InverseScaling, StepDecay, Cosine, Adaptive or None, default None
        How the learning rate changes from epoch to epoch; None keeps it.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.Adam(learning_rate=0.01).beta_2
    0.999
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    schedule: InverseScaling | StepDecay | Cosine | Adaptive | None = None

    rule: ClassVar[str] = "adam"  # the kernels' name of the update
    remembers: ClassVar[str] = "moments"

    def __post_init__(self) -> None:
        _check_common(self)
        check.real(self.beta_1, "beta_1", 0, 1, high_open=True)
        check.real(self.beta_2, "beta_2", 0, 1, high_open=True)
        check.real(self.epsilon, "epsilon", 0, low_open=True)


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS on the whole batch, through `scipy.optimize` (extra ``scipy``).

    An epoch is one iteration of L-BFGS-B (Byrd et al., 1995); `batch_size` and `shuffle` do not
    matter.

    Parameters
    ----------
    history_size : int, default 10
        Corrections kept to approximate the Hessian.
    tolerance : float, default 1e-5
        Training ends when no component of the gradient exceeds it.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of another type.

    Examples
    --------
    >>> import fastrna
    >>> fastrna.LBFGS(history_size=20)
    LBFGS(history_size=20, tolerance=1e-05)
    """

    history_size: int = 10
    tolerance: float = 1e-5
    # Its steps are not the kernels', and have a length of their own.
    rule: ClassVar[str] = "none"
    remembers: ClassVar[str] = ""
    learning_rate: ClassVar[float] = 0.0
    schedule: ClassVar[None] = None

    def __post_init__(self) -> None:
        check.integer(self.history_size, "history_size")
        check.real(self.tolerance, "tolerance", 0)


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "lbfgs": LBFGS}


def optimizer_of(value: SGD | Adam | LBFGS | str) -> SGD | Adam | LBFGS:
    """Return the optimizer named by, or given as, `value`."""
    if isinstance(value, str):
        return OPTIMIZERS[check.known(value, "optimizer", OPTIMIZERS)]()
    if not isinstance(value, tuple(OPTIMIZERS.values())):
        raise TypeError(
            f"optimizer is {value!r}; expected an SGD, Adam or LBFGS, or one of "
            f"{', '.join(map(repr, OPTIMIZERS))}."
        )
    return value


def plain(optimizer: SGD | Adam | LBFGS) -> dict[str, Any]:
    """Return an optimizer as plain values, for a file."""
    settings = {"kind": type(optimizer).__name__} | asdict(optimizer)
    if optimizer.schedule is not None:
        settings["schedule"] = {"kind": type(optimizer.schedule).__name__} | settings["schedule"]
    return settings


def from_plain(settings: Mapping[str, Any]) -> SGD | Adam | LBFGS:
    """Return the optimizer that `plain` made the values of."""
    settings = dict(settings)
    kind = {kind.__name__: kind for kind in OPTIMIZERS.values()}[settings.pop("kind")]
    if settings.get("schedule") is not None:
        schedule = dict(settings["schedule"])
        settings["schedule"] = SCHEDULES[schedule.pop("kind")](**schedule)
    return kind(**settings)
