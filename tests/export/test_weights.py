"""No weight of a bundle is stored twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.graphs.weights import share_weights


def network(*tensors):
    graph = onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(*t) for t in tensors])
    return onnx.helper.make_model(graph)


@pytest.fixture
def kept(tmp_path):
    """A network whose large weight lies in a file, behind another one, and a small one in it."""
    large = np.arange(400, dtype=np.float32)
    model = network((large + 1, "first"), (large, "second"), (large[:9], "small"))
    path = tmp_path / "trunk.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path, large


def test_weights_that_a_network_keeps_are_read_from_its_file(kept):
    path, large = kept
    model = network((large.reshape(20, 20), "other_name"), (large[:9], "small"), (large + 2, "new"))
    expected = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    share_weights(model, [path])
    shared, small, new = model.graph.initializer
    assert (shared.data_location, shared.raw_data) == (onnx.TensorProto.EXTERNAL, b"")
    assert small.raw_data and new.raw_data
    onnx.save(model, path.parent / "head.onnx")
    found = onnx.load(path.parent / "head.onnx").graph.initializer
    for tensor, values in zip(found, expected, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)


def test_weights_in_fields_of_floats_are_shared_too(kept):
    path, large = kept
    model = network((large[:1], "x"))
    tensor = onnx.helper.make_tensor("x", onnx.TensorProto.FLOAT, [400], large.tolist())
    assert tensor.float_data and not tensor.raw_data
    model.graph.initializer[0].CopyFrom(tensor)
    share_weights(model, [path])
    assert not model.graph.initializer[0].float_data
    assert model.graph.initializer[0].external_data


def test_nothing_is_shared_with_networks_that_keep_their_weights_themselves(tmp_path):
    model = network((np.ones(400, np.float32), "x"))
    onnx.save(model, tmp_path / "trunk.onnx")
    before = model.SerializeToString()
    share_weights(model, [tmp_path / "trunk.onnx"])
    assert model.SerializeToString() == before
