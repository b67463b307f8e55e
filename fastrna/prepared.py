"""Examples that were checked once, for many calls of a trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrna import validation as check
from fastrna.network import Inputs, Network

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Prepared(NamedTuple):
    """What `Trainer.prepare` returns.

    The examples as the kernels read them, X as it came, the network and the cost that they were
    checked for, and the shift and scale that they are read with.
    """

    data: Any
    X: Inputs
    network: Network
    loss: tuple[str, float | None]
    scaling: tuple[NDArray[Any] | None, NDArray[Any] | None]

    def check_scaling(self, network: Network) -> None:
        """Raise unless a network scales its inputs as these are."""
        wanted = network._scaling()
        if self.scaling is wanted:
            return
        if not all(map(np.array_equal, self.scaling, wanted)):
            raise ValueError(
                "data was prepared for inputs scaled in another way than by the network's scaler; "
                "expected examples that are prepared anew once it is set or fitted."
            )

    def check_use(self, network: Network, loss: tuple[str, float | None]) -> None:
        """Raise unless the examples do for another network or cost as well."""
        shapes = [(n.sizes[0], n.sizes[-1], n.dtype.name) for n in (self.network, network)]
        if shapes[0] != shapes[1]:
            given, wanted = ("{} inputs and {} outputs of {}".format(*shape) for shape in shapes)
            raise ValueError(f"data was prepared for {given}; expected {wanted}.")
        uses = [
            (cost[0], n.activations[-1][0])
            for n, cost in ((self.network, self.loss), (network, loss))
        ]
        if check.kind_of_targets(*uses[0]) != check.kind_of_targets(*uses[1]):
            given, wanted = ("loss {!r} and output {!r}".format(*use) for use in uses)
            raise ValueError(
                f"data was prepared for {given}; expected targets as of {wanted}, prepared by this "
                "trainer."
            )
