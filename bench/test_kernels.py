"""Each kernel beside its twin in the NumPy reference: ``pytest bench/test_kernels.py``.

The kernels are called as functions of arrays, one thread. As such they copy their arguments into
whole vectors and allocate their results, which the training loop does not; test_epochs.py has the
loop itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import IMPLEMENTATIONS

import fastrna
from fastrna import reference

SHAPES = [(32, 64, 100), (128, 784, 128), (512, 512, 512)]  # examples, inputs, outputs
ACTIVATIONS = ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "gelu", "silu", "exp"]
COSTS = [
    ("log_loss", "softmax"),
    ("log_loss", "sigmoid"),
    ("squared_error", "identity"),
    ("absolute_error", "identity"),
    ("huber", "identity"),
    ("poisson", "exp"),
]
UPDATES = {
    "sgd_update": ("wg", (0.01,)),
    "momentum_update": ("wvg", (0.01, 0.9)),
    "nesterov_update": ("wvg", (0.01, 0.9)),
    "adam_update": ("wmvg", (0.001, 0.9, 0.999, 1e-8, 10)),
}

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def kernel(implementation, name, dtype="float32"):
    """Find a kernel's function in the compiled variant or in the reference."""
    module = reference if implementation == "reference" else fastrna.kernels.load(dtype)
    return getattr(module, name)


def normal(*shape, dtype="float32"):
    """Draw an array to work on."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_forward(compare, implementation, shape, dtype):
    """A W + b."""
    m, n_in, n_out = shape
    A, W, b = (normal(*s, dtype=dtype) for s in ((m, n_in), (n_in, n_out), (n_out,)))
    function = kernel(implementation, "layer_forward", dtype)
    group = f"layer_forward {m} x {n_in} x {n_out} {dtype}"
    compare(group, function, A, W, b, flops=2 * m * n_in * n_out, dtype=dtype)


@both
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient(compare, implementation, shape):
    """A^T dZ and its sums."""
    m, n_in, n_out = shape
    A, dZ = normal(m, n_in), normal(m, n_out)
    group = f"weight_gradient {m} x {n_in} x {n_out}"
    function = kernel(implementation, "weight_gradient")
    compare(group, function, A, dZ, flops=2 * m * n_in * n_out)


@both
@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient(compare, implementation, shape):
    """DZ W^T times the derivative of the layer below."""
    m, n_in, n_out = shape
    dZ, W, Z = normal(m, n_out), normal(n_in, n_out), normal(m, n_in)
    group = f"input_gradient {m} x {n_in} x {n_out}"
    function = kernel(implementation, "input_gradient")
    compare(group, function, dZ, W, Z, "relu", flops=2 * m * n_in * n_out)


@both
@pytest.mark.parametrize("name", [*ACTIVATIONS, "softmax"])
def test_activation(compare, implementation, name):
    """g(Z)."""
    Z = normal(128, 128)
    compare(f"activation {name} 128 x 128", kernel(implementation, "activation"), name, Z)


@both
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_derivative(compare, implementation, name):
    """g'(Z)."""
    function = kernel(implementation, "activation_derivative")
    compare(f"activation_derivative {name} 128 x 128", function, name, normal(128, 128))


@both
@pytest.mark.parametrize("loss, output", COSTS)
def test_cost_and_gradient(compare, implementation, loss, output):
    """The cost and the gradient it hands to the output layer."""
    Z, Y = normal(128, 10), np.eye(10, dtype="float32")[np.arange(128) % 10]
    function = kernel(implementation, "cost_and_gradient")
    compare(f"cost_and_gradient {loss} {output} 128 x 10", function, loss, output, Z, Y)


@both
@pytest.mark.parametrize("name", UPDATES)
def test_update(compare, implementation, name):
    """One update of 100,000 parameters in place."""
    arrays, settings = UPDATES[name]
    vectors = [np.abs(normal(100_000)) for _ in arrays]
    vectors[-1] *= 1e-6  # however often it is repeated, the weights stay finite
    compare(f"{name} 100000", kernel(implementation, name), *vectors, *settings)


@both
def test_dropout(compare, implementation):
    """Masks from a hash of the place, and the division by what is kept."""
    compare("dropout 128 x 128", kernel(implementation, "dropout"), normal(128, 128), 0.5, 0, 1, 0)
