"""Rounded weights: the grid, and the bias that takes their mean error back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from made_up import BATCH, network, rounded, run

from export.int8.rounding import correct_biases, round_weights

ort = pytest.importorskip("onnxruntime")


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
