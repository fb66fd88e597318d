"""Cosines in ``detector.onnx``; their meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "cosines_with", "prototype_width", "score"]

WEIGHTS = ("project.",)  # beginnings of the tensors that the graph reads


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.vector_dim


def cosines_with(op: OpBuilder, rows: ir.Value, prototypes: ir.Value) -> ir.Value:
    """Cosines ``(R, K)`` of rows ``(R, E)`` with prototypes ``(K, E)``, which have unit length."""
    lengths = op.Sqrt(op.ReduceSum(op.Mul(rows, rows), [1], keepdims=1))
    units = op.Div(rows, op.Max(lengths, graph.TINY))
    found: ir.Value = op.MatMul(units, op.Transpose(prototypes, perm=[1, 0]))
    return found


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.CosineScorer`` gives."""
    projected = op.Gemm(embeddings, weights["project.weight"], weights["project.bias"], transB=1)
    cosines = cosines_with(op, projected, prototypes)  # (R, 1 + Ks + U)
    scores = op.Relu(op.Slice(cosines, [1], [graph.LAST], [1]))
    if config.cosine_background:
        background = op.Slice(cosines, [0], [1], [1])  # (R, 1)
        best = op.ReduceMax(op.Concat(scores, op.Mul(background, 0.0), axis=1), [1], keepdims=1)
        scores = op.Mul(scores, op.Cast(op.Greater(best, background), to=1))
    unseen = op.Shape(similarity, start=1, end=2)
    return graph.calibrate(op, scores, unseen, objectness, config)
