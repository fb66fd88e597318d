"""Networks are checked before a library takes memory for them or opens other files."""

from __future__ import annotations

import time

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
        check(tmp_path, path, files)


def check(tmp_path, path, files=None):
    files = {"x.onnx": {"bytes": path.stat().st_size}, **(files or {})}
    check_network(tmp_path, "x.onnx", path, files, tmp_path.joinpath)


@pytest.mark.parametrize("name", ["trunk.onnx", "head.onnx", "detector.onnx", "text_encoder.onnx"])
def test_networks_that_ship_pass(name):
    assert open_bundle(bundled("open")).file(name).is_file()


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([2**62, 3], "has more elements than can be counted"),
        ([2**62, 1], "has 72 bytes and needs"),
        ([1] * 33, "more than 32 axes"),
        ([2**62] * 300, "more than 32 axes"),
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
        ({"offset": -8}, "no whole offset"),
        ({"length": 8}, "8 bytes of weights"),
        ({"length": 2**62}, "which has 71"),
        ({"offset": "x"}, "no whole offset"),
        ({"offset": "1_0"}, "no whole offset"),  # to OpenVINO 1, to Python 10
        ({"offset": "٣"}, "no whole offset"),
        ({"offset": "9" * 5000}, "no whole offset"),
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
    return _varint(len(message))


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _length(content) + content


NAN = numpy_helper.from_array(np.array([np.nan], np.float32), "w")
NAN_OUTSIDE = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
NAN_OUTSIDE.external_data.add(key="location", value="/elsewhere")


@pytest.mark.parametrize(
    ("tensor", "addition", "message"),
    [
        (NAN, _field(2, b""), "field 2 of a tensor has the wire type 2"),  # its type
        (NAN, b"\x15" + bytes(4), "field 2 of a tensor has the wire type 5"),
        (NAN, b"\x0d" + bytes(4), "field 1 of a tensor has the wire type 5"),  # its shape
        (NAN, b"\x48\x00", "field 9 of a tensor has the wire type 0"),  # its bytes
        (NAN, _varint(2 << 3) + _varint((1 << 32) + 1), "of type 4294967297"),
        (NAN_OUTSIDE, _field(14, b""), "field 14 of a tensor has the wire type 2"),
        (NAN_OUTSIDE, b"\x70\x05", "neither inside nor outside"),
        (NAN_OUTSIDE, _field(13, b"\x08\x01"), "field 1 of an entry has the wire type 0"),
    ],
)
def test_what_protobuf_skips_hides_no_weight(tmp_path, tensor, addition, message):
    hidden = tensor.SerializeToString() + addition
    seen = onnx.TensorProto.FromString(hidden)
    assert (seen.data_type, seen.dims, seen.raw_data, seen.data_location) == (
        (tensor.data_type, tensor.dims, tensor.raw_data, tensor.data_location)
    )
    refused(tmp_path, _field(7, _field(5, hidden)), message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_field(7, b"") * 2, "field 7 of a model is there twice"),
        (b"\x3d" + bytes(4), "field 7 of a model has the wire type 5"),
        (_field(20, _field(1, b"") * 2), "field 1 of a training is there twice"),
        (_field(7, _field(15, _field(1, b"\x10\x01") * 2)), "field 1 of a sparse is there twice"),
        (_field(7, b"\x28\x00"), "field 5 of a graph has the wire type 0"),
    ],
)
def test_a_message_in_two_parts_is_refused(tmp_path, data, message):
    refused(tmp_path, data, message)


def test_an_attribute_holds_one_tensor(tmp_path):
    """Protobuf makes one tensor of both parts, and neither has a NaN by itself."""
    first = onnx.AttributeProto(name="value", type=4)
    first.t.CopyFrom(onnx.TensorProto(data_type=12, dims=[1], raw_data=NAN.raw_data))
    second = onnx.AttributeProto(t=onnx.TensorProto(data_type=1))
    data = first.SerializeToString() + second.SerializeToString()
    seen = onnx.AttributeProto.FromString(data)
    assert np.isnan(numpy_helper.to_array(seen.t))
    refused(tmp_path, _field(7, _field(1, _field(5, data))), "of an attribute is there twice")


def model_of(tensor):
    model = tiny.trunk_model()
    model.graph.initializer.append(tensor)
    return model


FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "COMPLEX64", "COMPLEX128")
FLOATS += ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0")


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", FLOATS)
def test_no_float_of_any_type_may_be_nan(tmp_path, name, raw):
    kind = getattr(onnx.TensorProto, name)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    for values in ([1, 2, np.nan], [np.nan, 1, 2], [1, 2, 4]):
        array = np.array(values, np.float64).astype(dtype)
        if raw:
            tensor = numpy_helper.from_array(array, "w")
        else:
            assert onnx.helper.tensor_dtype_to_field(kind) != "raw_data"
            tensor = typed(kind, array)
        assert (len(tensor.raw_data) > 0) == raw
        assert np.array_equal(numpy_helper.to_array(tensor), array, equal_nan=True)
        if np.isnan(values).any():
            refused(tmp_path, model_of(tensor), "is no number")
        else:
            (tmp_path / "x.onnx").write_bytes(model_of(tensor).SerializeToString())
            check(tmp_path, tmp_path / "x.onnx")


def typed(kind, array):
    """A tensor whose elements lie in a list of numbers."""
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=array.shape)
    field = onnx.helper.tensor_dtype_to_field(kind)
    width = {"float_data": np.float32, "double_data": np.float64}.get(field)
    if width is None:
        width = {1: np.uint8, 2: np.uint16}[array.itemsize]
    getattr(tensor, field).extend(array.view(width).tolist())
    return tensor


def test_infinity_and_integers_of_the_bits_of_a_nan_are_taken(tmp_path):
    bits = np.array([0x7FC00000, 0x7F800000], np.int32)
    for array in (bits, np.array([np.inf, -np.inf], np.float32), np.array([np.inf], np.float16)):
        (tmp_path / "x.onnx").write_bytes(
            model_of(numpy_helper.from_array(array, "w")).SerializeToString()
        )
        check(tmp_path, tmp_path / "x.onnx")


def test_lists_that_are_not_packed_are_read_too(tmp_path):
    head = b"\x08\x01"  # dims = [1]
    single = np.float32(np.nan).tobytes()
    refused(tmp_path, graph_of(head + b"\x10\x01\x25" + single), "is no number")
    half = _varint(5 << 3) + _varint(0x7E00)
    assert np.isnan(numpy_helper.to_array(onnx.TensorProto.FromString(head + b"\x10\x0a" + half)))
    refused(tmp_path, graph_of(head + b"\x10\x0a" + half), "is no number")
    refused(tmp_path, graph_of(head + b"\x10\x0a" + _field(5, b"\x80")), "ends within a number")
    refused(tmp_path, graph_of(head + b"\x10\x01" + _field(4, b"\x80")), "ends within a number")


def graph_of(tensor: bytes) -> bytes:
    return _field(7, _field(5, tensor))


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("nan")]])
def test_a_number_of_a_node_is_no_nan_either(tmp_path, value):
    model = tiny.trunk_model()
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("alpha", value))
    refused(tmp_path, model, "is no number")


def test_weights_outside_are_read_in_their_type_and_nowhere_else(tmp_path):
    model = outside("weights.bin")
    weight = next(w for w in model.graph.initializer if w.external_data)
    weight.data_type = onnx.TensorProto.FLOAT16
    (tmp_path / "weights.bin").write_bytes(np.full(18, np.nan, np.float16).tobytes() + bytes(36))
    files = {"weights.bin": {"bytes": 72}}
    refused(tmp_path, model, "is no number", files)
    weight.data_location = onnx.TensorProto.DEFAULT  # a library takes the bytes inside
    weight.raw_data = bytes(36)
    refused(tmp_path, model, "both inside and outside", files)
    weight.data_location = onnx.TensorProto.EXTERNAL
    refused(tmp_path, model, "both inside and outside", files)
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="/etc/passwd")
    refused(tmp_path, model, "names the 'location' of its weights twice", files)


def test_weights_that_became_shorter_are_named(tmp_path):
    (tmp_path / "weights.bin").write_bytes(bytes(71))
    refused(tmp_path, outside("weights.bin"), "became shorter", {"weights.bin": {"bytes": 72}})


def test_time_does_not_grow_with_the_axes_of_a_tensor(tmp_path):
    start = time.process_time()
    tensor = _field(1, _varint(1 << 62) * 100_000) + b"\x10\x01"
    refused(tmp_path, graph_of(tensor), "more than 32 axes")
    assert time.process_time() - start < 2
