"""BLC in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("visual.", "flow.")  # beginnings of the tensors that the graph reads


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.blc`` gives."""
    rows = op.Transpose(prototypes, perm=[1, 0])
    found = total = None
    for stage in range(config.blc_stages):
        weight, bias, flow = (
            op.Gather(weights[name], stage, axis=0)
            for name in ("visual.weight", "visual.bias", "flow.weight")
        )
        projected = op.Gemm(embeddings, weight, bias, transB=1)
        if found is not None:
            projected = op.Add(projected, op.Gemm(op.Relu(found), flow, transB=1))
        found = projected
        chances = op.Softmax(op.MatMul(found, rows), axis=1)
        total = chances if total is None else op.Add(total, chances)
    scores = op.Div(op.Slice(total, [1], [graph.LAST], [1]), float(config.blc_stages))
    unseen = op.Shape(similarity, start=1, end=2)
    return graph.calibrate(op, scores, unseen, objectness, config)
