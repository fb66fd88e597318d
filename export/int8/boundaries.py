"""Keep cheap layers in float32 where converting would cost more than int8 saves.

Where a float32 layer meets an int8 one, every number between them is rounded and put into another
order of memory. On CPUs that takes as long as ``CROSSING`` multiply-adds of float32, of which int8
saves about half (``export.layer_times`` measures both). So a cheap layer that makes a large tensor
small, as the depthwise and the last convolution of a bottleneck do, had better join its float32
neighbour. Layers join one by one, while the sum of both costs falls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from export.graphs.inspect import (
    ACTIVATIONS,
    Feed,
    multiply_adds,
    tensor_values,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["CROSSING", "costly_crossings"]

CROSSING = 50.0  # float32 multiply-adds in the time that one number's change of type takes


def costly_crossings(
    model: onnx.ModelProto,
    sample: Feed,
    kept: Sequence[str],
    operators: Collection[str],
    crossing: float = CROSSING,
) -> list[str]:
    """The nodes that had better stay float32 with those that must.

    Args:
        model: plain, with its weights loaded and its nodes named.
        sample: of its inputs; the sizes of tensors are taken from it.
        kept: names of the nodes that stay float32 anyhow.
        operators: that can be int8; all others work in float32.
        crossing: the cost of a number that changes its type, in multiply-adds.
    """
    graph, work = model.graph, multiply_adds(model, sample)
    inside = [tensor for node in graph.node for tensor in node.output if tensor]
    values = next(tensor_values(model, [sample], [*sample, *inside]))
    sizes = {tensor: array.size for tensor, array in values.items()}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    unit = {node.name: node.name for node in graph.node}  # an activation goes with its layer
    for node in graph.node:
        after = readers.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type in ACTIVATIONS:
            unit[after[0].name] = unit[node.name]
    outputs = {value.name for value in graph.output}
    edges = [(name, "", {unit[r.name] for r in readers.get(name, [])}) for name in sample]
    for node in graph.node:
        for tensor in node.output:
            ends = {unit[r.name] for r in readers.get(tensor, [])}
            edges.append((tensor, unit[node.name], ends | ({""} if tensor in outputs else set())))
    rounded = {
        node.name
        for node in graph.node
        if unit[node.name] == node.name and node.op_type in operators and node.name not in kept
    }

    def change(layer: str) -> float:
        """Extra cost of the whole when a layer becomes float32; a saving is negative."""
        total = work.get(layer, 0) / 2
        for tensor, maker, ends in edges:
            if maker == layer or layer in ends:
                before, after = rounded, rounded - {layer}
                for sign, now in ((1, after), (-1, before)):
                    mixed = any((maker in now) != (end in now) for end in ends)
                    total += sign * crossing * sizes[tensor] * mixed
        return total

    found: list[str] = []
    while rounded:
        costs = {layer: change(layer) for layer in sorted(rounded)}
        best = min(costs, key=costs.__getitem__)
        if costs[best] >= 0:
            break
        rounded.discard(best)
        found.append(best)
    return [node.name for node in graph.node if unit[node.name] in found]
