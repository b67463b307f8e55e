"""Files: exact, without pickle, whole or not at all, and refused with a sentence when wrong."""

import io
import json
import os
import pickle
import stat
import sys
import zipfile

import numpy as np
import pytest

import fastrna
from fastrna import persistence

FORMATS = ("npz", "safetensors")
HIDDEN = (
    "step",
    "sign",
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    ("leaky_relu", 0.03),
    ("elu", 0.7),
    "softplus",
    "gelu",
    "silu",
    "exp",
)


def path_of(folder, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    return folder / f"file.{suffix}"


def network(dtype="float32", scaled=True):
    net = fastrna.Network(
        [3, 5, 4, 2],
        hidden=["tanh", ("elu", 0.3)],
        output="softmax",
        dtype=dtype,
        seed=1,
    )
    rng = np.random.default_rng(0)
    for b in net.biases:
        b[:] = rng.normal(size=b.shape)
    if scaled:
        net.scaler = fastrna.Scaler("zscore").fit(rng.normal(3.0, 9.0, (20, 3)))
    return net


def assert_same(a, b):
    assert list(a.sizes) == list(b.sizes)
    assert list(a.activations) == list(b.activations)
    assert np.dtype(a.dtype) == np.dtype(b.dtype)
    assert a.parameters.tobytes() == b.parameters.tobytes()
    if a.scaler is None:
        assert b.scaler is None
    else:
        assert a.scaler.kind == b.scaler.kind
        assert a.scaler.shift_.tobytes() == b.scaler.shift_.tobytes()
        assert a.scaler.scale_.tobytes() == b.scaler.scale_.tobytes()


# --------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaled", [False, True])
def test_network_comes_back_bit_for_bit(tmp_path, suffix, dtype, scaled):
    path = path_of(tmp_path, suffix)
    net = network(dtype, scaled)
    net.save(path)
    loaded = fastrna.Network.load(str(path))
    assert_same(net, loaded)
    X = np.random.default_rng(1).normal(size=(7, 3)).astype(dtype)
    np.testing.assert_array_equal(net.predict(X), loaded.predict(X))
    # The parameters of the loaded network are its own, and still one flat buffer.
    loaded.parameters[:] = 0.0
    assert not loaded.weights[0].any()
    assert net.parameters.any()


def test_weights_are_readable_with_numpy_alone(tmp_path):
    net = network()
    net.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as archive:
        for layer in (1, 2, 3):
            np.testing.assert_array_equal(archive[f"W{layer}"], net.weights[layer - 1])
            np.testing.assert_array_equal(archive[f"b{layer}"], net.biases[layer - 1])
        np.testing.assert_array_equal(archive["scaler.shift"], net.scaler.shift_)
        header = json.loads(archive["fastrna"].item())
    assert (header["format"], header["version"], header["kind"]) == ("fastrna", 1, "network")


def test_safetensors_is_readable_with_safetensors_alone(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    net = network()
    net.save(tmp_path / "net.safetensors")
    tensors = safetensors.load_file(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(tensors["W2"], net.weights[1])


def test_the_name_is_kept_and_the_format_is_recognised_by_content(tmp_path):
    pytest.importorskip("safetensors")
    net = network()
    net.save(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert_same(net, fastrna.Network.load(tmp_path / "model"))
    net.save(tmp_path / "a.safetensors")
    os.rename(tmp_path / "a.safetensors", tmp_path / "b.bin")
    assert_same(net, fastrna.Network.load(tmp_path / "b.bin"))


@pytest.mark.parametrize("activation", [*HIDDEN, "softmax"])
def test_every_activation_is_kept(tmp_path, activation):
    net = fastrna.Network([2, 3], output=activation, seed=0)
    net.save(tmp_path / "net")
    assert_same(net, fastrna.Network.load(tmp_path / "net"))


# --------------------------------------------------------------------------------------- trainers


def trainer_and_data(optimizer, **options):
    X, y = fastrna.datasets.load_digits()
    X, y = X[:203] / 16, y[:203]
    net = fastrna.Network([64, 12, 10], hidden="relu", output="softmax", seed=2)
    trainer = fastrna.Trainer(net, optimizer=optimizer, batch_size=16, seed=5, **options)
    return trainer, X, y


OPTIMIZERS = {
    "sgd": lambda: fastrna.SGD(learning_rate=0.05),
    "momentum": lambda: fastrna.SGD(learning_rate=0.05, momentum=0.9),
    "nesterov": lambda: fastrna.SGD(learning_rate=0.05, momentum=0.9, nesterov=True),
    "adam": lambda: fastrna.Adam(learning_rate=0.003),
    "inverse": lambda: fastrna.SGD(0.1, schedule=fastrna.InverseScaling(power=0.3)),
    "step": lambda: fastrna.SGD(0.1, schedule=fastrna.StepDecay(every=2, factor=0.5)),
    "cosine": lambda: fastrna.Adam(0.01, schedule=fastrna.Cosine(epochs=6)),
    "adaptive": lambda: fastrna.SGD(0.1, schedule=fastrna.Adaptive(patience=1, tolerance=0.5)),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_is_exact(tmp_path, optimizer, suffix):
    path = path_of(tmp_path, suffix)
    options = {"l2": 1e-4, "l1": 1e-5, "dropout": 0.2}
    whole, X, y = trainer_and_data(OPTIMIZERS[optimizer](), **options)
    whole.run(X, y, epochs=3)
    whole.save(path)
    expected = whole.run(X, y, epochs=3)
    resumed = fastrna.Trainer.load(path)
    history = resumed.run(X, y, epochs=3)
    np.testing.assert_array_equal(history.cost, expected.cost)
    np.testing.assert_array_equal(history.learning_rate, expected.learning_rate)
    assert resumed.network.parameters.tobytes() == whole.network.parameters.tobytes()
    assert resumed.n_steps == whole.n_steps


def test_resume_after_single_steps(tmp_path):
    trainer, X, y = trainer_and_data(fastrna.Adam())
    for start in range(0, 96, 32):
        trainer.step(X[start : start + 32], y[start : start + 32])
    trainer.save(tmp_path / "trainer")
    resumed = fastrna.Trainer.load(tmp_path / "trainer")
    assert resumed.step(X[:32], y[:32]) == trainer.step(X[:32], y[:32])
    assert resumed.network.parameters.tobytes() == trainer.network.parameters.tobytes()


def test_a_trainers_file_also_gives_the_network(tmp_path):
    trainer, X, y = trainer_and_data("sgd")
    trainer.network.scaler = fastrna.Scaler("max").fit(X + 1)
    trainer.run(X, y, epochs=1)
    trainer.save(tmp_path / "trainer")
    assert_same(trainer.network, fastrna.Network.load(tmp_path / "trainer"))


def test_a_networks_file_is_no_trainer(tmp_path):
    network().save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"net holds a network; expected a trainer\."):
        fastrna.Trainer.load(tmp_path / "net")


# ---------------------------------------------------------------------------- the tree of a file


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_plain_tree_comes_back(tmp_path, suffix):
    path = path_of(tmp_path, suffix)
    tree = {
        "none": None,
        "flags": [True, False],
        "big": 2**127 + 1,
        "float": 0.1,
        "infinity": [np.inf, -np.inf],
        "text": "coração 重み",
        "pair": ("elu", (1, [2.5])),
        "marks": {"array": "a", "dict": {}, "tuple": []},
        "numpy": np.float32(0.1),
        "file": np.arange(3),
        "allow_pickle": np.arange(2),
        "fastrna": np.array(7, dtype=np.uint64),
        "a": {"b": np.ones((2, 3), dtype=bool)},
        "a.b": np.empty((0, 4), dtype=np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }
    persistence._write(path, "network", tree)
    kind, back = persistence._read(path, ("network",))
    assert kind == "network"
    assert list(back) == list(tree)
    for name, value in tree.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[name], value)
            assert back[name].dtype == value.dtype
            assert back[name].shape == value.shape
        elif name == "a":
            np.testing.assert_array_equal(back["a"]["b"], value["b"])
        else:
            assert back[name] == value
            assert type(back[name]) is type(value) or name == "numpy"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"f": len}, "f is a builtin_function_or_method, which cannot be saved"),
        ({"a": {"f": {1, 2}}}, r"a\.f is a set"),
        ({"o": np.array([None])}, "o is an array of object"),
        ({"c": np.array([1j])}, "c is an array of complex128"),
        ({"d": {1: 2}}, "d has a key that is not a string"),
    ],
)
def test_what_is_not_plain_is_refused(tmp_path, tree, message):
    with pytest.raises(TypeError, match=message):
        persistence._write(tmp_path / "file", "network", tree)
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- bad and odd files


def write_npz(path, **members):
    with open(path, "wb") as file:
        np.savez(file, **members)


def header(**changes):
    content = {"format": "fastrna", "version": 1, "kind": "network", "content": {"dict": {}}}
    return np.array(json.dumps({**content, **changes}))


class Bomb:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (sys.exit, ("unpickled",))


def test_nothing_is_unpickled(tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb()))
    objects = np.array([Bomb()], dtype=object)
    with open(tmp_path / "npz", "wb") as file:
        np.savez(file, fastrna=header(content={"dict": {"x": {"array": "W1"}}}), W1=objects)
    for name in ("pickle", "npz"):
        with pytest.raises(ValueError, match="not a file of fastrna, or is damaged"):
            fastrna.Network.load(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"", b"P", b"PK\x03\x04 not a zip", b"hello world, this is text", b"\x93NUMPY\x01\x00v\x00{"],
    ids=["empty", "short", "zip-like", "text", "npy"],
)
def test_foreign_bytes(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file is not a file of fastrna, or is damaged"):
        fastrna.Network.load(tmp_path / "file")


def test_safetensors_like_bytes(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "file").write_bytes(b"\xff\xff\xff\x00\x00\x00\x00\x00{ nonsense")
    with pytest.raises(ValueError, match="file is not a file of fastrna, or is damaged"):
        fastrna.Network.load(tmp_path / "file")


def test_foreign_archives(tmp_path):
    write_npz(tmp_path / "npz", x=np.ones(3))
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a.txt", "a")
    for name in ("npz", "zip"):
        with pytest.raises(ValueError, match=r"no member 'fastrna'"):
            fastrna.Network.load(tmp_path / name)
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"x": np.ones(3)}, tmp_path / "st")
    with pytest.raises(ValueError, match=r"no metadata 'fastrna'"):
        fastrna.Network.load(tmp_path / "st")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_truncation_is_refused(tmp_path, suffix):
    path = path_of(tmp_path, suffix)
    network().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 53):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\..*(damaged|inconsistent|lacks)"):
            fastrna.Network.load(path)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    """A zip has a checksum for each member: no weight can change unseen."""
    net = network()
    path = tmp_path / "net"
    net.save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 17):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            loaded = fastrna.Network.load(path)
        except ValueError:
            continue
        assert_same(net, loaded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2, "written_by": "9.0"}, r"version 2.*9\.0.*expected at most 1: upgrade"),
        ({"format": "other"}, "another format"),
        ({"kind": "cake"}, "holds a cake; expected a network"),
        ({"content": {"dict": {}}}, "lacks 'sizes'"),
        ({"content": {"array": "nowhere"}}, "lacks 'nowhere'"),
        ({"content": {"what": 1}}, "unknown mark 'what'"),
        ({"content": {}}, "is inconsistent"),
        ({"content": [1]}, "is inconsistent"),
        ({"version": "new"}, "not a file of fastrna, or is damaged"),
        ({"version": float("inf")}, "not a file of fastrna, or is damaged"),
    ],
)
def test_wrong_headers(tmp_path, changes, message):
    write_npz(tmp_path / "file", fastrna=header(**changes))
    with pytest.raises(ValueError, match=message):
        fastrna.Network.load(tmp_path / "file")


def resave(path, change):
    """Write the file of a network again, its members and decoded content altered."""
    with np.load(path) as archive:
        members = {name: archive[name] for name in archive.files}
    content = json.loads(members["fastrna"].item())
    change(members, content["content"]["dict"])
    members["fastrna"] = np.array(json.dumps(content))
    write_npz(path, **members)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, c: m.update(W1=m["W1"].T.copy()), r"W1 is float32 of shape \(5, 3\), not"),
        (lambda m, c: m.update(b2=m["b2"].astype("f8")), "b2 is float64 of shape"),
        (lambda m, c: c.update(sizes=[3, 10**9, 10**9, 2]), "W1 is float32 of shape"),
        (lambda m, c: c.update(sizes=[3]), "inconsistent"),
        (lambda m, c: c.update(sizes="many"), "inconsistent"),
        (lambda m, c: c.update(activations=c["activations"][:2]), "inconsistent"),
        (lambda m, c: c["activations"][0].update(tuple=["tan", None]), "inconsistent.*'tan'"),
        (lambda m, c: c.update(dtype="float16"), "not float16 of shape"),
        (lambda m, c: c.pop("b3"), "lacks 'b3'"),
        (lambda m, c: c["scaler"]["dict"].update(kind="half"), "kind is 'half'"),
        (lambda m, c: m.update({"scaler.scale": np.zeros(3)}), "scale must not be zero"),
        (
            lambda m, c: m.update({"scaler.scale": np.ones(2), "scaler.shift": np.ones(2)}),
            "the scaler has 2 columns, not 3",
        ),
    ],
)
def test_inconsistent_networks(tmp_path, change, message):
    path = tmp_path / "net"
    network().save(path)
    resave(path, change)
    with pytest.raises(ValueError, match=message):
        fastrna.Network.load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrna.Network.load(tmp_path / "none.npz")
    with pytest.raises(OSError):
        fastrna.Network.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        network().save(tmp_path / "none" / "net.npz")


# --------------------------------------------------------------------------------- atomic writing


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_keeps_the_old_file(tmp_path, suffix, monkeypatch):
    path = path_of(tmp_path, suffix)
    net = network()
    net.save(path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    net.parameters[:] = 1.0
    with pytest.raises(OSError, match="disk full"):
        net.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        network().save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_permissions_and_links(tmp_path):
    previous = os.umask(0o027)
    try:
        network().save(tmp_path / "new")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    (tmp_path / "link").symlink_to("new")
    net = network("float64")
    net.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
    assert_same(net, fastrna.Network.load(tmp_path / "new"))
    with pytest.raises(OSError, match="not a regular file"):
        network().save(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_missing_extras_say_what_to_install(tmp_path, monkeypatch):
    network().save(tmp_path / "net")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'fastrna\[safetensors\]'"):
        network().save(tmp_path / "net.safetensors")
    (tmp_path / "st").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ImportError, match=r"pip install 'fastrna\[safetensors\]'"):
        fastrna.Network.load(tmp_path / "st")
    with pytest.raises(ImportError, match=r"pip install 'fastrna\[onnx\]'"):
        network().to_onnx(tmp_path / "net.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "st"]


# ------------------------------------------------------------------------------------------- ONNX


def run_onnx(path, X):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.name == "x"
    (result,) = session.run(["y"], {"x": X})
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", HIDDEN)
def test_onnx_of_every_hidden_activation(tmp_path, activation, dtype):
    pytest.importorskip("onnx")
    net = fastrna.Network([3, 16, 2], hidden=activation, dtype=dtype, seed=3)
    net.biases[0][:] = np.linspace(-2, 2, 16)
    path = tmp_path / "net.onnx"
    net.to_onnx(path)
    X = np.random.default_rng(4).normal(0, 2, (50, 3)).astype(dtype)
    result = run_onnx(path, X)
    assert result.dtype == np.dtype(dtype)
    precise = dtype == "float64" and activation != "gelu"
    np.testing.assert_allclose(
        result, net.predict(X), rtol=1e-12 if precise else 2e-5, atol=1e-12 if precise else 2e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "step", "sign", "exp", "softplus"])
@pytest.mark.parametrize("kind", ["minmax", "max", "mean", "zscore"])
def test_onnx_of_outputs_and_scalers(tmp_path, output, kind, dtype):
    pytest.importorskip("onnx")
    net = fastrna.Network([3, 8, 4], hidden="tanh", output=output, dtype=dtype, seed=5)
    X = np.random.default_rng(6).normal(size=(40, 3)) * [1.0, 30.0, 0.01] + [5.0, 1e4, 7.0]
    X = X.astype(dtype)
    net.scaler = fastrna.Scaler(kind).fit(X)
    path = tmp_path / "net.onnx"
    net.to_onnx(path)
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(run_onnx(path, X), net.predict(X), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        run_onnx(path, X[:1]), net.predict(X[:1]), rtol=tolerance, atol=tolerance
    )


def test_onnx_keeps_the_digits_of_the_shift(tmp_path):
    """With the shift rounded to float32, a mean of 1e7 + 0.4 would be off by 0.4 deviations."""
    pytest.importorskip("onnx")
    net = fastrna.Network([1, 1], seed=0)
    net.weights[0][:] = 1.0
    X = np.arange(10_000_000, 10_000_016, dtype=np.float32)[:, None]
    net.scaler = fastrna.Scaler.from_state({"kind": "zscore", "shift": [1e7 + 7.4], "scale": [1.0]})
    net.to_onnx(tmp_path / "net.onnx")
    expected = X.astype(np.float64) - (1e7 + 7.4)
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", X), expected, rtol=1e-6, atol=1e-6)


def test_onnx_model_is_checked_and_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    network().to_onnx(tmp_path / "net.onnx")
    model = onnx.load(io.BytesIO((tmp_path / "net.onnx").read_bytes()))
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.producer_version) == ("fastrna", fastrna.__version__)
    assert model.opset_import[0].version == 13
    (given,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["m", 3]
