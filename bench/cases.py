"""The networks the benchmarks train: sizes, made-up data, starting weights, arithmetic.

Imported by the other scripts here; it shows nothing by itself. Every peer starts from the same
weights, sees the same examples and minimises the same cost, so that the costs they reach can be
compared as well as their times. Data are drawn from a noisy random teacher: the networks have
something to learn, and neither diverge nor reach cost zero however many epochs a timing takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import erf

import numpy as np


@dataclass(frozen=True)
class Case:
    """One thing to time: a network, its number of examples and its mini-batch.

    Attributes
    ----------
    sizes : tuple of int
        Width of every layer, inputs first.
    hidden, output : str
        Activation of the hidden layers and of the last one: "softmax" with cross-entropy, or
        "identity" with squared error.
    m : int
        Examples.
    batch : int or None
        Examples in a mini-batch; None where there are none, or one of all examples.
    dtype : str
        "float32" or "float64".
    target : float or None
        The ratio to the fastest peer that fastrna is meant to reach.
    limit : float or None
        The seconds that fastrna is meant not to exceed.
    momentum, dropout : float
        Of the descent in the epochs.
    call : str
        Which of fastrna's ways of asking for the same thing ("" is the usual one).
    """

    sizes: tuple[int, ...]
    hidden: str
    output: str
    m: int
    batch: int | None = None
    dtype: str = "float32"
    target: float | None = None
    limit: float | None = None
    momentum: float = 0.9
    dropout: float = 0.0
    call: str = ""

    @property
    def name(self) -> str:
        """The case in a few words, as the tables print it."""
        words = ["-".join(map(str, self.sizes)), f"{self.hidden},", str(self.m)]
        if self.batch:
            words[-1] += f", {self.batch}"
        if self.dtype != "float32":
            words.append(self.dtype)
        if not self.momentum:
            words.append("no momentum")
        if self.dropout:
            words.append("dropout")
        return " ".join([*words, self.call]).strip()

    @property
    def learning_rate(self) -> float:
        """A rate at which none of these networks diverges."""
        return 0.001 if self.batch and self.batch < 8 else 0.01

    @property
    def n_parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum((i + 1) * o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def forward_flops(self) -> int:
        """Multiplications and additions of the products for one example's prediction."""
        return sum(2 * i * o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def epoch_flops(self) -> int:
        """Those of one epoch: forward, weight gradient, and dA for all layers but the first."""
        return self.m * (3 * self.forward_flops - 2 * self.sizes[0] * self.sizes[1])

    def flops(self, task: str) -> int | None:
        """Those of one call of a task of many examples; None for tasks of a few microseconds."""
        if task in ("epoch", "threads"):
            return self.epoch_flops
        return self.m * self.forward_flops if task == "predict" else None

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Examples X (m, n_x), and labels (m,) for softmax or targets (m, n_y)."""
        rng = np.random.default_rng(0)
        X = rng.standard_normal((self.m, self.sizes[0]), dtype=np.float32).astype(self.dtype)
        teacher = rng.standard_normal((self.sizes[0], self.sizes[-1])) / self.sizes[0] ** 0.5
        noise = 0.5 * rng.standard_normal((self.m, self.sizes[-1]))
        scores = np.tanh(X @ teacher) + noise
        if self.output == "softmax":
            return X, scores.argmax(axis=1)
        return X, scores.astype(self.dtype)

    @cached_property
    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Starting W (n_in, n_out) and b (n_out,) of every layer."""
        rng = np.random.default_rng(1)
        layers = []
        for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False):
            bound = (6 / (n_in + n_out)) ** 0.5
            W = rng.uniform(-bound, bound, (n_in, n_out)).astype(self.dtype)
            layers.append((W, np.zeros(n_out, self.dtype)))
        return layers

    def cost(self, weights: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """Compute the mean cost over all examples, which tells whether a peer really learned."""
        X, y = self.data
        A = X
        for W, b in weights[:-1]:
            A = ACTIVATIONS[self.hidden](A @ W + b)
        W, b = weights[-1]
        Z = (A @ W + b).astype(np.float64)
        if self.output == "softmax":
            top = Z.max(axis=1, keepdims=True)
            log_sum = top[:, 0] + np.log(np.exp(Z - top).sum(axis=1))
            return float(np.mean(log_sum - Z[np.arange(self.m), y]))
        return float(np.mean(0.5 * ((Z - y) ** 2).sum(axis=1)))


ACTIVATIONS = {
    "relu": lambda Z: np.maximum(Z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda Z: 1 / (1 + np.exp(-Z)),
    "elu": lambda Z: np.where(Z > 0, Z, np.expm1(np.minimum(Z, 0))),
    "softplus": lambda Z: np.logaddexp(0, Z),
    "silu": lambda Z: Z / (1 + np.exp(-Z)),
    "gelu": lambda Z: Z * (1 + np.vectorize(erf)(Z / 2**0.5)) / 2,
}

# The table of the project's aims: name of net, examples, batch, ratio wanted.
MAIN = [
    Case((4, 10, 3), "tanh", "softmax", 150, 32, target=10),
    Case((64, 100, 10), "relu", "softmax", 1797, 32, target=4),
    Case((64, 100, 10), "relu", "softmax", 1797, 1, target=5),
    Case((8, 64, 64, 1), "tanh", "identity", 20000, 128, target=4),
    Case((784, 128, 10), "relu", "softmax", 10000, 128, target=1.8),
    Case((784, 512, 512, 10), "relu", "softmax", 10000, 128, target=1.4),
    Case((1024, 1024, 1024, 10), "relu", "softmax", 10000, 512, target=1.2),
]

# Shapes nobody tuned for: odd widths, few outputs, many layers, odd and huge batches, float64,
# the other activations; descent without momentum; and dropout.
EXTRA = [
    Case((13, 37, 29, 5), "relu", "softmax", 5000, 32),
    Case((31, 67, 3), "tanh", "softmax", 5000, 50),
    Case((10, 33, 1), "relu", "identity", 5000, 64),
    Case((20, 50, 2), "tanh", "identity", 5000, 64),
    Case((100, 63, 7), "relu", "identity", 5000, 64),
    Case((32, 128, 128, 128, 128, 7), "relu", "softmax", 5000, 128),
    Case((64, 100, 10), "relu", "softmax", 1797, 7),
    Case((64, 256, 10), "relu", "softmax", 20000, 4096),
    Case((16, 64, 64, 4), "sigmoid", "softmax", 5000, 64),
    Case((16, 64, 64, 4), "elu", "softmax", 5000, 64),
    Case((16, 64, 64, 4), "softplus", "softmax", 5000, 64),
    Case((16, 64, 64, 4), "silu", "softmax", 5000, 64),
    Case((16, 64, 64, 4), "gelu", "softmax", 5000, 64),
    Case((64, 100, 10), "relu", "softmax", 1797, 32, "float64"),
    Case((784, 128, 10), "relu", "softmax", 10000, 128, "float64"),
    Case((784, 128, 10), "relu", "softmax", 10000, 128, momentum=0.0),
    Case((64, 100, 10), "relu", "softmax", 1797, 32, dropout=0.2),
]

# How cost grows: with the width of two hidden layers, and with the number of examples.
WIDTHS = [
    Case((64, width, width, 10), "relu", "softmax", 2048, 128)
    for width in (8, 16, 32, 64, 128, 256, 512, 1024)
]
EXAMPLES = [Case((64, 100, 10), "relu", "softmax", m, 32) for m in (320, 1280, 5120, 20480, 81920)]

PREDICT_ONE = [
    Case((64, 100, 10), "relu", "softmax", 1, limit=1.0e-6),
    Case((64, 100, 10), "relu", "softmax", 1, limit=0.7e-6, call="out="),
    Case((4, 10, 3), "tanh", "softmax", 1, call="out="),
    Case((8, 64, 64, 1), "tanh", "identity", 1, call="out="),
]
PREDICT = [
    Case((64, 100, 10), "relu", "softmax", 10000, target=1.5),
    Case((8, 64, 64, 1), "tanh", "identity", 10000, target=1.5),
    Case((784, 128, 10), "relu", "softmax", 10000, target=1.5),
    Case((784, 512, 512, 10), "relu", "softmax", 10000, target=1.5),
]
GRADIENT = [
    Case((24, 8, 2), "tanh", "identity", 200, target=10, limit=6e-6),
    Case((24, 8, 2), "tanh", "identity", 200, target=10, limit=6e-6, call="prepared"),
    Case((64, 100, 10), "relu", "softmax", 200),
]
