"""Saving and loading: networks, trainers, ONNX.

A file is a tree of plain values (numbers, strings, lists, dictionaries) and arrays. The arrays
are members of their own, named by their path in the tree ("W1", "b1", "scaler.shift"), so that
``numpy.load`` alone can read the weights; the rest is one JSON text, the member "fastrna". The
container is NumPy's .npz, or .safetensors where the path ends so. Neither holds code, and nothing
is ever unpickled: loading a file from a stranger can fail, not run something.

Python writes the shortest decimal that gives a float back exactly, and integers of any length
(the 128-bit state of a random generator), so JSON loses nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastrna import validation as check
from fastrna.extras import require
from fastrna.scaling import Scaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrna.network import Network
    from fastrna.training import Trainer

    Path = str | os.PathLike[str]
    Arrays = dict[str, NDArray[Any]]

__all__ = ["load_network", "load_trainer", "network_to_onnx", "save_network", "save_trainer"]

# Raised when a reader of this version could no longer understand the file.
_VERSION = 1
_HEADER = "fastrna"

# The oldest operator set with every operator used here, and the file version that goes with it:
# a runtime some years old reads the model.
_ONNX_OPSET = 13
_ONNX_IR_VERSION = 8


def save_network(net: Network, path: Path) -> None:
    """Write a network, with its scaler, to a file: `Network.save`."""
    _write(path, "network", _network_tree(net))


def load_network(path: Path) -> Network:
    """Read a network, out of a trainer's file too: `Network.load`."""
    kind, tree = _read(path, ("network", "trainer"))
    return _rebuild(path, _network_from_tree, tree if kind == "network" else tree.get("network"))


def save_trainer(trainer: Trainer, path: Path) -> None:
    """Write a trainer and its network, so that training resumes where it was: `Trainer.save`."""
    _write(
        path,
        "trainer",
        {"network": _network_tree(trainer.network), "state": trainer.state()},
    )


def load_trainer(path: Path) -> Trainer:
    """Read a trainer, with a network of its own: `Trainer.load`."""
    _, tree = _read(path, ("trainer",))
    return _rebuild(path, _trainer_from_tree, tree)


def _network_tree(net: Network) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "sizes": [int(size) for size in net.sizes],
        "activations": [tuple(activation) for activation in net.activations],
        "dtype": np.dtype(net.dtype).name,
        "scaler": None if net.scaler is None else net.scaler.state(),
    }
    for layer, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        tree[f"W{layer}"], tree[f"b{layer}"] = W, b
    return tree


def _network_from_tree(tree: dict[str, Any]) -> Network:
    from fastrna.network import Network

    sizes, activations, dtype = tree["sizes"], tree["activations"], np.dtype(tree["dtype"])
    # Before the network: a wrong size would otherwise ask for memory it has no need of.
    for layer, shape in enumerate(itertools.pairwise(sizes), start=1):
        for name, expected in ((f"W{layer}", shape), (f"b{layer}", shape[1:])):
            array = tree[name]
            if array.shape != expected or array.dtype != dtype:
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}, "
                    f"not {dtype} of shape {expected}."
                )
    net = Network(sizes, hidden=activations[:-1], output=activations[-1], dtype=dtype.name)
    for layer, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        W[...], b[...] = tree[f"W{layer}"], tree[f"b{layer}"]
    if tree["scaler"] is not None:
        scaler = Scaler.from_state(tree["scaler"])
        if scaler.scale_.size != sizes[0]:
            raise ValueError(f"the scaler has {scaler.scale_.size} columns, not {sizes[0]}.")
        net.scaler = scaler
    return net


def _trainer_from_tree(tree: dict[str, Any]) -> Trainer:
    from fastrna.training import Trainer

    trainer = Trainer(_network_from_tree(tree["network"]))
    trainer.set_state(tree["state"])
    return trainer


def _rebuild(path: Path, build: Callable[[Any], Any], tree: Any) -> Any:
    """Call `build`, and name the file when what it finds there makes no sense."""
    try:
        return build(tree)
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is inconsistent: {error}"
        raise ValueError(f"{os.fspath(path)} {what}") from error


# ---------------------------------------------------------------------------- the tree of a file


def _encode(value: Any, name: str, arrays: Arrays) -> Any:
    """Turn a tree into JSON, moving its arrays into `arrays`.

    A dictionary becomes {"dict": {...}}, a tuple {"tuple": [...]} and an array {"array": name},
    so that no content can be taken for a mark.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{name} is an array of {value.dtype}, which is not saved.")
        # The header's own name, and the parameters of numpy.savez, are not free.
        while name in arrays or name in (_HEADER, "file", "allow_pickle"):
            name += "_"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name} has a key that is not a string, which cannot be saved.")
        inside = f"{name}." if name else ""
        return {"dict": {key: _encode(v, f"{inside}{key}", arrays) for key, v in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [_encode(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"{name} is a {type(value).__name__}, which cannot be saved.")


def _decode(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if isinstance(value, dict):
        ((mark, content),) = value.items()
        if mark == "array":
            return arrays[content]
        if mark == "tuple":
            return tuple(_decode(v, arrays) for v in content)
        if mark == "dict":
            return {key: _decode(v, arrays) for key, v in content.items()}
        raise ValueError(f"unknown mark {mark!r}")
    return value


def _write(path: Path, kind: str, tree: dict[str, Any]) -> None:
    from fastrna import __version__

    path = check.path(path)
    arrays: Arrays = {}
    header = {
        "format": _HEADER,
        "version": _VERSION,
        "kind": kind,
        "written_by": __version__,
        "content": _encode(tree, "", arrays),
    }
    text = json.dumps(header)
    if path.endswith(".safetensors"):
        content = _safetensors().save(
            {name: np.asarray(array, order="C") for name, array in arrays.items()},
            metadata={_HEADER: text},
        )
        _replace(path, lambda file: file.write(content))
    else:
        # Uncompressed: weights are noise to a compressor, and checkpoints should cost little.
        _replace(path, lambda file: np.savez(file, **{_HEADER: np.array(text)}, **arrays))


def _read(path: Path, kinds: tuple[str, ...]) -> tuple[str, Any]:
    path = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(9)
        file.seek(0)
        try:
            if start[:2] == b"PK":
                text, arrays = _read_npz(file)
            elif start[8:] == b"{":
                text, arrays = _read_safetensors(path)
            else:
                raise ValueError("neither .npz nor .safetensors")
            header = json.loads(text)
            if header["format"] != _HEADER:
                raise ValueError("another format")
            version, kind, content = int(header["version"]), header["kind"], header["content"]
        except ImportError:
            raise
        # A damaged archive surfaces as any of these, depending on where the damage is.
        except (
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            NotImplementedError,
            OverflowError,
            RuntimeError,
            OSError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ValueError(
                f"{path} is not a file of fastrna, or is damaged ({error or type(error).__name__})."
            ) from error
    if version > _VERSION:
        raise ValueError(
            f"{path} has version {version} of the format, written by fastrna "
            f"{header.get('written_by')}; expected at most {_VERSION}: upgrade fastrna."
        )
    if kind not in kinds:
        raise ValueError(f"{path} holds a {kind}; expected a {kinds[0]}.")
    return kind, _rebuild(path, lambda encoded: _decode(encoded, arrays), content)


def _read_npz(file: BinaryIO) -> tuple[str, Arrays]:
    with np.load(file, allow_pickle=False) as archive:
        if _HEADER not in archive.files:
            raise ValueError(f"no member {_HEADER!r}")
        return archive[_HEADER].item(), {n: archive[n] for n in archive.files if n != _HEADER}


def _read_safetensors(path: str) -> tuple[str, Arrays]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as archive:
            metadata = archive.metadata() or {}
            if _HEADER not in metadata:
                raise ValueError(f"no metadata {_HEADER!r}")
            return metadata[_HEADER], {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _safetensors() -> Any:
    return require("safetensors.numpy", "safetensors", "A .safetensors file needs safetensors")


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside `path`, then rename it: a crash leaves the old file or the new one.

    Through a symbolic link the file it points to is replaced; the permissions of a file that was
    there are kept. A device or a pipe cannot be renamed over, and is refused.
    """
    path = os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"{path} exists and is not a regular file.")
    # Not tempfile: it would ignore the umask and leave a file that nobody else can read.
    temporary = f".fastrna.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    temporary = os.path.join(os.path.dirname(path), temporary)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            # The rename may reach the disk before the content does.
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


# ------------------------------------------------------------------------------------------ ONNX


def network_to_onnx(net: Network, path: Path) -> None:
    """Write a network, with its scaler, as an ONNX model: `Network.to_onnx`."""
    from fastrna import __version__

    path = check.path(path)
    onnx = require("onnx", "onnx", "An ONNX model needs onnx")
    helper = onnx.helper
    graph = _Graph(onnx, np.dtype(net.dtype))
    name = "x"
    if net.scaler is not None:
        name = graph.scale(name, net.scaler)
    for layer, ((activation, parameter), W, b) in enumerate(
        zip(net.activations, net.weights, net.biases, strict=True), start=1
    ):
        weights = graph.constant(W, f"W{layer}"), graph.constant(b, f"b{layer}")
        name = graph.activate(graph.node("Gemm", name, *weights), activation, parameter)
    graph.nodes.append(helper.make_node("Identity", [name], ["y"]))
    element = helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fastrna",
            [helper.make_tensor_value_info("x", element, ["m", int(net.sizes[0])])],
            [helper.make_tensor_value_info("y", element, ["m", int(net.sizes[-1])])],
            initializer=graph.initializers,
        ),
        producer_name="fastrna",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", _ONNX_OPSET)],
        ir_version=_ONNX_IR_VERSION,
    )
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    _replace(path, lambda file: file.write(content))


class _Graph:
    """The nodes of an ONNX model as they are made; values are passed by name."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any]) -> None:
        self.onnx = onnx
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, value: Any, name: str | None = None) -> str:
        name = name or f"c{len(self.initializers)}"
        array = np.ascontiguousarray(value, dtype=self.dtype).reshape(np.shape(value))
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def cast(self, x: str, dtype: Any) -> str:
        element = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", x, to=element)

    def scale(self, x: str, scaler: Scaler) -> str:
        """(x - shift) * scale, with a shift of more digits than float32 has.

        The difference from the rounded shift is exact where x is near it, so subtracting what
        was rounded off as a second term gives the float64 result.
        """
        shift = scaler.shift_.astype(self.dtype)
        rest = (scaler.shift_ - shift).astype(self.dtype)
        if shift.any():
            x = self.node("Sub", x, self.constant(shift, "scaler.shift"))
        if rest.any():
            x = self.node("Sub", x, self.constant(rest, "scaler.shift_rest"))
        return self.node("Mul", x, self.constant(scaler.scale_, "scaler.scale"))

    def activate(self, z: str, activation: str, parameter: float | None) -> str:
        """g(z). What ONNX Runtime has in float32 only is put together from simpler operators."""
        single = self.dtype == np.float32
        if activation == "identity":
            return z
        if activation in ("sigmoid", "tanh", "relu", "exp"):
            return self.node(activation.capitalize(), z)
        if activation == "softmax":
            return self.node("Softmax", z, axis=-1)
        if activation == "step":
            return self.cast(self.node("GreaterOrEqual", z, self.constant(0.0)), self.dtype)
        if activation == "sign":
            positive = self.node("GreaterOrEqual", z, self.constant(0.0))
            return self.node("Where", positive, self.constant(1.0), self.constant(-1.0))
        if activation == "silu":
            return self.node("Mul", z, self.node("Sigmoid", z))
        if activation == "gelu":
            x = self.node("Mul", z, self.constant(0.5**0.5))
            erf = self.node("Erf", x if single else self.cast(x, np.float32))
            if not single:
                erf = self.cast(erf, self.dtype)
            gate = self.node("Add", erf, self.constant(1.0))
            return self.node("Mul", self.node("Mul", z, self.constant(0.5)), gate)
        if activation == "softplus" and single:
            return self.node("Softplus", z)
        if activation in ("leaky_relu", "elu") and single:
            operator = {"leaky_relu": "LeakyRelu", "elu": "Elu"}[activation]
            return self.node(operator, z, alpha=float(parameter))
        above = self.node("Max", z, self.constant(0.0))
        if activation == "softplus":
            decay = self.node("Exp", self.node("Neg", self.node("Abs", z)))
            log = self.node("Log", self.node("Add", decay, self.constant(1.0)))
            return self.node("Add", above, log)
        below = self.node("Min", z, self.constant(0.0))
        if activation == "elu":
            below = self.node("Sub", self.node("Exp", below), self.constant(1.0))
        elif activation != "leaky_relu":
            raise ValueError(f"The activation {activation!r} has no translation to ONNX.")
        return self.node("Add", above, self.node("Mul", below, self.constant(parameter)))
