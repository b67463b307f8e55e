"""Fixtures: every compiled variant the machine can run, and data to train on."""

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


@pytest.fixture
def problem(rng):
    """Return a noisy curve: X (80, 3) and y (80,)."""
    X = rng.normal(size=(80, 3))
    return X, np.sin(2 * X[:, 0]) + 0.3 * rng.normal(size=80)


@pytest.fixture(scope="module")
def one_thread():
    """Use several threads only where a test asks for them: tests share the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTRNA_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def wine():
    """Return standardised inputs and classes of scikit-learn's wines; read only."""
    from sklearn import datasets, preprocessing

    X, y = datasets.load_wine(return_X_y=True)
    X = preprocessing.StandardScaler().fit_transform(X)
    X.flags.writeable = y.flags.writeable = False
    return X, y


@pytest.fixture(scope="session")
def parts(wine):
    """Return X, Xv, y, yv: training and validation parts of them."""
    from sklearn.model_selection import train_test_split

    return train_test_split(*wine, test_size=0.4, random_state=0, stratify=wine[1])
