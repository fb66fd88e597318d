"""float16 networks: what is half, what stays float32, and that numbers survive."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper

from export.fp16 import add_fp16, main, to_fp16
from export.graphs.inspect import compute_types, final_layers, name_nodes
from export.int8.sensitivity import sensitive_nodes
from runtime import Detector
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError


def types(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    return {v.name: v.type.tensor_type.elem_type for v in values}


def run(model, array):
    session = pytest.importorskip("onnxruntime").InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: array})


@pytest.mark.parametrize("make", [tiny.trunk_model, tiny.head_model])
def test_layers_are_half_but_the_last_of_coordinates_and_objectness(make):
    model = name_nodes(make())
    exact = onnx.ModelProto.FromString(model.SerializeToString())
    final = final_layers(model)
    kept = to_fp16(model)
    assert kept == final and len(kept) > 0
    assert compute_types(model) == {"float16": 1, "float32": len(kept)}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    shape = (2, 3, 32, 48) if make is tiny.trunk_model else (5, tiny.CHANNELS, 3, 3)
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for ours, single in zip(run(model, array), run(exact, array), strict=True):
        assert ours.dtype == np.float32
        assert 0 < np.abs(ours - single).max() <= 4e-3 * np.abs(single).max()


def chain(*nodes, weights=()):
    """A graph of one float input ``x`` (2, 4) and one output ``deltas``."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("deltas", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(w, np.float32), n) for n, w in weights],
    )
    return name_nodes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    )


def test_a_sum_over_a_map_stays_float32():
    weight = np.full((4, 4), 300.0)
    model = chain(
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["deltas"]),
        weights=[("w", weight)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    to_fp16(model)
    found = types(model)
    assert found["m"] == TensorProto.FLOAT16
    assert found["s"] == TensorProto.FLOAT
    out = run(model, np.full((2, 4), 30.0, np.float32))[0]  # its sum is 72000: no half holds it
    assert np.isfinite(out).all()


def test_a_value_used_by_both_types_is_cast_once():
    model = chain(
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["a"]),
        helper.make_node("Sigmoid", ["m"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["deltas"]),
        weights=[("w", np.eye(4))],
    )
    to_fp16(model)
    casts = [tuple(n.input) for n in model.graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    assert casts.count(("m",)) == 1


def test_a_weight_too_large_for_a_half_is_an_error():
    model = chain(
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("MatMul", ["m", "v"], ["deltas"]),
        weights=[("w", np.full((4, 4), 1e5)), ("v", np.eye(4))],
    )
    with pytest.raises(BundleError, match=r"weight w holds 1e\+05.*ends at 65504"):
        to_fp16(model)


def test_a_bundle_gets_fp16_and_the_runtime_runs_it(fresh_bundle_path, photo):
    entry = add_fp16(fresh_bundle_path)
    bundle = open_bundle(fresh_bundle_path)
    assert bundle.manifest["precisions"]["fp16"] == entry
    assert bundle.network("trunk", "fp16", "tensorrt").name == "trunk.fp16.onnx"
    backend = open_backend("onnxruntime", bundle, 1, precision="fp16")
    assert "fp16" in backend.description
    options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0}
    with Detector(bundle, **options) as single, Detector(bundle, precision="fp16", **options) as d:
        ours, exact = d(photo), single(photo)
    assert len(ours) > 0
    np.testing.assert_allclose(ours.scores[:3], exact.scores[:3], rtol=0.02)


def test_the_command_prints_what_it_costs(fresh_bundle_path, capsys):
    assert main([str(fresh_bundle_path)]) == 0
    printed = capsys.readouterr()
    assert "fp16, all threads against onnxruntime" in printed.out
    assert "mAP@0.5 with float32's detections as truth" in printed.out
    assert "[2/2] measure the loss" in printed.err
    recorded = open_bundle(fresh_bundle_path).manifest["precisions"]["fp16"]["tradeoff"]
    assert recorded["backends"][0]["stages"]["features"]["noise"] < 0.01


def test_the_command_explains_a_bundle_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no such bundle" in capsys.readouterr().err


def test_a_layer_whose_rounding_is_amplified_stays_with_its_activation():
    """Its outputs are nearly alike and have a large mean, and later layers take differences."""
    from made_up import BATCH, network

    model, samples = name_nodes(network()), [{"images": BATCH}]
    assert sensitive_nodes(model, samples, ()) == []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "b0":
            array += 500
        elif tensor.name == "w1":
            array[:, 1::2] = -array[:, ::2]
        elif tensor.name in ("w0", "wd", "bd"):
            array[1::2] = array[::2] * (1.05 if tensor.name == "w0" else 1)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert sensitive_nodes(model, samples, ()) == [
        "first",
        "node_b",
        "depthwise",
        "node_d",
        "last",
    ]
    assert sensitive_nodes(model, samples, ["first"]) == ["depthwise", "node_d", "last"]
