"""ConSE-ZSD in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "classified", "prototype_width", "score"]

WEIGHTS = ("classifier.",)  # beginnings of the tensors that the graph reads


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.vector_dim


def classified(
    op: OpBuilder, embeddings: ir.Value, weights: dict[str, ir.Value], config: ScoringConfig
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Probabilities of the background ``(R, 1)``, the seen classes, and the likeliest of those."""
    logits = op.Gemm(embeddings, weights["classifier.weight"], weights["classifier.bias"], transB=1)
    probabilities = op.Softmax(logits, axis=1)
    seen = op.Slice(probabilities, [1], [graph.LAST], [1])  # (R, Ks)
    most = op.Min(op.Shape(seen, start=1, end=2), [config.conse_top])
    values, top = op.TopK(seen, most, axis=1, _outputs=2)
    kept = op.ScatterElements(op.Mul(seen, 0.0), top, values, axis=1)
    return op.Slice(probabilities, [0], [1], [1]), seen, kept


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.ConseScorer`` gives.

    ``similarity`` holds cosines in its seen rows; of a full S only those are read.
    """
    unseen = op.Shape(similarity, start=1, end=2)  # U
    background, seen, kept = classified(op, embeddings, weights, config)
    end = op.Add(op.Shape(seen, start=1, end=2), [1])
    combined = op.MatMul(kept, op.Slice(prototypes, [1], end, [0]))  # (R, E)
    lengths = op.Sqrt(op.ReduceSum(op.Mul(combined, combined), [1], keepdims=1))
    cosines = op.MatMul(kept, op.Slice(similarity, [1], end, [0]))  # (R, U)
    cosines = op.Relu(op.Div(cosines, op.Max(lengths, graph.TINY)))
    scores = op.Concat(seen, op.Mul(cosines, op.Sub(1.0, background)), axis=1)
    return graph.calibrate(op, scores, unseen, objectness, config)
