"""Write the networks of a bundle in float16, and keep in float32 what must stay so.

    python -m export.fp16 bundle/

Float32 stay: the last layers of the box deltas and of the objectness (a half stores pixel 1025.5 as
1026, and equal logits lose their order), every operator that sums over a map, whatever is not on
the list of operators that lose nothing but precision, the layers of the trunk whose rounding
the rest of it amplifies (``SENSITIVE``; in MobileNetV2 the first few), and of a detector with
queries all that lies behind their choice. Inputs and outputs stay
float32, so one file serves every backend. What it costs is measured by ``export.tradeoff``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.checks.images import photographs
from export.checks.traces import inputs_of
from export.graphs.inspect import (
    COMPUTE,
    STAGES,
    behind_choices,
    final_layers,
    front_of_choices,
    name_nodes,
)
from export.int8.sensitivity import sensitive_nodes
from export.tradeoff import tradeoff, tradeoff_table
from export.writing.working_copy import add_networks, record_tradeoff, working_copy
from runtime.bundle import open_bundle
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import BundleError, require

if TYPE_CHECKING:
    import onnx

__all__ = ["add_fp16", "main", "parse", "to_fp16"]

# In float16 these give the nearest half of what float32 gives; all else stays float32.
HALF = frozenset(
    "Add AveragePool Clip Concat Conv Flatten Gemm Identity MatMul MaxPool Mul Pad Relu Reshape "
    "Sigmoid Slice Squeeze Sub Transpose Unsqueeze".split()
)
FAMILIES = ("onnxruntime", "openvino", "tensorrt")  # of backends; one file serves all
LARGEST = 65504.0  # of float16


def add_fp16(path: Path) -> dict[str, Any]:
    """Add ``trunk.fp16.onnx`` and ``head.fp16.onnx`` to a bundle.

    Returns:
        The entry of the manifest, ``precisions.fp16``.

    Raises:
        BundleError: a weight does not fit into float16, or the bundle cannot be rewritten.
    """
    onnx, bundle = require("onnx", "export"), open_bundle(path)
    files: dict[str, Any] = {}
    kept: dict[str, list[str]] = {}
    for stage in STAGES:
        model = name_nodes(onnx.load(bundle.network(stage)))
        keep = final_layers(model)
        if stage == "trunk":
            sample = inputs_of(bundle.model_config, [photographs()[0].pixels])["images"]
            keep += behind_choices(model)
            keep += sensitive_nodes(front_of_choices(model), [{"images": sample}], keep)
        kept[stage] = to_fp16(model, keep)
        files[f"{stage}.fp16.onnx"] = model
    names = {stage: f"{stage}.fp16.onnx" for stage in STAGES}
    entry = {
        "networks": dict.fromkeys(FAMILIES, names),
        "method": "weights and activations rounded to float16; inputs and outputs float32",
        "float32": dict.fromkeys(FAMILIES, kept),
    }
    add_networks(path, "fp16", entry, files)
    return entry


def to_fp16(model: onnx.ModelProto, keep: Sequence[str] | None = None) -> list[str]:
    """Convert a plain network in place.

    Args:
        model: with its weights loaded; no control flow.
        keep: names of nodes that stay float32 beside those that always do; None takes
            ``final_layers``.

    Returns:
        The names of the nodes that stay float32, of those that compute.

    Raises:
        BundleError: a weight is too large for float16.
    """
    onnx = require("onnx", "export")
    name_nodes(model)
    graph, helper = model.graph, onnx.helper
    single = set(final_layers(model) if keep is None else keep)
    single |= {node.name for node in graph.node if node.op_type not in HALF}
    weights = {w.name: w for w in graph.initializer}
    floats = _float_values(model)
    made = {out: node for node in graph.node for out in node.output}
    outputs = {value.name for value in graph.output}

    def is_half(name: str) -> bool:
        """Whether a value that is not a weight is float16 where it is made."""
        return name in made and made[name].name not in single

    nodes: list[Any] = []
    casts: dict[tuple[str, bool], str] = {}

    def as_type(name: str, half: bool) -> str:
        """The value in the type wanted; a cast is made once per value and type."""
        if name in weights:
            return _weight(graph, weights[name], casts) if half else name
        if is_half(name) == half:
            return f"{name}_half" if half and name in outputs else name
        if (name, half) not in casts:
            casts[name, half] = f"{name}_{'half' if half else 'single'}"
            kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
            source = f"{name}_half" if not half and name in outputs else name
            nodes.append(
                helper.make_node(
                    "Cast", [source], [casts[name, half]], to=kind, name=f"cast_{casts[name, half]}"
                )
            )
        return casts[name, half]

    for node in list(graph.node):
        half = node.name not in single
        inputs = [as_type(i, half) if i in floats else i for i in node.input]
        del node.input[:]
        node.input.extend(inputs)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if half and name in outputs:  # the output keeps its name and stays float32
                node.output[index] = f"{name}_half"
                nodes.append(
                    helper.make_node(
                        "Cast",
                        [f"{name}_half"],
                        [name],
                        to=onnx.TensorProto.FLOAT,
                        name=f"cast_{name}",
                    )
                )
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # types have changed
    used = {name for node in graph.node for name in node.input}
    for tensor in [w for w in graph.initializer if w.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    return [n.name for n in graph.node if n.op_type in COMPUTE and n.name in single]


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 values of a graph."""
    onnx = require("onnx", "export")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    typed = [*inferred.value_info, *inferred.input, *inferred.output]
    single = onnx.TensorProto.FLOAT
    return {v.name for v in typed if v.type.tensor_type.elem_type == single} | {
        w.name for w in inferred.initializer if w.data_type == single
    }


def _weight(graph: Any, tensor: Any, done: dict[tuple[str, bool], str]) -> str:
    """Add the float16 copy of a weight, once; return its name."""
    if (tensor.name, True) in done:
        return done[tensor.name, True]
    onnx = require("onnx", "export")
    values = onnx.numpy_helper.to_array(tensor)
    worst = float(np.abs(values).max(initial=0))
    if worst > LARGEST:
        # A bound of Clip may be as large as float32 goes; a half's largest number means the same.
        if values.ndim:
            raise BundleError(
                f"weight {tensor.name} holds {worst:.3g}, and float16 ends at {LARGEST:g}; "
                "use int8 or float32 for this model."
            )
        values = np.clip(values, -LARGEST, LARGEST)
    name = done[tensor.name, True] = f"{tensor.name}_half"
    graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
    return name


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.fp16", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="changed in place (default: a copy of the shipped)")
    add("--compare-on", type=Path, metavar="DIR", help="measure the loss on these images")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args, step = parse(argv), Steps(2)
    path = working_copy(args.bundle)
    with step("convert trunk and head"):
        entry = add_fp16(path)
    with step("measure the loss"):
        report = tradeoff(path, "fp16", images=args.compare_on)
        record_tradeoff(path, "fp16", report)
    print(tradeoff_table(report))
    kept: Mapping[str, Sequence[str]] = entry["float32"][FAMILIES[0]]
    print(f"{path}: fp16 added; float32 stay {json.dumps(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
