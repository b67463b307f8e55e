"""Fixtures: every compiled variant the machine can run, and arrays in every layout."""

import numpy as np
import pytest

import fastrna

DTYPES = ("float32", "float64")


@pytest.fixture(params=fastrna.kernels.available())
def isa(request):
    """Name of a kernel variant this machine can run."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    """Name of a dtype."""
    return request.param


@pytest.fixture
def kernels(isa, dtype):
    """Return the compiled module of a variant and dtype."""
    return fastrna.kernels.load(dtype, isa)


@pytest.fixture
def rng():
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(20240501)
