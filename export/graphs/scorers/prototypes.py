"""Prototypes in ``detector.onnx``; the meaning is in the file of this name in zsd_core.scoring."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.graphs.detector import LAST
from zsd_core.config import ScoringConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["WEIGHTS", "prototype_width", "score"]

WEIGHTS = ("nothing.",)  # the graph reads no tensor of the scorer, only prototypes
LOWEST = float(np.finfo(np.float32).min)


def prototype_width(config: ScoringConfig) -> int:
    """P."""
    return config.joint_dim + config.vector_dim + 1


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
    """Scores ``(R, Ks + U)`` as ``zsd_core.scoring.PrototypeScorer`` gives."""
    classes, unseen = (op.Shape(similarity, start=i, end=i + 1) for i in range(2))
    known = op.Sub(op.Sub(classes, unseen), [1])
    seen = op.Sigmoid(op.Slice(embeddings, [0], known, [1]))
    look = op.Slice(embeddings, known, [LAST], [1])  # (R, P)
    looked = op.Slice(look, [-1], [LAST], [1])  # 1, or 0 for a region that no look holds for
    rows = op.Slice(prototypes, op.Add(known, [1]), [LAST], [0])  # (U, P)
    logits = op.MatMul(look, op.Transpose(rows, perm=[1, 0]))
    if config.contest > 0 or config.rivalry > 0:
        own = op.MatMul(
            look, op.Transpose(op.Slice(prototypes, [1], op.Add(known, [1]), [0]), perm=[1, 0])
        )
        own = op.Relu(own)  # what the look says of the seen classes, (R, Ks)
        if config.contest > 0:
            seen = op.Mul(seen, _left(op, logits, own, looked, thresholds, known, config))
        nothing = op.Mul(looked, 0.0)  # there may be no seen class
        rival = op.ReduceMax(op.Concat(own, nothing, axis=1), [1], keepdims=1)
        logits = op.Sub(logits, op.Mul(rival, config.rivalry))
    if config.seen_scale != 1.0:
        seen = op.Mul(seen, config.seen_scale)
    found = op.Sigmoid(logits)
    likely = op.Mul(looked, op.Unsqueeze(op.Pow(objectness, [config.objectness_power]), [1]))
    scores: ir.Value = op.Concat(seen, op.Mul(found, likely), axis=1)
    return scores


def _left(
    op: OpBuilder,
    rivals: ir.Value,
    own: ir.Value,
    looked: ir.Value,
    thresholds: ir.Value,
    known: ir.Value,
    config: ScoringConfig,
) -> ir.Value:
    """What the contest leaves of the seen scores, ``(R, Ks)``, of the look's logits.

    ``rivals`` are ``(R, U)``, ``own`` ``(R, Ks)``, ``looked`` ``(R, 1)`` and ``known`` ``(1,)``.
    """
    classes = op.Add(known, op.Shape(rivals, start=1, end=2))
    asked = op.Slice(op.Expand(thresholds, classes), known, [LAST], [0])  # (U,)
    takes_part = op.Less(asked, [math.inf])
    rivals = op.Where(takes_part, rivals, [LOWEST])
    count = op.Max(op.ReduceSum(op.Cast(takes_part, to=1), keepdims=1), [1.0])  # (1,)
    nobody = op.Expand([LOWEST], op.Concat(op.Shape(rivals, start=0, end=1), [1], axis=0))
    best = op.ReduceMax(op.Concat(rivals, nobody, axis=1), [1], keepdims=1)  # (R, 1)
    best = op.Sub(best, op.Log(count))
    left = op.Sigmoid(op.Mul(op.Sub(config.contest_margin, op.Sub(best, own)), config.contest))
    chosen: ir.Value = op.Where(op.Greater(looked, [0.0]), left, [1.0])
    return chosen
