"""From scored regions to detections."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import check, check_batch_indices, compiled, floats, integers
from zsd_core.kernels.nms import check_overlap

__all__ = ["detect"]


def detect(
    class_scores: ArrayLike,
    deltas: ArrayLike,
    rois: ArrayLike,
    batch_indices: ArrayLike,
    image_sizes: ArrayLike,
    thresholds: ArrayLike,
    *,
    nms_threshold: float,
    max_detections: int,
    min_size: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Refine regions, keep pairs above their class's threshold, NMS per class, best of an image.

    Args:
        class_scores: ``(R, C)`` foreground scores; NaN is never kept.
        deltas: ``(R, 4)`` dx, dy, dw, dh, the same for every class, in units of a tenth (dx, dy)
            and a fifth (dw, dh): weights 10, 10, 5, 5; dw and dh are clamped at log(1000 / 16).
        rois: ``(R, 4)`` ``x1 y1 x2 y2`` in pixels of the network input.
        batch_indices: ``(R,)``, the image of each region, in ``[0, B)``.
        image_sizes: ``(B, 2)`` height and width of the resized, unpadded images, to clip to.
        thresholds: ``(C,)``, a pair is kept when its score is above; infinity masks a class.
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image.
        min_size: boxes with a shorter edge are dropped, input pixels.

    Returns:
        ``boxes`` (n, 4) in pixels of the network input, ``scores`` (n,), ``columns`` (n,) of
        ``class_scores`` and ``batch_indices`` (n,); images in order, best first within one, ties
        by (region, column).

    Raises:
        ShapeError: an argument does not have the shape above, an index names no image, or
            ``max_detections`` is negative.
        ConfigError: ``nms_threshold`` is not in [0, 1].
    """
    scores, offsets, regions = floats(class_scores), floats(deltas), floats(rois)
    indices, sizes, limits = integers(batch_indices), floats(image_sizes), floats(thresholds)
    shape = expect_shapes(
        "detect",
        "All arguments but the last two have one row per region.",
        class_scores=(scores, "R C"),
        deltas=(offsets, "R 4"),
        rois=(regions, "R 4"),
        batch_indices=(indices, "R"),
        image_sizes=(sizes, "B 2"),
        thresholds=(limits, "C"),
    )
    check_overlap("detect: nms_threshold", nms_threshold)
    check_batch_indices("detect", indices, shape["B"])
    check(
        max_detections >= 0,
        "detect",
        f"max_detections is {max_detections}, must not be negative.",
    )
    boxes, best, columns, images = compiled().detect(
        scores,
        offsets,
        regions,
        indices,
        sizes,
        limits,
        float(nms_threshold),
        int(max_detections),
        float(min_size),
    )
    return boxes, best, columns, images
