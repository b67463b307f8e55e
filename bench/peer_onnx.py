"""ONNX Runtime as a peer of peers.py: predictions from a graph of Gemm and activation nodes."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from cases import Case
from onnx import TensorProto, helper, numpy_helper
from workers import Unsupported, Way, statement

NAMES = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "elu": "Elu", "softplus": "Softplus"}


def versions() -> dict:
    """Version of what is timed here."""
    return {"onnxruntime": onnxruntime.__version__}


def _model(case: Case) -> bytes:
    """Write the case's network as a serialized graph from "x" to "y"."""
    if case.hidden not in NAMES:
        raise Unsupported(f"no {case.hidden}")
    nodes, constants, value = [], [], "x"
    last = len(case.weights) - 1
    for level, (W, b) in enumerate(case.weights):
        constants += [
            numpy_helper.from_array(W, f"W{level}"),
            numpy_helper.from_array(b, f"b{level}"),
        ]
        out = "y" if level == last and case.output == "identity" else f"z{level}"
        nodes.append(helper.make_node("Gemm", [value, f"W{level}", f"b{level}"], [out]))
        if level < last:
            nodes.append(helper.make_node(NAMES[case.hidden], [out], [f"a{level}"]))
            value = f"a{level}"
        elif case.output == "softmax":
            nodes.append(helper.make_node("Softmax", [out], ["y"], axis=1))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [None, case.sizes[0]])],
        [helper.make_tensor_value_info("y", kind, [None, case.sizes[-1]])],
        constants,
    )
    assert kind in (TensorProto.FLOAT, TensorProto.DOUBLE)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def predict(case: Case) -> list[Way]:
    """`run` on a dictionary, and `run_with_iobinding` on arrays bound once; 1 thread and all."""
    X = case.data[0]
    model = _model(case)
    ways = []
    for n_threads in sorted({1, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))}):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        run = statement("f(None, inputs)", f=session.run, inputs={"x": X})
        ways.append(Way(f"run, {n_threads} threads", run))
        out = np.empty((case.m, case.sizes[-1]), case.dtype)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(X))
        binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.__array_interface__["data"][0])
        run = statement("f(b)", f=session.run_with_iobinding, b=binding, keep=(out, X))
        ways.append(Way(f"io binding, {n_threads} threads", run))
    return ways


predict_one = predict
