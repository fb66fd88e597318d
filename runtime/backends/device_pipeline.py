"""The whole detector on a GPU: one copy in, every stage on one stream, one copy out.

Not run on a GPU yet: the tests run it with the kernels built for a CPU, on doubles of TensorRT and
of CUDA's driver (tests/runtime/test_device_pipeline.py, test_device_given.py). It computes what
``zsd_core.pipeline`` computes.

A program serves one size of image. All its shapes and addresses are fixed, so it is captured in a
CUDA graph; classes and thresholds lie in buffers that a change writes to, between two images and in
stream order, and nothing is captured again. Detectors with anchors and given detectors each have a
kind of program (device_program.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.device_anchors import AnchorProgram
from runtime.backends.device_arrays import Block, Layout
from runtime.backends.device_classes import ClassBuffers
from runtime.backends.device_program import Limits, Program, Resources, Shared
from runtime.backends.device_queries import QueryProgram
from runtime.backends.per_thread import PerThread
from runtime.backends.trt_engines import Engine
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError
from zsd_core.pipeline import ImageResult, Options, Pipeline
from zsd_core.scoring import ClassSet, Scorer

__all__ = ["DevicePipeline"]

PROGRAMS = 4  # sizes of images a thread keeps
KINDS: dict[str, type[Program]] = {"anchors": AnchorProgram, "queries": QueryProgram}
Floats = NDArray[np.float32]


class DevicePipeline(Pipeline):
    """Both engines and the CUDA kernels; every thread has a stream, memory and graphs of its own.

    Args:
        device: where all of it lies.
        engines: of "trunk" and "head".
        kernels: ``zsd_core.kernels.cuda.compiled_cuda()``.
        config: of the model.
        scorer: of the method "contrastzsd", in float32, or "prototypes" for a given detector.
        seen: the bundle's seen classes.
        unseen_capacity: room for so many unseen classes.

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
        shared = Shared(device, engines, kernels, config, scorer, seen, unseen_capacity)
        kind = KINDS[config.proposals.source]
        kind.check(shared)
        if unseen_capacity < 1:
            raise ConfigError(f"unseen_capacity is {unseen_capacity}, must be at least 1.")
        self._config, self._seen = config, seen
        self._lanes = PerThread(device, lambda: _Lane(shared, kind))

    def _run(
        self,
        classes: ClassSet,
        images: Sequence[NDArray[np.uint8]],
        thresholds: Floats,
        options: Options,
    ) -> list[ImageResult]:
        """Detect in images of any sizes, one after the other.

        ``best`` is None in all results, since scores stay on the device, and the time is one,
        "device", from the first copy to the last.

        Raises:
            ConfigError: there is no room for so many classes.
            ShapeError: the engines take no such image.
        """
        detection = self._config.detection
        nms, most = options.nms_threshold, options.max_detections
        nms = detection.nms_threshold if nms is None else nms
        most = detection.max_detections if most is None else most
        looks = bool((thresholds[self._seen :] < np.inf).any())
        results = []
        with self._lanes.lent() as lane:
            for image in images:
                original = image.shape[0], image.shape[1]
                program = lane.program(Limits(original, options.color, nms, most, looks))
                results.append(program.run(image, classes, thresholds))
        return results

    def close(self) -> None:
        """Free streams, memory and graphs of all threads, once their calls have ended."""
        self._lanes.close()


class _Lane:
    """Resources of one thread: a stream, the classes, the weights, and programs."""

    def __init__(self, shared: Shared, kind: type[Program]) -> None:
        self._kind, device = kind, shared.device
        constants = kind.constants(shared)
        curves = shared.config.calibration.parameters(shared.seen, shared.unseen)
        if curves is not None:
            constants["calibration"] = curves
        layout: Layout = {name: (array.shape, np.float32) for name, array in constants.items()}
        with ExitStack() as owned:
            stream = device.stream()
            owned.callback(device.drop_stream, stream)
            classes = ClassBuffers(
                device,
                kind.prototype_width(shared),
                shared.seen,
                shared.unseen,
                similarity=kind.READS_SIMILARITY,
            )
            owned.callback(classes.close)
            weights = Block(device, layout, mirrored=True)
            owned.callback(weights.close)
            for name, array in constants.items():
                weights.host[name][:] = array
            with device.waiting(stream):
                weights.upload(stream)
            self._owned = owned.pop_all()
        self._own = Resources(shared, stream, classes, weights)
        self._programs: OrderedDict[Limits, Program] = OrderedDict()

    def program(self, limits: Limits) -> Program:
        """The program for an image; the one that was not asked for longest makes room for a new."""
        limits = self._kind.limits_of(limits)
        if limits not in self._programs:
            if len(self._programs) == PROGRAMS:
                self._programs.popitem(last=False)[1].close()
            self._programs[limits] = self._kind(self._own, limits)
        self._programs.move_to_end(limits)
        return self._programs[limits]

    def close(self) -> None:
        with self._owned:
            while self._programs:
                self._owned.callback(self._programs.popitem()[1].close)
