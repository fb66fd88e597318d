"""Region proposals from the outputs of a region proposal network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import check, compiled, floats
from zsd_core.kernels.nms import check_overlap

__all__ = ["propose"]


def propose(
    objectness: ArrayLike,
    deltas: ArrayLike,
    anchors: ArrayLike,
    image_sizes: ArrayLike,
    *,
    stride: int,
    pre_nms_top: int,
    post_nms_top: int,
    nms_threshold: float,
    min_size: float,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Regions worth looking at: best anchors, decoded, clipped, filtered, NMS.

    Args:
        objectness: ``(B, A, H, W)`` logits; NaN is never proposed.
        deltas: ``(B, 4A, H, W)``, channel ``4a + k`` is dx, dy, dw, dh of anchor a, in units of
            the anchor's size; dw and dh are clamped at log(1000 / 16).
        anchors: ``(A, 4)`` of the cell at the origin, ``x1 y1 x2 y2`` in input pixels.
        image_sizes: ``(B, 2)`` height and width of the resized, unpadded images, to clip to.
        stride: pixels of the network input between two cells.
        pre_nms_top: best anchors of an image that are decoded; ties go to the lower index
            ``(y * W + x) * A + a``.
        post_nms_top: most regions of an image that are returned.
        nms_threshold: IoU above which the worse of two regions is dropped.
        min_size: regions with a shorter edge are dropped, input pixels.

    Returns:
        ``rois`` (R, 4) in pixels of the network input, images in order and best first within
        one; ``batch_indices`` (R,); ``scores`` (R,), the sigmoid of the logit.

    Raises:
        ShapeError: an argument does not have the shape above, or a limit is negative.
        ConfigError: ``nms_threshold`` is not in [0, 1].
    """
    objectness, deltas, anchors = floats(objectness), floats(deltas), floats(anchors)
    image_sizes = floats(image_sizes)
    sizes = expect_shapes(
        "propose",
        "objectness and deltas come from one trunk, anchors from its configuration.",
        objectness=(objectness, "B A H W"),
        anchors=(anchors, "A 4"),
        image_sizes=(image_sizes, "B 2"),
    )
    expect_shapes(
        "propose",
        "Four channels per anchor.",
        deltas=(deltas, f"{sizes['B']} {4 * sizes['A']} {sizes['H']} {sizes['W']}"),
    )
    check_overlap("propose: nms_threshold", nms_threshold)
    check(
        pre_nms_top >= 0 and post_nms_top >= 0,
        "propose",
        f"pre_nms_top is {pre_nms_top} and post_nms_top {post_nms_top}, must not be negative.",
    )
    rois, indices, scores = compiled().propose(
        objectness,
        deltas,
        anchors,
        image_sizes,
        int(stride),
        int(pre_nms_top),
        int(post_nms_top),
        float(nms_threshold),
        float(min_size),
    )
    return rois, indices, scores
