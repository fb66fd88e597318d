"""Weights as int8 holds them, and a bias that takes back what rounding them shifts.

Rounded weights shift a layer's output where its input has a mean, as after a ReLU it always has.
The shift is known from the weights and the mean, and the bias takes it back (Nagel et al., arXiv
1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.inspect import Feed, is_depthwise, tensor_values, weight_axes
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx

__all__ = ["channel_means", "correct_biases", "mean_shift", "round_weights"]


def round_weights(weights: NDArray[Any], axis: int, levels: int) -> NDArray[np.float64]:
    """Weights as int8 holds them: symmetric, one scale per index of ``axis``.

    Args:
        weights: of a layer.
        axis: of its output channels.
        levels: the integer of the largest magnitude, 127 or (7-bit) 64.
    """
    exact = weights.astype(np.float64)
    others = tuple(i for i in range(exact.ndim) if i != axis)
    step = np.abs(exact).max(axis=others, keepdims=True) / levels
    step[step == 0] = 1
    rounded: NDArray[np.float64] = np.round(exact / step) * step
    return rounded


def correct_biases(
    model: onnx.ModelProto, samples: Sequence[Feed], layers: Sequence[str], levels: int
) -> None:
    """Take back, in place, the mean shift that rounded weights will cause in some layers.

    Args:
        model: plain, with its weights loaded.
        samples: of its inputs; means are taken over them.
        layers: names of the nodes that will be rounded; those without a bias are left alone.
        levels: see :func:`round_weights`.
    """
    onnx = require("onnx", "export")
    stored = {w.name: w for w in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.name in layers and len(n.input) > 2]
    means = channel_means(model, samples, sorted({n.input[0] for n in nodes}))
    for node in nodes:
        weights = onnx.numpy_helper.to_array(stored[node.input[1]])
        bias = onnx.numpy_helper.to_array(stored[node.input[2]])
        corrected = bias - mean_shift(node, weights, means[node.input[0]], levels)
        stored[node.input[2]].CopyFrom(
            onnx.numpy_helper.from_array(corrected.astype(np.float32), node.input[2])
        )


def channel_means(
    model: onnx.ModelProto, samples: Sequence[Feed], tensors: Sequence[str]
) -> Mapping[str, NDArray[np.float64]]:
    """Mean of every channel (axis 1) of some tensors."""
    means: dict[str, NDArray[np.float64]] = {}
    for values in tensor_values(model, samples, tensors):
        for key, array in values.items():
            mean = array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64)
            means[key] = means.get(key, np.zeros_like(mean)) + mean / len(samples)
    return means


def mean_shift(
    node: onnx.NodeProto, weights: NDArray[Any], mean: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:
    """Shift of the mean of every output channel by rounded weights; padding does not count."""
    out, into = weight_axes(node)
    error = round_weights(weights, out, levels) - weights
    if error.ndim > 2:
        error = error.sum(axis=tuple(range(2, error.ndim)))  # over the positions of the kernel
    if is_depthwise(node):
        shift: NDArray[np.float64] = error[:, 0] * mean
    else:
        shift = np.tensordot(error, mean, axes=(into, 0))
    return shift
