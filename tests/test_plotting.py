"""Pictures: drawn without a display, holding the numbers they should."""

import subprocess
import sys

import numpy as np
import pytest

import fastrna
from fastrna import plotting

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def agg():
    """Draw to memory, and close what a test opened."""
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def render(figure):
    """Draw everything, which is when most mistakes show."""
    figure.canvas.draw()


def train_xor(**options):
    X, y = fastrna.datasets.load_gates("xor")
    net = fastrna.Network([2, 4, 1], hidden="tanh", output="sigmoid", seed=0)
    return fastrna.train(net, X, y, seed=0, **options)


def test_history():
    history = train_xor(epochs=7)
    ax = history.plot()
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 8))
    np.testing.assert_array_equal(line.get_ydata(), history.cost)
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "cost")
    assert ax.get_legend() is None
    render(ax.figure)


def test_history_with_validation_on_given_axes():
    import matplotlib.pyplot as plt

    X, y = fastrna.datasets.load_gates("xor")
    history = train_xor(epochs=5, validation=(X, y))
    _, ax = plt.subplots()
    assert plotting.plot_history(history, ax=ax) is ax
    training, validation = ax.get_lines()
    np.testing.assert_array_equal(training.get_ydata(), history.cost)
    np.testing.assert_array_equal(validation.get_ydata(), history.validation_cost)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    render(ax.figure)


def test_history_that_reaches_zero_and_of_one_epoch():
    X, y = fastrna.datasets.load_gates("and")
    net = fastrna.Network([2, 1], output="step", seed=0)
    history = fastrna.train(
        net, X, y, optimizer=fastrna.SGD(0.1), batch_size=1, target_cost=0.0, seed=0
    )
    assert history.cost[-1] == 0.0
    assert history.plot().get_yscale() == "linear"
    ax = train_xor(epochs=1).plot()
    assert ax.get_lines()[0].get_marker() == "."
    render(ax.figure)


def test_descent_is_the_closed_form():
    figure = plotting.plot_descent(steps=6)
    rates = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.01)
    assert len(figure.axes) == 9
    for ax, rate in zip(figure.axes, rates, strict=True):
        parabola, path = ax.get_lines()
        w = 0.7 * (1 - 2 * rate) ** np.arange(7)
        np.testing.assert_allclose(path.get_xdata(), w, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(path.get_ydata(), w**2, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(parabola.get_ydata(), parabola.get_xdata() ** 2)
        assert f"{rate:g}" in ax.get_title()
    render(figure)


def test_a_grid_not_full():
    figure = plotting.plot_descent([0.1, 0.2, 0.3, 0.4])
    assert len(figure.axes) == 4
    render(figure)


def test_activations():
    figure = plotting.plot_activations()
    assert len(figure.axes) == 12
    for ax in figure.axes:
        value, slope = ax.get_lines()[2:]
        z, g = value.get_data()
        numeric = np.gradient(g, z)
        inside = np.abs(z) > 0.1  # away from kinks and jumps
        np.testing.assert_allclose(
            slope.get_ydata()[inside][1:-1], numeric[inside][1:-1], atol=2e-3, rtol=1e-2
        )
    render(figure)


def test_activations_with_parameters():
    net = fastrna.Network([1, 2, 1], hidden="elu")
    assert plotting.plot_activations(net.activations).axes[0].get_title() == "elu(1)"
    figure = plotting.plot_activations([("elu", 0.5), "tanh"], limit=2)
    assert [ax.get_title() for ax in figure.axes] == ["elu(0.5)", "tanh"]
    render(figure)


def test_confusion():
    outputs = np.eye(3)[[0, 1, 1, 2]] + 0.1
    matrix = plotting.confusion_matrix([0, 1, 2, 2], outputs)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert matrix.dtype == np.int64
    ax = plotting.plot_confusion([0, 1, 2, 2], [0, 1, 1, 2])
    assert sorted((t.get_position(), t.get_text()) for t in ax.texts) == [
        ((0, 0), "1"),
        ((1, 1), "1"),
        ((1, 2), "1"),
        ((2, 2), "1"),
    ]
    render(ax.figure)


def test_confusion_of_nothing_and_of_small_integers():
    assert plotting.confusion_matrix(np.empty(0, int), np.empty((0, 3))).tolist() == [[0] * 3] * 3
    # 200 * 201 does not fit the classes' own dtype.
    y = np.array([200, 0], dtype=np.uint8)
    assert plotting.confusion_matrix(y, y)[200, 200] == 1


def test_weights():
    net = fastrna.Network([6, 13, 2], seed=0)
    figure = plotting.plot_weights(net, shape=(2, 3))
    assert len(figure.axes) == 13
    image = figure.axes[4].get_images()[0]
    np.testing.assert_array_equal(image.get_array(), net.weights[0][:, 4].reshape(2, 3))
    assert len(plotting.plot_weights(net, shape=(2, 3), limit=5).axes) == 5
    render(figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.plot_descent([]), "learning_rates is empty"),
        (lambda: plotting.plot_activations([]), "activations is empty"),
        (lambda: plotting.plot_activations(["tan"]), "'tan'"),
        (lambda: plotting.confusion_matrix([0, 1], [0]), r"\(2,\).*\(1,\).*as many of one"),
        (lambda: plotting.confusion_matrix([0.5], [0]), "y holds other things than classes"),
        (lambda: plotting.confusion_matrix([10**12], [0]), "y has class 1000000000000; expected"),
        (
            lambda: plotting.plot_weights(fastrna.Network([4, 2]), shape=(4,)),
            r"shape is \(4,\); expected a pair",
        ),
        (lambda: plotting.confusion_matrix([0], [-1]), "predicted holds other things than classes"),
        (
            lambda: plotting.plot_weights(fastrna.Network([6, 2]), shape=(8, 8)),
            r"shape is \(8, 8\), which is 64 pixels; expected 6, the inputs of the network",
        ),
        (
            lambda: plotting.plot_weights(fastrna.Network([4, 2]), shape=(2, 2), limit=0),
            "limit is 0; expected an integer, at least 1",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_matplotlib_the_extra_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.pyplot'] = None\n"
        "from fastrna import plotting\n"
        "try:\n    plotting.plot_descent()\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Pictures need matplotlib: pip install 'fastrna[plot]'."


def test_importing_fastrna_imports_no_matplotlib():
    code = (
        "import sys, fastrna, fastrna.plotting, fastrna.persistence\n"
        "print([m for m in ('matplotlib', 'scipy', 'sklearn', 'onnx', 'safetensors', 'argparse') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
