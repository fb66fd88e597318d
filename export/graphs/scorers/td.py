"""TD in ``detector.onnx``; its meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs import detector as graph
from zsd_core.config import ScoringConfig
from zsd_core.scoring.td import NOTHING

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("region.", "empty.")  # beginnings of the tensors that the graph reads


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.td_words * (config.hidden_dim + 1)


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.td`` gives."""
    width, words = config.hidden_dim, config.td_words
    regions = op.Gemm(embeddings, weights["region.weight"], weights["region.bias"], transB=1)
    classes = op.Slice(prototypes, [1], [graph.LAST], [0])
    rows = op.Reshape(classes, [-1, width + 1])  # (K L, M + 1)
    dots = op.MatMul(regions, op.Transpose(op.Slice(rows, [0], [width], [1]), perm=[1, 0]))
    shape = op.Concat(
        op.Shape(embeddings, start=0, end=1), op.Shape(classes, start=0, end=1), [words], axis=0
    )
    dots = op.Reshape(dots, shape, allowzero=1)  # (R, K, L)
    there = op.Reshape(op.Slice(rows, [width], [graph.LAST], [1]), [-1, words])  # (K, L)
    missing = op.Mul(op.Sub(1.0, there), NOTHING)
    attention = op.Softmax(op.Add(op.Mul(dots, width**-0.5), missing), axis=2)
    matched = op.ReduceSum(op.Mul(attention, dots), [2], keepdims=0)  # (R, K)
    empty = op.Gemm(embeddings, weights["empty.weight"], weights["empty.bias"], transB=1)
    chances = op.Softmax(op.Concat(empty, matched, axis=1), axis=1)
    unseen = op.Shape(similarity, start=1, end=2)
    return graph.calibrate(
        op, op.Slice(chances, [1], [graph.LAST], [1]), unseen, objectness, config
    )
