"""Rescale the channels of a network so that int8 loses less, without changing what it computes.

A tensor has one int8 scale, so a channel much smaller than its neighbours is lost. Where a tensor
is made by convolutions (or matrix products) and read by others, and between them lie only sums,
pooling and the like, each channel may be multiplied by a factor that its readers divide by: the
function stays. Across a ReLU6 it would not. Across a ReLU it would, but a channel that fires only
for what calibration never saw would be lifted, and then cut off. In MobileNetV2 that leaves the
linear bottlenecks with their residual sums, which need it most. The factor evens out the channels
of the tensor and the columns of the weights that read it.

After Nagel et al., Data-Free Quantization (arXiv 1906.04721), with ranges measured as SmoothQuant
(arXiv 2211.10438) does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.inspect import Feed, int_attribute, is_depthwise, tensor_values, weight_axes
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx

__all__ = ["Group", "channel_groups", "channel_ranges", "equalize"]

LAYERS = ("Conv", "Gemm", "MatMul")
HOMOGENEOUS = ("Add", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool")
SMALLEST = 1e-3  # of the largest channel: what is below it need not be lifted further


@dataclass(slots=True)
class Group:
    """Tensors whose channels must be scaled alike.

    Attributes:
        tensors: that are quantised.
        makers: nodes whose output channels they are.
        readers: nodes whose input channels they are.
    """

    tensors: list[str] = field(default_factory=list)
    makers: list[onnx.NodeProto] = field(default_factory=list)
    readers: list[onnx.NodeProto] = field(default_factory=list)


def channel_groups(model: onnx.ModelProto) -> list[Group]:
    """A place at which a network may be rescaled; its inputs and outputs may not."""
    graph = model.graph
    used = Counter(name for node in graph.node for name in node.input)
    weights = {w.name: w for w in graph.initializer if used[w.name] == 1}
    constants = {w.name for w in graph.initializer}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.node:
        if node.op_type in HOMOGENEOUS:
            for name in node.input:
                parent[root(name)] = root(node.output[0])
    fixed = {root(value.name) for value in (*graph.input, *graph.output)}
    fixed |= {root(name) for name in constants if name in parent}  # a constant that is added
    groups: dict[str, Group] = {}
    for node in graph.node:
        if _rescalable(node, weights):
            groups.setdefault(root(node.input[0]), Group()).readers.append(node)
            groups.setdefault(root(node.output[0]), Group()).makers.append(node)
        elif node.op_type not in HOMOGENEOUS:
            fixed |= {root(name) for name in (*node.input, *node.output)}
    for name in (name for node in graph.node for name in node.output):
        if root(name) in groups:
            groups[root(name)].tensors.append(name)
    return [g for r, g in groups.items() if r not in fixed and g.makers and g.readers]


def equalize(model: onnx.ModelProto, samples: Sequence[Feed]) -> int:
    """Rescale a network in place; the number of groups that were.

    Args:
        model: plain, with its weights loaded.
        samples: of its inputs; the ranges of channels are taken from what they make.
    """
    onnx = require("onnx", "export")
    groups = channel_groups(model)
    ranges = channel_ranges(model, samples, [t for g in groups for t in g.tensors])
    stored = {w.name: w for w in model.graph.initializer}
    weights = {
        n: onnx.numpy_helper.to_array(w).astype(np.float64)
        for n, w in stored.items()
        if w.data_type == onnx.TensorProto.FLOAT
    }
    for group in groups:
        factor = _factor(group, ranges, weights)
        for node in group.makers:
            weights[node.input[1]] = _along(weights[node.input[1]], weight_axes(node)[0], factor)
            for bias in node.input[2:]:
                weights[bias] = weights[bias] * factor
        for node in group.readers:
            weights[node.input[1]] = _along(
                weights[node.input[1]], weight_axes(node)[1], 1 / factor
            )
    changed = {name for g in groups for n in (*g.makers, *g.readers) for name in n.input[1:]}
    for key in changed:
        array = weights[key].astype(np.float32)
        stored[key].CopyFrom(onnx.numpy_helper.from_array(array, key))
    return len(groups)


def channel_ranges(
    model: onnx.ModelProto, samples: Sequence[Feed], tensors: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Largest magnitude of every channel (axis 1) of some tensors."""
    ranges: dict[str, NDArray[np.float64]] = {}
    for values in tensor_values(model, samples, tensors):
        for key, array in values.items():
            most = np.abs(array).max(axis=(0, *range(2, array.ndim))).astype(np.float64)
            ranges[key] = np.maximum(ranges.get(key, 0), most)
    return ranges


def _factor(
    group: Group, ranges: Mapping[str, NDArray[np.float64]], weights: Mapping[str, NDArray[Any]]
) -> NDArray[np.float64]:
    """Factor of every channel: the largest keeps its range."""
    reach = np.maximum.reduce([ranges[name] for name in group.tensors])
    if not reach.any():
        return np.ones_like(reach)
    reach = np.maximum(reach, SMALLEST * reach.max())
    factor = 1 / reach
    columns = [
        np.abs(weights[n.input[1]]).max(
            axis=tuple(i for i in range(weights[n.input[1]].ndim) if i != weight_axes(n)[1])
        )
        for n in group.readers
        if not is_depthwise(n)  # whose columns have scales of their own
    ]
    if columns:
        column = np.maximum.reduce(columns)
        factor = np.sqrt(np.maximum(column, SMALLEST * column.max()) / reach)
    scaled: NDArray[np.float64] = factor * reach.max() / (factor * reach).max()
    return scaled


def _along(array: NDArray[Any], axis: int, factor: NDArray[np.float64]) -> NDArray[np.float64]:
    shape = [1] * array.ndim
    shape[axis] = -1
    result: NDArray[np.float64] = array * factor.reshape(shape)
    return result


def _rescalable(node: onnx.NodeProto, weights: Mapping[str, Any]) -> bool:
    """Whether a node is a layer with weights of its own, whole or one channel a group."""
    if node.op_type not in LAYERS or any(name not in weights for name in node.input[1:]):
        return False
    shape = weights[node.input[1]].dims
    if node.op_type == "MatMul":
        return len(shape) == 2
    return not is_depthwise(node) or (shape[1] == 1 and shape[0] == int_attribute(node, "group", 1))
