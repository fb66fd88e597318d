"""Choices of a graph, and what lies in front of the choice and behind it."""

from __future__ import annotations

import numpy as np
import onnx
import tiny
from choosing import choosing, samples

from export.fp16 import to_fp16
from export.graphs.inspect import (
    behind_choices,
    compute_types,
    front_of_choices,
    multiply_adds,
    name_nodes,
    tensor_values,
    weighted_layers,
)
from export.int8.flavours import FLAVOURS
from export.int8.sensitivity import layer_noise
from export.quantize import _never, _quantize

BEHIND = ["choose", "tile", "gather", "turn", "attend", "mix", "box_layer", "logit_layer"]


def test_what_lies_behind_a_choice_is_told_from_what_lies_in_front():
    model = choosing()
    assert behind_choices(model) == BEHIND
    front = front_of_choices(model)
    assert [node.name for node in front.graph.node] == ["first", "relu", "score"]
    assert {value.name for value in front.graph.output} == {"memory", "score"}
    assert {w.name for w in front.graph.initializer} == {"w_a", "w_score"}
    onnx.checker.check_model(front)
    (feed,) = samples(1)
    whole, part = (next(tensor_values(m, [feed], ["memory", "score"])) for m in (model, front))
    for name in whole:
        np.testing.assert_array_equal(whole[name], part[name])


def test_a_network_that_does_not_choose_is_its_own_front():
    model = name_nodes(tiny.trunk_model())
    assert behind_choices(model) == []
    assert front_of_choices(model) is model


def test_products_of_two_activations_have_types_and_no_weights():
    model = choosing()
    layers = ["first", "score", "box_layer", "logit_layer"]
    assert weighted_layers(model) == layers
    assert weighted_layers(model, ["first"]) == layers[1:]
    assert compute_types(model) == {"float32": 6}
    assert set(multiply_adds(model, samples(1)[0])) == set(layers)


def test_noise_is_measured_in_front_of_the_choice():
    front = front_of_choices(choosing())
    noise = layer_noise(front, samples(), weighted_layers(front), 127)
    assert set(noise) == {"first", "score"}
    assert all(0 < value < 0.05 for value in noise.values())


def test_int8_and_float16_end_at_the_choice():
    import onnxruntime as ort

    model, feeds = choosing(), samples(8)
    assert _never(model) == BEHIND
    kept = [*_never(model), "score"]
    rounded = _quantize(model, FLAVOURS["symmetric"], feeds, kept, full_range=True)
    assert compute_types(rounded) == {"int8": 1, "float32": 5}
    half = choosing()
    to_fp16(half, behind_choices(half))
    assert compute_types(half) == {"float16": 2, "float32": 4}
    for changed in (rounded, half):
        for exact, ours in zip(
            *(
                ort.InferenceSession(m.SerializeToString()).run(None, feeds[0])
                for m in (model, changed)
            ),
            strict=True,
        ):
            assert np.abs(exact - ours).max() <= 0.1 * np.abs(exact).max()
