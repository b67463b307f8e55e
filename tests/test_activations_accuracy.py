"""How many units in the last place the vector functions err, over every exponent of the dtype."""

import functools

import numpy as np
import pytest
from tolerances import EPS, SLOPE, ULP

mpmath = pytest.importorskip("mpmath")
mpmath.mp.prec = 160

mpf, one = mpmath.mpf, mpmath.mpf(1)


def sigmoid(z):
    return one / (one + mpmath.exp(-z))


def normal(z):
    """Return the normal distribution and density; mpmath has no patience beyond 999."""
    z = max(min(z, 999), -999)
    return mpmath.ncdf(z), mpmath.npdf(z)


EXACT = {
    "exp": mpmath.exp,
    "sigmoid": sigmoid,
    "tanh": mpmath.tanh,
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "silu": lambda z: z * sigmoid(z),
    "gelu": lambda z: z * normal(z)[0],
}
EXACT_SLOPES = {
    "exp": mpmath.exp,
    "sigmoid": lambda z: sigmoid(z) * sigmoid(-z),
    "tanh": lambda z: mpmath.sech(z) ** 2,
    "softplus": sigmoid,
    "elu": lambda z: one if z > 0 else mpmath.exp(z),
    "silu": lambda z: sigmoid(z) * (one + z * sigmoid(-z)),
    "gelu": lambda z: normal(z)[0] + z * normal(z)[1],
}


@functools.cache
def arguments(dtype):
    """Every exponent of both signs, the curved parts densely, and the edges of the range."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    lowest, highest = np.log2(float(info.smallest_subnormal)), np.log2(float(info.max))
    spread = 2.0 ** np.linspace(lowest, highest * (1 - 1e-9), 600)
    spread = spread * rng.uniform(1 - 2.0**-8, 1, spread.size)
    edges = [np.log(info.max), -np.log(info.tiny), -np.log(info.smallest_subnormal), 40.0, 1.0]
    near = np.concatenate(
        [np.nextafter(e, e + s * 9, dtype=dtype) for e in edges for s in (-1, 1)], axis=None
    )
    dense = [rng.uniform(0, w, 500) for w in (0.5, 1.5, 5.0, 20.0, 110.0, 760.0)]
    steps = np.arange(-20, 21) * np.log(2) / 2  # where the reduction of exp changes branch
    positive = np.concatenate(
        [spread, near, edges, *dense, np.abs(steps), [0, info.tiny, info.max]]
    )
    return np.concatenate([positive, -positive]).astype(dtype)


@functools.cache
def exact(name, dtype):
    """Return the rounded values of the function, and how far the exact ones are from them."""
    z = arguments(dtype)
    rounded, rest = np.empty((2, z.size), dtype)
    for i, x in enumerate(z):
        value = EXACT[name](mpf(float(x)))
        with np.errstate(over="ignore"):
            rounded[i] = float(value) if dtype == "float64" else np.float32(float(value))
        rest[i] = float(value - mpf(float(rounded[i]))) if np.isfinite(rounded[i]) else 0
    return rounded, rest


def unit(name, dtype):
    """Return the unit in the last place of the exact values, and what it has to be widened to.

    z Phi(z) and z sigmoid(z) have a factor that turns subnormal, and keeps fewer digits, before
    the product does; and in the lower tail Phi turns one rounding of its argument into z^2.
    """
    z, rounded = arguments(dtype), exact(name, dtype)[0]
    last = np.nextafter(np.finfo(dtype).max, 0, dtype=dtype)  # the largest has no next
    spacing = np.spacing(np.minimum(np.abs(rounded), last)).astype(float)
    size = np.clip(np.abs(z.astype(float)), 1, 1000)
    if name == "gelu":
        spacing = np.where(z < 0, size**2 * spacing, spacing)
    if name in ("gelu", "silu"):
        spacing = np.maximum(spacing, size * float(np.finfo(dtype).smallest_subnormal))
    return spacing


def ulps(found, name, dtype):
    """Return the errors in those units; an overflow has to be one."""
    rounded, rest = exact(name, dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    error = np.zeros(rounded.size)
    difference = found[finite].astype(float) - rounded[finite].astype(float)
    error[finite] = np.abs(difference - rest[finite]) / unit(name, dtype)[finite]
    return error


def call(kernels, name, z):
    """Apply the activation through an array that is not a whole number of vectors wide."""
    return kernels.activation(name, z.reshape(1, -1))[0]


@pytest.mark.parametrize("name", EXACT)
def test_error_in_units_in_the_last_place(kernels, dtype, name):
    z = arguments(dtype)
    error = ulps(call(kernels, name, z), name, dtype)
    worst = np.argmax(error)
    assert error[worst] <= ULP[name][dtype], z[np.isfinite(exact(name, dtype)[0])][worst]


@functools.cache
def exact_slopes(name, dtype):
    """Return the derivatives in two float64, which together have their digits."""
    slopes = [EXACT_SLOPES[name](mpf(float(z))) for z in arguments(dtype)]
    rounded = np.array([float(slope) for slope in slopes])
    pairs = zip(slopes, rounded.tolist(), strict=True)
    rest = [float(slope - mpf(near)) if np.isfinite(near) else 0 for slope, near in pairs]
    return rounded, np.array(rest)


@pytest.mark.parametrize("name", EXACT_SLOPES)
def test_error_of_the_derivative(kernels, dtype, name):
    z = arguments(dtype)
    found = kernels.activation_derivative(name, z.reshape(1, -1))[0]
    rounded, rest = exact_slopes(name, dtype)
    with np.errstate(over="ignore"):
        finite = np.isfinite(rounded.astype(dtype))
    np.testing.assert_array_equal(found[~finite], np.inf)
    found, rounded, rest = found[finite].astype(float), rounded[finite], rest[finite]
    error = np.abs(found - rounded - rest) / (EPS[dtype] * np.maximum(np.abs(rounded), 1))
    assert error.max() <= SLOPE[name], z[finite][np.argmax(error)]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("exp", 0, INF),
        ("sigmoid", 0, 1),
        ("tanh", -1, 1),
        ("softplus", 0, INF),
        ("elu", -1, INF),
        ("relu", 0, INF),
        ("leaky_relu", -INF, INF),
        ("identity", -INF, INF),
        ("step", 0, 1),
        ("sign", -1, 1),
    ],
)
def test_infinities_give_the_limits(kernels, dtype, name, low, high):
    z = np.array([-INF, INF] * 9, dtype)
    np.testing.assert_array_equal(call(kernels, name, z), [low, high] * 9)


@pytest.mark.parametrize("name", [*EXACT, "relu", "leaky_relu", "identity", "softmax"])
def test_not_a_number_stays_one(kernels, dtype, name):
    """A divergence has to be seen."""
    z = np.zeros(19, dtype)
    z[[0, 8, 18]] = NAN
    found = np.isnan(call(kernels, name, z))
    assert found.all() if name == "softmax" else (found == np.isnan(z)).all()


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus", "elu", "exp"])
def test_monotonic_functions_stay_so(kernels, dtype, name):
    """Neighbouring arguments may swap by the error bound, never by more."""
    z = np.sort(np.random.default_rng(1).uniform(-30, 30, 20001)).astype(dtype)
    a = call(kernels, name, z).astype(float)
    assert (np.diff(a) >= -2 * ULP[name][dtype] * EPS[dtype] * np.abs(a[1:])).all()


def test_functions_stay_within_their_range(kernels, dtype):
    z = arguments(dtype)
    for name, low, high in [("sigmoid", 0, 1), ("tanh", -1, 1), ("elu", -1, INF), ("exp", 0, INF)]:
        a = call(kernels, name, z)
        assert (a >= low).all() and (a <= high).all(), name


def test_tanh_is_odd_bit_for_bit(kernels, dtype):
    z = arguments(dtype)
    np.testing.assert_array_equal(call(kernels, "tanh", -z), -call(kernels, "tanh", z))
    assert np.signbit(call(kernels, "tanh", np.array([-0.0], dtype)))[0]


@pytest.mark.parametrize("name", EXACT)
def test_every_lane_computes_the_same(kernels, dtype, name):
    """The value depends on the argument alone, not on its place in the vector or the tail."""
    z = arguments(dtype)[::97]
    whole = call(kernels, name, z)
    alone = [call(kernels, name, z[i : i + 1])[0] for i in range(z.size)]
    np.testing.assert_array_equal(whole, alone)
