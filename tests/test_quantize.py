"""int8 networks: the form each family wants, what stays float32, and that numbers survive."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, numpy_helper

from export.precision import compute_types, name_nodes
from export.quantize import add_int8, calibration_inputs, main, sensitive_layers
from export.stages import NamedImage, inputs_of
from export.tradeoff import photographs
from runtime import Detector
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.errors import ConfigError

pytest.importorskip("onnxruntime")


def images(count: int = 3) -> list[NamedImage]:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (count, 5, 7, 3), np.uint8).repeat(20, axis=1).repeat(20, axis=2)
    return [NamedImage(f"made up {i}", pixels) for i, pixels in enumerate(blocks)]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    path = tiny.tiny_bundle(tmp_path_factory.mktemp("int8") / "tiny")
    entry = add_int8(path, images(), sensitive=0)
    return path, entry


def network(path, stage, family):
    return onnx.load(open_bundle(path).network(stage, "int8", family))


@pytest.mark.parametrize("family", ["openvino", "tensorrt"])
@pytest.mark.parametrize("stage", ["trunk", "head"])
def test_the_symmetric_form_is_what_tensorrt_parses(quantised, stage, family):
    model = network(quantised[0], stage, family)
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    made = {out: n for n in model.graph.node for out in n.output}
    nodes = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) >= 3
    for node in nodes:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert (zero == 0).all()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3:
            assert node.input[2] not in made, "a quantised bias"


@pytest.mark.parametrize("stage", ["trunk", "head"])
def test_onnxruntime_gets_unsigned_activations(quantised, stage):
    model = network(quantised[0], stage, "onnxruntime")
    kinds = Counter(w.data_type for w in model.graph.initializer)
    assert kinds[TensorProto.UINT8] >= 1
    assert kinds[TensorProto.INT8] >= 1


@pytest.mark.parametrize("family", ["onnxruntime", "openvino"])
def test_weights_have_a_scale_per_channel_and_the_last_layers_stay(quantised, family):
    path, entry = quantised
    model = network(path, "trunk", family)
    assert compute_types(model) == {"int8": 1, "float32": 2}
    assert len(entry["float32"]["trunk"]) == 2
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    scales = [weights[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert tiny.CHANNELS in {scale.size for scale in scales}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_runs_and_is_near_float32(quantised, photo, name):
    pytest.importorskip(name)
    bundle = open_bundle(quantised[0])
    single = open_backend(name, bundle, 1)
    rounded = open_backend(name, bundle, 1, precision="int8")
    assert "int8" in rounded.description
    batch = inputs_of(tiny.MODEL, [photo])["images"]
    exact, ours = single.trunk(batch)[0], rounded.trunk(batch)[0]
    noise = np.sqrt(((exact - ours) ** 2).sum() / (exact**2).sum())
    assert 0 < noise < 0.1
    with Detector(bundle, backend=name, precision="int8", threads=1, score_threshold=0.0) as d:
        assert len(d(photo)) > 0


def test_layers_that_int8_would_spoil_are_found(tmp_path):
    """A channel far larger than the others, which the next layer does not need: one scale for all
    loses those it needs."""
    model = name_nodes(tiny.trunk_model())
    sample = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    file = tmp_path / "trunk.onnx"
    onnx.save(model, file)
    assert sensitive_layers(file, "images", sample, (), 0.1) == []
    weights = {w.name: numpy_helper.to_array(w).copy() for w in model.graph.initializer}
    weights["w_features"][0] *= 1e4
    weights["w_objectness"][:, 0] = 0
    weights["w_deltas"][:, 0] = 0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(model, file)
    found = sensitive_layers(file, "images", sample, (), 0.1)
    assert {"node_objectness", "node_deltas"} <= set(found)
    assert sensitive_layers(file, "images", sample, found, 0.1) == []


def test_the_head_is_calibrated_on_real_region_features(bundle_path):
    found = calibration_inputs(open_bundle(bundle_path), images(2), regions=4)
    assert len(found["trunk"]) == len(found["head"]) == 2
    for patches in found["head"]:
        assert 1 <= len(patches) <= 4
        assert patches.shape[1:] == (tiny.CHANNELS, *tiny.MODEL.regions.output_size)


def test_the_entry_says_how_it_was_made(quantised):
    path, entry = quantised
    assert open_bundle(path).manifest["precisions"]["int8"] == entry
    assert entry["calibration"]["images"] == [image.name for image in images()]
    assert set(entry["networks"]) == {"onnxruntime", "openvino", "tensorrt"}
    assert "minmax" in entry["method"]


def test_engines_of_older_networks_leave_the_manifest(fresh_bundle_path):
    from runtime.bundle import amend_bundle

    stale = [{"precision": "int8", "file": "engines/a"}, {"precision": "fp16", "file": "engines/b"}]
    amend_bundle(fresh_bundle_path, engines=stale)
    add_int8(fresh_bundle_path, images(1), sensitive=0)
    assert [e["precision"] for e in open_bundle(fresh_bundle_path).engines] == ["fp16"]


def test_calibration_defaults_to_real_photographs():
    pytest.importorskip("skimage")
    names = [image.name for image in photographs()]
    assert {"chelsea", "coffee", "rocket"} <= set(names)
    assert not {"noise", "grey", "blocks", "1 x 1"} & set(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "guess"}, "must be one of minmax"), ({"keep": ["nobody"]}, "a node .nobody.")],
)  # fmt: skip
def test_what_is_asked_for_wrongly_is_refused(bundle_path, options, message):
    with pytest.raises(ConfigError, match=message):
        add_int8(bundle_path, images(1), **options)


def test_a_folder_without_images_is_an_error(fresh_bundle_path, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(fresh_bundle_path), "--calibration", str(tmp_path / "empty")]) == 1
    assert "holds no image" in capsys.readouterr().err
    assert open_bundle(fresh_bundle_path).manifest["precisions"] == {}


def test_the_command_calibrates_on_a_folder_and_reports(fresh_bundle_path, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    for image in images(2):
        assert cv2.imwrite(str(tmp_path / f"{image.name}.png"), image.pixels)
    assert main([str(fresh_bundle_path), "--calibration", str(tmp_path), "--calls", "2"]) == 0
    printed = capsys.readouterr().out
    assert "int8, all threads against onnxruntime" in printed
    assert "times as fast" in printed
    assert "precision='int8'" in printed
