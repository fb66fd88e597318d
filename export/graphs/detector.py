"""The middle of ``detector.onnx`` in standard ONNX operators: what the kernels do, for one file.

Every function has the name, the arguments and the meaning of a kernel in
``zsd_core.kernels.reference``; change both together. They take an onnxscript ``OpBuilder`` and
graph values, so that a test can build any one of them alone. N, R, K, U, H and W stay symbolic;
zero regions, zero unseen classes and zero detections are ordinary.

Where ONNX leaves the order open, the order is made explicit:
    TopK            ties go to the lower index by definition, but not in OpenVINO: keys are made
                    unequal where their order matters.
    NonMaxSuppression  gets ranks as scores in ``propose`` (distinct, and a saturated sigmoid cannot
                    merge them), and its output is sorted again in both places.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.calibration import IDENTITY, LEAST
from zsd_core.config import (
    CalibrationConfig,
    DetectionConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxscript._internal.builder import OpBuilder

__all__ = [
    "LAST",
    "OPSET",
    "TINY",
    "below",
    "calibrate",
    "calibrate_scores",
    "detect",
    "fuse",
    "product_mlp",
    "propose",
    "roi_align",
]

OPSET = 20
LAST, TINY = np.iinfo(np.int64).max, float(np.finfo(np.float32).tiny)  # ends of Slice, lengths
LARGEST_LOG_SCALE = math.log(1000 / 16)  # of dw and dh, so that exp stays finite
LOWEST = float(np.finfo(np.float32).min)
FLOAT, INT64 = 1, 7  # ONNX's numbers of the types


def propose(
    op: OpBuilder,
    objectness: ir.Value,
    deltas: ir.Value,
    image_sizes: ir.Value,
    config: ProposalConfig,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Regions of every image: decode the best anchors, clip, drop the small, suppress.

    Args:
        op: builder of the graph.
        objectness: ``(N, A, H, W)`` logits.
        deltas: ``(N, 4A, H, W)``, channel ``a * 4 + k``.
        image_sizes: ``(N, 2)`` float32, height and width without padding.
        config: anchors and limits.

    Returns:
        rois ``(R, 4)``, batch_indices ``(R,)`` int64 and scores ``(R,)``, by image and then score.
    """
    anchors = config.anchors()
    count = [len(anchors)]
    batch = op.Shape(objectness, start=0, end=1)
    cells = op.Shape(objectness, start=2, end=4)  # H, W
    width = op.Shape(objectness, start=3, end=4)
    by_cell = op.Transpose(objectness, perm=[0, 2, 3, 1])  # (N, H, W, A)
    logits = op.Reshape(by_cell, op.Concat(batch, [-1], axis=0))  # (N, H W A)
    grouped = op.Reshape(deltas, op.Concat(batch, count, [4], cells, axis=0))  # (N, A, 4, H, W)
    offsets = op.Reshape(
        op.Transpose(grouped, perm=[0, 3, 4, 1, 2]), op.Concat(batch, [-1, 4], axis=0)
    )  # (N, H W A, 4)

    top = op.Min(op.Shape(logits, start=1, end=2), [config.pre_nms_top])
    logits, indices = op.TopK(logits, top, axis=1, _outputs=2)  # (N, P)
    offsets = op.GatherND(offsets, op.Unsqueeze(indices, [-1]), batch_dims=1)  # (N, P, 4)
    cell = op.Div(indices, count)
    shift = op.Concat(
        *(op.Unsqueeze(axis, [-1]) for axis in [op.Mod(cell, width), op.Div(cell, width)] * 2),
        axis=-1,
    )  # (N, P, 4), in cells
    table = op.initializer(_tensor(anchors), "anchors")
    centred = op.Gather(table, op.Mod(indices, count), axis=0)  # (N, P, 4)
    shifted = op.Add(centred, op.Mul(op.Cast(shift, to=FLOAT), float(config.stride)))
    height_width = op.Unsqueeze(image_sizes, [1])  # (N, 1, 2)
    boxes, kept = _decode(op, shifted, offsets, (1.0,) * 4, height_width, config.min_size)

    # A rank instead of the logit: distinct, so the order cannot depend on an implementation.
    rank = op.Cast(op.Sub(top, op.Range(0, op.Squeeze(top, [0]), 1)), to=FLOAT)  # P ... 1
    rank = op.Where(kept, rank, [-1.0])
    selected = op.NonMaxSuppression(
        boxes, op.Unsqueeze(rank, [1]), [config.post_nms_top], [below(config.nms_threshold)], [0.0]
    )  # (R, 3): image, 0, candidate
    key = op.Add(op.Mul(_column(op, selected, 0), top), _column(op, selected, 2))
    key, _ = op.TopK(key, op.Shape(key), largest=0, _outputs=2)
    image = op.Div(key, top)
    where = op.Concat(
        op.Unsqueeze(image, [1]), op.Unsqueeze(op.Mod(key, top), [1]), axis=1
    )  # (R, 2)
    return op.GatherND(boxes, where), image, op.Sigmoid(op.GatherND(logits, where))


def roi_align(
    op: OpBuilder,
    features: ir.Value,
    rois: ir.Value,
    batch_indices: ir.Value,
    config: RegionConfig,
) -> ir.Value:
    """Patch of the map under every region, ``(R, C, PH, PW)``."""
    height, width = config.output_size
    patches: ir.Value = op.RoiAlign(
        features,
        rois,
        batch_indices,
        mode="avg",
        output_height=height,
        output_width=width,
        sampling_ratio=config.sampling_ratio,
        spatial_scale=1.0 / config.stride,
        coordinate_transformation_mode="half_pixel",
    )
    return patches


def product_mlp(
    op: OpBuilder,
    regions: ir.Value,
    prototypes: ir.Value,
    weight1: ir.Value,
    bias1: ir.Value,
    weight2: ir.Value,
    bias2: ir.Value,
) -> ir.Value:
    """Logit of every pair, ``(R, K)`` from ``(R, D)`` and ``(K, D)`` with K at least 1; eq. 6.

    One class at a time in a Scan: the largest tensor is ``(R, M)``, never ``(R, K, D)``.
    """
    import onnx_ir as ir

    # The regions travel as the Scan's state: OpenVINO's Scan sees no computed value outside it.
    def one_class(op: OpBuilder, rows: ir.Value, prototype: ir.Value) -> list[ir.Value]:
        hidden = op.Relu(op.Gemm(op.Mul(rows, prototype), weight1, bias1, transB=1))  # (R, M)
        # ONNX Runtime 1.23, the newest for Python 3.10, has no MatMul of (0, M) and (M,).
        logits = op.Gemm(hidden, op.Unsqueeze(weight2, [0]), bias2, transB=1)  # (R, 1)
        return [op.Identity(rows), op.Squeeze(logits, [1])]

    dtype = ir.DataType.FLOAT
    body = op.builder.subgraph(
        one_class,
        [ir.val("rows", dtype, ["R", "D"]), ir.val("prototype", dtype, ["D"])],
        [ir.val("rows_out", dtype, ["R", "D"]), ir.val("logits", dtype, ["R"])],
        name="one_class",
    )
    _, by_class = op.Scan(regions, prototypes, body=body, num_scan_inputs=1, _outputs=2)  # (K, R)
    logits: ir.Value = op.Transpose(by_class, perm=[1, 0])
    return logits


def fuse(
    op: OpBuilder,
    seen_logits: ir.Value,
    unseen_probabilities: ir.Value,
    similarity: ir.Value,
    objectness: ir.Value,
    config: ScoringConfig,
) -> ir.Value:
    """Final score of every region and class, background dropped; eq. 14.

    Args:
        op: builder of the graph.
        seen_logits: o_s, ``(R, K)``, background first and unseen classes last.
        unseen_probabilities: o_u, ``(R, U)``.
        similarity: S in full, ``(K, U)``: unseen rows are one-hot, so they pass o_u through.
        objectness: ``(R,)``, of the regions.
        config: which reading of eq. 14.

    Returns:
        ``(R, K - 1)``.
    """
    logits = seen_logits
    if config.fusion == "softmax":
        seen_logits = op.Softmax(seen_logits, axis=1)
    elif config.fusion == "sigmoid":
        seen_logits = op.Sigmoid(seen_logits)
    unseen = op.Shape(similarity, start=1, end=2)  # U
    factor = op.MatMul(unseen_probabilities, op.Transpose(similarity, perm=[1, 0]))  # (R, K)
    factor = op.Where(op.Equal(unseen, [0]), [1.0], factor)  # no unseen class: no factor
    scores = _from_column(op, op.Mul(seen_logits, factor), [1])
    if config.seen_evidence:
        known = op.Sub(op.Shape(similarity, start=0, end=1), unseen)  # 1 + Ks
        shares = op.Softmax(op.Slice(logits, [1], known, [1]), axis=1)
        says = op.MatMul(shares, op.Slice(similarity, [1], known, [0]))  # (R, U)
        says = op.Where(op.Equal(known, [1]), [1.0], says)  # no seen class: nothing to say
        seen = op.Sub(known, [1])
        scores = op.Concat(
            op.Slice(scores, [0], seen, [1]), op.Mul(_from_column(op, scores, seen), says), axis=1
        )
    return calibrate(op, scores, unseen, objectness, config)


def calibrate(
    op: OpBuilder,
    scores: ir.Value,
    unseen: ir.Value,
    objectness: ir.Value,
    config: ScoringConfig,
) -> ir.Value:
    """Scale the seen columns of scores ``(R, Ks + U)``, and all by objectness ``(R,)``.

    ``unseen`` ``(1,)`` is U; the unseen columns are the last ones.
    """
    if config.seen_scale != 1.0:
        classes = op.Shape(scores, start=1, end=2)
        columns = op.Range(0, op.Squeeze(classes, [0]), 1)
        is_seen = op.Less(columns, op.Sub(classes, unseen))
        scores = op.Mul(scores, op.Where(is_seen, [config.seen_scale], [1.0]))
    if config.objectness_power > 0:
        power = op.Pow(objectness, [config.objectness_power])
        scores = op.Mul(scores, op.Unsqueeze(power, [1]))
    return scores


def calibrate_scores(
    op: OpBuilder, scores: ir.Value, similarity: ir.Value, config: CalibrationConfig
) -> ir.Value:
    """Probabilities of scores ``(R, Ks + U)``; S ``(K, U)`` says which columns are unseen."""
    if not config:
        return scores
    classes = op.Shape(scores, start=1, end=2)
    columns = op.Range(0, op.Squeeze(classes, [0]), 1)
    is_seen = op.Less(columns, op.Sub(classes, op.Shape(similarity, start=1, end=2)))
    curves = zip(config.seen or IDENTITY, config.unseen or IDENTITY, strict=True)
    a, b, c = (op.Where(is_seen, [seen], [unseen]) for seen, unseen in curves)  # (Ks + U,) each
    rest = op.Max(op.Sub([1.0], scores), [LEAST])
    logits = op.Add(op.Sub(op.Mul(a, op.Log(scores)), op.Mul(b, op.Log(rest))), c)
    # ONNX Runtime's Sigmoid errs by 1e-7 of 1, which is much of a small probability.
    probabilities = op.Reciprocal(op.Add(op.Exp(op.Neg(logits)), [1.0]))
    chosen: ir.Value = op.Where(op.Greater(scores, [0.0]), probabilities, [0.0])
    return chosen


def detect(
    op: OpBuilder,
    class_scores: ir.Value,
    deltas: ir.Value,
    rois: ir.Value,
    batch_indices: ir.Value,
    image_sizes: ir.Value,
    thresholds: ir.Value,
    config: DetectionConfig,
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """Final boxes: decode, clip, threshold, suppress within each class, keep the best per image.

    Args:
        op: builder of the graph.
        class_scores: ``(R, C)``.
        deltas: ``(R, 4)``, class-agnostic.
        rois: ``(R, 4)``, sorted by image.
        batch_indices: ``(R,)`` int64, ascending.
        image_sizes: ``(N, 2)``.
        thresholds: ``(1,)`` or ``(C,)``.
        config: limits.

    Returns:
        boxes ``(n, 4)``, scores ``(n,)``, columns ``(n,)`` int64, batch_indices ``(n,)`` int64: by
        image, then score; equal scores by region and column.
    """
    height_width = op.Gather(image_sizes, batch_indices, axis=0)  # (R, 2)
    boxes, kept = _decode(op, rois, deltas, (10.0, 10.0, 5.0, 5.0), height_width, config.min_size)
    above = op.And(op.Greater(class_scores, thresholds), op.Unsqueeze(kept, [1]))
    class_scores = op.Where(above, class_scores, [-math.inf])

    # NonMaxSuppression wants every image equally long: (N, slots), padded with scores of -inf.
    images = op.Range(0, op.Squeeze(op.Shape(image_sizes, start=0, end=1), [0]), 1)  # (N,)
    counts = _counts(op, images, batch_indices)  # (N,)
    first = op.CumSum(counts, 0, exclusive=1)
    regions = op.Squeeze(op.Shape(rois, start=0, end=1), [0])
    slot = op.Sub(op.Range(0, regions, 1), op.Gather(first, batch_indices))
    where = op.Concat(op.Unsqueeze(batch_indices, [1]), op.Unsqueeze(slot, [1]), axis=1)  # (R, 2)
    slots = op.Max(op.ReduceMax(counts, keepdims=1), [1])  # at least one: no empty axis in NMS
    batch = op.Shape(image_sizes, start=0, end=1)
    classes = op.Shape(class_scores, start=1, end=2)
    dense_boxes = op.ScatterND(_full(op, 0.0, batch, slots, [4]), where, boxes)
    dense_scores = op.ScatterND(_full(op, -math.inf, batch, slots, classes), where, class_scores)

    selected = op.NonMaxSuppression(
        dense_boxes,
        op.Transpose(dense_scores, perm=[0, 2, 1]),
        [config.max_detections],
        [below(config.nms_threshold)],
        [LOWEST],
    )
    image, column, slot = (_column(op, selected, i) for i in range(3))
    # Three stable sorts, the last one decides: (region, column), score, image.
    key = op.Add(op.Mul(op.Add(op.Mul(image, slots), slot), classes), column)
    key, _ = op.TopK(key, op.Shape(key), largest=0, _outputs=2)
    region, column = op.Div(key, classes), op.Mod(key, classes)
    image, slot = op.Div(region, slots), op.Mod(region, slots)
    address = op.Concat(*(op.Unsqueeze(i, [1]) for i in (image, slot, column)), axis=1)
    _, order = op.TopK(op.GatherND(dense_scores, address), op.Shape(key), _outputs=2)
    rank = op.Range(0, op.Squeeze(op.Shape(key), [0]), 1)
    count = op.Max(op.Shape(key), [1])  # (1,), no divisor of 0
    # No two keys are equal: OpenVINO's TopK keeps no order of equal ones.
    key, _ = op.TopK(
        op.Add(op.Mul(op.Gather(image, order), count), rank), op.Shape(key), largest=0, _outputs=2
    )
    image, by_image = op.Div(key, count), op.Mod(key, count)
    order = op.Gather(order, by_image)

    start = op.CumSum(_counts(op, images, image), 0, exclusive=1)
    place = op.Sub(rank, op.Gather(start, image))
    best = op.Less(place, [config.max_detections])
    order, image = op.Compress(order, best, axis=0), op.Compress(image, best, axis=0)
    address = op.Gather(address, order, axis=0)
    return (
        op.GatherND(dense_boxes, op.Slice(address, [0], [2], [1])),
        op.GatherND(dense_scores, address),
        _column(op, address, 2),
        image,
    )


def _decode(
    op: OpBuilder,
    boxes: ir.Value,
    deltas: ir.Value,
    weights: tuple[float, float, float, float],
    height_width: ir.Value,
    min_size: float,
) -> tuple[ir.Value, ir.Value]:
    """Moved and clipped boxes ``(..., 4)``, and which of them ``(...)`` are large enough.

    ``height_width`` ``(..., 2)`` broadcasts against the boxes.
    """
    x1, y1, x2, y2 = op.Split(boxes, axis=-1, num_outputs=4, _outputs=4)
    dx, dy, dw, dh = op.Split(
        op.Div(deltas, list(weights)) if set(weights) != {1.0} else deltas,
        axis=-1,
        num_outputs=4,
        _outputs=4,
    )
    limit_y, limit_x = op.Split(height_width, axis=-1, num_outputs=2, _outputs=2)
    low, high = [], []
    for start, end, move, scale, limit in ((x1, x2, dx, dw, limit_x), (y1, y2, dy, dh, limit_y)):
        size = op.Sub(end, start)
        centre = op.Add(op.Mul(move, size), op.Add(start, op.Mul(size, 0.5)))
        half = op.Mul(op.Mul(op.Exp(op.Min(scale, LARGEST_LOG_SCALE)), size), 0.5)
        low.append(op.Min(op.Max(op.Sub(centre, half), 0.0), limit))
        high.append(op.Min(op.Max(op.Add(centre, half), 0.0), limit))
    sides = [op.GreaterOrEqual(op.Sub(b, a), min_size) for a, b in zip(low, high, strict=True)]
    return op.Concat(*low, *high, axis=-1), op.Squeeze(op.And(*sides), [-1])


def _counts(op: OpBuilder, images: ir.Value, batch_indices: ir.Value) -> ir.Value:
    """Number of ``batch_indices`` that name each of ``images``, ``(N,)`` int64."""
    same = op.Equal(op.Unsqueeze(images, [1]), op.Unsqueeze(batch_indices, [0]))  # (N, n)
    counts: ir.Value = op.ReduceSum(op.Cast(same, to=INT64), [1], keepdims=0)
    return counts


def _column(op: OpBuilder, matrix: ir.Value, index: int) -> ir.Value:
    column: ir.Value = op.Gather(matrix, index, axis=1)
    return column


def _from_column(op: OpBuilder, matrix: ir.Value, start: list[int] | ir.Value) -> ir.Value:
    rest: ir.Value = op.Slice(matrix, start, [LAST], [1])
    return rest


def _full(op: OpBuilder, value: float, *sizes: Any) -> ir.Value:
    filled: ir.Value = op.Expand([value], op.Concat(*sizes, axis=0))
    return filled


def below(threshold: float) -> float:
    """Largest float32 up to ``threshold``: float32 IoUs exceed both or neither."""
    nearest = np.float32(threshold)
    return float(nearest if nearest <= threshold else np.nextafter(nearest, np.float32(-1)))


def _tensor(array: NDArray[Any]) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.tensor(np.ascontiguousarray(array))
