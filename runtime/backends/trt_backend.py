"""Run the engines of a bundle with either TensorRT package; shared by their two backends.

Not run on a GPU yet: exercised with a double whose signatures come from the real bindings
(tests/runtime/test_backends_tensorrt.py); ``make gpu-check`` is what a machine with a GPU proves it
with. Arrays come from and return to the host at every network, or not at all: see
device_pipeline.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from runtime.backends import opened
from runtime.backends.cuda_driver import Device
from runtime.backends.per_thread import PerThread
from runtime.backends.trt_engines import UNSEEN_CAPACITY, Engine, Floats, find_engine
from runtime.backends.trt_package import EXTRAS, open_package
from runtime.bundle import Bundle
from zsd_core.config import ModelConfig
from zsd_core.kernels.cuda import compiled_cuda
from zsd_core.pipeline import HostPipeline, Pipeline
from zsd_core.scoring import Scorer

__all__ = ["EngineBackend"]


class EngineBackend:
    """Trunk and head as two engines; every thread has contexts, memory and a stream of its own.

    Args:
        package: "tensorrt_rtx" or "tensorrt".
        bundle: that holds the engines.
        precision: of the engines.
        device_index: of the GPU, as CUDA counts.
        on_device: whether ``pipeline`` keeps everything on the GPU.
        unseen_capacity: maximum number of unseen classes on the device.
    """

    def __init__(
        self,
        package: str,
        bundle: Bundle,
        precision: str,
        device_index: int = 0,
        on_device: bool = False,
        unseen_capacity: int = UNSEEN_CAPACITY,
    ) -> None:
        self.name = package
        self._kernels = compiled_cuda() if on_device else None
        self._seen, self._unseen_capacity = len(bundle.seen), unseen_capacity
        self._package = open_package(package)
        with ExitStack() as owned:
            device = self._device = Device(device_index, EXTRAS[package])
            owned.callback(device.close)
            device.activate()
            self._engines: dict[str, Engine] = {}
            owned.callback(self._engines.clear)
            for stage in ("trunk", "head"):
                entry = find_engine(bundle, stage, precision, self._package, device)
                engine = self._engines[stage] = Engine(self._package, bundle, entry, device.name)
                owned.callback(engine.kernels.close)
            self._lanes = PerThread(device, lambda: _Lane(device))
            owned.callback(self._lanes.close)
            self._owned = owned.pop_all()
        self.description = (
            f"{self._package}, {device.name} ({device.capability}), {precision}"
            f"{', on the device throughout' if on_device else ''}"
        )

    def pipeline(self, config: ModelConfig, scorer: Scorer) -> Pipeline:
        """Make what runs whole images: all of it on the GPU, or the networks alone.

        Raises:
            ConfigError: the scoring method or its precision cannot run there.
        """
        if self._kernels is None:
            return HostPipeline(self, config, scorer)
        from runtime.backends.device_pipeline import DevicePipeline

        whole = DevicePipeline(
            self._device,
            self._engines,
            self._kernels,
            config,
            scorer,
            self._seen,
            self._unseen_capacity,
        )
        self._owned.callback(whole.close)
        return whole

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network."""
        return tuple(self._run("trunk", images))

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Run the region network."""
        embeddings, deltas = self._run("head", *region_features)
        return embeddings, deltas

    def inspect(self, stage: str) -> str:
        """Return what TensorRT built, layer by layer, as its engine inspector writes it (JSON)."""
        engine, trt = opened(self._engines, stage), self._package.trt
        self._device.activate()
        context = engine.context()
        engine.set_shapes(context, engine.typical)  # without shapes it does not know the types
        inspector = engine.engine.create_engine_inspector()
        inspector.execution_context = context
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free contexts, memory, streams and engines; a second time does nothing."""
        self._owned.close()

    def _run(self, stage: str, *arrays: Floats) -> list[Floats]:
        with self._lanes.lent() as lane:
            engine = self._engines[stage]
            parts = [
                lane.run(engine, [np.ascontiguousarray(array[part]) for array in arrays])
                for part in engine.parts([array.shape for array in arrays])
            ]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class _Lane:
    """Resources with which one thread runs engines."""

    def __init__(self, device: Device) -> None:
        self._device, self._stream = device, device.stream()
        self._contexts: dict[str, Any] = {}
        self._memory: dict[tuple[str, str], tuple[Any, int]] = {}  # and its bytes

    def run(self, engine: Engine, arrays: Sequence[Floats]) -> list[Floats]:
        stage, results = engine.stage, list[Floats]()
        if first := self._contexts.get(stage) is None:
            self._contexts[stage] = engine.context()
        context, shapes = self._contexts[stage], [array.shape for array in arrays]
        engine.set_shapes(context, shapes)
        with self._device.waiting(self._stream):
            if room := engine.package.room(context):
                context.set_device_memory(int(self._reserve(stage, "", room)), room)
            done = True
            for name, array in zip(engine.inputs, arrays, strict=True):
                memory = self._reserve(stage, name, array.nbytes)
                self._device.upload(memory, array, self._stream)
                done &= context.set_tensor_address(name, int(memory))
            for name in engine.outputs:
                results.append(np.empty(tuple(context.get_tensor_shape(name)), np.float32))
                memory = self._reserve(stage, name, results[-1].nbytes)
                done &= context.set_tensor_address(name, int(memory))
            if not (done and context.execute_async_v3(int(self._stream))):
                raise engine.failure(shapes)
            for name, result in zip(engine.outputs, results, strict=True):
                self._device.download(result, self._memory[stage, name][0], self._stream)
        if first:
            engine.kernels.save()
        return results

    def close(self) -> None:
        self._contexts.clear()
        for memory, _ in self._memory.values():
            self._device.free(memory)
        self._memory.clear()
        self._device.drop_stream(self._stream)

    def _reserve(self, stage: str, name: str, size: int) -> Any:
        """Memory of at least ``size`` bytes; grown by doubling, kept between calls."""
        memory, capacity = self._memory.get((stage, name), (None, 0))
        if capacity < max(size, 1):
            if memory is not None:
                self._device.free(self._memory.pop((stage, name))[0])
            capacity = 1 << math.ceil(math.log2(max(size, 256)))
            memory = self._device.allocate(capacity)
            self._memory[stage, name] = memory, capacity
        return memory
