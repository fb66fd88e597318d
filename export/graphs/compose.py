"""Compose ``detector.onnx``: the two networks with the middle between them, in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from export.graphs import detector as middle
from export.graphs import offered
from export.graphs.scorers import graph_of
from zsd_core.config import ModelConfig
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript import GraphBuilder

__all__ = [
    "PROBABILITIES",
    "STAGE_VALUES",
    "compose_detector",
    "insert_network",
    "new_builder",
    "sealed",
]

IR_VERSION = 10  # the newest that ONNX Runtime 1.18 reads

# Values of the graph that are the output of a stage, kept under these names so that a copy of the
# graph can be made to show them (``export.checks.differences``).
STAGE_VALUES = (
    "features",
    "objectness",
    "anchor_deltas",
    "offered_boxes",
    "offered_logits",
    "rois",
    "roi_batch_indices",
    "roi_scores",
    "embeddings",
    "box_deltas",
    "class_scores",
)

PROBABILITIES = "probabilities"  # final scores, where ``ModelConfig.calibration`` changes them


def new_builder(name: str) -> GraphBuilder:
    """An empty graph of our opset."""
    require("onnxscript", "export")
    import onnx_ir as ir
    from onnxscript import GraphBuilder

    return GraphBuilder(ir.Graph([], [], nodes=[], name=name, opset_imports={"": middle.OPSET}))


def sealed(builder: GraphBuilder) -> ir.Model:
    """The finished graph as a model: every name unique, nothing unused, no notes of the builder."""
    import onnx_ir as ir
    import onnx_ir.passes.common as passes

    model = ir.Model(builder.graph, ir_version=IR_VERSION, producer_name="contrastzsd")
    passes.NameFixPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    return model


def compose_detector(
    trunk: ir.Model,
    head: ir.Model,
    scorer_tensors: Mapping[str, NDArray[Any]],
    config: ModelConfig,
) -> ir.Model:
    """Image tensor and class prototypes in, detections out, in standard ONNX operators.

    Inputs: ``images (N, 3, H, W)``, ``image_sizes (N, 2)`` height and width without padding,
    ``prototypes (K, P)``, ``similarity (K, U)`` in full, and ``score_threshold`` with one value for
    all classes or one for each, infinity hiding a class. Outputs: ``boxes (n, 4)`` in pixels of
    the network input, ``scores``, ``columns`` and ``batch_indices`` ``(n,)``.

    The networks are copied; their initializers are the same tensors, so that writing them once is
    enough.
    """
    import onnx_ir as ir

    builder, method = new_builder("detector"), graph_of(config.scoring.method)
    op, dtype = builder.op, ir.DataType.FLOAT
    images = builder.input("images", dtype, ["N", 3, "H", "W"])
    image_sizes = builder.input("image_sizes", dtype, ["N", 2])
    prototypes = builder.input("prototypes", dtype, ["K", method.prototype_width(config.scoring)])
    similarity = builder.input("similarity", dtype, ["K", "U"])
    threshold = builder.input("score_threshold", dtype, ["T"])
    weights = {
        name: builder.initializer(ir.tensor(array, name=f"scorer.{name}"))
        for name, array in scorer_tensors.items()
        if name.startswith(method.WEIGHTS)
    }

    stages: dict[str, ir.Value] = {}
    outputs = insert_network(builder, trunk, "trunk", [images])
    if config.proposals.source == "queries":
        stages |= zip(("offered_boxes", "offered_logits"), outputs, strict=True)
        boxes, logits = outputs
        rois, batch_indices, roi_scores, logits = offered.top_regions(
            op, boxes, logits, image_sizes, config.proposals
        )
        looked = offered.second_look(op, rois, batch_indices, image_sizes, config.regions)
        seen, owners = op.Gather(rois, looked), op.Gather(batch_indices, looked)
        patches = middle.roi_align(op, images, seen, owners, config.regions)
        looks, moves = insert_network(builder, head, "head", [patches])
        width = method.prototype_width(config.scoring)
        held = offered.spoken_for(op, rois, batch_indices, looked, config.regions)
        embeddings = offered.with_looks(op, logits, held, looks, width=width)
        none = op.Slice(rois, [0], [0], [1])  # (R, 0)
        box_deltas = offered.behind_logits(op, none, looked, moves, width=4)
    else:
        stages |= zip(("features", "objectness", "anchor_deltas"), outputs, strict=True)
        features, objectness, anchor_deltas = outputs
        rois, batch_indices, roi_scores = middle.propose(
            op, objectness, anchor_deltas, image_sizes, config.proposals
        )
        patches = middle.roi_align(op, features, rois, batch_indices, config.regions)
        embeddings, box_deltas = insert_network(builder, head, "head", [patches])
    scores = method.score(
        op, embeddings, roi_scores, prototypes, similarity, threshold, weights, config.scoring
    )
    final = middle.calibrate_scores(op, scores, similarity, config.calibration)
    found = middle.detect(
        op, final, box_deltas, rois, batch_indices, image_sizes, threshold, config.detection
    )

    stages |= {
        "rois": rois,
        "roi_batch_indices": batch_indices,
        "roi_scores": roi_scores,
        "embeddings": embeddings,
        "box_deltas": box_deltas,
        "class_scores": scores,
    }
    for name, value in stages.items():
        value.name = name
    if config.calibration:
        final.name = PROBABILITIES
    declared: dict[str, tuple[ir.DataType, list[int | str]]] = {
        "boxes": (dtype, ["n", 4]),
        "scores": (dtype, ["n"]),
        "columns": (ir.DataType.INT64, ["n"]),
        "batch_indices": (ir.DataType.INT64, ["n"]),
    }
    for value, (name, (kind, shape)) in zip(found, declared.items(), strict=True):
        value.type, value.shape = ir.TensorType(kind), ir.Shape(shape)
        builder.add_output(value, name)
    return sealed(builder)


def insert_network(
    builder: GraphBuilder, network: ir.Model, prefix: str, inputs: list[ir.Value]
) -> list[ir.Value]:
    """Copy a network's nodes into the graph; returns the values of its outputs."""
    copied = network.graph.clone()
    known: dict[ir.Value | None, ir.Value] = dict(zip(copied.inputs, inputs, strict=True))
    for name, value in copied.initializers.items():
        assert value.const_value is not None
        known[value] = builder.initializer(value.const_value, f"{prefix}.{name}")
    nodes, outputs = list(copied), list(copied.outputs)
    copied.outputs.clear()
    for node in nodes:
        for index, used in enumerate(node.inputs):
            if used in known:
                node.replace_input_with(index, known[used])
        for output in node.outputs:
            output.name = f"{prefix}.{output.name}"
        node.name = f"{prefix}/{node.name}"
    copied.remove(nodes)
    builder.graph.extend(nodes)
    return outputs
