"""One table of every tolerance the tests use, so that a loosened one is seen."""

import numpy as np

EPS = {"float32": float(np.finfo("float32").eps), "float64": float(np.finfo("float64").eps)}

# Products: every element is a sum of k terms, each good to a rounding; relative to sum |a b|.
PRODUCT_ULP = 2.0

# Relative to the largest element, kernels that are a few roundings long.
ELEMENTWISE = {"float32": 4e-6, "float64": 1e-14}

# Ten steps of a training run against the reference, relative to the largest parameter.
TRAJECTORY = {"float32": 1e-4, "float64": 1e-10}

# Derivatives against central differences in float64.
FINITE_DIFFERENCE = 2e-7

# Units in the last place, against 160-bit arithmetic over every exponent of the dtype.
ULP = {
    "exp": {"float32": 2.0, "float64": 2.0},
    "sigmoid": {"float32": 4.0, "float64": 4.0},
    "tanh": {"float32": 4.0, "float64": 4.0},
    "softplus": {"float32": 2.0, "float64": 2.0},
    "elu": {"float32": 2.0, "float64": 2.0},
    "silu": {"float32": 3.0, "float64": 3.0},
    "gelu": {"float32": 2.0, "float64": 8.0},
}
