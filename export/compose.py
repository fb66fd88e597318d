"""Compose ``detector.onnx``: the two networks with the middle between them, in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from export import detector_graph as middle
from export.scorers import graph_of
from zsd_core.config import ModelConfig
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript import GraphBuilder

__all__ = ["STAGE_VALUES", "compose_detector", "new_builder", "sealed"]

IR_VERSION = 10  # the newest that ONNX Runtime 1.18 reads

# Values of the graph that are the output of a stage, kept under these names so that a copy of the
# graph can be made to show them (``export.parity``).
STAGE_VALUES = (
    "features", "objectness", "anchor_deltas", "rois", "roi_batch_indices", "roi_scores",
    "embeddings", "box_deltas", "class_scores",
)  # fmt: skip


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

    features, objectness, anchor_deltas = _insert(builder, trunk, "trunk", [images])
    rois, batch_indices, roi_scores = middle.propose(
        op, objectness, anchor_deltas, image_sizes, config.proposals
    )
    patches = middle.roi_align(op, features, rois, batch_indices, config.regions)
    embeddings, box_deltas = _insert(builder, head, "head", [patches])
    scores = method.score(
        op, embeddings, roi_scores, prototypes, similarity, weights, config.scoring
    )
    outputs = middle.detect(
        op, scores, box_deltas, rois, batch_indices, image_sizes, threshold, config.detection
    )

    stages = (
        features, objectness, anchor_deltas, rois, batch_indices, roi_scores, embeddings,
        box_deltas, scores,
    )  # fmt: skip
    for value, name in zip(stages, STAGE_VALUES, strict=True):
        value.name = name
    declared: dict[str, tuple[ir.DataType, list[int | str]]] = {
        "boxes": (dtype, ["n", 4]),
        "scores": (dtype, ["n"]),
        "columns": (ir.DataType.INT64, ["n"]),
        "batch_indices": (ir.DataType.INT64, ["n"]),
    }
    for value, (name, (kind, shape)) in zip(outputs, declared.items(), strict=True):
        value.type, value.shape = ir.TensorType(kind), ir.Shape(shape)
        builder.add_output(value, name)
    return sealed(builder)


def _insert(
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
