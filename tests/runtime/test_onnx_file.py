"""Networks are checked before a library takes memory for them or opens other files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from runtime.bundle import bundled, open_bundle
from runtime.onnx_file import check_network
from zsd_core.errors import BundleError


def refused(tmp_path, model, message, files=None):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=message):
        check_network(tmp_path, "x.onnx", path, {"x.onnx": {"bytes": len(data)}, **(files or {})})


@pytest.mark.parametrize("name", ["trunk.onnx", "head.onnx", "detector.onnx", "text_encoder.onnx"])
def test_networks_that_ship_pass(name):
    assert open_bundle(bundled("open")).file(name).is_file()


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([2**62, 3], "has 72 bytes and needs"),
        ([-1, 6, 1, 1], "size below 0"),
        ([6, 4, 1, 1], "has 72 bytes and needs 96"),
    ],
)
def test_a_declared_shape_must_be_that_of_the_bytes(tmp_path, dims, message):
    model = tiny.trunk_model()
    weight = next(w for w in model.graph.initializer if w.name == "w_features")
    assert len(weight.raw_data) == 72
    weight.ClearField("dims")
    weight.dims.extend(dims)
    refused(tmp_path, model, message)


def test_typed_values_must_be_as_many_as_the_shape_says(tmp_path):
    model = tiny.trunk_model()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([10**9, 10**9])
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0])
    refused(tmp_path, model, "a tensor of shape")


def outside(place, **entries):
    model = tiny.trunk_model()
    weight = next(w for w in model.graph.initializer if w.name == "w_features")  # 72 bytes
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return model


@pytest.mark.parametrize("place", ["/etc/passwd", "../a", "", "other.bin", "/weights.bin"])
def test_weights_outside_lie_in_the_bundle(tmp_path, place):
    refused(tmp_path, outside(place), "no file of this bundle", {"weights.bin": {"bytes": 72}})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "which has 71, where the shape needs 72"),
        ({"offset": 2**40}, "72 bytes of weights at 1099511627776"),
        ({"offset": -8}, "at -8"),
        ({"length": 8}, "8 bytes of weights"),
        ({"length": 2**62}, "which has 71"),
        ({"offset": "x"}, "no whole offset"),
    ],
)
def test_weights_outside_are_as_long_as_they_say(tmp_path, entries, message):
    refused(tmp_path, outside("weights.bin", **entries), message, {"weights.bin": {"bytes": 71}})


def test_a_weight_that_is_no_number_is_refused_inside_and_outside(tmp_path):
    model = tiny.trunk_model()
    values = np.array(numpy_helper.to_array(model.graph.initializer[0]))
    values.flat[-1] = np.nan
    model.graph.initializer[0].raw_data = values.tobytes()
    refused(tmp_path, model, "is no number")
    (tmp_path / "weights.bin").write_bytes(np.full(18, np.nan, np.float32).tobytes())
    refused(tmp_path, outside("weights.bin"), "is no number", {"weights.bin": {"bytes": 72}})


def test_tensors_are_found_in_branches_and_functions(tmp_path):
    bad = numpy_helper.from_array(np.array([np.nan], np.float32), "bad")
    good = numpy_helper.from_array(np.array([1], np.float32), "good")
    for place in ("attribute", "branch", "function", "sparse"):
        model = tiny.trunk_model()
        if place == "attribute":
            node = onnx.helper.make_node("Constant", [], ["c"], value=bad)
            model.graph.node.append(node)
        elif place == "branch":
            branch = onnx.helper.make_graph([], "b", [], [], [bad])
            node = onnx.helper.make_node("If", ["i"], ["o"], then_branch=branch, else_branch=branch)
            model.graph.node.append(node)
        elif place == "function":
            node = onnx.helper.make_node("Constant", [], ["c"], value=bad)
            model.functions.append(onnx.FunctionProto(name="f", node=[node]))
        else:
            sparse = onnx.SparseTensorProto(values=bad, indices=good, dims=[1])
            model.graph.sparse_initializer.append(sparse)
        refused(tmp_path, model, "is no number")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\x3a", "ends within a number"),
        (b"\x3a\x7f", "longer than the file"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "ends within a number"),
    ],
)
def test_what_breaks_the_wire_format_is_refused(tmp_path, data, message):
    refused(tmp_path, data, message)


def test_endless_nesting_is_refused(tmp_path):
    message = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph ...
        message = b"\x32" + _length(message) + message
        message = b"\x2a" + _length(message) + message
        message = b"\x0a" + _length(message) + message
    refused(tmp_path, b"\x3a" + _length(message) + message, "nested too deeply")


def _length(message: bytes) -> bytes:
    size, parts = len(message), []
    while size > 127:
        parts.append(size & 127 | 128)
        size >>= 7
    return bytes([*parts, size])
