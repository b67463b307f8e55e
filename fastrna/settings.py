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

    def __post_init__(self):
        self.batch_size = check.optional(check.integer, self.batch_size, "batch_size")
        self.target_cost = check.optional(check.real, self.target_cost, "target_cost")
        self.shuffle, self.restore_best = bool(self.shuffle), bool(self.restore_best)
        self.seed = check.optional(check.integer, self.seed, "seed", 0, 2**64 - 1)
        self.l1, self.l2 = check.real(self.l1, "l1", 0), check.real(self.l2, "l2", 0)
        self.dropout = check.real(self.dropout, "dropout", 0, 1, high_open=True)
        self.l2_over_batch = bool(self.l2_over_batch)
        self.patience = check.optional(check.integer, self.patience, "patience")
        self.n_threads = check.threads(self.n_threads)
