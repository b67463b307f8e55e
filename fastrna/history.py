"""What training saw: its history, the bar on the terminal, the best epoch so far."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fastrna.network import Network


class History:
    """What training saw, one entry an epoch.

    Attributes
    ----------
    cost : ndarray of float64 (n_epochs,)
        Example-weighted mean of the mini-batches' costs, penalties included; with LBFGS, the cost
        after the iteration.
    validation_cost, validation_score : ndarray of float64 (n_epochs,)
        Cost (without penalties) and accuracy or R^2 on the validation examples; empty without any.
    learning_rate : ndarray of float64 (n_epochs,)
        Rate of the epoch; 0.0 with LBFGS, which has none.
    seconds : ndarray of float64 (n_epochs,)
        Time of the epoch's training.
    n_epochs : int
        Epochs finished.
    stopped_by : {"epochs", "target_cost", "patience", "callback", "interrupt"}
        Why training ended; "patience" too where LBFGS converged by its tolerance, or found nothing
        better.

    Examples
    --------
    >>> import fastrna
    >>> net = fastrna.Network([2, 1], output="sigmoid", seed=0)
    >>> history = fastrna.train(net, [[0, 0], [1, 1]], [0, 1], epochs=5, seed=0)
    >>> history
    History(n_epochs=5, stopped_by='epochs', cost=0.757)
    """

    def __init__(self) -> None:
        self.stopped_by = "epochs"
        self._columns: dict[str, list[float]] = {
            name: []
            for name in ("cost", "validation_cost", "validation_score", "learning_rate", "seconds")
        }

    def _extend(self, **entries: Iterable[float]) -> None:
        for name, values in entries.items():
            self._columns[name].extend(values)

    def _column(self, name: str) -> NDArray[np.float64]:
        return np.array(self._columns[name], np.float64)

    @property
    def cost(self) -> NDArray[np.float64]:
        """Cost of each epoch, penalties included."""
        return self._column("cost")

    @property
    def validation_cost(self) -> NDArray[np.float64]:
        """Cost on the validation examples after each epoch, without penalties."""
        return self._column("validation_cost")

    @property
    def validation_score(self) -> NDArray[np.float64]:
        """Accuracy or R^2 on the validation examples after each epoch."""
        return self._column("validation_score")

    @property
    def learning_rate(self) -> NDArray[np.float64]:
        """Learning rate of each epoch; 0.0 with LBFGS."""
        return self._column("learning_rate")

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Time of each epoch's training, in seconds."""
        return self._column("seconds")

    def _even(self) -> None:
        """One entry an epoch, if an interrupt came between two columns."""
        n = self.n_epochs
        for name, column in self._columns.items():
            if column or not name.startswith("validation"):
                column.extend([math.nan] * (n - len(column)))

    @property
    def n_epochs(self) -> int:
        """Epochs finished."""
        return len(self._columns["cost"])

    def __repr__(self) -> str:
        cost = f", cost={self._columns['cost'][-1]:.3g}" if self.n_epochs else ""
        return f"History(n_epochs={self.n_epochs}, stopped_by={self.stopped_by!r}{cost})"

    def plot(self, ax: Any = None) -> Any:
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

    def __init__(self, epochs: int, wanted: bool) -> None:
        self._bar: Any = None
        self._line, self._epochs = False, epochs
        if not wanted:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            self._line = sys.stderr.isatty()
        else:
            self._bar = tqdm(total=epochs, unit="epoch", desc="training")

    def show(self, n_epochs: int, cost: float) -> None:
        """Show how far it is, and the cost of the last epoch."""
        if self._bar is not None:
            self._bar.set_postfix(cost=f"{cost:.4g}", refresh=False)
            self._bar.update()
        elif self._line:
            sys.stderr.write(f"\repoch {n_epochs}/{self._epochs}  cost {cost:.4g}  ")
            sys.stderr.flush()

    def close(self) -> None:
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
    parameters: NDArray[Any] | None = None

    def see(self, cost: float, net: Network) -> None:
        """Take account of an epoch: its cost, and the network after it."""
        if cost < self.cost:
            self.cost, self.epochs_since, self.parameters = cost, 0, net.parameters.copy()
        else:
            self.epochs_since += 1
