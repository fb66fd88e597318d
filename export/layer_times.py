"""Time of a bundle's networks by kind of layer, in float32 and in another precision.

    python -m export.layer_times bundle/ --precision int8 --threads 2

ONNX Runtime's profiler times every node of both, in turns; a row is the sum over one kind, each
node with its fastest call, which a busy machine disturbs least. Large layers alone, in the same
run, say how much faster than float32 int8 can be on this processor. From both follows what is
possible at most: every layer that is int8 as fast as that, the others as they are, and all else for
nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.checks.images import photographs
from export.graphs.inspect import STAGES, Feed, name_nodes
from export.int8.calibration import calibration_inputs
from export.writing.markdown import fill_slot, find_slot
from runtime.backends.onnxruntime import CPU, CPU_OFF
from runtime.bundle import PRECISIONS, open_bundle
from zsd_core import kernels
from zsd_core.commands import command, new_parser
from zsd_core.errors import require
from zsd_core.files import prepare_files

if TYPE_CHECKING:
    import onnx

__all__ = [
    "alone",
    "at_most",
    "by_kind",
    "kind_of",
    "layers",
    "layers_table",
    "main",
    "parse",
    "profile",
]

SLOT = "layers"
KINDS = {
    "QuantizeLinear": "quantise",
    "DequantizeLinear": "quantise",
    "Transpose": "memory order",
    "ReorderInput": "memory order",
    "ReorderOutput": "memory order",
    "Add": "add",
    "QLinearAdd": "add",
    "MaxPool": "pooling",
    "NhwcMaxPool": "pooling",
    "ReduceMean": "pooling",
    "GlobalAveragePool": "pooling",
}
LAYERS = (
    "Conv",
    "FusedConv",
    "QLinearConv",
    "Gemm",
    "FusedGemm",
    "QGemm",
    "MatMul",
    "FusedMatMul",
    "QLinearMatMul",
)
# Of the layers that are timed alone: kind, shape of the weights and of the input.
ALONE = (
    ("1x1 convolution", (256, 256, 1, 1), (1, 256, 32, 32)),
    ("3x3 convolution", (128, 128, 3, 3), (1, 128, 32, 32)),
    ("depthwise 3x3", (256, 1, 3, 3), (1, 256, 32, 32)),
    ("matrix product", (1024, 512), (300, 1024)),
)
Row = dict[str, Any]  # kind, type, ms, operations


def layers(
    path: Path,
    precision: str = "int8",
    *,
    threads: int | None = None,
    calls: int = 20,
    regions: int = 300,
) -> dict[str, Any]:
    """Time both networks of a bundle by kind of layer; JSON values.

    Args:
        path: of the bundle.
        precision: to compare float32 with.
        threads: of ONNX Runtime; None takes all that the process may use.
        calls: of each network; the fastest of a node counts.
        regions: most regions of an image that the head is given.
    """
    onnx, bundle = require("onnx", "export"), open_bundle(path)
    inputs = calibration_inputs(bundle, photographs()[:1], regions)
    stages = {}
    for stage in STAGES:
        names = ("float32", precision)
        rows = profile(
            [onnx.load(bundle.network(stage, name, "onnxruntime")) for name in names],
            [inputs[stage][0]] * 2,
            threads,
            calls,
        )
        stages[stage] = {name: by_kind(part) for name, part in zip(names, rows, strict=True)}
    single = alone(threads, calls)
    return {
        "precision": precision,
        "stages": stages,
        "alone": single,
        "at_most": at_most(stages, precision, single),
        "conditions": {
            "onnxruntime": require("onnxruntime", "cpu").__version__,
            "threads": threads,
            "calls": calls,
            "regions": len(next(iter(inputs["head"][0].values()))),
            "int8": kernels.build_info()["int8"],
        },
    }


def profile(
    networks: Sequence[onnx.ModelProto], feeds: Sequence[Feed], threads: int | None, calls: int
) -> list[list[Row]]:
    """Run networks in turns under ONNX Runtime's profiler; the nodes of each, fastest calls."""
    onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        sessions = []
        for index, network in enumerate(networks):
            options = ort.SessionOptions()
            options.log_severity_level = 3
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(work) / str(index))
            options.optimized_model_filepath = str(Path(work) / f"{index}.onnx")
            options.intra_op_num_threads = threads or 0
            named = name_nodes(network).SerializeToString()
            sessions.append(
                ort.InferenceSession(named, options, providers=[CPU], disabled_optimizers=CPU_OFF)
            )
        for _ in range(calls + 2):
            for session, feed in zip(sessions, feeds, strict=True):
                session.run(None, dict(feed))
        found = []
        for index, session in enumerate(sessions):
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            run = onnx.load(Path(work) / f"{index}.onnx", load_external_data=False)
            found.append(_rows(events, run.graph))
    return found


def _rows(events: Sequence[Mapping[str, Any]], graph: onnx.GraphProto) -> list[Row]:
    times: dict[str, list[float]] = {}
    known: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault(event["name"], []).append(event["dur"] / 1e3)
            known[event["name"]] = event["args"]
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    layers = {
        f"{node.name}_kernel_time": [s for s in map(shapes.get, node.input) if s and len(s) > 1]
        for node in graph.node
    }
    return [
        {
            **kind_of(node["op_name"], (layers[name] or [()])[0], _output(node)),
            "ms": min(times[name]),
        }
        for name, node in known.items()
    ]


def _output(node: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a node's first output as the profiler notes it."""
    (first, *_) = node["output_type_shape"]
    return tuple(next(iter(first.values())))


def kind_of(operator: str, weights: Sequence[int], output: Sequence[int]) -> Row:
    """Kind, type and operations (two for a multiply-add) of a node as ONNX Runtime runs it.

    Args:
        operator: of ONNX Runtime's, after its rewriting.
        weights: shape of the weights, empty without.
        output: shape of what it makes.
    """
    row: Row = {"kind": KINDS.get(operator, "other"), "type": "", "operations": 0}
    if operator not in LAYERS or not weights:
        return row
    if len(weights) == 2:
        kind, columns = "matrix product", math.prod(weights) // output[-1]
    else:
        size = f"{weights[2]}x{weights[3]}"
        deep = weights[1] == 1 and weights[0] > 1
        kind, columns = (
            f"depthwise {size}" if deep else f"{size} convolution",
            math.prod(weights[1:]),
        )
    row |= {"kind": kind, "type": "int8" if operator.startswith("Q") else "float"}
    return row | {"operations": 2 * math.prod(output) * columns}


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """The sums of each kind and type, the longest first."""
    sums: dict[tuple[str, str], Row] = {}
    for row in rows:
        own = sums.setdefault(
            (row["kind"], row["type"]), {**row, "ms": 0.0, "operations": 0, "nodes": 0}
        )
        own["ms"] += row["ms"]
        own["operations"] += row["operations"]
        own["nodes"] += 1
    return sorted(sums.values(), key=lambda row: -float(row["ms"]))


def alone(threads: int | None, calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one large layer of each kind in float32 and in int8, and their ratio."""
    found = {}
    for kind, weights, images in ALONE:
        numbers = np.random.default_rng(0).integers(0, 256, images, np.uint8)
        rows = profile(
            [_one_layer(weights, images, rounded) for rounded in (False, True)],
            [{"x": numbers.astype(np.float32)}, {"x": numbers}],
            threads,
            calls,
        )
        exact, rounded = ([row for row in part if row["kind"] == kind] for part in rows)
        times = [sum(row["ms"] for row in part) for part in (exact, rounded)]
        operations = sum(row["operations"] for row in exact)
        found[kind] = {
            "float32_ms": times[0],
            "int8_ms": times[1],
            "ratio": times[0] / times[1],
            "float32_gops": operations / times[0] / 1e6,
            "int8_gops": operations / times[1] / 1e6,
        }
    return found


def _one_layer(weights: Sequence[int], images: Sequence[int], rounded: bool) -> onnx.ModelProto:
    """A convolution, or a matrix product where the weights have two axes, with random weights."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    draw = np.random.default_rng(1).integers(-64, 65, weights, np.int8)
    arrays: dict[str, Any] = {"w": draw if rounded else draw.astype(np.float32)}
    inputs, operator = ["x", "w"], "Conv" if len(weights) == 4 else "Gemm"
    options: dict[str, Any] = {}
    if operator == "Conv":
        group = images[1] // weights[1]
        options = {"group": group, "kernel_shape": weights[2:], "pads": [weights[2] // 2] * 4}
    if rounded:
        arrays |= {
            "one": np.float32(1),
            "many": np.float32(100 * math.prod(weights[1:])),
            "middle": np.uint8(128),
            "zero": np.int8(0),
        }
        inputs = ["x", "one", "middle", "w", "one", "zero", "many", "middle"]
        if operator == "Gemm":  # ONNX Runtime's own; its bias is left out
            inputs.insert(6, "")
            options = {"domain": "com.microsoft"}
        operator = "QLinearConv" if operator == "Conv" else "QGemm"
    kind = types.UINT8 if rounded else types.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], **options)],
        "alone",
        [helper.make_tensor_value_info("x", kind, images)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return model


def at_most(stages: Mapping[str, Any], precision: str, single: Mapping[str, Any]) -> float | None:
    """Greatest speed-up over float32 that both networks can reach.

    That is with every int8 layer as fast as alone, other layers as they are in float32, and what is
    no layer for nothing. None if all layers are faster than the profiler's clock ticks.
    """
    whole, least = 0.0, 0.0
    for parts in stages.values():
        whole += sum(row["ms"] for row in parts["float32"])
        stay = {row["kind"]: row["ms"] for row in parts[precision] if row["type"] == "float"}
        least += sum(stay.values())
        for row in parts["float32"]:
            if row["type"]:
                ratio = max(1.0, single.get(row["kind"], {"ratio": 1.0})["ratio"])
                least += max(0.0, row["ms"] - stay.get(row["kind"], 0.0)) / ratio
    return whole / least if least else None


def layers_table(report: Mapping[str, Any]) -> str:
    """A report for people, in Markdown."""
    name = report["precision"]
    lines = [
        f"| stage | kind | float32: ms | GFLOP/s | {name}: ms | GOP/s | of these ms in float |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage, parts in report["stages"].items():
        kinds = dict.fromkeys(row["kind"] for part in parts.values() for row in part)
        for kind in [*kinds, ""]:  # no kind: all of them
            cells = [stage, kind or "all"]
            for part in parts.values():
                own = [row for row in part if kind in ("", row["kind"])]
                time, work = (sum(row[key] for row in own) for key in ("ms", "operations"))
                rate = f"{work / time / 1e6:.0f}" if kind and work and time else ""
                cells += [f"{time:.2f}", rate]
            mixed = sum(r["ms"] for r in parts[name] if r["type"] == "float" and kind == r["kind"])
            cells.append(f"{mixed:.2f}" if mixed else "")
            lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [
        f"One {kind} alone: {row['float32_gops']:.0f} GFLOP/s in float32, {row['int8_gops']:.0f} "
        f"GOP/s in int8, {row['ratio']:.2f} times as fast."
        for kind, row in report["alone"].items()
    ]
    if report["at_most"] is not None:
        lines.append(f"At most {report['at_most']:.2f} times as fast as float32 with these layers.")
    how = report["conditions"]
    lines.append(
        f"onnxruntime {how['onnxruntime']}, {how['threads'] or 'all'} threads, {how['calls']} "
        f"calls, {how['regions']} regions; this processor multiplies int8 by {how['int8']}."
    )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.layer_times", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="that holds the precision")
    add("--precision", choices=[p for p in PRECISIONS if p != "float32"], default="int8")
    add("--threads", type=int, metavar="N", help="of ONNX Runtime (all that the process may use)")
    add("--calls", type=int, default=20, metavar="N", help="of each network (20)")
    add("--regions", type=int, default=300, metavar="N", help="that the head is given (300)")
    add("--json", type=Path, metavar="FILE", help="write everything here too")
    add("--markdown", type=Path, metavar="FILE", help=f"fill its <!-- numbers: {SLOT} -->")
    args = parser.parse_args(argv)
    if min(args.calls, args.regions) < 1:
        parser.error("--calls and --regions must be at least 1")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, SLOT)
    report = layers(
        args.bundle,
        args.precision,
        threads=args.threads,
        calls=args.calls,
        regions=args.regions,
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        fill_slot(args.markdown, SLOT, layers_table(report))
    print(layers_table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
