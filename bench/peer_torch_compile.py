"""PyTorch through torch.compile as a peer of peers.py: a whole training step in one graph."""

from __future__ import annotations

import itertools
import os
import shutil
import types
import warnings

import torch
from cases import Case
from peer_torch import N_THREADS, cost_of, model_of, tensors, versions, weights_of
from workers import Unsupported, Way

__all__ = ["epoch", "gradient", "versions"]

_copies = itertools.count()


def _compile(function):
    """Compile for one set of shapes, without the checks before every call that they are so.

    The compiler's cache belongs to the code object, hence a copy of it for each set of shapes.
    The wrapper in C++ costs less a call than the one in Python.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise Unsupported("no C++ compiler for torch.compile")
    warnings.simplefilter("ignore")
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_copies)}")
    copy = types.FunctionType(code, function.__globals__, closure=function.__closure__)
    options = {"cpp_wrapper": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    return torch.compile(copy, dynamic=False, fullgraph=True, options=options)


def _functional(case: Case):
    """Return the model, its parameters as a list, and their cost on a mini-batch."""
    model = model_of(case)
    names = [name for name, _ in model.named_parameters()]

    def cost(parameters, X, y):
        named = dict(zip(names, parameters, strict=True))
        return cost_of(case, torch.func.functional_call(model, named, (X,)), y)

    return model, [p.detach() for p in model.parameters()], cost


def epoch(case: Case) -> list[Way]:
    """Forward, cost, gradient and update of all parameters compiled as one function.

    Compiled twice, for the full mini-batches and for the short last one.
    """

    def way(n_threads):
        torch.set_num_threads(n_threads)
        torch._dynamo.reset()
        X, y = tensors(case)
        model, parameters, cost = _functional(case)
        velocity = [torch.zeros_like(p) for p in parameters]

        def step(parameters, velocity, xb, yb):
            gradient = torch.func.grad(cost)(parameters, xb, yb)
            for p, v, g in zip(parameters, velocity, gradient, strict=True):
                if case.momentum:
                    p.add_(v.mul_(case.momentum).sub_(g, alpha=case.learning_rate))
                else:
                    p.sub_(g, alpha=case.learning_rate)

        full, short = _compile(step), _compile(step)

        def run(n):
            torch.set_num_threads(n_threads)
            with torch.no_grad():
                for _ in range(n):
                    order = torch.randperm(case.m)
                    xs, ys = X[order].split(case.batch), y[order].split(case.batch)
                    for xb, yb in zip(xs, ys, strict=True):
                        (full if len(yb) == case.batch else short)(parameters, velocity, xb, yb)

        return Way(f"{n_threads} threads", run, lambda: weights_of(model))

    return [way(n) for n in sorted({1, N_THREADS})]


def gradient(case: Case) -> list[Way]:
    """Compile grad_and_value over the parameters."""
    torch.set_num_threads(1)
    torch._dynamo.reset()
    X, y = tensors(case)
    _, parameters, cost = _functional(case)

    def gradient(parameters, X, y):
        return torch.func.grad_and_value(cost)(parameters, X, y)

    compiled = _compile(gradient)

    def run(n):
        torch.set_num_threads(1)
        with torch.no_grad():
            for _ in range(n):
                compiled(parameters, X, y)

    return [Way("compile(grad_and_value), 1 thread", run)]
