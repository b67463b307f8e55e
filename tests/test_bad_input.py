"""Bad input: an error at the door that names the argument, and nothing half-trained.

Each case is (what is wrong, the arguments, words the message has to have). The words are the name
of the argument, what was given, and where the method is clear what was expected.
"""

import numpy as np
import pytest

import fastrna

GOOD_X = np.random.default_rng(0).normal(size=(6, 3))
GOOD_Y = np.random.default_rng(1).normal(size=(6, 2))
CLASSES = np.array([0, 1, 0, 1, 1, 0])
ONES = np.ones(6)

NAN, INF = float("nan"), float("inf")


def spoilt(array, value, *place):
    array = np.array(array, float)
    array[place] = value
    return array


def network(output="identity", **options):
    return fastrna.Network([3, 4, 2], output=output, seed=0, **options)


def refuse(net, call, *words):
    """Make the call, which has to fail with all of the words and leave the network as it was."""
    before = net.parameters.copy()
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, message
    np.testing.assert_array_equal(net.parameters, before)


def options_are_refused(words, X=GOOD_X, y=GOOD_Y, output="identity", **options):
    """Refused by train and by the Trainer, whether it is made, prepares or runs."""
    net = network(output)
    refuse(net, lambda: fastrna.train(net, X, y, **options), *words)

    def train_by_hand():
        per_call = ("epochs", "sample_weight", "class_weight", "validation")
        trainer = fastrna.Trainer(net, **{k: v for k, v in options.items() if k not in per_call})
        trainer.run(X, y, options["epochs"])

    if not {"sample_weight", "class_weight", "validation"} & set(options):
        options.setdefault("epochs", 1)
        refuse(net, train_by_hand, *words)


# ----------------------------------------------------------------------------------------- X

BAD_X = {
    "one dimension": (np.zeros(3), ["X", "(3,)", "2"]),
    "three dimensions": (np.zeros((6, 3, 1)), ["X", "(6, 3, 1)", "2"]),
    "a number": (1.0, ["X", "2"]),
    "too narrow": (np.zeros((6, 2)), ["X", "2", "3"]),
    "too wide": (np.zeros((6, 4)), ["X", "4", "3"]),
    "NaN": (spoilt(GOOD_X, NAN, 4, 1), ["X", "nan", "row 4", "column 1"]),
    "infinity": (spoilt(GOOD_X, INF, 2, 2), ["X", "inf", "row 2", "column 2"]),
    "minus infinity": (spoilt(GOOD_X, -INF, 0, 0), ["X", "inf", "row 0", "column 0"]),
    "first of two NaNs": (spoilt(GOOD_X, NAN, [1, 5], [2, 0]), ["X", "row 1", "column 2"]),
    "object": (np.full((6, 3), None), ["X", "object"]),
    "complex": (GOOD_X + 1j, ["X", "complex"]),
    "text": (np.full((6, 3), "a"), ["X"]),
    "ragged": ([[1, 2, 3], [1, 2]], ["X"]),
}
NO_ROWS = (np.zeros((0, 3)), ["X", "(0, 3)"])


@pytest.mark.parametrize("case", BAD_X)
def test_x_of_predict(case):
    X, words = BAD_X[case]
    net = network()
    refuse(net, lambda: net.predict(X), *words)


@pytest.mark.parametrize("case", BAD_X)
def test_x_of_jacobian(case):
    X, words = BAD_X[case]
    net = network()
    refuse(net, lambda: net.jacobian(X), *words)


@pytest.mark.parametrize("case", BAD_X)
def test_x_of_loss_and_gradient(case):
    X, words = BAD_X[case]
    net = network()
    refuse(net, lambda: net.loss_and_gradient(X, GOOD_Y), *words)


@pytest.mark.parametrize("case", BAD_X)
def test_x_of_training(case):
    X, words = BAD_X[case]
    options_are_refused(words, X=X)


@pytest.mark.parametrize("case", BAD_X)
def test_x_of_a_step(case):
    X, words = BAD_X[case]
    net = network()
    trainer = fastrna.Trainer(net)
    refuse(net, lambda: trainer.step(X, GOOD_Y), *words)
    assert trainer.n_steps == 0


def test_no_examples():
    X, words = NO_ROWS
    net = network()
    trainer = fastrna.Trainer(net)
    options_are_refused(words, X=X, y=np.zeros((0, 2)))
    refuse(net, lambda: net.loss_and_gradient(X, np.zeros((0, 2))), *words)
    refuse(net, lambda: trainer.step(X, np.zeros((0, 2))), *words)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(2), ["x", "2", "3"]),
        (np.zeros((2, 3)), ["x", "(2, 3)"]),
        (np.array([0, NAN, 0]), ["x", "nan", "1"]),
        (np.array([0, 1, None]), ["x", "object"]),
        (np.zeros(3, complex), ["x", "complex"]),
    ],
    ids=str,
)
def test_x_of_predict_one(x, words):
    net = network()
    refuse(net, lambda: net.predict_one(x), *words)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((6, 3), np.float32),
        np.zeros((5, 2), np.float32),
        np.zeros(12, np.float32),
        np.zeros((6, 2), np.float64),
        np.broadcast_to(np.float32(0), (6, 2)),
        [[0.0] * 2] * 6,
    ],
    ids=["width", "length", "rank", "dtype", "read-only", "list"],
)
def test_out(out):
    net = network()
    refuse(net, lambda: net.predict(GOOD_X, out=out), "out")


@pytest.mark.parametrize(
    "dtype", [bool, "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", ">f4"]
)
def test_whole_numbers_and_other_floats_are_converted(dtype):
    X = np.random.default_rng(2).integers(0, 2, size=(6, 3))
    net, other = network(), network()
    np.testing.assert_array_equal(net.predict(X.astype(dtype)), net.predict(X.astype("f4")))
    np.testing.assert_array_equal(
        net.predict_one(X.astype(dtype)[1]), net.predict_one(X[1].astype("f4"))
    )
    fastrna.train(net, X.astype(dtype), GOOD_Y, epochs=2, seed=0)
    fastrna.train(other, X.astype("f4"), GOOD_Y, epochs=2, seed=0)
    np.testing.assert_array_equal(net.parameters, other.parameters)


WIDE = spoilt(GOOD_X, 1e300, 2, 1)
BEYOND = ["1e+300", "row 2", "column 1", "beyond the range of float32", "float64"]


def test_x_beyond_the_range_of_a_narrower_network():
    net = network("softmax")
    trainer = fastrna.Trainer(net)
    data = trainer.prepare(WIDE, CLASSES)
    for call in (
        lambda: net.predict(WIDE),
        lambda: net.loss_and_gradient(WIDE, CLASSES),
        lambda: fastrna.train(net, WIDE, CLASSES),
        lambda: fastrna.train(net, -WIDE, CLASSES, callbacks=[print]),
        lambda: trainer.step(WIDE, CLASSES),
        lambda: trainer.epoch(data),
        lambda: trainer.evaluate(data),
        lambda: trainer.loss_and_gradient(data),
    ):
        refuse(net, call, "X has", *BEYOND)
    refuse(net, lambda: net.predict_one(WIDE[2]), "x has 1e+300", "row 1", "range of float32")
    held_out = {"validation": (WIDE, CLASSES)}
    refuse(net, lambda: fastrna.train(net, GOOD_X, CLASSES, **held_out), "validation X", *BEYOND)


def test_the_jacobian_of_x_beyond_the_range_of_a_narrower_network():
    net = network("exp")
    refuse(net, lambda: net.jacobian(WIDE), "X has", *BEYOND)


def test_what_float64_holds_is_not_beyond_its_range():
    net = network("softmax", dtype="float64")
    assert np.isfinite(net.predict(spoilt(GOOD_X, 1e100, 2, 1))).all()
    scaled = network("softmax")
    scaled.scaler = fastrna.Scaler("max").fit(WIDE)
    assert np.isfinite(scaled.predict(WIDE)).all()


# ----------------------------------------------------------------------------------------- y

BAD_Y = {
    "too short": (GOOD_Y[:5], ["y", "5", "6"]),
    "too long": (np.zeros((7, 2)), ["y", "7", "6"]),
    "too narrow": (np.zeros((6, 1)), ["y", "1", "2"]),
    "too wide": (np.zeros((6, 3)), ["y", "3", "2"]),
    "one dimension": (np.zeros(6), ["y", "(6,)", "2"]),
    "three dimensions": (np.zeros((6, 2, 1)), ["y", "(6, 2, 1)"]),
    "NaN": (spoilt(GOOD_Y, NAN, 3, 1), ["y", "nan", "row 3", "column 1"]),
    "infinity": (spoilt(GOOD_Y, INF, 5, 0), ["y", "inf", "row 5", "column 0"]),
    "object": (np.full((6, 2), None), ["y", "object"]),
    "complex": (GOOD_Y * 1j, ["y", "complex"]),
}
BAD_CLASSES = {
    "too large": (np.array([0, 1, 2, 0, 1, 0]), ["y", "2", "row 2"]),
    "negative": (np.array([0, 1, 1, -1, 1, 0]), ["y", "-1", "row 3"]),
    "between classes": (np.array([0, 0.5, 1, 0, 1, 0]), ["y", "0.5", "row 1"]),
    "NaN": (np.array([0, NAN, 1, 0, 1, 0]), ["y", "nan", "row 1"]),
    "text": (np.array(list("abcabc")), ["y"]),
    "too short": (CLASSES[:5], ["y", "5", "6"]),
}


@pytest.mark.parametrize("case", BAD_Y)
def test_y(case):
    y, words = BAD_Y[case]
    options_are_refused(words, y=y)
    net = network()
    trainer = fastrna.Trainer(net)
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, y), *words)
    refuse(net, lambda: trainer.step(GOOD_X, y), *words)
    refuse(net, lambda: trainer.prepare(GOOD_X, y), *words)


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_classes(case):
    y, words = BAD_CLASSES[case]
    options_are_refused(words, y=y, output="softmax")
    net = network("softmax")
    trainer = fastrna.Trainer(net)
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, y), *words)
    refuse(net, lambda: trainer.step(GOOD_X, y), *words)


def test_counts_cannot_be_negative():
    options_are_refused(["y", "poisson", "-1"], y=spoilt(abs(GOOD_Y), -1, 2, 1), output="exp")


def test_classes_as_whole_floats_and_any_integers_are_converted():
    net, other = network("softmax"), network("softmax")
    fastrna.train(net, GOOD_X, CLASSES, epochs=2, seed=0)
    for dtype in "u1", "i2", "f8", bool:
        other = network("softmax")
        fastrna.train(other, GOOD_X, CLASSES.astype(dtype), epochs=2, seed=0)
        np.testing.assert_array_equal(net.parameters, other.parameters)


# ------------------------------------------------------------------------------ sample_weight

BAD_WEIGHTS = {
    "negative": (spoilt(ONES, -1, 2), ["sample_weight", "-1", "row 2"]),
    "all zero": (0 * ONES, ["sample_weight", "zero"]),
    "NaN": (spoilt(ONES, NAN, 4), ["sample_weight", "nan", "row 4"]),
    "infinity": (spoilt(ONES, INF, 4), ["sample_weight", "inf", "row 4"]),
    "too short": (ONES[:5], ["sample_weight", "5", "6"]),
    "two dimensions": (ONES[:, None], ["sample_weight", "(6, 1)"]),
    "object": (np.full(6, None), ["sample_weight", "object"]),
    "complex": (ONES * 1j, ["sample_weight", "complex"]),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_sample_weight(case):
    w, words = BAD_WEIGHTS[case]
    options_are_refused(words, sample_weight=w)
    net = network()
    trainer = fastrna.Trainer(net)
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, GOOD_Y, sample_weight=w), *words)
    refuse(net, lambda: trainer.step(GOOD_X, GOOD_Y, sample_weight=w), *words)


@pytest.mark.parametrize(
    "class_weight",
    [{0: -1.0, 1: 1.0}, {0: NAN, 1: 1.0}, {0: 1.0, 7: 1.0}, "balance", {0: 0, 1: 0}],
    ids=str,
)
def test_class_weight(class_weight):
    options_are_refused(["weight"], y=CLASSES, output="softmax", class_weight=class_weight)


# ------------------------------------------------------------------- the network's own numbers


@pytest.mark.parametrize("value", [NAN, INF])
def test_parameters_that_are_not_numbers(value):
    net = network()
    net.weights[1][2, 1] = value
    trainer = fastrna.Trainer(net)
    words = ["weights", "1", "row 2", "column 1"]
    refuse(net, lambda: fastrna.train(net, GOOD_X, GOOD_Y), *words)
    refuse(net, lambda: trainer.run(GOOD_X, GOOD_Y, 1), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sizes": [3]}, ["sizes", "[3]", "two"]),
        ({"sizes": []}, ["sizes", "two"]),
        ({"sizes": [3, 0, 2]}, ["sizes", "0"]),
        ({"sizes": [3, -4, 2]}, ["sizes", "-4"]),
        ({"sizes": [3, 2.5]}, ["sizes", "2.5"]),
        ({"sizes": 3}, ["sizes"]),
        ({"sizes": "32"}, ["sizes"]),
        ({"hidden": "swish"}, ["hidden", "swish", "relu", "silu"]),
        ({"hidden": "softmax"}, ["hidden", "softmax", "output"]),
        ({"hidden": ["relu", "tanh"]}, ["hidden", "2", "1"]),
        ({"hidden": ("elu", NAN)}, ["hidden", "nan"]),
        ({"hidden": ("elu", "a")}, ["hidden", "'a'"]),
        ({"hidden": ("relu", 1.0)}, ["hidden", "relu"]),
        ({"hidden": None}, ["hidden"]),
        ({"output": "swish"}, ["output", "swish", "relu", "softmax"]),
        ({"dtype": "int32"}, ["dtype", "int32", "float32", "float64"]),
        ({"dtype": "complex64"}, ["dtype", "complex64"]),
        ({"dtype": object}, ["dtype", "object"]),
        ({"dtype": "float16"}, ["dtype", "float16"]),
        ({"dtype": "nonsense"}, ["dtype", "nonsense"]),
        ({"init": "nonsense"}, ["init", "nonsense"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": "a"}, ["seed"]),
    ],
    ids=str,
)
def test_network(arguments, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        fastrna.Network(**({"sizes": [3, 4, 2]} | arguments))
    for word in words:
        assert word in str(caught.value), str(caught.value)


# ------------------------------------------------------------------------------ the training

NARROW = (np.zeros((4, 2)), np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"batch_size": -3}, ["batch_size", "-3"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5"]),
        ({"batch_size": "all"}, ["batch_size", "all"]),
        ({"epochs": -1}, ["epochs", "-1"]),
        ({"epochs": 0}, ["epochs", "0"]),
        ({"epochs": 1.5}, ["epochs", "1.5"]),
        ({"epochs": None}, ["epochs"]),
        ({"optimizer": "rmsprop"}, ["optimizer", "rmsprop", "sgd", "adam"]),
        ({"optimizer": 0.1}, ["optimizer"]),
        ({"loss": "hinge"}, ["loss", "hinge", "log_loss", "squared_error"]),
        ({"loss": "log_loss"}, ["loss", "log_loss", "identity"]),
        ({"loss": "perceptron"}, ["loss", "perceptron", "identity"]),
        ({"loss": "poisson"}, ["loss", "poisson", "identity"]),
        ({"loss": ("quantile", 1.5)}, ["loss", "quantile", "1.5"]),
        ({"loss": ("quantile", 0.0)}, ["loss", "quantile", "0"]),
        ({"loss": ("huber", -1.0)}, ["loss", "huber", "-1"]),
        ({"loss": ("huber", NAN)}, ["loss", "huber", "nan"]),
        ({"loss": ("squared_error", 1.0)}, ["loss", "squared_error"]),
        ({"loss": None}, ["loss"]),
        ({"target_cost": NAN}, ["target_cost", "nan"]),
        ({"target_cost": "low"}, ["target_cost"]),
        ({"l1": -0.1}, ["l1", "-0.1"]),
        ({"l2": -0.1}, ["l2", "-0.1"]),
        ({"l2": NAN}, ["l2", "nan"]),
        ({"l2": INF}, ["l2", "inf"]),
        ({"dropout": 1.0}, ["dropout", "1.0"]),
        ({"dropout": -0.1}, ["dropout", "-0.1"]),
        ({"dropout": NAN}, ["dropout", "nan"]),
        ({"n_threads": 0}, ["n_threads", "0"]),
        ({"n_threads": -2}, ["n_threads", "-2"]),
        ({"n_threads": 1.5}, ["n_threads", "1.5"]),
        ({"n_threads": 65536}, ["n_threads", "65536", "from 1 to 1024"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": "a"}, ["seed"]),
        ({"patience": -1, "validation": 0.5}, ["patience", "-1"]),
        ({"patience": 1.5, "validation": 0.5}, ["patience", "1.5"]),
        ({"patience": 3}, ["patience", "validation"]),
        ({"callbacks": 3}, ["callbacks"]),
        ({"callbacks": [3]}, ["callbacks", "callable"]),
        ({"validation": 0.0}, ["validation", "0"]),
        ({"validation": 1.0}, ["validation", "1"]),
        ({"validation": -0.5}, ["validation", "-0.5"]),
        ({"validation": NARROW}, ["validation", "2", "3"]),
        ({"validation": (GOOD_X, GOOD_Y[:, :1])}, ["validation", "1", "2"]),
        ({"validation": (GOOD_X, GOOD_Y[:5])}, ["validation", "5", "6"]),
        ({"validation": (spoilt(GOOD_X, NAN, 1, 2), GOOD_Y)}, ["validation", "row 1", "column 2"]),
        ({"validation": (GOOD_X[:0], GOOD_Y[:0])}, ["validation", "0"]),
        ({"validation": GOOD_X}, ["validation"]),
    ],
    ids=lambda value: str(value)[:50],
)
def test_options(options, words):
    options_are_refused(words, **options)


@pytest.mark.parametrize("output", ["step", "sign"])
def test_a_step_takes_no_other_cost_than_the_perceptrons(output):
    options_are_refused(["loss", "squared_error", output], output=output, loss="squared_error")


def test_a_softmax_takes_no_huber_cost():
    options_are_refused(["loss", "huber", "softmax"], y=CLASSES, output="softmax", loss="huber")


def test_the_cost_of_loss_and_gradient():
    net = network()
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, GOOD_Y, loss="log_loss"), "loss", "identity")
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, GOOD_Y, loss="hinge"), "loss", "huber")
    refuse(net, lambda: net.loss_and_gradient(GOOD_X, GOOD_Y, l2=-1.0), "l2", "-1")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fastrna.SGD(-0.1), ["learning_rate", "-0.1"]),
        (lambda: fastrna.SGD(NAN), ["learning_rate", "nan"]),
        (lambda: fastrna.SGD(INF), ["learning_rate", "inf"]),
        (lambda: fastrna.SGD("fast"), ["learning_rate", "fast"]),
        (lambda: fastrna.SGD(0.1, momentum=-0.1), ["momentum", "-0.1"]),
        (lambda: fastrna.SGD(0.1, momentum=1.0), ["momentum", "1.0"]),
        (lambda: fastrna.SGD(0.1, momentum=NAN), ["momentum", "nan"]),
        (lambda: fastrna.SGD(0.1, schedule="cosine"), ["schedule"]),
        (lambda: fastrna.Adam(-0.1), ["learning_rate", "-0.1"]),
        (lambda: fastrna.Adam(beta_1=1.0), ["beta_1", "1.0"]),
        (lambda: fastrna.Adam(beta_2=-0.5), ["beta_2", "-0.5"]),
        (lambda: fastrna.Adam(epsilon=-1e-8), ["epsilon", "-1e-08"]),
    ],
)
def test_optimizers(make, words):
    """An optimizer may complain when it is made or when it is used, but before it does anything."""
    net = network()
    refuse(net, lambda: fastrna.train(net, GOOD_X, GOOD_Y, optimizer=make()), *words)


def test_a_learning_rate_set_on_the_trainer():
    trainer = fastrna.Trainer(network())
    for value in (-1.0, NAN, INF):
        with pytest.raises(ValueError, match="learning_rate"):
            trainer.learning_rate = value


def test_an_order_that_leads_outside_the_data():
    net = network()
    trainer = fastrna.Trainer(net)
    data = trainer.prepare(GOOD_X, GOOD_Y)
    for order in ([0, 6], [-1], [0.5], [[0, 1]], []):
        refuse(net, lambda order=order: trainer.epoch(data, np.array(order)), "order")


def test_the_data_of_another_network():
    net, other = network(), fastrna.Network([5, 4, 2], seed=0)
    trainer = fastrna.Trainer(net)
    data = fastrna.Trainer(other).prepare(np.zeros((6, 5)), GOOD_Y)
    refuse(net, lambda: trainer.epoch(data), "data", "5 inputs", "3 inputs")
    data = fastrna.Trainer(network(dtype="float64")).prepare(GOOD_X, GOOD_Y)
    refuse(net, lambda: trainer.epoch(data), "data", "float64", "float32")
    refuse(net, lambda: trainer.epoch((GOOD_X, GOOD_Y)), "data", "tuple", "prepare")


TARGETS = {
    ("identity", "auto"): GOOD_Y,
    ("softmax", "auto"): CLASSES,
    ("softmax", "squared_error"): GOOD_Y,
    ("sigmoid", "log_loss"): np.eye(2)[CLASSES],
    ("sign", "auto"): 2 * np.eye(2)[CLASSES] - 1,
    ("step", "auto"): np.eye(2)[CLASSES],
    ("exp", "auto"): GOOD_Y**2,
}


@pytest.mark.parametrize("given", TARGETS, ids=str)
@pytest.mark.parametrize("wanted", TARGETS, ids=str)
def test_the_data_of_another_cost_or_output(given, wanted):
    data = fastrna.Trainer(network(given[0]), loss=given[1]).prepare(GOOD_X, TARGETS[given])
    net = network(wanted[0])
    trainer = fastrna.Trainer(net, loss=wanted[1])
    for call in trainer.epoch, trainer.evaluate, trainer.loss_and_gradient:
        if given == wanted:
            call(data)
        else:
            refuse(net, lambda call=call: call(data), "data", repr(given[0]), repr(wanted[0]))


def test_the_data_of_another_cost_that_takes_the_same_targets():
    data = fastrna.Trainer(network()).prepare(GOOD_X, GOOD_Y)
    assert fastrna.Trainer(network(), loss="absolute_error").evaluate(data) > 0


def test_a_file_is_not_a_network():
    with pytest.raises(TypeError, match="net"):
        fastrna.train("net.npz", GOOD_X, GOOD_Y)


@pytest.mark.parametrize(
    ("gradient", "w0", "steps", "words"),
    [
        (None, [1.0], 3, ["gradient"]),
        (lambda w: w, [NAN], 3, ["w0", "nan"]),
        (lambda w: w, [[1.0]], 3, ["w0"]),
        (lambda w: w, [1.0], -1, ["steps", "-1"]),
        (lambda w: w[:0], [1.0], 3, ["gradient", "(0,)"]),
    ],
)
def test_gradient_descent(gradient, w0, steps, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        fastrna.gradient_descent(gradient, w0, fastrna.SGD(0.1), steps)
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("value", ["0", "-1", "two", "2x", " 2", "1025", "9" * 30])
def test_threads_in_the_environment(value, monkeypatch):
    net = network()
    monkeypatch.setenv("FASTRNA_NUM_THREADS", value)
    refuse(net, lambda: fastrna.train(net, GOOD_X, GOOD_Y), "FASTRNA_NUM_THREADS", repr(value))
    for fine in ("02", ""):  # as if it were not set
        monkeypatch.setenv("FASTRNA_NUM_THREADS", fine)
        fastrna.train(net, GOOD_X, GOOD_Y, epochs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": [2**31, 2**31]}, ["sizes", "at most 1099511627776"]),
        ({"sizes": [10**20, 1]}, ["sizes", "at most"]),
        ({"sizes": [3, 4, 4, 1], "hidden": ["relu", {}]}, ["hidden", "{}"]),
    ],
)
def test_networks_that_cannot_be(options, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        fastrna.Network(**options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("values", [np.zeros(3), "a", [[0.0] * 26], None])
def test_parameters_that_do_not_fit(values):
    net = network()
    refuse(net, lambda: setattr(net, "parameters", values), "parameters")
    net.parameters = 0
    assert not net.parameters.any()


@pytest.mark.parametrize(
    "scaler", ["a", fastrna.Scaler("max"), fastrna.Scaler("max").fit(np.ones((2, 2)))], ids=str
)
def test_scalers_that_do_not_fit(scaler):
    net = network()
    refuse(net, lambda: setattr(net, "scaler", scaler), "scaler")
    assert net.scaler is None


def test_a_scaler_that_is_fitted_anew_to_another_width(tmp_path):
    """Nothing is written that could not be loaded."""
    net = network()
    net.scaler = fastrna.Scaler("max").fit(GOOD_X)
    net.scaler.fit(np.ones((2, 2)))
    refuse(net, lambda: net.save(tmp_path / "net.npz"), "scaler", "2 columns; expected 3")
    refuse(net, lambda: net.predict(GOOD_X), "scaler")
    assert list(tmp_path.iterdir()) == []


def test_the_sizes_and_activations_of_a_network_are_copies():
    net = network()
    net.sizes[-1] = 1
    net.activations.clear()
    assert net.sizes == [3, 4, 2] and len(net.activations) == 2
    assert net.predict(GOOD_X).shape == (6, 2)


@pytest.mark.parametrize("value", [1e-310, 1e-45, 1e45, 1e307])
def test_sample_weights_too_small_or_large_for_their_sums(value):
    options_are_refused(["sample_weight", "from 1e-20 to 1e+20"], sample_weight=np.full(6, value))
    net = network()
    fastrna.train(net, GOOD_X, GOOD_Y, sample_weight=[1.0, 1.0, 1e-300, 0.0, 1.0, 1.0], epochs=1)


def test_targets_beyond_the_range_of_the_network():
    options_are_refused(["y has", *BEYOND], y=spoilt(GOOD_Y, -1e300, 2, 1))
    wide = fastrna.Network([3, 4, 2], dtype="float64", seed=0)
    assert np.isfinite(wide.loss_and_gradient(GOOD_X, np.array(GOOD_Y, float) * 1e100)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 2**64}, ["seed", "18446744073709551615"]),
        ({"checkpoint": 5}, ["checkpoint is 5"]),
        ({"optimizer": "lbfgs", "dropout": 0.5}, ["dropout is 0.5", "LBFGS"]),
        ({"class_weight": "balanced"}, ["class_weight goes with classes", "'identity'"]),
        ({"validation": (GOOD_X,)}, ["validation is tuple of 1"]),
    ],
)
def test_options_found_out_late_before(options, words):
    options_are_refused(words, **options)


def test_a_checkpoint_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint is .*does not exist"):
        fastrna.train(network(), GOOD_X, GOOD_Y, checkpoint=tmp_path / "no" / "file.npz")
    for path in (3, b"net.npz", ""):
        with pytest.raises(TypeError, match=r"path is .*expected the name of a file"):
            network().save(path)


@pytest.mark.parametrize("indptr", [[0, 2, 9, 4], [0, 3, 2, 4], [1, 2, 3, 4], [0, 2, -5, 4]])
def test_a_csr_matrix_whose_rows_lie_elsewhere(indptr):
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.csr_array((np.ones(4), np.array([0, 1, 2, 0]), np.array([0, 1, 2, 4])), shape=(3, 3))
    X.indptr = np.array(indptr)
    net = network()
    refuse(net, lambda: net.predict(X), "X", "indptr")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", -5, "batch_size is -5"),
        ("batch_size", 2.5, r"batch_size is 2\.5"),
        ("n_threads", 0, "n_threads is 0"),
        ("dropout", 1.5, r"dropout is 1\.5"),
        ("l2", -1.0, r"l2 is -1\.0"),
        ("seed", -1, "seed is -1"),
        ("shuffle", "no", "shuffle is 'no'; expected True or False"),
        ("batchsize", 3, "settings has no option 'batchsize'"),
    ],
)
def test_a_setting_that_is_assigned_is_checked(name, value, words):
    trainer = fastrna.Trainer(network())
    before = trainer.state()["options"]
    with pytest.raises((ValueError, TypeError, AttributeError), match=words):
        setattr(trainer.settings, name, value)
    assert trainer.state()["options"] == before


def test_a_csr_matrix_with_parts_missing():
    sparse = pytest.importorskip("scipy.sparse")
    net = network()

    def spoil(name):
        X = sparse.csr_array(GOOD_X)
        setattr(X, name, getattr(X, name)[:5].copy())
        return X

    for name in "indices", "indptr", "data":
        refuse(net, lambda name=name: net.predict(spoil(name)), "X", "valid CSR")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("shift_", 0.0, ["shift_", "()"]),
        ("shift_", np.zeros(2), ["2 columns", "3"]),
        ("scale_", np.ones((1, 3)), ["scale_", "(1, 3)"]),
        ("scale_", np.array([1, NAN, 1]), ["scale_", "nan"]),
        ("scale_", np.array([1, 0, 1]), ["scale_", "0"]),
    ],
)
def test_a_scaler_whose_arrays_are_assigned(name, value, words, tmp_path):
    net = network()
    net.scaler = fastrna.Scaler("zscore").fit(GOOD_X)
    setattr(net.scaler, name, value)
    for call in (
        lambda: net.predict(GOOD_X),
        lambda: net.predict_one(GOOD_X[0]),
        lambda: fastrna.train(net, GOOD_X, GOOD_Y),
        lambda: net.save(tmp_path / "net.npz"),
    ):
        refuse(net, call, *words)


def test_masked_numbers_are_not_taken_for_numbers():
    masked = np.ma.array(GOOD_X, mask=GOOD_X > 1)
    net = network()
    refuse(net, lambda: net.predict(masked), "X has masked numbers")
    refuse(net, lambda: fastrna.train(net, masked, GOOD_Y), "X has masked numbers")
    refuse(net, lambda: fastrna.Scaler("zscore").fit(masked), "X has masked numbers")
    assert net.predict(np.ma.array(GOOD_X)).shape == (6, 2)


@pytest.mark.parametrize("output", ["sigmoid", "sign", "step"])
def test_class_weights_of_classes_that_a_batch_lacks(output):
    """By value, and of all that the output can tell."""
    low = -1 if output == "sign" else 0
    net = fastrna.Network([3, 1], output=output, seed=0)
    trainer = fastrna.Trainer(net, class_weight={low: 2.0, 1.0: 1.0})
    for label in low, 1:
        trainer.step(GOOD_X, np.full(6, float(label)))
    trainer = fastrna.Trainer(net, class_weight={2: 1.0})
    words = ["class_weight names class 2", f"expected classes among {low}, 1"]
    refuse(net, lambda: trainer.step(GOOD_X, np.full(6, 1.0)), *words)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (GOOD_X, spoilt(GOOD_Y, NAN, 4, 1), ["y has nan at row 4, column 1"]),
        (spoilt(GOOD_X, 1e300, 5, 2), GOOD_Y, ["X has 1e+300 at row 5, column 2"]),
        (GOOD_X, None, ["y has dtype object"]),
        (GOOD_X, 1.0, ["y has shape ()"]),
    ],
)
def test_rows_of_a_part_are_named_as_they_came(X, y, words, seed):
    """Where a fraction of the examples is held out, X and y are checked before."""
    net = network()
    refuse(net, lambda: fastrna.train(net, X, y, validation=0.3, seed=seed), *words)


def test_classes_that_change_after_they_were_checked():
    net = network("softmax")
    trainer = fastrna.Trainer(net, batch_size=2)
    y = CLASSES.copy()
    data, cost = trainer.prepare(GOOD_X, y), net.loss_and_gradient(GOOD_X, y)[0]
    y[:] = 10**9
    assert trainer.evaluate(data) == pytest.approx(cost)
    trainer.epoch(data)
    refuse(net, lambda: trainer.prepare(GOOD_X, y), "y has class 1000000000 at row 0")
