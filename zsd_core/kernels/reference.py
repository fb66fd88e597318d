"""Definitions of every operator in plain numpy: the twins of tests, documentation and export.

Results have the dtype of the first floating argument, so float64 in is float64 all the way. The
compiled kernels in ``csrc/kernels`` compute the same; change both in one commit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zsd_core.kernels import offered
from zsd_core.kernels.nms import check_overlap

__all__ = [
    "PackedLinear",
    "PackedMlp",
    "calibrate_scores",
    "clip_boxes",
    "decode_boxes",
    "detect",
    "fuse",
    "iou",
    "nms",
    "preprocess",
    "product_mlp",
    "product_mlp_backward",
    "product_mlp_int8",
    "product_mlps",
    "propose",
    "quantize_weights",
    "roi_align",
    "roi_align_backward",
    "second_look",
    "split_weights",
    "spoken_for",
    "top_regions",
]

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# A box may grow by this factor at most, so that exp cannot overflow (Faster R-CNN's constant).
LOG_SIZE_LIMIT = math.log(1000.0 / 16)

_INT8_LEVELS = 127


def preprocess(
    image: NDArray[np.uint8],
    *,
    size: tuple[int, int],
    padded: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: Literal["rgb", "bgr"] = "rgb",
    dtype: type[np.floating[Any]] = np.float32,
) -> Floats:
    """Resize, scale to [0, 1], normalise and zero-pad one image: (H, W, 3) to (3, ph, pw)."""
    pixels = image[:, :, :: -1 if color == "bgr" else 1].astype(dtype)
    pixels = _resize_rows(pixels, size[0])
    pixels = _resize_rows(pixels.transpose(1, 0, 2), size[1]).transpose(1, 0, 2)
    output = np.zeros((3, *padded), dtype)
    normal = (pixels / dtype(255) - np.asarray(mean, dtype)) / np.asarray(std, dtype)
    output[:, : size[0], : size[1]] = normal.transpose(2, 0, 1)
    return output


def _resize_rows(pixels: Floats, size: int) -> Floats:
    """Resize axis 0: means of whole blocks where it shrinks to a half or less, then bilinear."""
    length, dtype = len(pixels), pixels.dtype
    block = max(1, length // size)
    if block > 1:
        starts = np.arange(0, length, block)
        counts = np.minimum(starts + block, length) - starts
        pixels = np.add.reduceat(pixels, starts, axis=0) / counts[:, None, None].astype(dtype)
    # Positions are exact in the original image even when its last block is partial.
    positions = (np.arange(size) + 0.5) * (length / size) / block - 0.5
    positions = np.clip(positions, 0, len(pixels) - 1)
    low = np.floor(positions).astype(np.int64)
    high = np.minimum(low + 1, len(pixels) - 1)
    fraction = (positions - low).astype(dtype)[:, None, None]
    return np.asarray(pixels[low] * (1 - fraction) + pixels[high] * fraction)


def decode_boxes(
    deltas: Floats, boxes: Floats, weights: tuple[float, float, float, float]
) -> Floats:
    """Move boxes (n, 4) by offsets (n, 4): Faster R-CNN's coding, sizes' logarithms clamped."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size * size.dtype.type(0.5)
    scaled = deltas / np.asarray(weights, deltas.dtype)
    centre = scaled[:, :2] * size + centre
    limit = deltas.dtype.type(LOG_SIZE_LIMIT)
    half = np.exp(np.minimum(scaled[:, 2:], limit)) * size * size.dtype.type(0.5)
    return np.concatenate([centre - half, centre + half], axis=1)


def clip_boxes(boxes: Floats, image_size: Floats) -> Floats:
    """Clip boxes (n, 4) to an image of ``image_size`` = (height, width) pixels."""
    height, width = image_size
    limit = np.asarray([width, height, width, height], boxes.dtype)
    return np.minimum(np.maximum(boxes, boxes.dtype.type(0)), limit)


def iou(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of one box (4,) with boxes (n, 4); 0 / 0 is NaN."""
    overlap = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(overlap, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - common
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(common / union)


def nms(boxes: Floats, scores: Floats, *, threshold: float) -> NDArray[np.int64]:
    """Indices kept by greedy suppression, best score first; ties go to the lower index."""
    check_overlap("nms: threshold", threshold)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    alive = np.ones(len(boxes), bool)
    for index in order:
        if alive[index]:
            kept.append(int(index))
            alive &= ~(iou(boxes[index], boxes) > np.float64(threshold))
    return np.asarray(kept, np.int64)


top_regions = offered.top_regions  # numpy already
second_look = partial(offered.second_look, nms=nms)
spoken_for = offered.spoken_for


def propose(
    objectness: Floats,
    deltas: Floats,
    anchors: Floats,
    image_sizes: Floats,
    *,
    stride: int,
    pre_nms_top: int,
    post_nms_top: int,
    nms_threshold: float,
    min_size: float,
) -> tuple[Floats, NDArray[np.int32], Floats]:
    """Regions worth looking at: top-k of the anchors, decoded, clipped, filtered, NMS."""
    batch, per_cell, height, width = objectness.shape
    dtype = objectness.dtype
    x, y = np.meshgrid(np.arange(width) * stride, np.arange(height) * stride)
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    grid = (anchors.astype(dtype) + shifts.astype(dtype)).reshape(-1, 4)  # (H*W*A, 4)
    logits = objectness.transpose(0, 2, 3, 1).reshape(batch, len(grid))
    offsets = deltas.reshape(batch, per_cell, 4, height, width)
    offsets = offsets.transpose(0, 3, 4, 1, 2).reshape(batch, len(grid), 4)
    rois, indices, scores = [np.zeros((0, 4), dtype)], [], [np.zeros(0, dtype)]
    for image in range(batch):
        valid = np.flatnonzero(~np.isnan(logits[image]))
        top = valid[np.argsort(-logits[image, valid], kind="stable")][:pre_nms_top]
        with np.errstate(invalid="ignore", over="ignore"):
            boxes = decode_boxes(offsets[image, top], grid[top], (1, 1, 1, 1))
            boxes = clip_boxes(boxes, image_sizes[image])
            large = ((boxes[:, 2:] - boxes[:, :2]) >= min_size).all(axis=1)
        boxes, top = boxes[large], top[large]
        kept = nms(boxes, logits[image, top], threshold=nms_threshold)[:post_nms_top]
        rois.append(boxes[kept])
        scores.append(_sigmoid(logits[image, top[kept]]))
        indices.append(np.full(len(kept), image, np.int32))
    return (
        np.concatenate(rois),
        np.concatenate([np.zeros(0, np.int32), *indices]),
        np.concatenate(scores),
    )


def roi_align(
    features: Floats,
    rois: Floats,
    batch_indices: Integers,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    bin_step: int = 1,
) -> Floats:
    """Pool (R, C, PH, PW) patches: bilinear sampling is separable, so a patch is Wy F Wx'.

    Of PH and PW every ``bin_step``-th bin is kept, from the first.
    """
    _, channels, height, width = features.shape
    rows, columns = _roi_weights(
        rois.astype(features.dtype), output_size, (height, width), spatial_scale, sampling_ratio
    )
    kept = (-(-bins // bin_step) for bins in output_size)
    output = np.zeros((len(rois), channels, *kept), features.dtype)
    for r, image in enumerate(batch_indices):
        patch = rows[r] @ features[image] @ columns[r].T
        output[r] = patch[:, ::bin_step, ::bin_step]
    return output


def roi_align_backward(
    gradient: Floats,
    rois: Floats,
    batch_indices: Integers,
    features_shape: tuple[int, int, int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> Floats:
    """Gradient of ``roi_align`` by its features: the transposed weights, summed over regions."""
    output_size = (gradient.shape[2], gradient.shape[3])
    rows, columns = _roi_weights(
        rois.astype(gradient.dtype), output_size, features_shape[2:], spatial_scale, sampling_ratio
    )
    output = np.zeros(features_shape, gradient.dtype)
    for r, image in enumerate(batch_indices):
        output[image] += rows[r].T @ gradient[r] @ columns[r]
    return output


def _roi_weights(
    rois: Floats,
    output_size: tuple[int, int],
    map_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> tuple[list[Floats], list[Floats]]:
    """Per region the weights (PH, H) and (PW, W) of its bins over the map's rows and columns."""
    half = rois.dtype.type(0.5)
    corners = rois * rois.dtype.type(spatial_scale) - half
    return tuple(  # type: ignore[return-value]
        [
            _axis_weights(start, end, output_size[axis], map_size[axis], sampling_ratio)
            for start, end in zip(corners[:, 1 - axis], corners[:, 3 - axis], strict=True)
        ]
        for axis in (0, 1)
    )


def _axis_weights(start: Any, end: Any, bins: int, cells: int, sampling_ratio: int) -> Floats:
    weights = np.zeros((bins, cells), start.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        bin_size = (end - start) / start.dtype.type(bins)
        count = sampling_ratio
        if count <= 0:  # 0 or less also where the side is not positive; 4 * cells bounds the work
            count = math.ceil(min(bin_size, 4 * cells)) if bin_size > 0 else 0
        for b in range(bins):
            for i in range(count):
                step = start.dtype.type(i + 0.5) * bin_size / start.dtype.type(count)
                position = start + start.dtype.type(b) * bin_size + step
                if not (position >= -1 and position <= cells):
                    continue
                position = max(position, start.dtype.type(0))
                low = min(int(position), cells - 1)
                high = min(low + 1, cells - 1)
                fraction = position - low if low < cells - 1 else start.dtype.type(0)
                weights[b, low] += (1 - fraction) / start.dtype.type(count)
                weights[b, high] += fraction / start.dtype.type(count)
    return weights


def product_mlp(
    regions: Floats,
    prototypes: Floats,
    weight1: Floats,
    bias1: Floats,
    weight2: Floats,
    bias2: Floats,
) -> Floats:
    """Eq. 6 before its last activation, (R, D), (K, D) to (R, K)."""
    hidden = np.maximum((regions[:, None] * prototypes) @ weight1.T + bias1, 0)  # (R, K, M)
    return np.asarray(hidden @ weight2 + bias2)


class PackedLinear:
    """A linear layer without bias; the compiled class keeps it packed."""

    def __init__(self, weight: Floats) -> None:
        self.weight = weight

    def __call__(self, rows: Floats) -> Floats:
        """``(N, M)``."""
        return np.asarray(rows @ self.weight.T)


class PackedMlp:
    """The weights of one scorer; the compiled class keeps them packed."""

    def __init__(self, weight1: Floats, bias1: Floats, weight2: Floats, bias2: Floats) -> None:
        self.weights = (weight1, bias1, weight2, bias2)


def product_mlps(
    regions: Floats, prototypes: Floats, scorers: Sequence[tuple[PackedMlp, int]]
) -> list[Floats]:
    """``product_mlp`` of every scorer, each from its first class on."""
    return [product_mlp(regions, prototypes[first:], *mlp.weights) for mlp, first in scorers]


def product_mlp_backward(
    gradient: Floats,
    regions: Floats,
    prototypes: Floats,
    weight1: Floats,
    bias1: Floats,
    weight2: Floats,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Gradients by the six arguments of ``product_mlp``, for ``gradient`` (R, K)."""
    products = regions[:, None] * prototypes  # (R, K, D)
    hidden = np.maximum(products @ weight1.T + bias1, 0)  # (R, K, M)
    inner = gradient[:, :, None] * weight2 * (hidden > 0)  # (R, K, M)
    outer = inner @ weight1  # (R, K, D)
    return (
        (outer * prototypes).sum(axis=1),
        (outer * regions[:, None]).sum(axis=0),
        np.einsum("rkm,rkd->md", inner, products),
        inner.sum(axis=(0, 1)),
        np.einsum("rk,rkm->m", gradient, hidden),
        gradient.sum(keepdims=True).reshape(1),
    )


def product_mlp_int8(
    regions: Floats,
    prototypes: Floats,
    weight1: Floats,
    bias1: Floats,
    weight2: Floats,
    bias2: Floats,
) -> Floats:
    """``product_mlp`` of products rounded to 0 .. 127 and weights to at most -127 .. 127.

    But for the weights' share along one direction, which stays as exact as the floats are.

    The integers of every instruction set and GPU; ``csrc/kernels/mlp_int8.h`` says why they are
    these.
    """
    products = regions[:, None] * prototypes  # (R, K, D), not negative
    largest = products.max(axis=2, keepdims=True, initial=0)
    factors = np.divide(_INT8_LEVELS, largest, out=np.zeros_like(largest), where=largest > 0)
    rounded = np.floor(products * factors + regions.dtype.type(0.5))
    slopes, direction, rest = split_weights(weight1, weight2)
    weights, scales = quantize_weights(rest)
    steps = largest / regions.dtype.type(_INT8_LEVELS) * scales  # (R, K, M), of a sum
    along = (products @ direction)[:, :, None] * slopes  # (R, K, M)
    hidden = np.maximum(rounded @ weights.T.astype(regions.dtype) * steps + along + bias1, 0)
    return np.asarray(hidden @ weight2 + bias2)


def split_weights(weight1: Floats, weight2: Floats) -> tuple[Floats, Floats, Floats]:
    """Slopes (M,), direction (D,) and rest (M, D): ``weight1`` is their product plus the rest.

    The direction, of unit length, is that of the logit's gradient where every unit is active.
    """
    dtype, weights = weight1.dtype, weight1.astype(np.float64)
    direction = weight2.astype(np.float64) @ weights
    norm = np.linalg.norm(direction)
    direction = (direction / norm if norm > 0 else 0 * direction).astype(dtype)
    slopes = (weights @ direction.astype(np.float64)).astype(dtype)
    rest = weights - np.outer(slopes.astype(np.float64), direction)
    return slopes, direction, rest.astype(dtype)


def quantize_weights(weight1: Floats) -> tuple[NDArray[np.int8], Floats]:
    """``weight1`` (M, D) as integers and the scale (M,) of each hidden unit, for int8."""
    scales = np.abs(weight1).max(axis=1, initial=0) / weight1.dtype.type(_INT8_LEVELS)
    # Every second pair of 16 neighbours is summed in 16 bits: its weights may reach 258, and half
    # a step of rounding less for each of the eight.
    padded = np.pad(weight1, ((0, 0), (0, -weight1.shape[1] % 16)))
    sums = padded.reshape(len(weight1), -1, 4, 2, 2)
    for signed in (np.maximum(sums, 0), np.maximum(-sums, 0)):
        total = signed.sum(axis=(2, 4)).reshape(len(weight1), -1)
        scales = np.maximum(scales, total.max(axis=1, initial=0) / weight1.dtype.type(254))
    integers = np.round(weight1 / np.where(scales > 0, scales, 1)[:, None])
    return integers.astype(np.int8), scales


def fuse(
    seen_logits: Floats,
    unseen_probabilities: Floats,
    seen_similarity: Floats,
    *,
    fusion: Literal["softmax", "sigmoid", "raw"],
    seen_scale: float = 1.0,
    objectness: Floats | None = None,
    objectness_power: float = 0.0,
    seen_evidence: bool = False,
) -> Floats:
    """Eq. 14, (o_u S') times the activation of o_s, without the background column."""
    count = unseen_probabilities.shape[1]
    activated = seen_logits
    if fusion != "raw":
        activated = _softmax(seen_logits) if fusion == "softmax" else _sigmoid(seen_logits)
    scores = np.array(activated[:, 1:])  # background leaves after the activation
    if count:
        factor = unseen_probabilities @ seen_similarity.T
        scores *= np.concatenate([factor, unseen_probabilities], axis=1)
        if seen_evidence and len(seen_similarity):
            shares = _softmax(seen_logits[:, 1 : 1 + len(seen_similarity)])
            scores[:, len(seen_similarity) :] *= shares @ seen_similarity
    scores[:, : scores.shape[1] - count] *= scores.dtype.type(seen_scale)
    if objectness is not None and objectness_power > 0:
        scores *= (objectness ** objectness.dtype.type(objectness_power))[:, None]
    return scores


def _softmax(logits: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)))


def calibrate_scores(scores: Floats, parameters: Floats, floors: Floats | None = None) -> Floats:
    """Beta calibration by column, 0 where a score is not above its floor."""
    a, b, c = parameters.T
    above = (scores > (0 if floors is None else floors)) & (scores > 0)
    safe = np.where(above, scores, scores.dtype.type(0.5))
    rest = np.maximum(1 - safe, scores.dtype.type(2.0**-24))
    return np.where(above, _sigmoid(a * np.log(safe) - b * np.log(rest) + c), 0)


def detect(
    class_scores: Floats,
    deltas: Floats,
    rois: Floats,
    batch_indices: Integers,
    image_sizes: Floats,
    thresholds: Floats,
    *,
    nms_threshold: float,
    max_detections: int,
    min_size: float,
) -> tuple[Floats, Floats, NDArray[np.int32], NDArray[np.int32]]:
    """Decode, clip, threshold, per-class NMS and the best of each image."""
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = decode_boxes(deltas, rois.astype(deltas.dtype), (10, 10, 5, 5))
        for image, size in enumerate(image_sizes):
            own = batch_indices == image
            boxes[own] = clip_boxes(boxes[own], size)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= min_size).all(axis=1)
    pairs: list[tuple[int, int]] = []  # (region, column)
    images: list[int] = []
    for image in range(len(image_sizes)):
        found: list[tuple[int, int]] = []
        for column in range(class_scores.shape[1]):
            keep = large & (batch_indices == image)
            keep &= class_scores[:, column] > thresholds[column]
            regions = np.flatnonzero(keep)
            kept = nms(boxes[regions], class_scores[regions, column], threshold=nms_threshold)
            found += [(int(region), column) for region in regions[kept]]
        found.sort(key=lambda pair: (-class_scores[pair], *pair))
        pairs += found[:max_detections]
        images += [image] * len(found[:max_detections])
    regions_, columns = np.asarray(pairs, np.int32).reshape(-1, 2).T
    scores = class_scores[regions_, columns]
    return boxes[regions_], scores, columns, np.asarray(images, np.int32)
