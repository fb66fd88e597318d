"""Effect of int8 on a network's outputs, layer by layer and together, and the layers to spare."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import BATCH, network, rounded, run

from export.int8.rounding import correct_biases
from export.int8.sensitivity import NoiseProbe, cheapest_run, layer_noise

pytest.importorskip("onnxruntime")


def test_the_noise_of_a_layer_is_what_rounding_it_by_hand_makes():
    model, levels = network(), 4
    noise = layer_noise(model, [{"images": BATCH}], ["first", "last"], levels)
    by_hand = onnx.ModelProto.FromString(model.SerializeToString())
    correct_biases(by_hand, [{"images": BATCH}], ["last"], levels)
    exact, found = run(model), run(rounded(by_hand, "w1", levels))
    weights_alone = np.sqrt(((found - exact) ** 2).sum() / (exact**2).sum())
    assert noise["last"] == pytest.approx(weights_alone, rel=0.1)  # activations add a little
    assert layer_noise(model, [{"images": BATCH}], ["last"], 127)["last"] < noise["last"] / 2
    assert set(noise) == {"first", "last"}


def test_asking_changes_nothing():
    model = network()
    before = model.SerializeToString()
    layer_noise(model, [{"images": BATCH}], ["first"], 64)
    assert model.SerializeToString() == before


def test_ranges_are_taken_from_all_samples():
    """A brighter second image widens the steps, and the noise on the first grows."""
    model, first, bright = network(), {"images": BATCH}, {"images": 50 * BATCH}
    alone = NoiseProbe(model, [first], ["first"], 127)(["first"])
    assert NoiseProbe(model, [first, bright], ["first"], 127)(["first"]) > 5 * alone


def test_the_noise_of_layers_together():
    model = network()
    layers = ["first", "depthwise", "last"]
    probe = NoiseProbe(model, [{"images": BATCH}], layers, 16)
    assert probe([]) < 1e-6
    alone = layer_noise(model, [{"images": BATCH}], layers, 16)
    assert alone == {layer: probe([layer]) for layer in layers}
    assert max(alone.values()) < 1.2 * probe(layers)
    assert probe(layers) < sum(alone.values())


def additive(power):
    """Errors that have nothing to do with each other."""
    return lambda layers: float(np.sqrt(sum(power[layer] for layer in layers)))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=9),
    st.floats(0, 12),
)
def test_the_cheapest_run_is_found_among_all(layers, limit):
    names = [f"layer {i}" for i in range(len(layers))]
    power = {name: p for name, (p, _) in zip(names, layers, strict=True)}
    work = {name: w for name, (_, w) in zip(names, layers, strict=True)}
    noise = additive(power)
    found = cheapest_run(noise, names, work, limit)
    runs = [names[i:j] for i in range(len(names) + 1) for j in range(i, len(names) + 1)]
    enough = [run for run in runs if noise([n for n in names if n not in run]) <= limit]
    assert found in enough
    cost = [sum(work[name] for name in run) for run in enough]
    assert sum(work[name] for name in found) == min(cost)


def test_nothing_is_spared_of_what_is_quiet_and_all_of_what_is_loud():
    power = {"a": 1.0, "b": 4.0}
    work = {"a": 5, "b": 5}
    assert cheapest_run(additive(power), ["a", "b"], work, 3) == []
    assert cheapest_run(additive(power), ["a", "b"], work, 1) == ["b"]
    assert cheapest_run(additive(power), [], work, 1) == []
    assert cheapest_run(lambda layers: 1.0, ["a", "b"], work, 0.5) == ["a", "b"]
