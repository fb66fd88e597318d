"""HRE in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from export.graphs.scorers.conse import classified, prototype_width
from export.graphs.scorers.cosine import cosines_with
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("classifier.", "project.")  # beginnings of the tensors that the graph reads


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.hre`` gives."""
    background, seen, kept = classified(op, embeddings, weights, config)
    end = op.Add(op.Shape(seen, start=1, end=2), [1])
    combined = op.MatMul(kept, op.Slice(prototypes, [1], end, [0]))  # (R, E)
    projected = op.Gemm(embeddings, weights["project.weight"], weights["project.bias"], transB=1)
    rows = op.Slice(prototypes, [1], [graph.LAST], [0])  # (Ks + U, E)
    cosines = op.Add(cosines_with(op, combined, rows), cosines_with(op, projected, rows))
    scores = op.Mul(op.Relu(op.Mul(cosines, 0.5)), op.Sub(1.0, background))
    unseen = op.Shape(similarity, start=1, end=2)
    return graph.calibrate(op, scores, unseen, objectness, config)
