"""Regions that a detector offers itself: the best ones, and those worth a second look.

Both are numpy: a few hundred numbers an image, sorted once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels.nms import check_overlap
from zsd_core.kernels.nms import nms as compiled_nms

__all__ = ["second_look", "sigmoid", "spoken_for", "top_regions"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


def top_regions(
    boxes: Floats, logits: Floats, image_sizes: Floats, *, count: int, min_size: float
) -> tuple[Floats, Integers, Floats, Floats]:
    """Keep the best regions that a detector offers; its stand-in for ``propose``.

    The objectness of a region is the probability of its likeliest class. Equal regions keep their
    order.

    Args:
        boxes: ``(N, Q, 4)`` ``x1 y1 x2 y2`` as shares of the network input's width and height.
        logits: ``(N, Q, Ks)`` of the seen classes, before the sigmoid.
        image_sizes: ``(N, 2)`` height and width of the resized images, pixels.
        count: most regions of an image.
        min_size: regions with a shorter edge are dropped, pixels of the network input.

    Returns:
        ``rois`` (R, 4) float32 in pixels of the network input, clipped; ``batch_indices`` (R,)
        int32; ``objectness`` (R,) in [0, 1]; and their ``logits`` (R, Ks). Images in order, best
        first within one.

    Raises:
        ShapeError: an argument does not have the shape above.
    """
    expect_shapes(
        "top_regions",
        "Boxes and logits are the trunk's outputs for one batch.",
        boxes=(boxes, "N Q 4"),
        logits=(logits, "N Q Ks"),
        image_sizes=(image_sizes, "N 2"),
    )
    best = logits.max(axis=2, initial=-np.inf)  # (N, Q)
    order = np.argsort(-best, axis=1, kind="stable")[:, :count]
    scale = np.asarray(image_sizes, np.float32)[:, [1, 0, 1, 0]]  # width, height, twice
    shares = np.take_along_axis(boxes, order[..., None], axis=1)
    rois = np.clip(shares, 0, 1) * scale[:, None]
    large = (rois[..., 2:] - rois[..., :2] >= min_size).all(axis=2)  # NaN is not
    images, places = np.nonzero(large)
    queries = order[images, places]
    return (
        np.ascontiguousarray(rois[large], np.float32),
        images.astype(np.int32),
        sigmoid(best[images, queries]),
        np.ascontiguousarray(logits[images, queries], np.float32),
    )


def second_look(
    rois: Floats,
    batch_indices: Integers,
    objectness: Floats,
    *,
    count: int,
    nms_threshold: float,
    nms: Callable[..., NDArray[np.int64]] = compiled_nms,
) -> NDArray[np.intp]:
    """Choose the regions that are worth looking at again.

    Args:
        rois: ``(R, 4)`` ``x1 y1 x2 y2``.
        batch_indices: ``(R,)``, ascending.
        objectness: ``(R,)``, descending within an image.
        count: most regions of an image.
        nms_threshold: of two regions of an image that overlap by more, the better one is looked at.
        nms: the operator.

    Returns:
        Their positions, ascending.

    Raises:
        ConfigError: ``nms_threshold`` is not in [0, 1].
    """
    check_overlap("second_look: nms_threshold", nms_threshold)
    chosen = [np.empty(0, np.intp)]
    for image in np.unique(batch_indices):
        own = np.flatnonzero(batch_indices == image)
        chosen.append(own[nms(rois[own], objectness[own], threshold=nms_threshold)[:count]])
    return np.sort(np.concatenate(chosen))


def spoken_for(
    rois: Floats, batch_indices: Integers, looked: NDArray[np.intp], *, threshold: float
) -> NDArray[np.intp]:
    """Which look holds for each region: that of the best region that it is almost the same as.

    Args:
        rois: ``(R, 4)`` ``x1 y1 x2 y2``.
        batch_indices: ``(R,)``.
        looked: ``(L,)`` positions of the regions that were looked at, the better ones first.
        threshold: IoU above which two regions of an image count as the same.

    Returns:
        ``(R,)`` places in ``looked``; L for a region that no look holds for.

    Raises:
        ConfigError: ``threshold`` is not in [0, 1].
    """
    check_overlap("spoken_for: threshold", threshold)
    places = np.full(len(rois), len(looked), np.intp)
    areas = (rois[:, 2:] - rois[:, :2]).prod(axis=1)
    for place, best in reversed(list(enumerate(looked))):
        overlap = np.minimum(rois[best, 2:], rois[:, 2:]) - np.maximum(rois[best, :2], rois[:, :2])
        common = np.maximum(overlap, 0).prod(axis=1)
        same = common / (areas[best] + areas - common) > np.float64(threshold)
        places[same & (batch_indices == batch_indices[best])] = place
    return places


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logits)), without overflow."""
    powers = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, powers) / (1 + powers), np.float32)
