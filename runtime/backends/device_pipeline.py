"""The whole detector on a GPU: one copy in, seven stages on one stream, one copy out.

Not run on a GPU yet: the tests run it with the kernels built for a CPU, on doubles of TensorRT and
of CUDA's driver (tests/test_device_pipeline.py). It computes what ``zsd_core.pipeline`` computes.

A program serves one size of image. All its shapes and addresses are fixed, so it is captured in a
CUDA graph; classes and thresholds lie in buffers that a change writes to, between two images and in
stream order, and nothing is captured again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.device_arrays import Block, Layout
from runtime.backends.device_classes import ClassBuffers
from runtime.backends.per_thread import PerThread
from runtime.backends.trt_engines import Engine, FixedEngine
from zsd_core.config import ModelConfig, RegionConfig
from zsd_core.errors import ConfigError, expect_shapes
from zsd_core.kernels.preprocess import check_color, check_pixels
from zsd_core.pipeline import Color, ImageResult, to_original
from zsd_core.scoring import ClassSet, ContrastScorer, Scorer

__all__ = ["DevicePipeline"]

PROGRAMS = 4  # sizes of images a thread keeps
MLPS = ("score_seen", "score_unseen")
LAYERS = ("weight1", "bias1", "weight2", "bias2")
Floats = NDArray[np.float32]


class DevicePipeline:
    """Both engines and the CUDA kernels; every thread has a stream, memory and graphs of its own.

    Args:
        device: where all of it lies.
        engines: of "trunk" and "head".
        kernels: ``zsd_core.kernels.cuda.compiled_cuda()``.
        config: of the model.
        scorer: of the method "contrastzsd", in float32.
        seen: the bundle's seen classes.
        unseen_capacity: room for so many unseen classes; scoring takes the time of all of them.

    Raises:
        ConfigError: another scoring method or precision, several maps, or no room for a class.
    """

    def __init__(
        self,
        device: Device,
        engines: Mapping[str, Engine],
        kernels: ModuleType,
        config: ModelConfig,
        scorer: Scorer,
        seen: int,
        unseen_capacity: int,
    ) -> None:
        if not (isinstance(scorer, ContrastScorer) and scorer.precision == "float32"):
            raise ConfigError(
                "on_device runs the scoring method 'contrastzsd' in float32 only; leave "
                "'on_device' out of backend_options, or scoring_precision."
            )
        if config.regions.maps != RegionConfig().maps:
            raise ConfigError(
                f"on_device cuts regions from one map, the bundle has "
                f"{', '.join(name for name, _ in config.regions.maps)}. Export it again with "
                "--whole-head, or leave 'on_device' out of backend_options."
            )
        if unseen_capacity < 1:
            raise ConfigError(f"unseen_capacity is {unseen_capacity}, must be at least 1.")
        self.device, self.engines, self.kernels = device, engines, kernels
        self.config: ModelConfig = config
        self.scorer: ContrastScorer = scorer
        self.seen, self.unseen = seen, unseen_capacity
        self._lanes = PerThread(device, lambda: _Lane(self))

    def run(
        self,
        classes: ClassSet,
        images: Sequence[NDArray[np.uint8]],
        thresholds: Floats,
        *,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        color: Color = "rgb",
    ) -> list[ImageResult]:
        """Detect in images of any sizes, one after the other; see ``zsd_core.pipeline.run``.

        Returns:
            One result per image. ``best`` is None in all of them, since scores stay on the device,
            and the time is one, "device", from the first copy to the last.

        Raises:
            ConfigError: there is no room for so many classes, or the colour is unknown.
            ImageError: an image is not ``(H, W, 3)`` uint8 with at least one pixel.
            ShapeError: ``thresholds`` has another shape, or the engines take no such image.
        """
        check_color("run", color)
        expect_shapes(
            "run", "Pass one threshold per class column.",
            thresholds=(thresholds, str(len(classes.names))),
        )  # fmt: skip
        detection = self.config.detection
        nms = detection.nms_threshold if nms_threshold is None else nms_threshold
        most = detection.max_detections if max_detections is None else max_detections
        lane, results = self._lanes.get(), []
        for index, image in enumerate(images):
            check_pixels(f"run, image{index}", image)
            program = lane.program(image.shape[0], image.shape[1], color, nms, most)
            results.append(program.run(image, classes, thresholds))
        return results

    def close(self) -> None:
        """Free streams, memory and graphs of all threads, which must have returned."""
        self._lanes.close()


class _Lane:
    """What one thread needs: a stream, the classes, the weights, and programs."""

    def __init__(self, whole: DevicePipeline) -> None:
        self.whole, device = whole, whole.device
        tensors = whole.scorer.tensors
        constants: dict[str, NDArray[Any]] = {
            f"{mlp}.{layer}": tensors[f"{mlp}.{layer}"] for mlp in MLPS for layer in LAYERS
        }
        constants["anchors"] = whole.config.proposals.anchors()
        layout: Layout = {name: (array.shape, np.float32) for name, array in constants.items()}
        with ExitStack() as owned:
            self.stream = device.stream()
            owned.callback(device.drop_stream, self.stream)
            width = constants["score_seen.weight1"].shape[1]
            self.classes = ClassBuffers(device, width, whole.seen, whole.unseen)
            owned.callback(self.classes.close)
            self.constants = Block(device, layout, mirrored=True)
            owned.callback(self.constants.close)
            for name, array in constants.items():
                self.constants.host[name][:] = array
            with device.waiting(self.stream):
                self.constants.upload(self.stream)
            self._owned = owned.pop_all()
        self._programs: OrderedDict[tuple[Any, ...], _Program] = OrderedDict()

    def program(
        self, height: int, width: int, color: Color, nms_threshold: float, max_detections: int
    ) -> _Program:
        """The program for an image; the one that was not asked for longest makes room for a new."""
        key = height, width, color, nms_threshold, max_detections
        if key not in self._programs:
            if len(self._programs) == PROGRAMS:
                self._programs.popitem(last=False)[1].close()
            self._programs[key] = _Program(
                self, (height, width), color, nms_threshold, max_detections
            )
        self._programs.move_to_end(key)
        return self._programs[key]

    def close(self) -> None:
        with self._owned:
            while self._programs:
                self._owned.callback(self._programs.popitem()[1].close)


class _Program:
    """All stages for images of one size: buffers, both engines at their shapes, and the graph."""

    def __init__(
        self,
        lane: _Lane,
        original: tuple[int, int],
        color: Color,
        nms_threshold: float,
        max_detections: int,
    ) -> None:
        self._lane, self._original, self._color = lane, original, color
        whole, config = lane.whole, lane.whole.config
        self._limits: dict[str, Any] = {
            "nms_threshold": nms_threshold, "max_detections": max_detections,
            "min_size": config.detection.min_size,
        }  # fmt: skip
        proposals, patch = config.proposals, config.regions.output_size
        self._resized = config.preprocess.resized(*original)
        images = (1, 3, *config.preprocess.padded(*self._resized))
        self._trunk = FixedEngine(whole.engines["trunk"], images)
        features, objectness, anchor_deltas = self._trunk.output_shapes
        regions = proposals.post_nms_top
        self._head = FixedEngine(whole.engines["head"], (regions, features[1], *patch))
        embeddings, deltas = self._head.output_shapes

        self._proposing = {
            "pre_nms_top": proposals.pre_nms_top, "post_nms_top": proposals.post_nms_top
        }  # fmt: skip
        classes = whole.seen + whole.unseen
        propose_room = whole.kernels.propose_workspace(*objectness, **self._proposing)
        detect_room = whole.kernels.detect_workspace(
            regions, classes, 1, max_detections=max_detections
        )
        floats: dict[str, tuple[int, ...]] = {
            "images": images, "features": features, "objectness": objectness,
            "anchor_deltas": anchor_deltas, "rois": (regions, 4), "roi_scores": (regions,),
            "patches": (regions, features[1], *patch), "embeddings": embeddings, "deltas": deltas,
            "seen_logits": (regions, 1 + classes), "unseen_logits": (regions, whole.unseen),
            "class_scores": (regions, classes),
        }  # fmt: skip
        inner: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            name: (shape, np.float32) for name, shape in floats.items()
        }
        inner |= {
            "batch_indices": ((regions,), np.int32), "num_regions": ((1,), np.int32),
            "propose_room": ((propose_room,), np.uint8), "detect_room": ((detect_room,), np.uint8),
            "engine_room": ((max(self._trunk.room, self._head.room),), np.uint8),
        }  # fmt: skip
        pixels: Layout = {
            "pixels": ((*original, 3), np.uint8), "image_sizes": ((1, 2), np.float32)
        }  # fmt: skip
        most = max_detections
        found: Layout = {
            "boxes": ((most, 4), np.float32), "scores": ((most,), np.float32),
            "columns": ((most,), np.int32), "owners": ((most,), np.int32),
            "count": ((1,), np.int32),
        }  # fmt: skip
        with ExitStack() as owned:
            self._inner, self._input, self._found = (
                owned.enter_context(closing(Block(whole.device, layout, mirrored=mirrored)))
                for layout, mirrored in ((inner, False), (pixels, True), (found, True))
            )
            self._input.host["image_sizes"][:] = self._resized
            self._bind(self._trunk, "images", "features", "objectness", "anchor_deltas")
            self._bind(self._head, "patches", "embeddings", "deltas")
            self._owned = owned.pop_all()
        self._warm, self._graph = False, None

    def run(self, image: NDArray[np.uint8], classes: ClassSet, thresholds: Floats) -> ImageResult:
        """One image through all stages."""
        lane, device, start = self._lane, self._lane.whole.device, time.perf_counter()
        with device.waiting(lane.stream):
            lane.classes.write(classes, thresholds, lane.stream)
            self._input.host["pixels"][:] = image
            if not self._warm:  # what an engine allocates at its first run must not be captured
                self._enqueue()
            else:
                if self._graph is None:
                    self._graph = self._capture()
                device.replay(self._graph, lane.stream)
        if not self._warm:
            self._warm = True
            for engine in (self._trunk, self._head):
                engine.save_kernels()
        found = self._found.host
        count = int(found["count"][0])
        boxes = to_original(found["boxes"][:count], self._resized, self._original)
        scores, columns = found["scores"][:count].copy(), found["columns"][:count].copy()
        times = {"device": 1e3 * (time.perf_counter() - start)}
        return ImageResult(boxes, scores, columns, None, times)

    def close(self) -> None:
        """Free the graph and the memory."""
        self._owned.close()

    def _capture(self) -> Any:
        device, stream = self._lane.whole.device, self._lane.stream
        for engine in (self._trunk, self._head):
            engine.check_capturable(int(stream))
        graph = device.capture(stream, self._enqueue)
        self._owned.callback(device.drop_recording, graph)
        return graph

    def _bind(self, engine: FixedEngine, *names: str) -> None:
        room = self._inner["engine_room"].address
        engine.bind([self._inner[name].address for name in names], room)

    def _enqueue(self) -> None:
        """Put every stage on the stream."""
        lane, whole = self._lane, self._lane.whole
        kernels, config, stream = whole.kernels, whole.config, int(lane.stream)
        classes, constants = lane.classes.block, lane.constants
        inner, found = self._inner, self._found
        regions = inner["rois"], inner["batch_indices"]
        sizes = self._input["image_sizes"]

        self._input.upload(lane.stream)
        kernels.preprocess(
            self._input["pixels"], inner["images"].entry(0), size=self._resized,
            mean=config.preprocess.mean, std=config.preprocess.std, color=self._color,
            stream=stream,
        )  # fmt: skip
        self._trunk.enqueue(stream)
        kernels.propose(
            inner["objectness"], inner["anchor_deltas"], constants["anchors"], sizes, *regions,
            inner["roi_scores"], inner["num_regions"], inner["propose_room"],
            stride=config.proposals.stride, nms_threshold=config.proposals.nms_threshold,
            min_size=config.proposals.min_size, **self._proposing, stream=stream,
        )  # fmt: skip
        kernels.roi_align(
            inner["features"], *regions, inner["patches"], stream=stream,
            spatial_scale=1 / config.regions.stride, sampling_ratio=config.regions.sampling_ratio,
        )  # fmt: skip
        self._head.enqueue(stream)
        scored = {
            "score_seen": (classes["prototypes"], inner["seen_logits"]),
            "score_unseen": (
                classes["prototypes"].rows_from(1 + whole.seen), inner["unseen_logits"]
            ),
        }  # fmt: skip
        for mlp, (prototypes, logits) in scored.items():
            layers = (constants[f"{mlp}.{layer}"] for layer in LAYERS)
            kernels.product_mlp(inner["embeddings"], prototypes, *layers, logits, stream=stream)
        scoring = config.scoring
        kernels.fuse(
            inner["seen_logits"], inner["unseen_logits"], classes["similarity"],
            inner["class_scores"], fusion=scoring.fusion, seen_scale=scoring.seen_scale,
            objectness=inner["roi_scores"], objectness_power=scoring.objectness_power,
            seen_evidence=scoring.seen_evidence, in_use=classes["in_use"],
            rectify=scoring.seen_activation == "relu", stream=stream,
        )  # fmt: skip
        kernels.detect(
            inner["class_scores"], inner["deltas"], *regions, sizes, classes["thresholds"],
            found["boxes"], found["scores"], found["columns"], found["owners"], found["count"],
            inner["detect_room"], **self._limits, stream=stream,
        )  # fmt: skip
        found.download(lane.stream)
