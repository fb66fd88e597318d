"""Run the engines of a bundle with either TensorRT package; shared by their two backends.

Not run on a GPU yet: exercised with a double whose signatures come from the real bindings
(tests/test_backends_tensorrt.py); ``make gpu-check`` is what a machine with a GPU proves it with.
Arrays come from and return to the host at every network.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.trt_package import EXTRAS, Package, open_package
from runtime.bundle import Bundle
from zsd_core.errors import BundleError, DeviceError, ShapeError

__all__ = ["EngineBackend", "build_command", "find_engine"]

Floats = NDArray[np.float32]


class EngineBackend:
    """Trunk and head as two engines; every thread has contexts, memory and a stream of its own."""

    def __init__(self, package: str, bundle: Bundle, precision: str, device: int) -> None:
        self.name = package
        self._package = open_package(package)
        self._device = Device(device, EXTRAS[package])
        self._device.activate()
        self._engines: dict[str, _Engine] = {}
        for stage in ("trunk", "head"):
            entry = find_engine(bundle, stage, precision, self._package, self._device.capability)
            self._engines[stage] = _Engine(self._package, bundle, entry)
        self._local = threading.local()
        self._lanes: list[_Lane] = []
        self._lock = threading.Lock()
        self.description = (
            f"{self._package}, {self._device.name} ({self._device.capability}), {precision}"
        )

    def trunk(self, images: Floats) -> tuple[Floats, Floats, Floats]:
        """Run the backbone and the proposal network."""
        features, objectness, deltas = self._run("trunk", images)
        return features, objectness, deltas

    def head(self, region_features: Floats) -> tuple[Floats, Floats]:
        """Run the region network."""
        embeddings, deltas = self._run("head", region_features)
        return embeddings, deltas

    def inspect(self, stage: str) -> str:
        """What TensorRT built, layer by layer, as its engine inspector writes it (JSON)."""
        engine = self._engines[stage].engine
        trt = self._package.trt
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free contexts, memory, streams and engines."""
        self._device.activate()
        with self._lock:
            for lane in self._lanes:
                lane.close()
            self._lanes.clear()
        self._local = threading.local()
        self._engines.clear()
        self._device.close()

    def _run(self, stage: str, array: Floats) -> list[Floats]:
        engine = self._engines[stage]
        lane = getattr(self._local, "lane", None)
        if lane is None:
            self._device.activate()  # CUDA's current device is a thread's own
            lane = self._local.lane = _Lane(self._package, self._device)
            with self._lock:
                self._lanes.append(lane)
        most = engine.check(array.shape)
        parts = [
            lane.run(engine, np.ascontiguousarray(array[start : start + most]))
            for start in range(0, len(array), most)
        ]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class _Engine:
    """A deserialised plan, and what its manifest entry says of it."""

    def __init__(self, package: Package, bundle: Bundle, entry: Mapping[str, Any]) -> None:
        stage = bundle.stage(entry["stage"])
        self.stage: str = entry["stage"]
        self.input: str = stage["inputs"][0]["name"]
        self.outputs: list[str] = [output["name"] for output in stage["outputs"]]
        self._command = build_command(bundle, entry["precision"], package, entry["target"])
        self._least, self._most = (entry["profile"][self.input][key] for key in ("min", "max"))
        with package.messages() as messages:
            runtime = package.trt.Runtime(package.logger)
            self.engine = runtime.deserialize_cuda_engine(bundle.file(entry["file"]).read_bytes())
        if self.engine is None:
            said = "; ".join(message.text for message in messages) or "it gave no reason"
            raise BundleError(
                f"{bundle.path}: {package} cannot load {entry['file']}: {said}. "
                f"Build it again: {self._command}"
            )
        self._runtime = runtime  # must outlive its engines

    def check(self, shape: tuple[int, ...]) -> int:
        """Compare a shape with the profile; return the most entries of its first axis at a time."""
        inside = all(
            low <= size <= high
            for size, low, high in zip(shape[1:], self._least[1:], self._most[1:], strict=True)
        )
        if not inside or shape[0] < self._least[0]:
            raise ShapeError(
                f"the {self.stage} engine was built for shapes {tuple(self._least)} to "
                f"{tuple(self._most)}, {self.input} has {shape}. Build one for it with --batch and "
                f"--size: {self._command}"
            )
        return int(self._most[0])


class _Lane:
    """What one thread needs to run engines."""

    def __init__(self, package: Package, device: Device) -> None:
        self._package, self._device, self._stream = package, device, device.stream()
        self._contexts: dict[str, Any] = {}
        self._memory: dict[tuple[str, str], tuple[Any, int]] = {}  # and its bytes

    def run(self, engine: _Engine, array: Floats) -> list[Floats]:
        stage = engine.stage
        if stage not in self._contexts:
            self._contexts[stage] = engine.engine.create_execution_context()
        context = self._contexts[stage]
        done = context is not None and context.set_input_shape(engine.input, array.shape)
        results = []
        if done:
            memory = self._reserve(stage, engine.input, array.nbytes)
            self._device.upload(memory, array, self._stream)
            done = context.set_tensor_address(engine.input, int(memory))
        for name in engine.outputs if done else ():
            result = np.empty(tuple(context.get_tensor_shape(name)), np.float32)
            memory = self._reserve(stage, name, result.nbytes)
            done = done and context.set_tensor_address(name, int(memory))
            results.append((result, memory))
        if not (done and context.execute_async_v3(int(self._stream))):
            raise DeviceError(
                f"{self._package} cannot run the {stage} engine on {array.shape}: "
                f"{self._package.last_message}"
            )
        for result, memory in results:
            self._device.download(result, memory, self._stream)
        self._device.wait(self._stream)
        return [result for result, _ in results]

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


def find_engine(
    bundle: Bundle, stage: str, precision: str, package: Package, target: str
) -> dict[str, Any]:
    """The manifest's entry of the engine for this machine.

    Raises:
        DeviceError: there is none; the message names both sides and the command that builds it.
    """
    made = [e for e in bundle.engines if e["stage"] == stage]
    for entry in made:
        here = (entry["precision"], entry["package"], entry["version"], entry["target"])
        if here == (precision, package.name, package.version, target):
            return entry
    held = sorted({f"{e['package']} {e['version']}, {e['target']}, {e['precision']}" for e in made})
    raise DeviceError(
        f"{bundle.path}: no {stage} engine for this machine. Engines in the bundle: "
        f"{'; '.join(held) or 'none'}. This machine: {package}, {target}; asked for {precision}. "
        f"Build it: {build_command(bundle, precision, package, target)}"
    )


def build_command(bundle: Bundle, precision: str, package: Package, target: str) -> str:
    """The command line that builds the engines of a bundle for a machine."""
    return (
        f"python -m export.engine {bundle.path} --package {package.name} --target {target} "
        f"--precision {precision}"
    )
