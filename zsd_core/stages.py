"""The stages between images and detections, each a function: regions, what the head says, boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import IMAGE, ModelConfig, ProposalConfig, RegionConfig
from zsd_core.errors import BundleError
from zsd_core.kernels.preprocess import Color

__all__ = [
    "PORTION",
    "STAGES",
    "Described",
    "Networks",
    "check_finite",
    "decide",
    "describe",
    "not_finite",
    "to_original",
]

STAGES = ("preprocess", "trunk", "propose", "roi_align", "head", "score", "detect")
PORTION = 24 << 20  # bytes of region features that go through the head together
Floats = NDArray[np.float32]


class Networks(Protocol):
    """The two networks of a detector, numpy in and numpy out."""

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network on ``(N, 3, H, W)``.

        Returns:
            Features ``(N, C, h, w)``, one for each of ``RegionConfig.maps`` but the image itself;
            then objectness logits ``(N, A, h', w')`` and anchor deltas ``(N, 4A, h', w')``. A given
            detector gives boxes ``(N, Q, 4)``, ``x1 y1 x2 y2`` as shares of width and height, and
            logits ``(N, Q, Ks)`` of the seen classes.
        """

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Regions ``(R, C, ph, pw)`` of each map to embeddings ``(R, D)`` and deltas ``(R, 4)``.

        R is above 0.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """Regions of images of one network input size, before anything is known of classes.

    Attributes:
        rois: ``(R, 4)`` float32, pixels of the network input.
        batch_indices: ``(R,)`` int32, the image of each.
        objectness: ``(R,)`` in [0, 1].
        embeddings: ``(R, D)``, what scoring reads. With a second look ``(R, Ks + D)``: the trunk's
            logits, then the look that holds for a region (``kernels.spoken_for``), or zeros.
        deltas: ``(R, 4)``, class-agnostic.
        image_sizes: ``(B, 2)`` height and width of each resized image.
        originals: height and width of each image itself.
    """

    rois: Floats
    batch_indices: NDArray[np.int32]
    objectness: Floats
    embeddings: Floats
    deltas: Floats
    image_sizes: Floats
    originals: Sequence[tuple[int, int]]


def describe(
    networks: Networks,
    config: ModelConfig,
    images: Sequence[NDArray[np.uint8]],
    *,
    color: Color = "rgb",
    least_objectness: float = 0.0,
    look: float = 0.0,
    kernels: ModuleType = compiled_kernels,
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> Described:
    """The first half: images of one network input size to regions and what the head says of them.

    A large head sees the regions in portions, so that their features stay in the cache.

    Args:
        networks: trunk and head.
        config: of the model.
        images: each ``(H, W, 3)`` uint8.
        color: channel order of every image.
        least_objectness: regions below it are dropped, but for the best one of every image.
        look: objectness from which a region is worth a second look, where the model has one; the
            best of an image is looked at all the same, unless this is infinity: no look at all.
        kernels: the module of operators.
        stage: a context around each of the stages, named as in ``STAGES``.

    Raises:
        BundleError: a network gives numbers that are not finite.
    """
    preprocess, proposals, regions = config.preprocess, config.proposals, config.regions
    sizes = [preprocess.resized(*image.shape[:2]) for image in images]
    with stage("preprocess"):
        tensors = [
            kernels.preprocess(
                image,
                size=size,
                padded=preprocess.padded(*size),
                mean=preprocess.mean,
                std=preprocess.std,
                color=color,
            )
            for image, size in zip(images, sizes, strict=True)
        ]
        inputs = tensors[0][None] if len(tensors) == 1 else np.stack(tensors)
        image_sizes = np.asarray(sizes, np.float32)  # (B, 2) height, width
    with stage("trunk"):
        outputs = networks.trunk(inputs)
        check_finite("trunk", outputs[-2:])  # what no number is in a map shows in the head
    with stage("propose"):
        *maps, rois, batch_indices, roi_scores, logits = _propose(
            outputs, image_sizes, proposals, kernels
        )
        if least_objectness > 0:
            kept = roi_scores >= least_objectness
            kept |= np.diff(batch_indices, prepend=-1) != 0  # the first of an image is its best
            rois, batch_indices, roi_scores, logits = (
                values[kept] for values in (rois, batch_indices, roi_scores, logits)
            )
        seen = _seen_by_head(rois, batch_indices, roi_scores, regions, look, kernels)
    originals = [(image.shape[0], image.shape[1]) for image in images]
    if regions.maps[0][0] == IMAGE:
        maps = [inputs]
    embeddings, deltas = _through_head(
        networks, maps, rois[seen], batch_indices[seen], regions, kernels, stage
    )
    if regions.look:  # regions that no look holds for have logits of the trunk, and zeros
        looks = np.concatenate([embeddings, np.zeros((1, embeddings.shape[1]), np.float32)])
        held = kernels.spoken_for(rois, batch_indices, seen, threshold=regions.look_nms)
        whole = np.concatenate([logits, looks[held]], axis=1)
        moved = np.zeros((len(rois), 4), np.float32)
        moved[seen] = deltas
        embeddings, deltas = whole, moved
    return Described(rois, batch_indices, roi_scores, embeddings, deltas, image_sizes, originals)


def check_finite(part: str, outputs: Sequence[Floats]) -> None:
    """Refuse outputs that are NaN or infinite, of which nothing would be found, without a word.

    No network means them: where regions do not count, it says so in numbers.

    Args:
        part: "trunk", "head" or "scoring".
        outputs: what it gave.

    Raises:
        BundleError: one of them is not finite.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise not_finite(part)


def not_finite(part: str) -> BundleError:
    """The error about a part, "trunk", "head" or "scoring", that gives NaN or infinity."""
    return BundleError(
        f"the {part} gives numbers that are not finite, and nothing can be found by them. "
        "Either a number became too large for fp16 (take precision='float32'), or the weights are "
        "damaged: export the bundle again, from a checkpoint whose evaluation is right."
    )


def _propose(
    outputs: tuple[Floats, ...],
    image_sizes: Floats,
    proposals: ProposalConfig,
    kernels: ModuleType,
) -> tuple[Any, ...]:
    """Maps of the trunk, then regions: rois, batch_indices, objectness and logits ``(R, Ks)``."""
    if proposals.source == "queries":
        boxes, logits = outputs
        offered: tuple[Any, ...] = kernels.top_regions(
            boxes, logits, image_sizes, count=proposals.post_nms_top, min_size=proposals.min_size
        )
        return offered
    *maps, objectness, anchor_deltas = outputs
    rois, batch_indices, roi_scores = kernels.propose(
        objectness,
        anchor_deltas,
        proposals.anchors(),
        image_sizes,
        stride=proposals.stride,
        pre_nms_top=proposals.pre_nms_top,
        post_nms_top=proposals.post_nms_top,
        nms_threshold=proposals.nms_threshold,
        min_size=proposals.min_size,
    )
    return *maps, rois, batch_indices, roi_scores, np.zeros((len(rois), 0), np.float32)


def _seen_by_head(
    rois: Floats,
    batch_indices: NDArray[np.int32],
    objectness: Floats,
    regions: RegionConfig,
    look: float,
    kernels: ModuleType,
) -> NDArray[np.intp]:
    """Positions of the regions that go through the head."""
    if not regions.look:
        return np.arange(len(rois))
    if look == np.inf:
        return np.empty(0, np.intp)
    chosen: NDArray[np.intp] = kernels.second_look(
        rois, batch_indices, objectness, count=regions.look, nms_threshold=regions.look_nms
    )
    first = np.diff(batch_indices[chosen], prepend=-1) != 0
    kept: NDArray[np.intp] = chosen[first | (objectness[chosen] >= look)]
    return kept


def _through_head(
    networks: Networks,
    maps: Sequence[Floats],
    rois: Floats,
    batch_indices: NDArray[np.int32],
    regions: RegionConfig,
    kernels: ModuleType,
    stage: Callable[[str], AbstractContextManager[None]],
) -> tuple[Floats, Floats]:
    """Cut regions from the maps and run the head on them, in portions that fit the cache."""
    if not len(rois):
        return np.zeros((0, 0), np.float32), np.zeros((0, 4), np.float32)
    floats = sum(
        features.shape[1] * math.prod(regions.bins(bin_step))
        for features, (_, bin_step) in zip(maps, regions.maps, strict=True)
    )
    step, parts = max(1, PORTION // (4 * floats)), []
    for start in range(0, len(rois), step):
        portion = slice(start, start + step)
        with stage("roi_align"):
            patches = [
                kernels.roi_align(
                    features,
                    rois[portion],
                    batch_indices[portion],
                    output_size=regions.output_size,
                    spatial_scale=1 / regions.stride,
                    sampling_ratio=regions.sampling_ratio,
                    bin_step=bin_step,
                )
                for features, (_, bin_step) in zip(maps, regions.maps, strict=True)
            ]
        with stage("head"):
            parts.append(networks.head(*patches))
            check_finite("head", parts[-1])
    if len(parts) == 1:
        return parts[0]
    embeddings, deltas = (np.concatenate(part) for part in zip(*parts, strict=True))
    return embeddings, deltas


def decide(
    scores: Floats,
    found: Described,
    config: ModelConfig,
    thresholds: Floats,
    *,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
    kernels: ModuleType = compiled_kernels,
) -> list[tuple[Floats, Floats, NDArray[np.int32]]]:
    """The end: final scores ``(R, C)`` of regions to each image's boxes, scores and columns."""
    detection = config.detection
    boxes, best_scores, columns, owners = kernels.detect(
        scores,
        found.deltas,
        found.rois,
        found.batch_indices,
        found.image_sizes,
        thresholds,
        nms_threshold=detection.nms_threshold if nms_threshold is None else nms_threshold,
        max_detections=detection.max_detections if max_detections is None else max_detections,
        min_size=detection.min_size,
    )
    results = []
    for index, original in enumerate(found.originals):
        own = owners == index
        resized = found.image_sizes[index]
        moved = to_original(boxes[own], (int(resized[0]), int(resized[1])), original)
        results.append((moved, best_scores[own], columns[own]))
    return results


def to_original(boxes: Floats, resized: tuple[int, int], original: tuple[int, ...]) -> Floats:
    """Boxes from pixels of the resized image to pixels of the original; the only place it is done.

    Resizing maps edges to edges, so a coordinate scales by the ratio of the sizes of its axis.
    """
    height, width = original
    scale = np.asarray([width / resized[1], height / resized[0]] * 2, np.float32)
    limit = np.asarray([width, height] * 2, np.float32)
    return np.asarray(
        np.minimum(boxes * scale, limit), np.float32
    )  # rounding may step over the edge
