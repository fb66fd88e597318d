"""PL in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("project.", "bias")  # beginnings of the tensors that the graph reads


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.vector_dim


def score(
    op: OpBuilder,
    embeddings: ir.Value,
    objectness: ir.Value,
    prototypes: ir.Value,
    similarity: ir.Value,
    thresholds: ir.Value,
    weights: dict[str, ir.Value],
    config: ScoringConfig,
) -> ir.Value:
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.pl`` gives."""
    projected = op.Gemm(embeddings, weights["project.weight"], weights["project.bias"], transB=1)
    rows = op.Slice(prototypes, [1], [graph.LAST], [0])
    logits = op.Add(op.MatMul(projected, op.Transpose(rows, perm=[1, 0])), weights["bias"])
    unseen = op.Shape(similarity, start=1, end=2)
    return graph.calibrate(op, op.Sigmoid(logits), unseen, objectness, config)
