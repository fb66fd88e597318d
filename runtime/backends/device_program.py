"""All stages for images of one size on a GPU: buffers, both engines at their shapes, one graph.

Not run on a GPU yet; see device_pipeline.py. What lies between the networks depends on where the
regions come from: device_anchors.py and device_queries.py say so, each for one source.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.device_arrays import Block, Layout
from runtime.backends.device_classes import ClassBuffers
from runtime.backends.trt_engines import Engine, FixedEngine
from zsd_core.config import ModelConfig
from zsd_core.pipeline import Color, ImageResult
from zsd_core.scoring import ClassSet, Scorer
from zsd_core.stages import not_finite, to_original

__all__ = ["Limits", "Program", "Resources", "Shared"]

Floats = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]
PARTS = ("trunk", "head", "scoring")  # whose numbers are looked at; the first is the cause


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Everything that all threads of a pipeline share.

    Attributes:
        device: where all of it lies.
        engines: of "trunk" and "head".
        kernels: ``zsd_core.kernels.cuda.compiled_cuda()``.
        config: of the model.
        scorer: the scoring method.
        seen: the bundle's seen classes.
        unseen: room for so many unseen classes.
    """

    device: Device
    engines: Mapping[str, Engine]
    kernels: ModuleType
    config: ModelConfig
    scorer: Scorer
    seen: int
    unseen: int


@dataclass(frozen=True, slots=True, eq=False)
class Resources:
    """Everything that the programs of one thread share: its stream, the classes, the weights."""

    shared: Shared
    stream: Any
    classes: ClassBuffers
    constants: Block


@dataclass(frozen=True, slots=True)
class Limits:
    """A program's own image and options; a captured graph holds them.

    Attributes:
        original: height and width of the image.
        color: channel order of the image.
        nms_threshold: of the detections.
        max_detections: most detections of an image.
        look: whether a class is asked for that needs the head, where only such classes do.
    """

    original: tuple[int, int]
    color: Color
    nms_threshold: float
    max_detections: int
    look: bool = True


class Program(ABC):
    """All stages for images of one size; a source of regions fills in what is its own.

    A subclass names the trunk's outputs (``TRUNK``), prepares its own buffers and the head
    (``prepare``), and puts on the stream what lies between the trunk's outputs and the scores
    (``enqueue_regions``). Of the buffers, ``detect`` reads ``rois``, ``batch_indices``,
    ``class_scores`` and ``offsets``.

    Args:
        own: the stream, classes and weights of the thread.
        limits: the image and the options.
    """

    TRUNK: tuple[str, ...]  # names of the buffers of the trunk's outputs
    HEAD_OFFSETS = "offsets"  # name of the buffer of the head's deltas
    HEAD_OWNERS = "batch_indices"  # name of the buffer of the images of the head's regions
    READS_SIMILARITY = False  # whether scoring reads ClassSet.seen_similarity

    @staticmethod
    @abstractmethod
    def check(shared: Shared) -> None:
        """Make sure that a model can run on the device.

        Raises:
            ConfigError: it cannot.
        """

    @staticmethod
    @abstractmethod
    def constants(shared: Shared) -> dict[str, NDArray[Any]]:
        """Arrays of the model that the stages read, without the calibration."""

    @staticmethod
    @abstractmethod
    def prototype_width(shared: Shared) -> int:
        """P, the width of a class's row."""

    @staticmethod
    def limits_of(limits: Limits) -> Limits:
        """The limits as far as a program depends on them."""
        return replace(limits, look=True)

    @abstractmethod
    def prepare(self, outputs: list[tuple[int, ...]]) -> tuple[Shapes, Layout]:
        """Set ``head`` and ``regions``, and lay out the buffers behind the trunk's outputs.

        Args:
            outputs: shapes of the trunk's outputs.

        Returns:
            Shapes of float32 buffers, and the others.
        """

    @abstractmethod
    def enqueue_regions(self, stream: int) -> None:
        """Put everything between the trunk's outputs and the scores on the stream."""

    def __init__(self, own: Resources, limits: Limits) -> None:
        self.own, self.limits = own, limits
        self.shared = shared = own.shared
        self.head: FixedEngine | None = None
        self.regions = 0
        config, self._original = shared.config, limits.original
        self._resized = config.preprocess.resized(*limits.original)
        images = (1, 3, *config.preprocess.padded(*self._resized))
        self._trunk = FixedEngine(shared.engines["trunk"], images)
        outputs = self._trunk.output_shapes
        shapes, others = self.prepare(outputs)
        classes, most = shared.seen + shared.unseen, limits.max_detections
        floats = {"images": images, **dict(zip(self.TRUNK, outputs, strict=True)), **shapes}
        floats["rois"] = (self.regions, 4)
        floats["class_scores"] = (self.regions, classes)
        inner: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            name: (shape, np.float32) for name, shape in floats.items()
        }
        detect_room = shared.kernels.detect_workspace(self.regions, classes, 1, max_detections=most)
        inner |= {
            **others,
            "batch_indices": ((self.regions,), np.int32),
            "num_regions": ((1,), np.int32),
            "detect_room": ((detect_room,), np.uint8),
            "engine_room": ((max(engine.room for engine in self.engines),), np.uint8),
        }
        pixels: Layout = {
            "pixels": ((*limits.original, 3), np.uint8),
            "image_sizes": ((1, 2), np.float32),
        }
        found: Layout = {
            "boxes": ((most, 4), np.float32),
            "scores": ((most,), np.float32),
            "columns": ((most,), np.int32),
            "owners": ((most,), np.int32),
            "count": ((1,), np.int32),
            "trunk_finite": ((1,), np.int32),  # 1 until all_finite has seen another number
            "head_finite": ((1,), np.int32),
            "scoring_finite": ((1,), np.int32),
        }
        with ExitStack() as owned:
            self.inner, self._input, self._found = (
                owned.enter_context(closing(Block(shared.device, layout, mirrored=mirrored)))
                for layout, mirrored in ((inner, False), (pixels, True), (found, True))
            )
            self._input.host["image_sizes"][:] = self._resized
            self._expect_numbers()
            self._bind(self._trunk, "images", *self.TRUNK)
            if self.head is not None:
                self._bind(self.head, "patches", "embeddings", self.HEAD_OFFSETS)
            self._owned = owned.pop_all()
        self._warm, self._graph = False, None

    @property
    def engines(self) -> list[FixedEngine]:
        """The engines that this program runs."""
        return [self._trunk] if self.head is None else [self._trunk, self.head]

    def run(self, image: NDArray[np.uint8], classes: ClassSet, thresholds: Floats) -> ImageResult:
        """One image through all stages."""
        device, stream, start = self.shared.device, self.own.stream, time.perf_counter()
        with device.waiting(stream):
            self.own.classes.write(classes, thresholds, stream)
            self._input.host["pixels"][:] = image
            if not self._warm:  # what an engine allocates at its first run must not be captured
                self._enqueue()
            else:
                if self._graph is None:
                    self._graph = self._capture()
                device.replay(self._graph, stream)
        if not self._warm:
            self._warm = True
            for engine in self.engines:
                engine.save_kernels()
        found = self._found.host
        for part in PARTS:
            if not found[f"{part}_finite"][0]:
                self._expect_numbers()
                raise not_finite(part)
        count = int(found["count"][0])
        boxes = to_original(found["boxes"][:count], self._resized, self._original)
        scores, columns = found["scores"][:count].copy(), found["columns"][:count].copy()
        times = {"device": 1e3 * (time.perf_counter() - start)}
        return ImageResult(boxes, scores, columns, None, times)

    def close(self) -> None:
        """Free the graph and the memory."""
        self._owned.close()

    @property
    def image_sizes(self) -> Any:
        """``(1, 2)`` height and width of the resized image, on the device."""
        return self._input["image_sizes"]

    def _expect_numbers(self) -> None:
        """Let all_finite begin anew: it only ever takes back what is written here."""
        for part in PARTS:
            self._found.host[f"{part}_finite"][:] = 1
        with self.shared.device.waiting(self.own.stream):
            self._found.upload(self.own.stream)

    def _capture(self) -> Any:
        device, stream = self.shared.device, self.own.stream
        for engine in self.engines:
            engine.check_capturable(int(stream))
        graph = device.capture(stream, self._enqueue)
        self._owned.callback(device.drop_recording, graph)
        return graph

    def _bind(self, engine: FixedEngine, *names: str) -> None:
        room = self.inner["engine_room"].address
        engine.bind([self.inner[name].address for name in names], room)

    def _enqueue(self) -> None:
        """Put every stage on the stream."""
        kernels, config, stream = self.shared.kernels, self.shared.config, int(self.own.stream)
        inner, found = self.inner, self._found
        self._input.upload(self.own.stream)
        kernels.preprocess(
            self._input["pixels"],
            inner["images"].entry(0),
            size=self._resized,
            mean=config.preprocess.mean,
            std=config.preprocess.std,
            color=self.limits.color,
            stream=stream,
        )
        self._trunk.enqueue(stream)
        self.enqueue_regions(stream)
        kernels.all_finite(
            inner["class_scores"].rows,
            found["scoring_finite"],
            owners=inner["batch_indices"],
            stream=stream,
        )
        if config.calibration:
            scores, curves = inner["class_scores"], self.own.constants["calibration"]
            kernels.calibrate_scores(scores, curves, scores, stream=stream)
        kernels.detect(
            inner["class_scores"],
            inner["offsets"],
            inner["rois"],
            inner["batch_indices"],
            self.image_sizes,
            self.own.classes.block["thresholds"],
            found["boxes"],
            found["scores"],
            found["columns"],
            found["owners"],
            found["count"],
            inner["detect_room"],
            nms_threshold=self.limits.nms_threshold,
            max_detections=self.limits.max_detections,
            min_size=config.detection.min_size,
            stream=stream,
        )
        for name in self.TRUNK[-2:]:  # what no number is in a map shows in the head
            kernels.all_finite(inner[name].rows, found["trunk_finite"], stream=stream)
        for name in ("embeddings", self.HEAD_OFFSETS) if self.head is not None else ():
            kernels.all_finite(
                inner[name].rows,
                found["head_finite"],
                owners=inner[self.HEAD_OWNERS],
                stream=stream,
            )
        found.download(self.own.stream)
