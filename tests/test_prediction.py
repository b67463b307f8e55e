"""Network.predict and predict_one against the reference: one row, many, widths around vectors."""

import numpy as np
import pytest
from tolerances import ELEMENTWISE

import fastrna
from fastrna import reference

# Around where the weights begin to be packed, and around the block of rows of a thread.
COUNTS = [1, 2, 15, 16, 17, 23, 24, 25, 95, 96, 97, 300]
WIDTHS = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100]


@pytest.mark.parametrize("n_y", [1, 2, 10, 17])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("hidden", ["tanh", "exp"])
def test_widths_around_vectors(hidden, width, n_y, dtype):
    net = fastrna.Network([5, 6, width, n_y], hidden=["tanh", hidden], dtype=dtype, seed=1)
    for k, b in enumerate(net.biases):
        b[:] = np.random.default_rng(k).normal(size=b.shape)
    X = np.random.default_rng(0).normal(size=(max(COUNTS), 5)).astype(dtype)
    expected = reference.predict(net.copy("float64"), X.astype("float64"))
    tolerance = 10 * ELEMENTWISE[dtype] * max(1, np.abs(expected).max())
    for m in COUNTS:
        np.testing.assert_allclose(net.predict(X[:m]), expected[:m], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(net.predict_one(X[0]), net.predict(X)[0])


@pytest.mark.parametrize("output", ["identity", "softmax"])
@pytest.mark.parametrize(
    "sizes",
    [
        (4, 10, 3),
        (24, 8, 2),
        (2, 4, 1),
        (9, 5, 4),
        (3, 6, 18),
        (5, 1, 2),
        (13, 37, 29, 5),
        (64, 100, 10),
        (20, 33, 33),
        (60, 17, 5),
        (16, 64, 16),
        (1030, 3, 2),
        (2100, 20, 1),
    ],
)
def test_a_row_does_not_depend_on_its_company(sizes, output, dtype):
    net = fastrna.Network(list(sizes), hidden="tanh", output=output, dtype=dtype, seed=3)
    net.parameters = np.random.default_rng(1).normal(size=net.parameters.shape)
    X = np.random.default_rng(0).normal(size=(300, sizes[0])).astype(dtype)
    together = net.predict(X)
    np.testing.assert_array_equal(together, [net.predict_one(x) for x in X])
    for first, last in ((0, 1), (0, 33), (90, 120), (1, 300), (283, 300)):
        np.testing.assert_array_equal(net.predict(X[first:last]), together[first:last])
    np.testing.assert_array_equal(net.predict(X.astype("float64")), together)
    np.testing.assert_array_equal(net.predict(X, n_threads=2), together)
    whole = np.full((302, sizes[-1]), 7, dtype)
    net.predict(X, out=whole[1:-1])
    np.testing.assert_array_equal(whole[1:-1], together)
    assert (whole[[0, -1]] == 7).all(), "wrote past its rows"


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n_x", [1, 8, 17])
@pytest.mark.parametrize("layout", ["contiguous", "columns of a wider array", "every other row"])
def test_a_number_that_is_not_finite_is_named_wherever_it_lies(layout, n_x, n_threads, dtype):
    net = fastrna.Network([n_x, 4, 1], dtype=dtype, seed=2)
    m = 210
    X = {
        "contiguous": np.zeros((m, n_x), dtype),
        "columns of a wider array": np.full((m, n_x + 3), np.nan, dtype)[:, 1 : n_x + 1],
        "every other row": np.full((2 * m, n_x), np.nan, dtype)[::2],
    }[layout]
    X[:] = 0
    assert np.isfinite(net.predict(X, n_threads=n_threads)).all()
    for row in (0, 95, 96, m - 1):
        for bad in (np.nan, np.inf, -np.inf):
            X[row, n_x - 1] = bad
            with pytest.raises(ValueError, match=f"X has {bad} at row {row}, column {n_x - 1}"):
                net.predict(X, n_threads=n_threads)
        X[row, n_x - 1] = 0


@pytest.mark.parametrize("sizes", [(4, 10, 3), (40, 100, 3)])
def test_sums_that_overflow_are_not_taken_for_bad_input(sizes, dtype):
    net = fastrna.Network(list(sizes), hidden="tanh", dtype=dtype, seed=4)
    net.weights[0][:] = np.finfo(dtype).max / 2
    X = np.full((100, sizes[0]), 0.001, dtype)
    X[50] = 9
    assert np.isfinite(net.predict(X)).all()
    np.testing.assert_array_equal(net.predict(X)[50], net.predict_one(X[50]))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_outputs_over_the_inputs_they_come_from(shift, order):
    net = fastrna.Network([5, 5], seed=3)
    B = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    expected, memory = net.predict(B), np.zeros(5 * 1002, np.float32)
    X = memory[5:-5].reshape((1000, 5), order=order)
    X[...] = B
    out = memory[5 + 5 * shift : 5 * 1001 + 5 * shift].reshape(1000, 5)
    np.testing.assert_array_equal(net.predict(X, out=out), expected)


def test_more_threads_than_there_are_rows_for(dtype):
    """As many as are asked for, at most; a row needs no more than one."""
    net, X = fastrna.Network([3, 4, 2], dtype=dtype, seed=0), np.ones((5, 3))
    np.testing.assert_array_equal(net.predict(X, n_threads=1024), net.predict(X, n_threads=1))
    with pytest.raises(ValueError, match="n_threads is 1025; expected an integer, from 1 to 1024"):
        net.predict(X, n_threads=1025)


@pytest.mark.parametrize("wrap", ["DataFrame", memoryview])
def test_an_output_that_is_written_over_the_inputs(wrap):
    """Whatever X is that shares the memory."""
    numbers = np.random.default_rng(0).normal(size=600).astype("float32")
    X, out = numbers[:200].reshape(100, 2), numbers[:500].reshape(100, 5)
    net = fastrna.Network([2, 4, 5], seed=0)
    expected = net.predict(X.copy())
    if wrap == "DataFrame":
        shared = pytest.importorskip("pandas").DataFrame(X, copy=False)
    else:
        shared = wrap(X)
    np.testing.assert_array_equal(net.predict(shared, out=out), expected)
