"""int8 networks: the form each family wants, what stays float32, and that numbers survive."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import tiny
from made_up import images
from onnx import TensorProto, numpy_helper

from export import quantize
from export.checks.images import photographs
from export.checks.traces import inputs_of
from export.graphs.inspect import compute_types
from export.int8.calibration import calibration_inputs
from export.int8.flavours import FLAVOURS
from export.quantize import _never, _quantize, _rounding_outputs, add_int8, main
from runtime import Detector
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core import kernels
from zsd_core.errors import BundleError, ConfigError, DeviceError

pytest.importorskip("onnxruntime")
ALL = {"sensitive": 0, "noise": 0, "crossing": 0}  # become int8 that can


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    path = tiny.tiny_bundle(tmp_path_factory.mktemp("int8") / "tiny")
    entry = add_int8(path, images(), **ALL)
    return path, entry


def network(path, stage, family):
    return onnx.load(open_bundle(path).network(stage, "int8", family))


@pytest.mark.parametrize("stage", ["trunk", "head"])
def test_the_symmetric_form_is_what_tensorrt_parses(quantised, stage):
    model = network(quantised[0], stage, "tensorrt")
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


@pytest.mark.parametrize("family", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("stage", ["trunk", "head"])
def test_cpus_get_unsigned_activations_and_weights_whose_sums_fit(quantised, stage, family):
    """255 x 64 twice is below 2^15, where instructions without VNNI saturate."""
    model = network(quantised[0], stage, family)
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer]
    integers = [w for w in weights if w.dtype == np.int8 and w.ndim > 1]
    assert integers and max(int(np.abs(w.astype(int)).max()) for w in integers) == 64
    kinds = Counter(w.data_type for w in model.graph.initializer)
    assert kinds[TensorProto.UINT8] >= 1
    assert kinds[TensorProto.INT8] >= 1


@pytest.mark.parametrize("family", ["onnxruntime", "tensorrt"])
def test_weights_have_a_scale_per_channel_and_the_last_layers_stay(quantised, family):
    path, entry = quantised
    model = network(path, "trunk", family)
    assert compute_types(model) == {"int8": 1, "float32": 2}
    assert len(entry["float32"][family]["trunk"]) == 2
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


def head_of_layers(first):
    """Embeddings and deltas, behind a hidden layer or (``first`` is false) none."""
    draw = tiny.random(0).normal
    weights = {"w0": draw(size=(6, 4)), "w1": draw(size=(5, 6)), "w2": draw(size=(4, 6))}
    nodes = [
        onnx.helper.make_node("Gemm", ["rows", "w0"], ["a"], name="hidden", transB=1),
        onnx.helper.make_node("Relu", ["a"], ["b"], name="hidden_relu"),
        onnx.helper.make_node("Gemm", ["b", "w1"], ["c"], name="last", transB=1),
        onnx.helper.make_node("Relu", ["c"], ["embeddings"], name="last_relu"),
        onnx.helper.make_node("Gemm", ["b", "w2"], ["deltas"], name="boxes", transB=1),
    ]
    outputs = {"embeddings": ["N", 5], "deltas": ["N", 4]}
    if not first:
        del nodes[:2], weights["w0"]
        nodes[0].input[0] = nodes[2].input[0] = "rows"
    inputs = {"rows": ["N", 4 if first else 6]}
    return tiny._model(nodes, weights, inputs, outputs)


def test_the_layer_of_the_embeddings_stays_unless_no_other_is_left():
    cpu, tensorrt = FLAVOURS["asymmetric"], FLAVOURS["symmetric"]
    model, single = head_of_layers(first=True), head_of_layers(first=False)
    assert _rounding_outputs(model, cpu, ["boxes"]) == ["last_relu", "last"]
    assert _rounding_outputs(single, cpu, ["boxes"]) == []
    assert _rounding_outputs(model, tensorrt, ["boxes"]) == []  # it rounds no output at all


@pytest.mark.parametrize("name", FLAVOURS)
def test_embeddings_are_not_rounded_and_tensorrt_rounds_behind_activations_only(name):
    """A range would cut off the embeddings of what no calibration image shows."""
    import onnxruntime as ort

    flavour, model = FLAVOURS[name], head_of_layers(first=True)
    feeds = [{"rows": tiny.random(1).normal(size=(64, 4)).astype(np.float32)}]
    kept = ["boxes", *_rounding_outputs(model, flavour, ["boxes"])]
    made = _quantize(model, flavour, feeds, kept, full_range=False)
    makers = {out: n.op_type for n in made.graph.node for out in n.output}
    assert makers["embeddings"] == "Relu"
    if flavour.symmetric:  # TensorRT fuses a product with its activation where nothing is between
        products = {n.output[0] for n in made.graph.node if n.op_type == "Gemm"}
        quantised = {n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"}
        assert quantised
        assert not products & quantised
    exact, found = (
        ort.InferenceSession(network.SerializeToString()).run(None, feeds[0])[0]
        for network in (model, made)
    )
    assert np.sqrt(((found - exact) ** 2).sum() / (exact**2).sum()) < 0.03


def test_a_stage_that_is_left_out_stays_as_it_was_exported(fresh_bundle_path):
    entry = add_int8(fresh_bundle_path, images(1), stages=["head"], **ALL)
    bundle = open_bundle(fresh_bundle_path)
    for family in ("onnxruntime", "openvino", "tensorrt"):
        assert bundle.network("trunk", "int8", family) == bundle.network("trunk")
        assert compute_types(onnx.load(bundle.network("head", "int8", family)))["int8"] == 1
        assert len(entry["float32"][family]["trunk"]) == 3
    with Detector(bundle, precision="int8", threads=1, score_threshold=0.0) as detector:
        assert len(detector(images(1)[0].pixels)) > 0


def test_8_bit_weights_on_request(fresh_bundle_path):
    entry = add_int8(fresh_bundle_path, images(1), **ALL, full_range=True)
    assert set(entry["weight_levels"].values()) == {127}
    model = network(fresh_bundle_path, "trunk", "onnxruntime")
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8) == 127


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_8_bit_weights_are_refused_where_their_products_overflow(
    fresh_bundle_path, monkeypatch, capsys, backend
):
    pytest.importorskip(backend)
    add_int8(fresh_bundle_path, images(1), **ALL)
    monkeypatch.setattr(kernels, "sums_int8_exactly", lambda: False)  # x86 without VNNI
    open_backend(backend, open_bundle(fresh_bundle_path), precision="int8").close()
    assert main([str(fresh_bundle_path), "--full-range"]) == 1
    assert "this CPU has no VNNI" in capsys.readouterr().err
    add_int8(fresh_bundle_path, images(1), **ALL, full_range=True)
    bundle = open_bundle(fresh_bundle_path)
    with pytest.raises(DeviceError, match="8 bits, and sums of their products overflow"):
        open_backend(backend, bundle, precision="int8")
    open_backend(backend, bundle).close()
    monkeypatch.setattr(kernels, "sums_int8_exactly", lambda: True)
    open_backend(backend, bundle, precision="int8").close()


def test_layers_that_int8_would_spoil_stay(fresh_bundle_path):
    """One of three layers of the tiny trunk is not final; a limit below its noise keeps it too."""
    with pytest.raises(ConfigError, match="trunk: no layer would become int8"):
        add_int8(fresh_bundle_path, images(1), sensitive=1e-6, noise=0)
    entry = add_int8(fresh_bundle_path, images(1), sensitive=0.9, noise=0, crossing=0)
    assert entry["float32"]["onnxruntime"]["trunk"] == ["node_objectness", "node_deltas"]


def test_layers_that_all_together_are_too_noisy_stay(fresh_bundle_path):
    with pytest.raises(ConfigError, match="trunk: no layer would become int8"):
        add_int8(fresh_bundle_path, images(1), sensitive=0, noise=1e-6, crossing=0)
    entry = add_int8(fresh_bundle_path, images(1), sensitive=0, noise=0.9, crossing=0)
    assert entry["float32"]["tensorrt"]["trunk"] == ["node_objectness", "node_deltas"]


def test_layers_not_worth_a_change_of_type_stay(fresh_bundle_path):
    """The tiny trunk's one int8 layer makes few multiply-adds of many numbers."""
    with pytest.raises(ConfigError, match="trunk: no layer would become int8"):
        add_int8(fresh_bundle_path, images(1), sensitive=0.9, noise=0)


def test_the_head_is_calibrated_on_real_region_features(bundle_path):
    found = calibration_inputs(open_bundle(bundle_path), images(2), regions=4)
    assert len(found["trunk"]) == len(found["head"]) == 2
    for patches in (feed["region_features"] for feed in found["head"]):
        assert 1 <= len(patches) <= 4
        assert patches.shape[1:] == (tiny.CHANNELS, *tiny.MODEL.regions.output_size)


def test_the_entry_says_how_it_was_made(quantised):
    path, entry = quantised
    assert open_bundle(path).manifest["precisions"]["int8"] == entry
    assert entry["calibration"]["images"] == [image.name for image in images()]
    assert set(entry["networks"]) == {"onnxruntime", "openvino", "tensorrt"}
    assert "minmax" in entry["method"]


def test_engines_of_older_networks_leave_the_manifest(fresh_bundle_path):
    from export.writing.bundle_writer import amend_bundle

    stale = [{"precision": "int8", "file": "engines/a"}, {"precision": "fp16", "file": "engines/b"}]
    amend_bundle(fresh_bundle_path, {entry["file"]: b"a plan" for entry in stale}, engines=stale)
    add_int8(fresh_bundle_path, images(1), **ALL)
    assert [e["precision"] for e in open_bundle(fresh_bundle_path).engines] == ["fp16"]


def test_calibration_defaults_to_real_photographs():
    pytest.importorskip("skimage")
    names = [image.name for image in photographs()]
    assert {"chelsea", "coffee", "rocket"} <= set(names)
    assert not {"noise", "grey", "blocks", "1 x 1"} & set(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keep": ["nobody"]}, "a node .nobody.")],
)
def test_what_is_asked_for_wrongly_is_refused(bundle_path, options, message):
    with pytest.raises(ConfigError, match=message):
        add_int8(bundle_path, images(1), **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--calls", "-1"),
        *((o, v) for o in ("--sensitive", "--noise") for v in ("-1", "nan")),
    ],
)
def test_numbers_that_are_none_are_refused(capsys, option, value):
    with pytest.raises(SystemExit):
        main([option, value])
    assert "must not be negative" in capsys.readouterr().err


def test_a_missing_package_is_said_before_anything_is_read(
    bundle_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main([str(bundle_path), "--calibration", str(tmp_path / "none")]) == 1
    assert "onnx is needed here" in capsys.readouterr().err


def test_a_bundle_that_cannot_be_replaced_is_said_before_the_work(
    fresh_bundle_path, tmp_path, capsys, monkeypatch
):
    """Permissions do not bind root, so it is asked as someone whom they do."""
    allowed = os.access
    folder = fresh_bundle_path.resolve().parent
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and allowed(path, mode))
    assert main([str(fresh_bundle_path), "--calibration", str(tmp_path / "none")]) == 1
    assert "cannot be changed: a bundle is replaced whole" in capsys.readouterr().err


def test_a_folder_without_images_is_an_error(fresh_bundle_path, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(fresh_bundle_path), "--calibration", str(tmp_path / "empty")]) == 1
    assert "holds no image" in capsys.readouterr().err
    assert open_bundle(fresh_bundle_path).manifest["precisions"] == {}


def test_the_command_calibrates_on_a_folder_and_reports(
    fresh_bundle_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(quantize, "costly_crossings", lambda *_: [])  # all layers are cheap here
    cv2 = pytest.importorskip("cv2")
    for image in images(2):
        assert cv2.imwrite(str(tmp_path / f"{image.name}.png"), image.pixels)
    options = ["--sensitive", "0", "--noise", "0", "--calls", "2"]
    assert main([str(fresh_bundle_path), "--calibration", str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    # "all", unless OMP_NUM_THREADS says how many
    assert re.search(r"int8, (all|\d+) threads? against onnxruntime", printed)
    assert "times as fast" in printed
    assert "precision='int8'" in printed


def test_a_sum_with_a_constant_is_no_residual_and_stays_float32():
    model = head_of_layers(first=True)
    nodes = [
        onnx.helper.make_node("Add", ["b", "one"], ["moved"], name="moved"),
        onnx.helper.make_node("Add", ["b", "a"], ["sum"], name="residual"),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    assert _never(model) == ["moved"]


@pytest.mark.parametrize("name", FLAVOURS)
def test_one_flavour_alone_serves_its_families(fresh_bundle_path, name):
    add_int8(fresh_bundle_path, images(1), **ALL)  # both, which the next call replaces
    entry = add_int8(fresh_bundle_path, images(1), flavours=[name], **ALL)
    assert set(entry["networks"]) == set(FLAVOURS[name].families) == set(entry["weight_levels"])
    bundle = open_bundle(fresh_bundle_path)
    made = {file for file in bundle.manifest["files"] if ".int8." in file}
    assert made == {f"{stage}.int8.{name}.onnx" for stage in ("trunk", "head")}
    for family in ("onnxruntime", "openvino", "tensorrt"):
        if family in FLAVOURS[name].families:
            assert bundle.network("head", "int8", family).exists()
        else:
            with pytest.raises(BundleError, match=rf"'int8' for {family}, only float32\. Make it"):
                bundle.network("head", "int8", family)


def test_the_command_says_where_one_flavour_runs(fresh_bundle_path, capsys, monkeypatch):
    monkeypatch.setattr(quantize, "costly_crossings", lambda *_: [])  # all layers are cheap here
    options = ["--sensitive", "0", "--noise", "0", "--flavour", "symmetric"]
    assert main([str(fresh_bundle_path), *options]) == 0
    printed = capsys.readouterr().out
    assert "int8 added, for tensorrt" in printed and "precision='int8'" not in printed
