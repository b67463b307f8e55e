"""The four scalings against their formulas, on awkward columns, dtypes and arrays on disk."""

import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrna
from fastrna import Scaler
from fastrna import scaling as scaling_module

KINDS = ("minmax", "max", "mean", "zscore")


def formula(kind, X):
    """The lecture's formulas, word for word."""
    X = np.asarray(X, dtype=np.float64)
    low, high, mean, std = X.min(axis=0), X.max(axis=0), X.mean(axis=0), X.std(axis=0)
    return {
        "minmax": lambda: (X - low) / (high - low),
        "max": lambda: X / high,
        "mean": lambda: (X - mean) / (high - low),
        "zscore": lambda: (X - mean) / std,
    }[kind]()


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut into many ragged tiles what would be one."""
    monkeypatch.setattr(scaling_module, "_TILE", 7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int64", "bool"])
@pytest.mark.parametrize("tile", [7, 1 << 16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_formula(kind, dtype, tile, order, monkeypatch):
    monkeypatch.setattr(scaling_module, "_TILE", tile)
    X = np.array(np.random.default_rng(0).uniform(1, 200, (23, 5)), dtype=dtype, order=order)
    if dtype == "bool":
        X = np.array(np.random.default_rng(0).integers(0, 2, (23, 5)), dtype=bool, order=order)
    scaler = Scaler(kind).fit(X)
    scaled = scaler.transform(X)
    single = dtype in ("float16", "float32")
    assert scaled.dtype == (np.float32 if single else np.float64)
    tolerance = 1e-6 if single else 1e-13
    np.testing.assert_allclose(scaled, formula(kind, X), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        scaled, (X.astype(float) - scaler.shift_) * scaler.scale_, rtol=tolerance, atol=tolerance
    )
    back = scaler.inverse_transform(scaled)
    np.testing.assert_allclose(back, X.astype(float), rtol=2 * tolerance, atol=200 * tolerance)
    # One example alone, and every other row of a strided view.
    np.testing.assert_array_equal(scaler.transform(X[3]), scaled[3])
    np.testing.assert_array_equal(scaler.transform(X[::2, :]), scaled[::2])


def test_minmax_stays_in_the_unit_interval():
    X = np.random.default_rng(1).normal(size=(1000, 49)) * np.arange(1, 50)
    scaled = Scaler("minmax").fit_transform(X)
    assert scaled.min() == 0.0
    assert 1.0 - 1e-15 <= scaled.max() <= 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_constant_columns(kind, small_tiles):
    # 0.1 is not a binary fraction: its mean rounds, and a naive variance is not quite zero.
    X = np.full((101, 4), 0.1)
    X[:, 1] = 0.0
    X[:, 2] = -7.0
    X[:, 3] = np.arange(101)
    scaler = Scaler(kind).fit(X)
    scaled = scaler.transform(X)
    assert np.isfinite(scaled).all()
    if kind == "max":
        np.testing.assert_array_equal(scaled[:, :3], [[1.0, 0.0, 1.0]] * 101)
    else:
        np.testing.assert_array_equal(scaler.scale_[:3], 1.0)
        np.testing.assert_array_equal(scaled[:, :3], 0.0)
    np.testing.assert_allclose(scaler.inverse_transform(scaled), X, atol=1e-13)


def test_max_of_zero_leaves_the_column():
    X = np.array([[-2.0], [0.0], [-1.0]])
    np.testing.assert_array_equal(Scaler("max").fit_transform(X), X)


def test_one_example():
    for kind in KINDS:
        assert np.isfinite(Scaler(kind).fit_transform([[3.0, 0.0, -2.0]])).all()


@pytest.mark.parametrize("tile", [7, 1 << 16])
def test_variance_where_the_mean_is_large(tile, monkeypatch):
    """E[x^2] - E[x]^2 would lose every digit here."""
    monkeypatch.setattr(scaling_module, "_TILE", tile)
    spread = np.random.default_rng(2).normal(size=(5000, 3))
    X = spread + np.array([0.0, 1e9, -1e12])
    scaler = Scaler("zscore").fit(X)
    exact = (X.astype(np.longdouble) - X.astype(np.longdouble).mean(axis=0)).std(axis=0)
    np.testing.assert_allclose(1 / scaler.scale_, exact.astype(float), rtol=1e-12)
    np.testing.assert_allclose(scaler.transform(X).std(axis=0), 1.0, rtol=1e-12)


def test_float32_is_computed_in_float64():
    """A float32 shift would move a column of mean 1e6 by a thirtieth of its deviation."""
    X = (np.random.default_rng(3).normal(size=(4000, 2)) + 1e6).astype(np.float32)
    scaled = Scaler("zscore").fit_transform(X)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, formula("zscore", X), rtol=2e-7, atol=1e-9)


@given(
    st.lists(
        st.floats(-1e100, 1e100, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-100),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 9),
    st.sampled_from(["minmax", "mean", "zscore"]),
)
@settings(max_examples=150, deadline=None)
def test_any_column(values, tile, kind):
    X = np.array(values)[:, None]
    original, scaling_module._TILE = scaling_module._TILE, tile
    try:
        scaler = Scaler(kind).fit(X)
    finally:
        scaling_module._TILE = original
    scaled = scaler.transform(X)
    assert np.isfinite(scaled).all()
    # Nothing lies further than sqrt(m) deviations from the mean, nor than 1 range.
    assert np.abs(scaled).max() <= (np.sqrt(len(values)) if kind == "zscore" else 1.0) + 1e-6


def test_out_is_written_and_returned(small_tiles):
    X = np.random.default_rng(4).normal(size=(11, 3))
    scaler = Scaler("zscore").fit(X)
    expected = scaler.transform(X)
    for out in (np.empty((11, 3)), np.empty((3, 11)).T, np.empty((11, 3), np.float32)):
        assert scaler.transform(X, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7)
    row = np.empty(3)
    assert scaler.transform(X[0], out=row) is row
    np.testing.assert_array_equal(row, expected[0])


def test_in_place_and_overlapping(small_tiles):
    X = np.random.default_rng(5).normal(size=(12, 3))
    scaler = Scaler("zscore").fit(X)
    expected = scaler.transform(X)
    in_place = X.copy()
    assert scaler.transform(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, expected)
    scaler.inverse_transform(in_place, out=in_place)
    np.testing.assert_allclose(in_place, X, rtol=1e-12, atol=1e-12)
    # Shifted by one row: each tile would otherwise overwrite what the next one reads.
    buffer = np.zeros((13, 3))
    buffer[:12] = X
    scaler.transform(buffer[:12], out=buffer[1:])
    np.testing.assert_array_equal(buffer[1:], expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", KINDS)
def test_memmap_is_not_loaded_whole(tmp_path, kind, order):
    shape = (40_000, 64)  # 20 MB
    X = np.lib.format.open_memmap(
        tmp_path / "X.npy", mode="w+", dtype=np.float64, shape=shape, fortran_order=order == "F"
    )
    X[:] = np.random.default_rng(6).normal(3.0, 2.0, shape)
    X.flush()
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=shape)
    tracemalloc.start()
    try:
        scaler = Scaler(kind).fit(X)
        scaler.transform(X, out=out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6, f"{peak / 1e6:.1f} MB for tiles of 0.5 MB"
    np.testing.assert_allclose(out, formula(kind, X), rtol=1e-5, atol=1e-6)


def test_uint8_is_not_converted_whole():
    X = np.random.default_rng(7).integers(0, 256, (30_000, 100), dtype=np.uint8)
    tracemalloc.start()
    try:
        scaler = Scaler("zscore").fit(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6, f"{peak / 1e6:.1f} MB for tiles of 0.5 MB"
    np.testing.assert_allclose(scaler.shift_, X.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(1 / scaler.scale_, X.std(axis=0), rtol=1e-12)


def test_read_only_input_and_lists_and_frames():
    rows = [[1, 2], [3, 6], [5, 4]]
    expected = Scaler("minmax").fit_transform(rows)
    read_only = np.array(rows)
    read_only.flags.writeable = False
    np.testing.assert_array_equal(Scaler("minmax").fit_transform(read_only), expected)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(Scaler("minmax").fit_transform(pandas.DataFrame(rows)), expected)


def test_empty_batch_after_fit():
    scaler = Scaler("max").fit([[1.0, 2.0]])
    assert scaler.transform(np.empty((0, 2))).shape == (0, 2)


def test_non_finite_numbers_pass_through_transform():
    scaler = Scaler("zscore").fit([[1.0], [3.0]])
    scaled = scaler.transform([[np.nan], [np.inf], [2.0]])
    np.testing.assert_array_equal(scaled, [[np.nan], [np.inf], [0.0]])


def test_state_and_pickle():
    scaler = Scaler("mean").fit([[1.0, 5.0], [3.0, 5.0]])
    for other in (Scaler.from_state(scaler.state()), pickle.loads(pickle.dumps(scaler))):
        assert other.kind == "mean"
        np.testing.assert_array_equal(other.shift_, scaler.shift_)
        np.testing.assert_array_equal(other.scale_, scaler.scale_)
    assert repr(scaler) == "Scaler('mean')"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Scaler("standard"), ValueError, "kind is 'standard'.*'minmax', 'max', 'mean'"),
        (lambda: Scaler(None), ValueError, "kind is None"),
        (lambda: Scaler("max").transform([[1.0]]), ValueError, "not fitted: call fit"),
        (lambda: Scaler("max").state(), ValueError, "not fitted"),
        (lambda: Scaler("max").fit([1.0, 2.0]), ValueError, r"shape \(2,\).*reshape\(-1, 1\)"),
        (lambda: Scaler("max").fit(3.0), ValueError, r"shape \(\)"),
        (lambda: Scaler("max").fit(np.empty((0, 3))), ValueError, "at least one example"),
        (lambda: Scaler("max").fit(np.empty((3, 0))), ValueError, "at least one example"),
        (lambda: Scaler("max").fit([["a"]]), TypeError, "<U1.*real numbers"),
        (lambda: Scaler("max").fit([[1j]]), TypeError, "complex128.*real numbers"),
        (lambda: Scaler("max").fit([[None]]), TypeError, "object.*real numbers"),
        (
            lambda: Scaler("max").fit([[1.0, 2.0], [1.0, np.nan]]),
            ValueError,
            "X is nan at row 1, column 1",
        ),
        (
            lambda: Scaler("zscore").fit(np.array([[1, 2], [-np.inf, 0]], np.float32)),
            ValueError,
            "X is -inf at row 1, column 0",
        ),
        (
            lambda: Scaler("zscore").fit([[1.0, -1e200], [1.0, 1e200]]),
            ValueError,
            r"from -1e\+200 to 1e\+200 in column 1.*unit",
        ),
        (lambda: Scaler("minmax").fit([[-1.7e308], [1.7e308]]), ValueError, "change the unit"),
        (lambda: Scaler("minmax").fit([[0.0], [5e-324]]), ValueError, "change the unit"),
        (
            lambda: Scaler("max").fit([[1.0, 2.0]]).transform([[1.0]]),
            ValueError,
            r"shape \(1, 1\).*\(m, 2\).*2 features",
        ),
        (
            lambda: Scaler("max").fit([[1.0]]).transform([[1.0]], out=np.empty((2, 1))),
            ValueError,
            r"out has shape \(2, 1\)",
        ),
        (
            lambda: Scaler("max").fit([[1.0]]).transform([[1.0]], out=np.empty((1, 1), int)),
            TypeError,
            "out is an array of int64",
        ),
        (lambda: Scaler("max").fit([[1.0]]).transform([[1.0]], out=[[0]]), TypeError, "out is lis"),
        (
            lambda: (
                Scaler("max")
                .fit([[1.0]])
                .transform([[1.0]], out=np.broadcast_to(np.zeros(1), (1, 1)))
            ),
            ValueError,
            "read-only",
        ),
        (lambda: Scaler.from_state({"kind": "max"}), ValueError, "lacks scale, shift"),
        (
            lambda: Scaler.from_state({"kind": "max", "shift": [0.0], "scale": [0.0]}),
            ValueError,
            "must not be zero",
        ),
        (
            lambda: Scaler.from_state({"kind": "max", "shift": [0.0], "scale": [1.0, 1.0]}),
            ValueError,
            "both must be",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_failed_fit_keeps_the_old_one():
    scaler = Scaler("max").fit([[2.0]])
    with pytest.raises(ValueError, match="nan"):
        scaler.fit([[np.nan]])
    np.testing.assert_array_equal(scaler.transform([[1.0]]), [[0.5]])


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_sparse_inputs_have_a_maximum(form, dtype, rng):
    sparse = pytest.importorskip("scipy.sparse")
    dense = (rng.normal(size=(40, 6)) * 9 * (rng.random((40, 6)) < 0.3)).astype(dtype)
    dense[:, 2], dense[:, 3] = 0, -np.abs(dense[:, 3]) - 1  # a column of zeros, one without any
    X = getattr(sparse, form)(dense)
    scaler, expected = Scaler("max").fit(X), Scaler("max").fit(dense)
    np.testing.assert_array_equal(scaler.scale_, expected.scale_)
    scaled = scaler.transform(X)
    assert scaled.dtype == expected.transform(dense).dtype and sparse.issparse(scaled)
    np.testing.assert_array_equal(scaled.toarray(), expected.transform(dense))
    np.testing.assert_allclose(scaler.inverse_transform(scaled).toarray(), dense, rtol=1e-6)
    np.testing.assert_array_equal(scaler.fit_transform(X).toarray(), scaled.toarray())
    assert (X.toarray() == dense).all()


def test_sparse_is_refused_where_it_would_be_filled():
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.csr_array(np.eye(3))
    for kind in "minmax", "mean", "zscore":
        with pytest.raises(TypeError, match=f"X is sparse.*the shift of '{kind}' would fill"):
            Scaler(kind).fit(X)
    scaler = Scaler("max").fit(X)
    with pytest.raises(TypeError, match="X is sparse; expected no out"):
        scaler.transform(X, out=np.empty((3, 3)))
    with pytest.raises(ValueError, match=r"X has shape \(3, 2\); expected \(m, 3\)"):
        scaler.transform(X[:, :2])
    with pytest.raises(ValueError, match="X is nan at row 1, column 1: a scaler is"):
        scaler.fit(sparse.csr_array(np.diag([1, np.nan, 1])))
    with pytest.raises(TypeError, match="X has dtype complex128"):
        scaler.fit(X.astype(complex))


def test_sparse_inputs_are_scaled_before_they_are_converted():
    sparse = pytest.importorskip("scipy.sparse")
    X = np.array([[1e39, 0], [2e39, 1]])
    net = fastrna.Network([2, 3, 1], seed=0)
    net.scaler = Scaler("max").fit(X)
    np.testing.assert_allclose(net.predict(sparse.csr_array(X)), net.predict(X), rtol=1e-6)


def test_numpys_masked_arrays_are_not_imported_for_nothing():
    code = (
        "import sys, numpy\n"
        "eager = 'numpy.ma' in sys.modules\n"
        "import fastrna\n"
        "net = fastrna.Network([2, 1])\n"
        "net.predict(fastrna.Scaler('max').fit_transform([[1.0, 2.0]]))\n"
        "assert eager or 'numpy.ma' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
