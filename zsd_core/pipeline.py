"""One definition of inference: images in, boxes in original pixels out.

Used by the runtime (networks are a backend) and by the evaluation of a checkpoint (networks are
torch modules), so that both mean the same. numpy and the kernels only.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, DeviceError, expect_shapes
from zsd_core.kernels.preprocess import Color, check_color, check_pixels
from zsd_core.scoring import ClassSet, Needed, Scorer
from zsd_core.stages import STAGES, Networks, check_finite, decide, describe

__all__ = ["Color", "HostPipeline", "ImageResult", "Options", "Pipeline", "check_request"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """Findings of one image, best first.

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


@dataclass(frozen=True, slots=True)
class Options:
    """How one call of ``Pipeline.run`` searches.

    Attributes:
        nms_threshold: None takes the configuration's, as does ``max_detections``.
        max_detections: most detections of an image.
        color: channel order of every image.
        max_batch: most images that go through the networks together.
    """

    nms_threshold: float | None
    max_detections: int | None
    color: Color
    max_batch: int


class Pipeline(ABC):
    """A detector for whole images, on the host or on a device; any thread may call it."""

    def run(
        self,
        classes: ClassSet,
        images: Sequence[NDArray[np.uint8]],
        thresholds: Floats,
        *,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        color: Color = "rgb",
        max_batch: int = 8,
    ) -> list[ImageResult]:
        """Detect in images of any sizes.

        Nothing of an image's result depends on its companions: a batch of N gives what N single
        images give.

        Args:
            classes: a class set of the pipeline's scoring method; C = Ks + U columns.
            images: each ``(H, W, 3)`` uint8 with H, W of at least 1.
            thresholds: ``(C,)``, the score a detection of each column must exceed; infinity hides
                the column.
            nms_threshold: None takes the configuration's, as does ``max_detections``.
            max_detections: most detections of an image.
            color: channel order of every image.
            max_batch: most images that go through the networks together; bounds memory.

        Returns:
            One result per image, in order.

        Raises:
            ImageError: an image is not as above.
            ShapeError: ``thresholds`` has another shape.
            ConfigError: ``max_batch`` is below 1, or ``color`` is neither "rgb" nor "bgr".
            DeviceError: there is not enough memory.
        """
        check_request(classes, images, thresholds, color, max_batch)
        options = Options(nms_threshold, max_detections, color, max_batch)
        try:
            return self._run(classes, images, thresholds, options)
        except MemoryError as error:  # of any stage; a bundle says how large its images become
            raise DeviceError(
                f"run: there is not enough memory for {len(images)} images, {max_batch} at a time. "
                "Lower max_batch, or take a bundle that shrinks images more (model.preprocess)."
            ) from error

    @abstractmethod
    def _run(
        self,
        classes: ClassSet,
        images: Sequence[NDArray[np.uint8]],
        thresholds: Floats,
        options: Options,
    ) -> list[ImageResult]:
        """Detect in images, once the request is checked."""


def check_request(
    classes: ClassSet,
    images: Sequence[NDArray[np.uint8]],
    thresholds: Floats,
    color: str,
    max_batch: int,
) -> None:
    """Refuse what no pipeline can run; ``Pipeline.run`` lists the errors."""
    if not (isinstance(max_batch, (int, np.integer)) and max_batch >= 1):
        raise ConfigError(f"run: max_batch is {max_batch!r}, must be a whole number of at least 1.")
    check_color("run", color)
    expect_shapes(
        "run",
        "Pass one threshold per class column.",
        thresholds=(thresholds, str(len(classes.names))),
    )
    for index, image in enumerate(images):
        check_pixels(f"run, image{index}", image)


class HostPipeline(Pipeline):
    """The pipeline whose kernels run in this process, between two networks that run anywhere.

    Images are grouped by the size of their network input.

    Args:
        networks: trunk and head.
        config: of the model.
        scorer: the scoring method.
        kernels: the module of operators; ``zsd_core.kernels.reference`` for the numpy twins.
        clock: seconds.
    """

    def __init__(
        self,
        networks: Networks,
        config: ModelConfig,
        scorer: Scorer,
        *,
        kernels: ModuleType = compiled_kernels,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._networks, self._config, self._scorer = networks, config, scorer
        self._kernels, self._clock = kernels, clock

    def _run(
        self,
        classes: ClassSet,
        images: Sequence[NDArray[np.uint8]],
        thresholds: Floats,
        options: Options,
    ) -> list[ImageResult]:
        preprocess, groups = self._config.preprocess, dict[tuple[int, int], list[int]]()
        for index, image in enumerate(images):
            size = preprocess.resized(*image.shape[:2])
            groups.setdefault(preprocess.padded(*size), []).append(index)
        results: dict[int, ImageResult] = {}
        for members in groups.values():
            for start in range(0, len(members), options.max_batch):
                chunk = members[start : start + options.max_batch]
                found = self._run_group(classes, [images[i] for i in chunk], thresholds, options)
                results.update(zip(chunk, found, strict=True))
        return [results[index] for index in range(len(images))]

    def _run_group(
        self,
        classes: ClassSet,
        images: list[NDArray[np.uint8]],
        thresholds: Floats,
        options: Options,
    ) -> list[ImageResult]:
        """Run images of one network input size through every stage."""
        stage, calibration = _Stages(self._clock), self._config.calibration
        floors = calibration.floors(thresholds, classes.seen_count)  # in scores as scoring has them
        lowest = float(floors.min(initial=np.inf))
        found = describe(
            self._networks,
            self._config,
            images,
            color=options.color,
            least_objectness=self._scorer.least_objectness(lowest),
            look=0.0 if (floors[classes.seen_count :] < np.inf).any() else np.inf,
            kernels=self._kernels,
            stage=stage,
        )
        if not len(found.rois):
            return [_nothing(stage.share(len(images))) for _ in images]
        with stage("score"):
            with np.errstate(over="ignore", invalid="ignore"):  # said below
                scores = self._scorer.score(
                    found.embeddings, found.objectness, classes, Needed(floors, found.batch_indices)
                )
            check_finite("scoring", [scores])
        with stage("detect"):
            raw, curves = scores, calibration.parameters(classes.seen_count, classes.unseen_count)
            if curves is not None:
                scores = self._kernels.calibrate_scores(raw, curves, floors)
            detections = decide(
                scores,
                found,
                self._config,
                thresholds,
                nms_threshold=options.nms_threshold,
                max_detections=options.max_detections,
                kernels=self._kernels,
            )
        times = stage.share(len(images))
        results = []
        for index, (boxes, best_scores, columns) in enumerate(detections):
            empty = not len(boxes)
            own = raw[found.batch_indices == index] if empty else raw[:0]
            best = _best(own, thresholds, curves, self._kernels)
            results.append(ImageResult(boxes, best_scores, columns, best, dict(times)))
        return results


def _best(
    scores: Floats, thresholds: Floats, curves: Floats | None, kernels: ModuleType
) -> tuple[float, int] | None:
    """The highest final score of the classes asked for, and its column."""
    asked = np.flatnonzero(thresholds < np.inf)
    if not len(scores) or not len(asked):
        return None
    per_class = scores[:, asked].max(axis=0)
    if curves is not None:
        (per_class,) = kernels.calibrate_scores(per_class[None], curves[asked])
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
