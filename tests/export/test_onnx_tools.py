"""``detector.onnx`` meets tools that others use: it stays valid, and finds the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_detector import detector_bundle

from export.checks.traces import DETECTIONS, DetectorGraph, inputs_of
from runtime import Detector
from runtime.bundle import bundled

TOLERANCE = 1e-3  # pixels and probabilities; onnxslim folds batch normalisation in another order


def slimmed(model):
    return pytest.importorskip("onnxslim").slim(model)


def simplified(model):
    model, same = pytest.importorskip("onnxsim").simplify(model)
    assert same
    return model


def inferred(model):
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def halved(model):
    float16 = pytest.importorskip("onnxconverter_common.float16")
    return float16.convert_float_to_float16(model, keep_io_types=True)


REASON = (
    "onnxconverter-common 1.16 declares the outputs of Cast float16 and leaves their attribute "
    "float32, which ONNX Runtime refuses; python -m export.fp16 makes fp16 networks instead"
)
TOOLS = [
    slimmed,
    simplified,
    inferred,
    pytest.param(halved, marks=pytest.mark.xfail(strict=True, reason=REASON)),
]
SHIPPED = [pytest.param(name, marks=pytest.mark.slow) for name in ("open", "coco48")]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return detector_bundle(tmp_path_factory.mktemp("tools") / "tiny")


def photographs(name):
    if name == "tiny":
        return [np.random.default_rng(7).integers(0, 256, (64, 96, 3), np.uint8)]
    data = pytest.importorskip("skimage.data")
    return [data.astronaut(), data.chelsea(), data.coffee()]


@pytest.mark.parametrize("name", ["tiny", *SHIPPED])
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_tool_changes_nothing_that_is_found(tiny_path, tmp_path, tool, name):
    path = tiny_path if name == "tiny" else bundled(name)
    model = tool(onnx.load(path / "detector.onnx"))
    onnx.save(model, tmp_path / "made.onnx")
    made = DetectorGraph(tmp_path / "made.onnx", threads=1)
    whole = DetectorGraph(path / "detector.onnx", threads=1)
    classes = None if name != "open" else ["cat", "person", "coffee cup", "zebra"]
    found = 0
    with Detector(path, backend="onnxruntime", threads=1, classes=classes) as detector:
        state, config = detector._state, detector.bundle.model_config
        thresholds = np.zeros_like(state.thresholds) if name == "tiny" else state.thresholds
        for image in photographs(name):
            inputs = inputs_of(config, [image])
            before = whole(inputs, state.active.class_set, thresholds)
            after = made(inputs, state.active.class_set, thresholds)
            for output in DETECTIONS:
                np.testing.assert_allclose(after[output], before[output], atol=TOLERANCE, rtol=0)
            found += len(before["scores"])
    assert found > 0


@pytest.mark.parametrize("name", ["open", "coco48"])
def test_every_value_of_a_shipped_graph_has_a_type(name):
    """Netron shows them, and compilers need them."""
    path = bundled(name) / "detector.onnx"
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    typed = {value.name for value in (*graph.value_info, *graph.output)}
    assert {output for node in graph.node for output in node.output} <= typed


@pytest.mark.parametrize("name", ["open", "coco48"])
@pytest.mark.parametrize("network", ["detector", "trunk", "head"])
def test_plain_onnx_runtime_takes_every_graph_without_operators_of_our_own(name, network):
    """ONNX Runtime Web's WebAssembly build has the operators of the CPU build."""
    path = bundled(name) / f"{network}.onnx"
    model = onnx.load(path, load_external_data=False)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.functions
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]
