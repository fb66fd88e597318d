"""Equalising channels: the function stays, small channels rise, what may not move does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper

from export.int8.equalize import channel_groups, channel_ranges, equalize

ort = pytest.importorskip("onnxruntime")


def network(middle: str = "Relu", shared: bool = False) -> onnx.ModelProto:
    """A bottleneck with a residual sum; channel 0 of it is a thousand times the others."""
    draw = tiny.random(0).normal
    weights = {
        "w0": draw(size=(8, 3, 1, 1)),
        "b0": draw(size=8),
        "w1": draw(size=(8, 8, 1, 1)),
        "b1": draw(size=8),
        "wd": draw(size=(8, 1, 3, 3)),
        "bd": draw(size=8),
        "w2": draw(size=(8, 8, 1, 1)),
        "b2": draw(size=8),
        "w3": draw(size=(5, 8, 1, 1)),
        "b3": draw(size=5),
    }
    for name in ("w0", "w2", "b0", "b2"):
        weights[name][0] *= 1e3
    weights["w1"][:, 0] *= 1e-3
    weights["w3"][:, 0] *= 1e-3
    limits = ["low", "high"] if middle == "Clip" else []
    weights |= {name: np.float32(6 * i) for i, name in enumerate(limits)}
    conv = helper.make_node
    nodes = [
        conv("Conv", ["images", "w0", "b0"], ["a"], name="first"),
        conv("Conv", ["a", "w1", "b1"], ["b"], name="expand"),
        conv(middle, ["b", *limits], ["c"]),
        conv("Conv", ["c", "wd", "bd"], ["d"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        conv(middle, ["d", *limits], ["e"]),
        conv("Conv", ["e", "w2", "b1" if shared else "b2"], ["f"], name="project"),
        conv("Add", ["a", "f"], ["g"]),
        conv("Conv", ["g", "w3", "b3"], ["out"], name="last"),
    ]
    images = {"images": ["N", 3, "H", "W"]}
    return tiny._model(nodes, weights, images, {"out": ["N", 5, "H", "W"]})


def run(model, batch):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"images": batch})[0]


def readers(model):
    return {tuple(sorted(n.name for n in group.readers)) for group in channel_groups(model)}


@pytest.mark.parametrize("middle", ["Relu", "Clip"])
def test_residual_sums_are_one_group_and_activations_bound_them(middle):
    """A channel behind a ReLU may be silent in every calibration image; lifted, it would be cut."""
    assert readers(network(middle)) == {("expand", "last")}


def test_a_bias_that_two_layers_share_is_not_touched():
    assert readers(network("Clip", shared=True)) == set()


@pytest.mark.parametrize("middle", ["Relu", "Clip"])
def test_the_function_stays_and_channels_become_alike(middle):
    model = network(middle)
    batches = [tiny.random(i).normal(size=(1, 3, 9, 7)).astype(np.float32) for i in range(3)]
    samples, exact = [{"images": batch} for batch in batches], run(model, batches[0])
    before = channel_ranges(model, samples, ["g"])["g"]
    assert equalize(model, samples) == len(channel_groups(model))
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, batches[0]), exact, rtol=1e-4, atol=1e-2)
    after = channel_ranges(model, samples, ["g"])["g"]
    assert before.max() / before.min() > 100
    assert after.max() / after.min() < 40  # the root, since the weights that read it share the load


def test_matrix_products_are_rescaled_too():
    draw = tiny.random(0).normal
    weights = {
        "w0": draw(size=(4, 6)) * 10.0 ** np.arange(-3, 3),
        "w1": draw(size=(5, 6)),
        "b1": draw(size=5),
    }
    nodes = [
        helper.make_node("MatMul", ["images", "w0"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w1", "b1"], ["out"], transB=1),
    ]
    model = tiny._model(nodes, weights, {"images": ["N", 4]}, {"out": ["N", 5]})
    batch = draw(size=(7, 4)).astype(np.float32)
    exact = run(model, batch)
    assert equalize(model, [{"images": batch}]) == 1
    np.testing.assert_allclose(run(model, batch), exact, rtol=1e-4, atol=1e-3)
    ranges = channel_ranges(model, [{"images": batch}], ["b"])["b"]
    assert ranges.max() / ranges.min() < 1e4  # of 1e5


def test_inputs_and_outputs_of_the_network_are_left_alone():
    model = tiny.trunk_model()
    stored = {w.name: numpy_helper.to_array(w).copy() for w in model.graph.initializer}
    assert equalize(model, [{"images": np.ones((1, 3, 32, 32), np.float32)}]) == 0
    for weight in model.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(weight), stored[weight.name])
