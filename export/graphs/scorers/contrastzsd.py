"""ContrastZSD in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("score_seen.", "score_unseen.")  # beginnings of the tensors that the graph reads


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.joint_dim


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.ContrastScorer`` gives: g_s over all, g_u."""

    def path(name: str, rows: ir.Value) -> ir.Value:
        parts = (weights[f"{name}.{part}"] for part in ("weight1", "bias1", "weight2", "bias2"))
        return graph.product_mlp(op, embeddings, rows, *parts)

    seen_logits = path("score_seen", prototypes)
    if config.seen_activation == "relu":
        seen_logits = op.Relu(seen_logits)
    classes, unseen = (op.Shape(similarity, start=i, end=i + 1) for i in range(2))
    # A Scan needs a row: with no unseen class it scores the last seen one, and the Slice drops it.
    start = op.Min(op.Sub(classes, unseen), op.Sub(classes, [1]))
    unseen_logits = path("score_unseen", op.Slice(prototypes, start, classes, [0]))
    unseen_probabilities = op.Sigmoid(op.Slice(unseen_logits, [0], unseen, [1]))
    return graph.fuse(op, seen_logits, unseen_probabilities, similarity, objectness, config)
