"""What a training is told, but for its network, cost and optimizer: plain values, checked."""

from __future__ import annotations

from dataclasses import dataclass

from fastrna import validation as check


@dataclass
class Settings:
    """The options of `Trainer` that are saved with it.

    Parameters
    ----------
    batch_size, target_cost, shuffle, seed, l1, l2, dropout, l2_over_batch, patience, \
restore_best, n_threads
        As for `Trainer`.

    Raises
    ------
    ValueError, TypeError
        If one is not as `Trainer` takes it.

    Examples
    --------
    >>> from fastrna.settings import Settings
    >>> Settings(batch_size=None).l2
    0.0
    """

    batch_size: int | None = 32
    target_cost: float | None = None
    shuffle: bool = True
    seed: int | None = None
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    l2_over_batch: bool = False
    patience: int | None = None
    restore_best: bool = True
    n_threads: int | None = None

    def __setattr__(self, name, value):
        if name not in _CHECKS:
            raise AttributeError(
                f"settings has no option {name!r}; expected one of {', '.join(_CHECKS)}."
            )
        object.__setattr__(self, name, _CHECKS[name](value, name))


def _integer_or_none(value, name):
    return check.optional(check.integer, value, name)


_CHECKS = {
    "batch_size": _integer_or_none,
    "target_cost": lambda value, name: check.optional(check.real, value, name),
    "shuffle": check.flag,
    "seed": lambda value, name: check.optional(check.integer, value, name, 0, 2**64 - 1),
    "l1": lambda value, name: check.real(value, name, 0),
    "l2": lambda value, name: check.real(value, name, 0),
    "dropout": lambda value, name: check.real(value, name, 0, 1, high_open=True),
    "l2_over_batch": check.flag,
    "patience": _integer_or_none,
    "restore_best": check.flag,
    "n_threads": lambda value, name: check.threads(value),
}
