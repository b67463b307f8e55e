"""One table of every tolerance the tests use, so that a loosened one is seen."""

import numpy as np

EPS = {"float32": float(np.finfo("float32").eps), "float64": float(np.finfo("float64").eps)}

# Relative to the largest element, kernels that are a few roundings long.
ELEMENTWISE = {"float32": 4e-6, "float64": 1e-14}

# Ten steps of a training run against the reference, relative to the largest parameter.
TRAJECTORY = {"float32": 1e-4, "float64": 1e-10}

# Derivatives against central differences in float64.
FINITE_DIFFERENCE = 2e-7

# Units in the last place, against 160-bit arithmetic over every exponent of the dtype. Millions of
# arguments, every variant, GCC 12 have given at most: exp 1.1, sigmoid 2.3, tanh 2.6, softplus 2.0,
# elu 1.2, silu 3.2; gelu, by AVX2 and baseline, 2.2 and, of 90,000 in float64, 3.3.
ULP = {
    "exp": {"float32": 1.5, "float64": 1.5},
    "sigmoid": {"float32": 3.0, "float64": 3.0},
    "tanh": {"float32": 3.0, "float64": 3.0},
    "softplus": {"float32": 2.5, "float64": 2.5},
    "elu": {"float32": 1.5, "float64": 1.5},
    "silu": {"float32": 4.0, "float64": 4.0},
    "gelu": {"float32": 2.5, "float64": 4.0},
}

# Derivatives likewise, in the dtype's EPS times the larger of 1 and the derivative: what an error
# does to a gradient. They are had from a rounded a = g(z): 1 - a^2 errs by twice what a does. The
# test's arguments give at most, by AVX2 and baseline: exp 0.6, sigmoid 0.8, tanh 2.4, softplus 0.6,
# elu 0.5, silu 1.6, gelu 1.0.
SLOPE = {
    "exp": 1.0, "sigmoid": 1.0, "tanh": 3.0, "softplus": 1.0, "elu": 1.0, "silu": 2.0, "gelu": 1.5,
}  # fmt: skip
