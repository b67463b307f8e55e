"""JAX as a peer of peers.py: whole epochs in one jit, arrays already on the device."""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import jaxlib
import numpy as np
from cases import Case
from workers import Way, statement

# Every call is waited for at once, so handing it to another thread could only cost.
jax.config.update("jax_cpu_enable_async_dispatch", False)

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": lambda Z: jax.nn.gelu(Z, approximate=False),
}


def versions() -> dict:
    """Versions of what is timed here."""
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}


def _arrays(case: Case):
    """Parameters, examples and targets on the device, in the case's dtype."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    X, y = case.data
    if case.output == "softmax":
        y = y.astype(np.int32)
    parameters = [(jnp.array(W), jnp.array(b)) for W, b in case.weights]
    return parameters, jnp.array(X), jnp.array(y)


def _forward(case: Case, parameters, X, key=None):
    """Z of the last layer, with dropout where a key is given to draw it from."""
    A = X
    for W, b in parameters[:-1]:
        A = ACTIVATIONS[case.hidden](A @ W + b)
        if key is not None:
            key, drawn = jax.random.split(key)
            kept = jax.random.bernoulli(drawn, 1 - case.dropout, A.shape)
            A = jnp.where(kept, A / (1 - case.dropout), 0)
    W, b = parameters[-1]
    return A @ W + b


def _cost(case: Case, parameters, X, y, key=None):
    Z = _forward(case, parameters, X, key)
    if case.output == "softmax":
        chosen = jnp.take_along_axis(Z, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(Z, axis=1) - chosen)
    return jnp.mean(0.5 * jnp.sum((Z - y) ** 2, axis=1))


def epoch(case: Case) -> list[Way]:
    """Permutation, gather, scan over mini-batches and the short last one in one jitted call."""
    return epochs(case, inside=True)


def epochs(case: Case, inside: bool) -> list[Way]:
    """Whole epochs, the permutation drawn inside the jit or by NumPy outside.

    Tried: examples gathered once an epoch or batch by batch; the scan unrolled or not.
    Parameters and velocity are donated, so they are updated in place.
    """
    n_full, rest = divmod(case.m, case.batch)

    def step(state, batch):
        parameters, velocity, key = state
        drawn = None
        if case.dropout:
            key, drawn = jax.random.split(key)
        cost, gradient = jax.value_and_grad(lambda p: _cost(case, p, *batch, drawn))(parameters)
        change = jax.tree.map(lambda g: -case.learning_rate * g, gradient)
        if case.momentum:
            velocity = jax.tree.map(lambda v, c: case.momentum * v + c, velocity, change)
            change = velocity
        return (jax.tree.map(jnp.add, parameters, change), velocity, key), cost

    def visit(state, order, X, y, gather_once, unroll):
        cut = n_full * case.batch
        if gather_once:
            X, y = X[order], y[order]
            batches = tuple(a[:cut].reshape(n_full, case.batch, *a.shape[1:]) for a in (X, y))
            state, costs = jax.lax.scan(step, state, batches, unroll=unroll)
            last = (X[cut:], y[cut:])
        else:
            rows = order[:cut].reshape(n_full, case.batch)
            state, costs = jax.lax.scan(
                lambda s, r: step(s, (X[r], y[r])), state, rows, unroll=unroll
            )
            last = (X[order[cut:]], y[order[cut:]])
        total = case.batch * costs.sum()
        if rest:
            state, cost = step(state, last)
            total += rest * cost
        return state, total / case.m

    def way(gather_once, unroll):
        parameters, X, y = _arrays(case)
        state = (parameters, jax.tree.map(jnp.zeros_like, parameters), jax.random.key(1))

        def with_key(state, key, X, y):
            key, drawn = jax.random.split(key)
            # One sort of random keys: jax.random.permutation sorts twice, to be sure of ties.
            keys = (jax.random.bits(drawn, (case.m,)), jnp.arange(case.m))
            order = jax.lax.sort(keys, num_keys=1, is_stable=False)[1]
            return *visit(state, order, X, y, gather_once, unroll), key

        def with_order(state, order, X, y):
            return visit(state, order, X, y, gather_once, unroll)

        jitted = jax.jit(with_key if inside else with_order, donate_argnums=0)
        rng, key, cost = np.random.default_rng(0), jax.random.key(0), None

        def run(n):
            nonlocal state, key, cost
            for _ in range(n):
                if inside:
                    state, cost, key = jitted(state, key, X, y)
                else:
                    state, cost = jitted(state, rng.permutation(case.m), X, y)
            jax.block_until_ready((state, cost))

        def weights():
            return [(np.asarray(W), np.asarray(b)) for W, b in state[0]]

        label = f"gathered {'once' if gather_once else 'by batch'}, unroll {unroll}"
        return Way(label, run, weights)

    return [way(gather_once, unroll) for gather_once in (True, False) for unroll in (1, 4)]


def predict(case: Case) -> list[Way]:
    """One jitted call; the input is already a JAX array, the result waited for."""
    parameters, X, _ = _arrays(case)

    @jax.jit
    def f(parameters, X):
        Z = _forward(case, parameters, X)
        return jax.nn.softmax(Z) if case.output == "softmax" else Z

    return [Way("jit", statement("f(p, X).block_until_ready()", f=f, p=parameters, X=X))]


predict_one = predict


def gradient(case: Case) -> list[Way]:
    """Jitted value_and_grad, over the layers or over one flat vector; the result waited for."""
    parameters, X, y = _arrays(case)
    flat, unravel = jax.flatten_util.ravel_pytree(parameters)
    by_layer = jax.jit(jax.value_and_grad(lambda p, X, y: _cost(case, p, X, y)))
    by_vector = jax.jit(jax.value_and_grad(lambda p, X, y: _cost(case, unravel(p), X, y)))
    text = "wait(f(p, X, y))"
    names = {"X": X, "y": y, "wait": jax.block_until_ready}
    return [
        Way("jit(value_and_grad)", statement(text, f=by_layer, p=parameters, **names)),
        Way("jit(value_and_grad), flat", statement(text, f=by_vector, p=flat, **names)),
    ]
