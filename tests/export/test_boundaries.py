"""Layers that join a float32 neighbour: those that gain less than the change of type costs."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from onnx import helper

from export.graphs.inspect import multiply_adds
from export.int8.boundaries import costly_crossings

pytest.importorskip("onnxruntime")

OPERATORS = ("Conv", "Relu", "Add")
SAMPLE = {"images": np.ones((1, 2, 16, 16), np.float32)}


def network():
    """A bottleneck's middle: wide, depthwise with a stride, narrow; then two costly layers."""
    draw = tiny.random(0).normal
    weights = {
        "w0": draw(size=(32, 2, 1, 1)),
        "wd": draw(size=(32, 1, 3, 3)),
        "w1": draw(size=(4, 32, 1, 1)),
        "w2": draw(size=(512, 4, 1, 1)),
        "w3": draw(size=(8, 512, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["a"], name="wide"),
        helper.make_node("Relu", ["a"], ["b"], name="wide relu"),
        helper.make_node(
            "Conv",
            ["b", "wd"],
            ["c"],
            name="depthwise",
            group=32,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        helper.make_node("Relu", ["c"], ["d"], name="depthwise relu"),
        helper.make_node("Conv", ["d", "w1"], ["e"], name="narrow"),
        helper.make_node("Conv", ["e", "w2"], ["f"], name="costly"),
        helper.make_node("Conv", ["f", "w3"], ["g"], name="last"),
        helper.make_node("Add", ["g", "g"], ["out"], name="sum"),
    ]
    images = {"images": ["N", 2, "H", "W"]}
    return tiny._model(nodes, weights, images, {"out": ["N", 8, "h", "w"]})


def test_multiply_adds_are_counted_by_hand():
    work = multiply_adds(network(), SAMPLE)
    assert work == {
        "wide": 256 * 32 * 2,
        "depthwise": 64 * 32 * 9,
        "narrow": 64 * 4 * 32,
        "costly": 64 * 512 * 4,
        "last": 64 * 8 * 512,
    }


def test_the_boundary_moves_to_the_smallest_tensor_and_no_further():
    found = costly_crossings(network(), SAMPLE, ["wide", "wide relu", "sum"], OPERATORS)
    assert found == ["depthwise", "depthwise relu", "narrow"]


def test_no_change_of_type_keeps_nothing_when_it_is_free():
    assert costly_crossings(network(), SAMPLE, ["wide", "wide relu"], OPERATORS, 0.0) == []


def test_a_layer_between_float32_ones_stays_unless_it_is_worth_two_changes_of_type():
    others = [node.name for node in network().graph.node if node.name not in ("narrow", "costly")]
    assert costly_crossings(network(), SAMPLE, others, OPERATORS, 0.1) == []
    assert costly_crossings(network(), SAMPLE, others, OPERATORS, 4.0) == ["narrow", "costly"]
