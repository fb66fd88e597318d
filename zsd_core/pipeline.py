"""One definition of inference: images in, boxes in original pixels out.

Used by the runtime (networks are a backend) and by the evaluation of a checkpoint (networks are
torch modules), so that both mean the same. numpy and the kernels only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, expect_shapes
from zsd_core.kernels.preprocess import Color, check_color, check_pixels
from zsd_core.scoring import ClassSet, Needed, Scorer

__all__ = [
    "STAGES", "Color", "Described", "ImageResult", "Networks", "decide", "describe", "run",
    "to_original",
]  # fmt: skip

Floats = NDArray[np.float32]

PORTION = 24 << 20  # bytes of region features that go through the head together
STAGES = ("preprocess", "trunk", "propose", "roi_align", "head", "score", "detect")


class Networks(Protocol):
    """The two networks of a detector, numpy in and numpy out."""

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network on ``(N, 3, H, W)``.

        Returns:
            Features ``(N, C, h, w)``, one for each of ``RegionConfig.maps``; then objectness logits
            ``(N, A, h', w')`` and anchor deltas ``(N, 4A, h', w')``.
        """

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Regions ``(R, C, ph, pw)`` of each map to embeddings ``(R, D)`` and deltas ``(R, 4)``.

        R is above 0.
        """


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What was found in one image, best first.

    Attributes:
        boxes: ``(n, 4)`` float32 ``x1 y1 x2 y2`` in pixels of the original image.
        scores: ``(n,)`` float32.
        columns: ``(n,)`` int32, positions in ``ClassSet.names``.
        best: where nothing was found, the highest score of a class that was asked for and its
            column, to explain the empty result; None where there is none. Regions that cannot hold
            a detection are not looked at, but for the most promising one.
        times_ms: milliseconds per stage; images that went through a stage together share its time
            equally.
    """

    boxes: Floats
    scores: Floats
    columns: NDArray[np.int32]
    best: tuple[float, int] | None
    times_ms: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """Regions of images of one network input size, before anything is known of classes.

    Attributes:
        rois: ``(R, 4)`` float32, pixels of the network input.
        batch_indices: ``(R,)`` int32, the image of each.
        objectness: ``(R,)`` in [0, 1].
        embeddings: ``(R, D)``, what scoring reads.
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


def run(
    networks: Networks,
    scorer: Scorer,
    classes: ClassSet,
    config: ModelConfig,
    images: Sequence[NDArray[np.uint8]],
    thresholds: Floats,
    *,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
    color: Color = "rgb",
    max_batch: int = 8,
    kernels: ModuleType = compiled_kernels,
    clock: Callable[[], float] = time.perf_counter,
) -> list[ImageResult]:
    """Detect in images of any sizes.

    Images are grouped by the size of their network input, so nothing of an image's result depends
    on its companions: a batch of N gives what N single images give.

    Args:
        networks: trunk and head.
        scorer: the scoring method.
        classes: its class set; C = Ks + U columns.
        config: of the model.
        images: each ``(H, W, 3)`` uint8 with H, W of at least 1.
        thresholds: ``(C,)``, the score a detection of each column must exceed; infinity hides it.
        nms_threshold: None takes the configuration's, as does ``max_detections``.
        max_detections: most detections of an image.
        color: channel order of every image.
        max_batch: most images that go through the networks together; bounds memory.
        kernels: the module of operators; ``zsd_core.kernels.reference`` for the numpy twins.
        clock: seconds.

    Returns:
        One result per image, in order.

    Raises:
        ImageError: an image is not as above.
        ShapeError: ``thresholds`` has another shape.
        ConfigError: ``max_batch`` is below 1, or ``color`` is neither "rgb" nor "bgr".
    """
    if not (isinstance(max_batch, (int, np.integer)) and max_batch >= 1):
        raise ConfigError(f"run: max_batch is {max_batch!r}, must be a whole number of at least 1.")
    check_color("run", color)
    expect_shapes(
        "run", "Pass one threshold per class column.",
        thresholds=(thresholds, str(len(classes.names))),
    )  # fmt: skip
    options = _Options(nms_threshold, max_detections, color)
    groups = dict[tuple[int, int], list[int]]()
    for index, image in enumerate(images):
        check_pixels(f"run, image{index}", image)
        size = config.preprocess.resized(*image.shape[:2])
        groups.setdefault(config.preprocess.padded(*size), []).append(index)
    results: dict[int, ImageResult] = {}
    for members in groups.values():
        for start in range(0, len(members), max_batch):
            chunk = members[start : start + max_batch]
            found = _run_group(
                networks, scorer, classes, config, [images[i] for i in chunk], thresholds,
                options, kernels, clock,
            )  # fmt: skip
            results.update(zip(chunk, found, strict=True))
    return [results[index] for index in range(len(images))]


@dataclass(frozen=True, slots=True)
class _Options:
    nms_threshold: float | None
    max_detections: int | None
    color: Color


def describe(
    networks: Networks,
    config: ModelConfig,
    images: Sequence[NDArray[np.uint8]],
    *,
    color: Color = "rgb",
    least_objectness: float = 0.0,
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
        kernels: the module of operators.
        stage: a context around each of the stages, named as in ``STAGES``.
    """
    preprocess, proposals, regions = config.preprocess, config.proposals, config.regions
    sizes = [preprocess.resized(*image.shape[:2]) for image in images]
    with stage("preprocess"):
        tensors = [
            kernels.preprocess(
                image, size=size, padded=preprocess.padded(*size), mean=preprocess.mean,
                std=preprocess.std, color=color,
            )
            for image, size in zip(images, sizes, strict=True)
        ]  # fmt: skip
        inputs = tensors[0][None] if len(tensors) == 1 else np.stack(tensors)
        image_sizes = np.asarray(sizes, np.float32)  # (B, 2) height, width
    with stage("trunk"):
        *maps, objectness, anchor_deltas = networks.trunk(inputs)
    with stage("propose"):
        rois, batch_indices, roi_scores = kernels.propose(
            objectness, anchor_deltas, proposals.anchors(), image_sizes,
            stride=proposals.stride, pre_nms_top=proposals.pre_nms_top,
            post_nms_top=proposals.post_nms_top, nms_threshold=proposals.nms_threshold,
            min_size=proposals.min_size,
        )  # fmt: skip
        if least_objectness > 0:
            kept = roi_scores >= least_objectness
            kept |= np.diff(batch_indices, prepend=-1) != 0  # the first of an image is its best
            rois, batch_indices, roi_scores = rois[kept], batch_indices[kept], roi_scores[kept]
    originals = [(image.shape[0], image.shape[1]) for image in images]
    if not len(rois):
        nothing = np.zeros((0, 0), np.float32), np.zeros((0, 4), np.float32)
        return Described(rois, batch_indices, roi_scores, *nothing, image_sizes, originals)
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
                    features, rois[portion], batch_indices[portion],
                    output_size=regions.output_size, spatial_scale=1 / regions.stride,
                    sampling_ratio=regions.sampling_ratio, bin_step=bin_step,
                )
                for features, (_, bin_step) in zip(maps, regions.maps, strict=True)
            ]  # fmt: skip
        with stage("head"):
            parts.append(networks.head(*patches))
    if len(parts) == 1:
        embeddings, deltas = parts[0]
    else:
        embeddings, deltas = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Described(rois, batch_indices, roi_scores, embeddings, deltas, image_sizes, originals)


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
    """The end: scores ``(R, C)`` of described regions to each image's boxes, scores and columns."""
    detection = config.detection
    boxes, best_scores, columns, owners = kernels.detect(
        scores, found.deltas, found.rois, found.batch_indices, found.image_sizes, thresholds,
        nms_threshold=detection.nms_threshold if nms_threshold is None else nms_threshold,
        max_detections=detection.max_detections if max_detections is None else max_detections,
        min_size=detection.min_size,
    )  # fmt: skip
    results = []
    for index, original in enumerate(found.originals):
        own = owners == index
        resized = found.image_sizes[index]
        moved = to_original(boxes[own], (int(resized[0]), int(resized[1])), original)
        results.append((moved, best_scores[own], columns[own]))
    return results


def _run_group(
    networks: Networks,
    scorer: Scorer,
    classes: ClassSet,
    config: ModelConfig,
    images: list[NDArray[np.uint8]],
    thresholds: Floats,
    options: _Options,
    kernels: ModuleType,
    clock: Callable[[], float],
) -> list[ImageResult]:
    """Images of one network input size through every stage."""
    stage = _Stages(clock)
    lowest = float(thresholds.min(initial=np.inf))
    found = describe(
        networks, config, images, color=options.color,
        least_objectness=scorer.least_objectness(lowest), kernels=kernels, stage=stage,
    )  # fmt: skip
    if not len(found.rois):
        return [_nothing(stage.share(len(images))) for _ in images]
    with stage("score"):
        scores = scorer.score(
            found.embeddings, found.objectness, classes, Needed(thresholds, found.batch_indices)
        )
    with stage("detect"):
        detections = decide(
            scores, found, config, thresholds, nms_threshold=options.nms_threshold,
            max_detections=options.max_detections, kernels=kernels,
        )  # fmt: skip
    times = stage.share(len(images))
    results = []
    for index, (boxes, best_scores, columns) in enumerate(detections):
        empty = not len(boxes)
        best = _best(scores[found.batch_indices == index], thresholds) if empty else None
        results.append(ImageResult(boxes, best_scores, columns, best, dict(times)))
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


def _best(scores: Floats, thresholds: Floats) -> tuple[float, int] | None:
    asked = np.flatnonzero(thresholds < np.inf)
    if not len(scores) or not len(asked):
        return None
    per_class = scores[:, asked].max(axis=0)
    winner = int(per_class.argmax())
    return float(per_class[winner]), int(asked[winner])


def _nothing(times: dict[str, float]) -> ImageResult:
    return ImageResult(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), None, times
    )


class _Stages:
    """A stopwatch per stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._seconds = clock, dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self._seconds[name] += self._clock() - start

    def share(self, images: int) -> dict[str, float]:
        return {name: 1e3 * seconds / images for name, seconds in self._seconds.items()}
