"""Rounded weights: the grid, and the bias that takes their mean error back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper

from export.rounding import correct_biases, round_weights

ort = pytest.importorskip("onnxruntime")


def network() -> onnx.ModelProto:
    """A convolution, a depthwise one and a last one; what flows between them is positive."""
    draw = tiny.random(0).normal
    weights = {
        "w0": draw(size=(8, 3, 1, 1)), "b0": np.full(8, 5.0),
        "wd": draw(size=(8, 1, 3, 3)), "bd": np.full(8, 5.0),
        "w1": draw(size=(5, 8, 1, 1)), "b1": draw(size=5),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "wd", "bd"], ["c"], name="depthwise", group=8),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w1", "b1"], ["out"], name="last"),
    ]
    images = {"images": ["N", 3, "H", "W"]}
    return tiny._model(nodes, weights, images, {"out": ["N", 5, "h", "w"]})


BATCH = tiny.random(7).normal(size=(2, 3, 12, 10)).astype(np.float32)


def run(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"images": BATCH})[0]


def weight(model, name):
    return next(w for w in model.graph.initializer if w.name == name)


def rounded(model, name, levels):
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = weight(changed, name)
    values = round_weights(numpy_helper.to_array(tensor), 0, levels).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return changed


def test_weights_lie_on_a_grid_per_output_channel():
    weights = tiny.random(1).normal(size=(4, 3, 2)) * np.array([1, 10, 100, 0])[:, None, None]
    found = round_weights(weights, 0, 64)
    steps = np.abs(weights).max(axis=(1, 2)) / 64
    for row, exact, step in zip(found[:3], weights, steps, strict=False):
        np.testing.assert_allclose(row / step, np.round(row / step), atol=1e-9)
        assert np.abs(row - exact).max() <= step / 2 + 1e-12
    assert not found[3].any()


@pytest.mark.parametrize(("layer", "weights"), [("depthwise", "wd"), ("last", "w1")])
def test_a_corrected_bias_takes_the_mean_error_back(layer, weights):
    model = network()
    exact = run(model)
    plain = run(rounded(model, weights, 3))
    corrected = onnx.ModelProto.FromString(model.SerializeToString())
    correct_biases(corrected, [{"images": BATCH}], [layer], 3)
    better = run(rounded(corrected, weights, 3))
    shift, left = (np.abs((a - exact).mean(axis=(0, 2, 3))).max() for a in (plain, better))
    assert shift > 0.1
    assert left < 0.2 * shift
