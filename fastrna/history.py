"""What training saw: its history, the bar on the terminal, the best epoch so far."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np


class History:
    """What training saw, one entry an epoch.

    Attributes
    ----------
    cost : ndarray
        Example-weighted mean of the mini-batches' costs, penalties included.
    validation_cost, validation_score : ndarray
        Cost (without penalties) and accuracy or R^2 on the validation examples; empty without any.
    learning_rate : ndarray
    seconds : ndarray
        Time of the epoch's training.
    n_epochs : int
    stopped_by : {"epochs", "target_cost", "patience", "callback", "interrupt"}
        Why training ended; "patience" too where LBFGS found nothing better.

    Examples
    --------
    >>> import fastrna
    >>> net = fastrna.Network([2, 1], output="sigmoid", seed=0)
    >>> history = fastrna.train(net, [[0, 0], [1, 1]], [0, 1], epochs=5, seed=0)
    >>> history
    History(n_epochs=5, stopped_by='epochs', cost=0.757)
    """

    def __init__(self):
        self.stopped_by = "epochs"
        self._columns = {
            name: []
            for name in ("cost", "validation_cost", "validation_score", "learning_rate", "seconds")
        }

    def _extend(self, **entries):
        for name, values in entries.items():
            self._columns[name].extend(values)

    cost = property(lambda self: np.array(self._columns["cost"], float))
    validation_cost = property(lambda self: np.array(self._columns["validation_cost"], float))
    validation_score = property(lambda self: np.array(self._columns["validation_score"], float))
    learning_rate = property(lambda self: np.array(self._columns["learning_rate"], float))
    seconds = property(lambda self: np.array(self._columns["seconds"], float))

    @property
    def n_epochs(self) -> int:
        """Epochs finished."""
        return len(self._columns["cost"])

    def __repr__(self):
        cost = f", cost={self._columns['cost'][-1]:.3g}" if self.n_epochs else ""
        return f"History(n_epochs={self.n_epochs}, stopped_by={self.stopped_by!r}{cost})"

    def plot(self, ax=None):
        """Draw the costs against the epoch (extra ``plot``).

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> history.plot()  # doctest: +SKIP
        """
        from fastrna.plotting import plot_history

        return plot_history(self, ax)


class Progress:
    """A bar by tqdm where it is installed, else a line on the terminal, else nothing."""

    def __init__(self, epochs, wanted):
        self._bar, self._line, self._epochs = None, False, epochs
        if not wanted:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            self._line = sys.stderr.isatty()
        else:
            self._bar = tqdm(total=epochs, unit="epoch", desc="training")

    def show(self, n_epochs, cost):
        """Show how far it is, and the cost of the last epoch."""
        if self._bar is not None:
            self._bar.set_postfix(cost=f"{cost:.4g}", refresh=False)
            self._bar.update()
        elif self._line:
            sys.stderr.write(f"\repoch {n_epochs}/{self._epochs}  cost {cost:.4g}  ")
            sys.stderr.flush()

    def close(self):
        """Leave the terminal on a line of its own."""
        if self._bar is not None:
            self._bar.close()
        elif self._line:
            sys.stderr.write("\n")


@dataclasses.dataclass
class Best:
    """The best validation cost (or cost) so far, and the parameters that had it."""

    cost: float = math.inf
    epochs_since: int = 0
    parameters: np.ndarray | None = None

    def see(self, cost, net):
        """Take account of an epoch: its cost, and the network after it."""
        if cost < self.cost:
            self.cost, self.epochs_since, self.parameters = cost, 0, net.parameters.copy()
        else:
            self.epochs_since += 1
