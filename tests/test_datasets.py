"""The data that ships with the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrna import datasets


def test_digits():
    X, y = datasets.load_digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.float32
    assert X.flags.c_contiguous and X.flags.writeable
    assert (X.min(), X.max()) == (0.0, 16.0)
    assert y.shape == (1797,)
    assert y.dtype == np.int64
    # The class counts that UCI publishes for optdigits.tes.
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_a_fresh_copy():
    X, _ = datasets.load_digits()
    X[:] = 0
    assert datasets.load_digits()[0].max() == 16.0


def test_digits_equal_scikit_learns():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    X, y = sklearn_datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(datasets.load_digits()[0], X)
    np.testing.assert_array_equal(datasets.load_digits()[1], y)


def test_digits_need_numpy_alone():
    code = (
        "import sys; from fastrna import datasets; datasets.load_digits(); "
        "print([m for m in ('sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "[]", output.stderr


def test_licence_lies_beside_the_data():
    folder = Path(datasets.__file__).parent / "data"
    text = (folder / "LICENSE-digits.txt").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "CC BY 4.0", "archive.ics.uci.edu"):
        assert words in text
    assert (folder / "digits.npz").stat().st_size < 60_000


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("and", lambda a, b: a and b),
        ("or", lambda a, b: a or b),
        ("xor", lambda a, b: a != b),
        ("nand", lambda a, b: not (a and b)),
        ("nor", lambda a, b: not (a or b)),
    ],
)
def test_gates(name, function):
    X, y = datasets.load_gates(name)
    assert (X.dtype, y.dtype, X.shape, y.shape) == (np.float32, np.int64, (4, 2), (4,))
    assert [bool(function(bool(a), bool(b))) for a, b in X] == y.astype(bool).tolist()
    assert len({tuple(row) for row in X}) == 4
    X_bipolar, y_bipolar = datasets.load_gates(name.upper(), bipolar=True)
    np.testing.assert_array_equal(X_bipolar > 0, X > 0)
    np.testing.assert_array_equal(y_bipolar, np.where(y, 1, -1))
    assert set(X_bipolar.ravel()) == {-1.0, 1.0}


def test_split():
    X = np.arange(20).reshape(10, 2)
    y = X[:, 0]
    X_train, y_train, X_test, y_test = datasets.split(X, y, test=0.3, seed=1)
    assert len(X_test) == 3
    assert len(X_train) == 7
    np.testing.assert_array_equal(X_train[:, 0], y_train)
    np.testing.assert_array_equal(X_test[:, 0], y_test)
    assert sorted([*y_train, *y_test]) == y.tolist()
    again = datasets.split(X, y, test=0.3, seed=1)
    np.testing.assert_array_equal(again[0], X_train)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load_gates("if"), "name is 'if'.*'and', 'or', 'xor'"),
        (lambda: datasets.load_gates(2), "name is 2"),
        (lambda: datasets.split([[1]], [1, 2]), r"\(1, 1\).*\(2,\).*as many examples"),
        (lambda: datasets.split([[1]], [1]), "empty"),
        (lambda: datasets.split([[1], [2]], [1, 2], test="a"), "test is 'a'"),
        (lambda: datasets.split([[1], [2]], [1, 2], seed="a"), "seed is 'a'"),
        (lambda: datasets.split(np.ones((9, 1)), np.ones(9), test=1.0), "test is 1.0"),
        (lambda: datasets.split(np.ones((9, 1)), np.ones(9), test=-0.5), "test is -0.5"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
