"""PyTorch in eager mode as a peer of peers.py: no DataLoader, fused optimizer, tensors ready."""

from __future__ import annotations

import os
import warnings

import torch
from cases import Case
from torch.nn import functional
from workers import Way, statement

N_THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "elu": torch.nn.ELU,
    "softplus": torch.nn.Softplus,
    "silu": torch.nn.SiLU,
    "gelu": torch.nn.GELU,
}


def versions() -> dict:
    """Version of what is timed here."""
    torch.set_flush_denormal(True)
    return {"torch": torch.__version__}


def model_of(case: Case) -> torch.nn.Sequential:
    """Make the network with the weights all peers start from, softmax left to the cost."""
    layers = []
    for W, b in case.weights:
        if layers:
            layers.append(ACTIVATIONS[case.hidden]())
            if case.dropout:
                layers.append(torch.nn.Dropout(case.dropout))
        layer = torch.nn.Linear(*W.shape)
        layer.weight.data = torch.tensor(W.T.copy())
        layer.bias.data = torch.tensor(b)
        layers.append(layer)
    return torch.nn.Sequential(*layers)


def cost_of(case: Case, Z, y):
    """Mean cost of a mini-batch."""
    if case.output == "softmax":
        return functional.cross_entropy(Z, y)
    return functional.mse_loss(Z, y, reduction="sum") * (0.5 / len(y))


def tensors(case: Case):
    """Examples and targets as tensors."""
    X, y = case.data
    return torch.tensor(X), torch.tensor(y)


def weights_of(model: torch.nn.Sequential):
    """Weights and biases as NumPy arrays, W as (n_in, n_out)."""
    layers = [m for m in model if isinstance(m, torch.nn.Linear)]
    return [(m.weight.detach().numpy().T, m.bias.detach().numpy()) for m in layers]


def epoch(case: Case) -> list[Way]:
    """Examples gathered once an epoch and split; all cores or one; fused or foreach updates."""

    def way(n_threads, kind):
        X, y = tensors(case)
        model = model_of(case)
        optimizer = torch.optim.SGD(
            model.parameters(), case.learning_rate, case.momentum, **{kind: True}
        )

        def run(n):
            torch.set_num_threads(n_threads)
            for _ in range(n):
                order = torch.randperm(case.m)
                batches = zip(X[order].split(case.batch), y[order].split(case.batch), strict=True)
                for xb, yb in batches:
                    cost = cost_of(case, model(xb), yb)
                    optimizer.zero_grad()
                    cost.backward()
                    optimizer.step()

        return Way(f"{kind}, {n_threads} threads", run, lambda: weights_of(model))

    return [way(n, kind) for n in sorted({1, N_THREADS}) for kind in ("fused", "foreach")]


def predict(case: Case) -> list[Way]:
    """Call the module under inference_mode, and traced and frozen; one thread and all."""
    X, _ = tensors(case)
    model = model_of(case)
    if case.output == "softmax":
        model.append(torch.nn.Softmax(dim=1))
    model.eval()
    models = {"eager": model}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still the quickest call
        models["TorchScript"] = torch.jit.freeze(torch.jit.trace(model, X))

    def way(label, f, n_threads):
        inner = statement("f(X)", f=f, X=X)

        def run(n):
            torch.set_num_threads(n_threads)
            with torch.inference_mode():
                inner(n)

        return Way(f"{label}, {n_threads} threads", run)

    return [way(k, f, n) for k, f in models.items() for n in sorted({1, N_THREADS})]


predict_one = predict


def gradient(case: Case) -> list[Way]:
    """Cost and backward into fresh gradients."""
    X, y = tensors(case)
    model = model_of(case)
    parameters = list(model.parameters())

    def run(n):
        torch.set_num_threads(1)
        for _ in range(n):
            torch.autograd.grad(cost_of(case, model(X), y), parameters)

    return [Way("autograd.grad, 1 thread", run)]
