"""Every kernel of every variant against the reference: one test body a kernel."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS
from test_reference import ELEMENTWISE, PAIRS, kept, targets
from tolerances import ELEMENTWISE as TOLERANCE
from tolerances import EPS

import fastrna
from fastrna import reference

# Around every vector width and register tile: 4, 8, 16, 32, 64 lanes, and their remainders.
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97)

PAIRS = [*PAIRS, ("perceptron", "step"), ("perceptron", "sign")]


def whole(rng, shape, dtype):
    """Whole numbers so small that sums of products are exact: equal means equal."""
    return rng.integers(-8, 9, size=shape).astype(dtype)


def assert_close(found, expected, dtype, scale=1.0):
    """Compare with the tolerance of the table, relative to the largest of all and of 1."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    if expected.size:
        limit = TOLERANCE[dtype] * max(scale, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


# ------------------------------------------------------------------------------ the contract

STUB = Path(fastrna.kernels.__file__).with_name("kernels.pyi")
CONTRACT = (
    "activation",
    "activation_derivative",
    "layer_forward",
    "weight_gradient",
    "input_gradient",
    "cost_and_gradient",
    "sgd_update",
    "momentum_update",
    "nesterov_update",
    "adam_update",
    "dropout",
)


def stub_signatures():
    """Read name -> [(argument, has a default)] out of the stub file."""
    signatures = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in node.args.posonlyargs + node.args.args]
            required = len(names) - len(node.args.defaults)
            signatures[node.name] = [(n, i >= required) for i, n in enumerate(names)]
    return signatures


def live_signature(function):
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters]


@pytest.mark.parametrize("name", CONTRACT)
def test_reference_stub_and_kernel_have_one_signature(kernels, name):
    expected = live_signature(getattr(reference, name))
    assert live_signature(getattr(kernels, name)) == expected
    has_default = [(n, default is not inspect.Parameter.empty) for n, default in expected]
    assert stub_signatures()[name] == has_default


def test_stub_names_every_function_and_class_of_every_variant(kernels):
    def public(things):
        return {name for name in things if not name.startswith("_")}

    live = public(name for name, thing in vars(kernels).items() if callable(thing))
    classes = {
        node.name: public(
            part.name if isinstance(part, ast.FunctionDef) else part.target.id
            for part in node.body
            if isinstance(part, (ast.FunctionDef, ast.AnnAssign))
        )
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    bases = {"Workspace", "Steps"}  # of Engine, which has what is public of them
    assert live - bases == set(stub_signatures()) | set(classes)
    assert set(CONTRACT) <= live
    for name, members in classes.items():
        assert members == public(dir(getattr(kernels, name))), name


# ---------------------------------------------------------------------------------- products


def test_layer_forward_is_exact_at_every_size(kernels, dtype, rng):
    A, W, b = whole(rng, (97, 97), dtype), whole(rng, (97, 97), dtype), whole(rng, 97, dtype)
    for m in SIZES:
        for n_in in SIZES:
            product = A[:m, :n_in] @ W[:n_in] + b
            for n_out in SIZES:
                found = kernels.layer_forward(A[:m, :n_in], W[:n_in, :n_out], b[:n_out])
                assert np.array_equal(found, product[:, :n_out]), (m, n_in, n_out)


def test_weight_gradient_is_exact_at_every_size(kernels, dtype, rng):
    A, dZ = whole(rng, (97, 97), dtype), whole(rng, (97, 97), dtype)
    for m in SIZES:
        product, total = A[:m].T @ dZ[:m], dZ[:m].sum(axis=0)
        for n_in in SIZES:
            for n_out in SIZES:
                dW, db = kernels.weight_gradient(A[:m, :n_in], dZ[:m, :n_out])
                assert np.array_equal(dW, product[:n_in, :n_out]), (m, n_in, n_out)
                assert np.array_equal(db, total[:n_out]), (m, n_in, n_out)


def test_input_gradient_is_exact_at_every_size(kernels, dtype, rng):
    dZ, W = whole(rng, (97, 97), dtype), whole(rng, (97, 97), dtype)
    for m in SIZES:
        for n_out in SIZES:
            product = dZ[:m, :n_out] @ W[:, :n_out].T
            for n_in in SIZES:
                found = kernels.input_gradient(dZ[:m, :n_out], W[:n_in, :n_out])
                assert np.array_equal(found, product[:, :n_in]), (m, n_in, n_out)


@pytest.mark.parametrize("shape", [(1, 700, 3), (130, 260, 200), (67, 1031, 33), (300, 5, 129)])
def test_products_of_larger_shapes_are_exact(kernels, dtype, rng, shape):
    m, n_in, n_out = shape
    A, W, b = (
        whole(rng, (m, n_in), dtype),
        whole(rng, (n_in, n_out), dtype),
        whole(rng, n_out, dtype),
    )
    dZ = whole(rng, (m, n_out), dtype)
    np.testing.assert_array_equal(kernels.layer_forward(A, W, b), A @ W + b)
    np.testing.assert_array_equal(kernels.input_gradient(dZ, W), dZ @ W.T)
    dW, db = kernels.weight_gradient(A, dZ)
    np.testing.assert_array_equal(dW, A.T @ dZ)
    np.testing.assert_array_equal(db, dZ.sum(axis=0))


@pytest.mark.parametrize("k", [1, 17, 97, 1000])
def test_products_round_like_sums_of_k_terms(kernels, dtype, rng, k):
    A, B, b = rng.normal(size=(13, k)), rng.normal(size=(k, 21)), rng.normal(size=21)
    A, B, b = A.astype(dtype), B.astype(dtype), b.astype(dtype)
    exact = A.astype(np.longdouble) @ B.astype(np.longdouble)
    bound = (k + 1) * EPS[dtype] * (np.abs(A).astype(float) @ np.abs(B) + np.abs(b))
    assert (np.abs(kernels.layer_forward(A, B, b) - (exact + b)) <= bound).all()
    assert (np.abs(kernels.input_gradient(A, B.T.copy()) - exact) <= bound).all()
    assert (np.abs(kernels.weight_gradient(A.T.copy(), B)[0] - exact) <= bound).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_take_every_layout(kernels, dtype, rng, layout):
    lay = LAYOUTS[layout]
    for m, n_in, n_out in [(1, 1, 1), (1, 33, 5), (7, 9, 17), (33, 47, 65)]:
        A, W = whole(rng, (m, n_in), dtype), whole(rng, (n_in, n_out), dtype)
        b, dZ, Z = (
            whole(rng, n_out, dtype),
            whole(rng, (m, n_out), dtype),
            whole(rng, A.shape, dtype),
        )
        np.testing.assert_array_equal(
            kernels.layer_forward(lay(A), lay(W), lay(b), "relu"), np.maximum(A @ W + b, 0)
        )
        np.testing.assert_array_equal(
            kernels.input_gradient(lay(dZ), lay(W), lay(Z), "relu"), (dZ @ W.T) * (Z > 0)
        )
        dW, db = kernels.weight_gradient(lay(A), lay(dZ))
        np.testing.assert_array_equal(dW, A.T @ dZ)
        np.testing.assert_array_equal(db, dZ.sum(axis=0))


@pytest.mark.parametrize("spec", [*ELEMENTWISE, "softmax"], ids=str)
def test_layer_forward_applies_the_activation(kernels, dtype, rng, spec):
    A, W, b = rng.normal(size=(37, 5)), rng.normal(size=(5, 97)), rng.normal(size=97)
    A, W, b = A.astype(dtype), W.astype(dtype), b.astype(dtype)
    for m in (1, 2, 6, 37):
        for n_out in SIZES:
            found = kernels.layer_forward(A[:m], W[:, :n_out], b[:n_out], spec)
            wide = [x.astype(float) for x in (A[:m], W[:, :n_out], b[:n_out])]
            assert_close(found, reference.layer_forward(*wide, spec), dtype, scale=10)


@pytest.mark.parametrize("spec", ELEMENTWISE, ids=str)
def test_input_gradient_applies_the_derivative(kernels, dtype, rng, spec):
    dZ, W, Z = rng.normal(size=(37, 5)), rng.normal(size=(97, 5)), rng.normal(size=(37, 97))
    dZ, W, Z = dZ.astype(dtype), W.astype(dtype), Z.astype(dtype)
    for m in (1, 2, 6, 37):
        for n_in in SIZES:
            args = dZ[:m], W[:n_in], Z[:m, :n_in]
            found = kernels.input_gradient(*args, spec)
            expected = reference.input_gradient(*(x.astype(float) for x in args), spec)
            assert_close(found, expected, dtype, scale=10)


def test_no_examples_make_no_rows(kernels, dtype):
    A, W, b = np.zeros((0, 3), dtype), np.ones((3, 5), dtype), np.ones(5, dtype)
    assert kernels.layer_forward(A, W, b, "softmax").shape == (0, 5)
    assert kernels.input_gradient(np.zeros((0, 5), dtype), W).shape == (0, 3)
    dW, db = kernels.weight_gradient(A, np.zeros((0, 5), dtype))
    np.testing.assert_array_equal(dW, np.zeros((3, 5)))
    np.testing.assert_array_equal(db, np.zeros(5))
    assert kernels.activation("tanh", A).shape == (0, 3)
    assert kernels.activation_derivative("tanh", A).shape == (0, 3)
    assert kernels.dropout(A, 0.5, 0, 0, 0).shape == (0, 3)


# ------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("spec", [*ELEMENTWISE, "softmax"], ids=str)
def test_activation(kernels, dtype, rng, spec):
    Z = (3 * rng.normal(size=(9, 97))).astype(dtype)
    for n in SIZES:
        found = kernels.activation(spec, Z[:, :n])
        assert_close(found, reference.activation(spec, Z[:, :n].astype(float)), dtype)


@pytest.mark.parametrize("spec", ELEMENTWISE, ids=str)
def test_activation_derivative(kernels, dtype, rng, spec):
    Z = (3 * rng.normal(size=(9, 97))).astype(dtype)
    Z[0, :4] = 0, -0.0, 1e-40, -1e-40
    for n in SIZES:
        found = kernels.activation_derivative(spec, Z[:, :n])
        expected = reference.activation_derivative(spec, Z[:, :n].astype(float))
        assert_close(found, expected, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", ["tanh", "relu", "softmax"])
def test_activations_take_every_layout(kernels, dtype, rng, spec, layout):
    Z = rng.normal(size=(7, 19)).astype(dtype)
    kept_as_it_was = Z.copy()
    np.testing.assert_array_equal(
        kernels.activation(spec, LAYOUTS[layout](Z)), kernels.activation(spec, Z)
    )
    if spec != "softmax":
        np.testing.assert_array_equal(
            kernels.activation_derivative(spec, LAYOUTS[layout](Z)),
            kernels.activation_derivative(spec, Z),
        )
    np.testing.assert_array_equal(Z, kept_as_it_was)


def test_softmax_of_far_apart_scores(kernels, dtype):
    Z = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [88, 89, 90]], dtype)
    expected = reference.activation("softmax", Z.astype(float))
    assert_close(kernels.activation("softmax", Z), expected, dtype)


def test_softmax_has_no_elementwise_derivative(kernels, dtype):
    with pytest.raises(ValueError, match="softmax"):
        kernels.activation_derivative("softmax", np.zeros((1, 2), dtype))


# ------------------------------------------------------------------------------------- costs


def cost_case(loss, output, shape, dtype, rng):
    Z = (2 * rng.normal(size=shape)).astype(dtype)
    return Z, targets(output, shape, rng).astype(dtype)


def check_cost(kernels, loss, output, Z, Y, w, dtype):
    found, dZ = kernels.cost_and_gradient(loss, output, Z, Y, w)
    wide = None if w is None else w.astype(float)
    args = Z.astype(float), Y.astype(float), wide
    expected, expected_dZ = reference.cost_and_gradient(loss, output, *args)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=10 * TOLERANCE[dtype], abs=TOLERANCE[dtype])
    assert_close(dZ, expected_dZ, dtype, scale=1 / len(Z))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_cost_and_gradient(kernels, dtype, rng, loss, output, weighted):
    for m in (1, 2, 7, 8, 33):
        for n_y in (1, 2, 3, 4, 5, 10, 16, 17, 33):
            Z, Y = cost_case(loss, output, (m, n_y), dtype, rng)
            w = rng.uniform(0.5, 2, m).astype(dtype) if weighted else None
            check_cost(kernels, loss, output, Z, Y, w, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("loss", "output"),
    [("squared_error", "tanh"), ("log_loss", "softmax"), ("perceptron", "step")],
)
def test_costs_take_every_layout(kernels, dtype, rng, loss, output, layout):
    lay = LAYOUTS[layout]
    Z, Y = cost_case(loss, output, (7, 5), dtype, rng)
    check_cost(
        kernels, loss, output, lay(Z), lay(Y), lay(rng.uniform(1, 2, 7).astype(dtype)), dtype
    )


@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_cost_of_a_saturated_network(kernels, dtype, rng, loss, output):
    far = 20 if output == "exp" else 3000  # its squared error still fits a float32
    Z = np.array([[far, -far], [-far, far], [0, -0.0]], dtype)
    Y = targets(output, Z.shape, rng).astype(dtype)
    check_cost(kernels, loss, output, Z, Y, None, dtype)


def test_perfect_cost_is_nothing(kernels, dtype):
    Z = np.array([[1.5, -2.0]], dtype)
    for loss in "squared_error", "absolute_error", "huber", "quantile":
        found, dZ = kernels.cost_and_gradient(loss, "identity", Z, Z)
        assert found == 0
        np.testing.assert_array_equal(dZ, 0)
    found, dZ = kernels.cost_and_gradient("perceptron", "sign", Z, np.sign(Z))
    assert found == 0
    np.testing.assert_array_equal(dZ, 0)


def test_an_error_on_the_boundary_costs_more_than_nothing(kernels, dtype):
    zero = np.zeros((1, 1), dtype)
    found, dZ = kernels.cost_and_gradient("perceptron", "step", zero, zero)
    assert found > 0
    assert dZ[0, 0] == 1


@pytest.mark.parametrize(
    ("loss", "output"),
    [("log_loss", "tanh"), ("perceptron", "sigmoid"), ("huber", "softmax"), ("poisson", "relu")],
)
def test_a_loss_that_does_not_go_with_the_output_is_refused(kernels, dtype, loss, output):
    with pytest.raises(ValueError, match=rf"{loss}.*{output}"):
        kernels.cost_and_gradient(loss, output, np.zeros((1, 2), dtype), np.zeros((1, 2), dtype))


# ----------------------------------------------------------------------------------- updates

UPDATES = [
    ("sgd_update", 0, (0.1,)),
    ("momentum_update", 1, (0.1, 0.9)),
    ("nesterov_update", 1, (0.1, 0.9)),
    ("adam_update", 2, (0.1, 0.9, 0.999, 1e-8, 1)),
    ("adam_update", 2, (0.01, 0.8, 0.99, 1e-3, 17)),
]


@pytest.mark.parametrize("n", [0, *SIZES, 1000])
@pytest.mark.parametrize(("name", "n_states", "settings"), UPDATES)
def test_update(kernels, dtype, rng, name, n_states, settings, n):
    guard = 7.5  # on both sides of everything written
    buffers = [np.full(n + 32, guard, dtype) for _ in range(1 + n_states)]
    written = [buffer[13 : 13 + n] for buffer in buffers]
    for i, array in enumerate(written):
        array[:] = rng.normal(size=n) if i == 0 else rng.uniform(0.5, 1, n)
    g = rng.normal(size=n).astype(dtype)
    g.flags.writeable = False
    expected = [array.astype(float) for array in written]
    getattr(reference, name)(*expected, g.astype(float), *settings)
    assert getattr(kernels, name)(*written, g, *settings) is None
    for buffer, array, wide in zip(buffers, written, expected, strict=True):
        assert_close(array, wide, dtype)
        assert (buffer[:13] == guard).all() and (buffer[13 + n :] == guard).all()


@pytest.mark.parametrize(("name", "n_states", "settings"), UPDATES[:4])
def test_update_refuses_what_it_cannot_write(kernels, dtype, name, n_states, settings):
    arrays = [np.ones(4, dtype) for _ in range(1 + n_states)]
    for i in range(len(arrays)):
        arrays[i].flags.writeable = False
        with pytest.raises((ValueError, TypeError, BufferError), match="read-only"):
            getattr(kernels, name)(*arrays, np.ones(4, dtype), *settings)
        arrays[i].flags.writeable = True
    with pytest.raises((ValueError, TypeError, BufferError)):
        getattr(kernels, name)(*arrays, np.ones(5, dtype), *settings)
    for array in arrays:
        np.testing.assert_array_equal(array, 1)


# ----------------------------------------------------------------------------------- dropout


def test_dropout_mask_is_the_hash_of_the_place(kernels, dtype):
    A = np.ones((6, 9), dtype)
    for rate, seed, step, layer, first in [(0.5, 0, 0, 0, 0), (0.2, 2**63 + 5, 70000, 3, 11)]:
        found = kernels.dropout(A, rate, seed, step, layer, first_row=first)
        expected = [
            [kept(rate, seed, step, layer, first + i, j) for j in range(9)] for i in range(6)
        ]
        np.testing.assert_array_equal(found != 0, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout(kernels, dtype, rng, layout):
    for n in SIZES:
        A = rng.normal(size=(5, n)).astype(dtype)
        for rate in (0.0, 0.3, 0.9):
            found = kernels.dropout(LAYOUTS[layout](A), rate, 3, 2, 1)
            expected = reference.dropout(A.astype(float), rate, 3, 2, 1)
            assert_close(found, expected, dtype)


# --------------------------------------------------------------------- arguments at the door


def test_shapes_that_do_not_fit_are_refused(kernels, dtype):
    def ones(*shape):
        return np.ones(shape, dtype)

    for call in (
        lambda: kernels.layer_forward(ones(2, 3), ones(4, 5), ones(5)),
        lambda: kernels.layer_forward(ones(2, 3), ones(3, 5), ones(4)),
        lambda: kernels.weight_gradient(ones(2, 3), ones(3, 3)),
        lambda: kernels.input_gradient(ones(2, 3), ones(5, 4)),
        lambda: kernels.input_gradient(ones(2, 3), ones(5, 3), ones(2, 4), "relu"),
        lambda: kernels.input_gradient(ones(2, 3), ones(5, 3), ones(1, 5), "relu"),
        lambda: kernels.cost_and_gradient("huber", "identity", ones(2, 3), ones(2, 4)),
        lambda: kernels.cost_and_gradient("huber", "identity", ones(2, 3), ones(3, 3)),
        lambda: kernels.cost_and_gradient("huber", "identity", ones(2, 3), ones(2, 3), ones(3)),
        lambda: kernels.dropout(ones(3), 0.5, 0, 0, 0),
        lambda: kernels.dropout(ones(2, 3), 1.0, 0, 0, 0),
    ):
        with pytest.raises(ValueError):
            call()


def test_another_dtype_is_refused(kernels, dtype):
    other = "float64" if dtype == "float32" else "float32"
    with pytest.raises((ValueError, TypeError)):
        kernels.activation("relu", np.ones((2, 2), other))
    with pytest.raises((ValueError, TypeError)):
        kernels.dropout(np.ones((2, 2), other), 0.5, 0, 0, 0)


def test_unknown_names_are_refused(kernels, dtype):
    Z = np.zeros((1, 1), dtype)
    with pytest.raises(ValueError, match="swish"):
        kernels.activation("swish", Z)
    with pytest.raises(ValueError, match="hinge"):
        kernels.cost_and_gradient("hinge", "identity", Z, Z)


def test_log_loss_of_a_confident_and_right_output_keeps_its_digits(kernels, dtype):
    """J = ln(1 + e^-z) for y = 1, near e^-z where the sigmoid is 1 to the last digit."""
    Z = np.array([[20.0], [40.0]], dtype)
    Y = np.ones((2, 1), dtype)
    for row in range(2):
        cost, _ = kernels.cost_and_gradient("log_loss", "sigmoid", Z[row : row + 1], Y[:1])
        np.testing.assert_allclose(cost, np.log1p(np.exp(-float(Z[row, 0]))), rtol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_what_the_machine_can_do_is_measured(kernels, n_threads):
    assert 0 < kernels.fma_peak(1e-9, n_threads) < 1e15
    assert 0 < kernels.meeting_seconds(n_threads, 10) < 1
    assert 0 < kernels.rewriting_seconds(n_threads) < 1


def test_adam_with_decays_near_one(kernels, dtype, rng):
    """1 - beta keeps the digits that beta, as a float32, has lost."""
    g = rng.normal(size=37).astype(dtype)
    settings = 0.01, 1 - 1e-6, 1 - 1e-8, 1e-3, 1
    found, expected = ([np.zeros(37, kind) for _ in range(3)] for kind in (dtype, float))
    kernels.adam_update(*found, g, *settings)
    reference.adam_update(*expected, g.astype(float), *settings)
    for array, wide in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, wide, rtol=1e-5)


def test_adam_with_an_epsilon_that_the_type_does_not_hold(kernels, dtype):
    """Weights that never had a gradient stay where they are."""
    w, m, v, g = (np.zeros(37, dtype) for _ in range(4))
    w[:] = 3
    kernels.adam_update(w, m, v, g, 0.1, 0.9, 0.999, 1e-320, 1)
    assert (w == 3).all()
    net = fastrna.Network([3, 6, 2], dtype=dtype, seed=0)
    X, y = np.zeros((20, 3)), np.ones((20, 2))
    fastrna.train(net, X, y, optimizer=fastrna.Adam(epsilon=1e-320), epochs=2)
    assert np.isfinite(net.parameters).all()


def test_the_cost_of_examples_without_weight(kernels, dtype, rng):
    Z, Y = rng.normal(size=(2, 3, 4)).astype(dtype)
    for function in kernels.cost_and_gradient, reference.cost_and_gradient:
        J, dZ = function("squared_error", "identity", Z, Y, np.zeros(3))
        assert J == 0 and (dZ == 0).all() and dZ.shape == (3, 4)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_activations_of_nothing(kernels, dtype, shape):
    Z = np.zeros(shape, dtype)
    for name in "activation", "activation_derivative":
        assert getattr(kernels, name)("tanh", Z).shape == shape
    assert kernels.activation("softmax", Z).shape == shape
