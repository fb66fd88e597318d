"""Questions about a graph: its layers, their types and weights, and the values inside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import BundleError, require

if TYPE_CHECKING:
    import onnx

__all__ = [
    "ACTIVATIONS",
    "COMPUTE",
    "EXACT_OUTPUTS",
    "STAGES",
    "Feed",
    "Floats",
    "behind_choices",
    "compute_types",
    "final_layers",
    "front_of_choices",
    "input_names",
    "int_attribute",
    "is_depthwise",
    "multiply_adds",
    "name_nodes",
    "tensor_values",
    "weight_axes",
    "weighted_layers",
]

STAGES = ("trunk", "head")

ACTIVATIONS = ("Clip", "Relu")
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EXACT_OUTPUTS = ("objectness", "deltas", "boxes", "logits")
CHOICES = ("TopK", "ArgMax", "ArgMin", "NonZero")
Floats = NDArray[np.float32]
Feed = Mapping[str, Floats]  # by the names of a network's inputs


def tensor_values(
    model: onnx.ModelProto, samples: Sequence[Feed], tensors: Sequence[str]
) -> Iterator[dict[str, Floats]]:
    """Values that a network computes inside, for one sample after the other.

    Args:
        model: with its weights loaded.
        samples: of its inputs.
        tensors: names of what to show; inputs may be among them.
    """
    onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inside = [tensor for tensor in tensors if tensor not in input_names(model)]
    present = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=t) for t in inside if t not in present)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for sample in samples if tensors else ():
        values = dict(zip(inside, session.run(inside, sample), strict=True)) if inside else {}
        yield {**values, **{name: sample[name] for name in sample if name in tensors}}


def input_names(model: onnx.ModelProto) -> set[str]:
    """Names of a network's inputs."""
    return {value.name for value in model.graph.input}


def weight_axes(node: onnx.NodeProto) -> tuple[int, int]:
    """Axes of a layer's weights that are its output and its input channels."""
    if is_depthwise(node):
        return 0, 0
    if node.op_type == "Conv" or (node.op_type == "Gemm" and int_attribute(node, "transB", 0)):
        return 0, 1
    return 1, 0


def is_depthwise(node: onnx.NodeProto) -> bool:
    """Whether a convolution has groups; ours then have one channel each."""
    return node.op_type == "Conv" and int_attribute(node, "group", 1) > 1


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node, or the default where it is not set."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def final_layers(model: onnx.ModelProto, outputs: Sequence[str] = EXACT_OUTPUTS) -> list[str]:
    """The nodes from the last computing layer to each of some outputs, by name."""
    made = {out: node for node in model.graph.node for out in node.output}
    found = []
    for value in model.graph.output:
        node = made.get(value.name) if value.name in outputs else None
        while node is not None:
            found.append(node.name)
            node = None if node.op_type in COMPUTE else made.get(node.input[0])
    return found


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the nodes that have no name after what they make; return the model."""
    for node in model.graph.node:
        node.name = node.name or f"node_{node.output[0]}"
    return model


def weighted_layers(model: onnx.ModelProto, kept: Collection[str] = ()) -> list[str]:
    """Names of the computing layers that have a matrix of weights, but for the ``kept``."""
    weights = {w.name for w in model.graph.initializer if len(w.dims) > 1}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in COMPUTE and node.input[1] in weights and node.name not in kept
    ]


def behind_choices(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that choose, such as TopK, and of all that depend on a choice.

    A detector with queries chooses them by a score. Rounding that changes the order of two scores
    permutes all that lies behind; so nothing there can be compared number by number.
    """
    found, touched = list[str](), set[str]()
    for node in model.graph.node:  # in an order in which everything is made before it is read
        if node.op_type in CHOICES or not touched.isdisjoint(node.input):
            found.append(node.name)
            touched.update(node.output)
    return found


def front_of_choices(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a network in front of its choices; the network itself if it makes none.

    Its outputs are the float32 values that the rest reads, and those outputs of the network that
    depend on no choice.
    """
    behind = set(behind_choices(model))
    if not behind:
        return model
    onnx = require("onnx", "export")
    front = onnx.ModelProto()
    front.CopyFrom(model)
    nodes = [node for node in model.graph.node if node.name not in behind]
    made = {name for node in nodes for name in node.output}
    read = {name for node in model.graph.node if node.name in behind for name in node.input}
    read |= {value.name for value in model.graph.output}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    outputs = [
        value
        for value in (*inferred.value_info, *inferred.output)
        if value.name in made & read and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    used = {name for node in nodes for name in node.input}
    weights = [w for w in model.graph.initializer if w.name in used]
    for field, values in (("node", nodes), ("output", outputs), ("initializer", weights)):
        front.graph.ClearField(field)
        getattr(front.graph, field).extend(values)
    alone = type(model)()
    alone.ParseFromString(front.SerializeToString())
    return alone


def compute_types(model: onnx.ModelProto) -> dict[str, int]:
    """Number of computing layers in each type: what a strongly typed engine must have.

    A layer is int8 where its data and its weights come out of ``DequantizeLinear``.
    """
    onnx = require("onnx", "export")
    made = {out: node for node in model.graph.node for out in node.output}
    types = {w.name: w.data_type for w in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    types |= {value.name: value.type.tensor_type.elem_type for value in inferred}
    count: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type not in COMPUTE:
            continue
        sources = [made.get(name) for name in node.input[:2]]
        if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            count["int8"] += 1
            continue
        kind = types.get(node.input[1])
        if not kind:
            raise BundleError(f"node {node.name}: the type of {node.input[1]!r} cannot be told.")
        count[str(onnx.helper.tensor_dtype_to_np_dtype(kind))] += 1
    return dict(count)


def multiply_adds(model: onnx.ModelProto, sample: Feed) -> dict[str, int]:
    """Multiply-adds of every computing layer, by its name, on a sample of the inputs."""
    weights = {w.name: w.dims for w in model.graph.initializer if len(w.dims) > 1}
    nodes = [n for n in model.graph.node if n.op_type in COMPUTE and n.input[1] in weights]
    values = next(tensor_values(model, [sample], [n.output[0] for n in nodes]), {})
    found = {}
    for node in nodes:
        shape = weights[node.input[1]]
        columns = math.prod(shape) // shape[weight_axes(node)[0]]
        found[node.name] = values[node.output[0]].size * columns
    return found
