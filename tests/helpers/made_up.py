"""A small network with a batch for it, and images that show nothing, to quantise with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper

from export.checks.images import NamedImage
from export.int8.rounding import round_weights

__all__ = ["BATCH", "images", "network", "rounded", "run", "weight"]

BATCH = tiny.random(7).normal(size=(2, 3, 12, 10)).astype(np.float32)


def images(count: int = 3) -> list[NamedImage]:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (count, 5, 7, 3), np.uint8).repeat(20, axis=1).repeat(20, axis=2)
    return [NamedImage(f"made up {i}", pixels) for i, pixels in enumerate(blocks)]


def network() -> onnx.ModelProto:
    """A convolution, a depthwise one and a last one; what flows between them is positive."""
    draw = tiny.random(0).normal
    weights = {
        "w0": draw(size=(8, 3, 1, 1)),
        "b0": np.full(8, 5.0),
        "wd": draw(size=(8, 1, 3, 3)),
        "bd": np.full(8, 5.0),
        "w1": draw(size=(5, 8, 1, 1)),
        "b1": draw(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "wd", "bd"], ["c"], name="depthwise", group=8),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w1", "b1"], ["out"], name="last"),
    ]
    images = {"images": ["N", 3, "H", "W"]}
    return tiny._model(nodes, weights, images, {"out": ["N", 5, "h", "w"]})


def run(model):
    ort = pytest.importorskip("onnxruntime")
    return ort.InferenceSession(model.SerializeToString()).run(None, {"images": BATCH})[0]


def weight(model, name):
    return next(w for w in model.graph.initializer if w.name == name)


def rounded(model, name, levels):
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = weight(changed, name)
    values = round_weights(numpy_helper.to_array(tensor), 0, levels).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return changed
