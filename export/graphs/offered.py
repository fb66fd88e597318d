"""Regions that a given detector offers, in standard ONNX operators, for ``detector.onnx``.

Functions have the name and the meaning of those in ``zsd_core.kernels.offered``; change both
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graphs.detector import INT64, below
from zsd_core.config import ProposalConfig, RegionConfig

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = ["behind_logits", "second_look", "spoken_for", "top_regions", "with_looks"]


def top_regions(
    op: OpBuilder,
    boxes: ir.Value,
    logits: ir.Value,
    image_sizes: ir.Value,
    config: ProposalConfig,
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """Keep the best regions.

    Args:
        op: builder of the graph.
        boxes: ``(N, Q, 4)``, shares of the network input.
        logits: ``(N, Q, Ks)``.
        image_sizes: ``(N, 2)`` height and width.
        config: limits.

    Returns:
        rois ``(R, 4)``, batch_indices ``(R,)`` int64, objectness ``(R,)`` and logits ``(R, Ks)``.
    """
    best = op.ReduceMax(logits, [2], keepdims=0)  # (N, Q)
    count = op.Min(op.Shape(best, start=1, end=2), [config.post_nms_top])
    best, indices = op.TopK(best, count, axis=1, _outputs=2)  # (N, k)
    indices = op.Unsqueeze(indices, [-1])
    shares = op.Clip(op.GatherND(boxes, indices, batch_dims=1), 0.0, 1.0)
    scale = op.Unsqueeze(op.Gather(image_sizes, [1, 0, 1, 0], axis=1), [1])  # (N, 1, 4)
    rois = op.Mul(shares, scale)
    low, high = op.Split(rois, axis=-1, num_outputs=2, _outputs=2)
    shorter = op.ReduceMin(op.Sub(high, low), [2], keepdims=0)
    places = op.Transpose(op.NonZero(op.GreaterOrEqual(shorter, config.min_size)), perm=[1, 0])
    return (
        op.GatherND(rois, places),
        op.Gather(places, 0, axis=1),
        op.Sigmoid(op.GatherND(best, places)),
        op.GatherND(op.GatherND(logits, indices, batch_dims=1), places),
    )


def second_look(
    op: OpBuilder,
    rois: ir.Value,
    batch_indices: ir.Value,
    image_sizes: ir.Value,
    config: RegionConfig,
) -> ir.Value:
    """Choose the regions that are looked at again, positions ``(L,)`` int64 in ascending order.

    Regions are best first within an image, so their order stands for their objectness. Boxes of
    different images are moved apart, which makes one suppression of all.
    """
    far = op.Add(op.ReduceMax(image_sizes, keepdims=0), 1.0)
    image = op.Cast(batch_indices, to=1)
    apart = op.Add(rois, op.Unsqueeze(op.Mul(image, far), [1]))
    count = op.Shape(rois, start=0, end=1)
    order = op.Range(0, op.Squeeze(count, [0]), 1)
    rank = op.Neg(op.Cast(order, to=1))
    selected = op.NonMaxSuppression(
        op.Unsqueeze(apart, [0]),
        op.Unsqueeze(rank, [0, 1]),
        count,
        [below(config.look_nms)],
    )
    kept = op.Gather(selected, 2, axis=1)
    kept, _ = op.TopK(kept, op.Shape(kept), largest=0, _outputs=2)
    owners = op.Gather(batch_indices, kept)
    earlier = op.Less(op.Unsqueeze(kept, [0]), op.Unsqueeze(kept, [1]))
    same = op.Equal(op.Unsqueeze(owners, [0]), op.Unsqueeze(owners, [1]))
    before = op.ReduceSum(op.Cast(op.And(earlier, same), to=INT64), [1], keepdims=0)
    looked: ir.Value = op.Compress(kept, op.Less(before, [config.look]), axis=0)
    return looked


def spoken_for(
    op: OpBuilder,
    rois: ir.Value,
    batch_indices: ir.Value,
    looked: ir.Value,
    config: RegionConfig,
) -> ir.Value:
    """Which look holds for each region, ``(R,)`` places in ``looked``; L where none does."""
    low, high = op.Split(rois, axis=1, num_outputs=2, _outputs=2)  # (R, 2) each
    areas = op.ReduceProd(op.Sub(high, low), [1], keepdims=0)
    starts, ends = (op.Unsqueeze(op.Gather(corner, looked), [1]) for corner in (low, high))
    sides = op.Sub(op.Min(ends, op.Unsqueeze(high, [0])), op.Max(starts, op.Unsqueeze(low, [0])))
    common = op.ReduceProd(op.Max(sides, 0.0), [2], keepdims=0)  # (L, R)
    both = op.Add(op.Unsqueeze(op.Gather(areas, looked), [1]), op.Unsqueeze(areas, [0]))
    near = op.Greater(op.Div(common, op.Sub(both, common)), below(config.look_nms))
    owners = op.Unsqueeze(op.Gather(batch_indices, looked), [1])
    same = op.And(near, op.Equal(owners, op.Unsqueeze(batch_indices, [0])))
    # The first of several is the best one. No two weights are equal, and below all is "none".
    count = op.Shape(looked)
    weights = op.Cast(op.Sub(count, op.Range(0, op.Squeeze(count, [0]), 1)), to=1)  # L ... 1
    votes = op.Mul(op.Cast(same, to=1), op.Unsqueeze(weights, [1]))
    none = op.Expand([0.5], op.Concat([1], op.Shape(rois, start=0, end=1), axis=0))
    held: ir.Value = op.ArgMax(op.Concat(votes, none, axis=0), axis=0, keepdims=0)
    return held


def with_looks(
    op: OpBuilder, logits: ir.Value, held: ir.Value, looks: ir.Value, *, width: int
) -> ir.Value:
    """``[logits, look]`` of every region, zeros where no look holds for it.

    Args:
        op: builder of the graph.
        logits: ``(R, Ks)``.
        held: ``(R,)``, of ``spoken_for``.
        looks: ``(L, width)``.
        width: P.
    """
    padded = op.Concat(looks, op.Expand([0.0], [1, width]), axis=0)
    whole: ir.Value = op.Concat(logits, op.Gather(padded, held), axis=1)
    return whole


def behind_logits(
    op: OpBuilder, logits: ir.Value, looked: ir.Value, values: ir.Value, *, width: int
) -> ir.Value:
    """``[logits, values]`` of every region, zeros where a region was not looked at.

    Args:
        op: builder of the graph.
        logits: ``(R, n)``.
        looked: ``(L,)`` positions.
        values: ``(L, width)``.
        width: number of values.
    """
    count = op.Shape(logits, start=0, end=1)
    empty = op.Expand([0.0], op.Concat(count, [width], axis=0))
    filled = op.ScatterND(empty, op.Unsqueeze(looked, [1]), values)
    whole: ir.Value = op.Concat(logits, filled, axis=1)
    return whole
