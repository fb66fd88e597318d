"""Run the engines of a bundle with either TensorRT package; shared by their two backends.

Not run on a GPU yet: exercised with a double whose signatures come from the real bindings
(tests/test_backends_tensorrt.py); ``make gpu-check`` is what a machine with a GPU proves it with.
Arrays come from and return to the host at every network, or not at all: see device_pipeline.py.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.trt_package import EXTRAS, Package, open_package
from runtime.bundle import Bundle
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, DeviceError, ShapeError
from zsd_core.kernels.cuda import compiled_cuda
from zsd_core.scoring import Scorer

if TYPE_CHECKING:
    from runtime.backends.device_pipeline import DevicePipeline

__all__ = [
    "UNSEEN_CAPACITY", "Engine", "EngineBackend", "FixedEngine", "build_command", "find_engine",
]  # fmt: skip

Floats = NDArray[np.float32]
UNSEEN_CAPACITY = 128


class EngineBackend:
    """Trunk and head as two engines; every thread has contexts, memory and a stream of its own.

    Args:
        package: "tensorrt_rtx" or "tensorrt".
        bundle: that holds the engines.
        precision: of the engines.
        device: the GPU, as CUDA counts.
        on_device: whether ``frames`` gives what keeps everything on the GPU.
        unseen_capacity: the unseen classes that has room for.
    """

    def __init__(
        self,
        package: str,
        bundle: Bundle,
        precision: str,
        device: int = 0,
        on_device: bool = False,
        unseen_capacity: int = UNSEEN_CAPACITY,
    ) -> None:
        self.name = package
        self._kernels = compiled_cuda() if on_device else None
        self._seen, self._unseen_capacity = len(bundle.seen), unseen_capacity
        self._frames: list[DevicePipeline] = []
        self._package = open_package(package)
        self._device = Device(device, EXTRAS[package])
        self._device.activate()
        self._engines: dict[str, Engine] = {}
        for stage in ("trunk", "head"):
            entry = find_engine(bundle, stage, precision, self._package, self._device.capability)
            self._engines[stage] = Engine(self._package, bundle, entry)
        self._local = threading.local()
        self._lanes: list[_Lane] = []
        self._lock = threading.Lock()
        self.description = (
            f"{self._package}, {self._device.name} ({self._device.capability}), {precision}"
            f"{', on the device throughout' if on_device else ''}"
        )

    def frames(self, config: ModelConfig, scorer: Scorer) -> DevicePipeline | None:
        """What runs whole images on the GPU; None where only the networks were asked for.

        Raises:
            ConfigError: the scoring method or its precision cannot run there.
        """
        if self._kernels is None:
            return None
        from runtime.backends.device_pipeline import DevicePipeline

        whole = DevicePipeline(
            self._device, self._engines, self._kernels, config, scorer, self._seen,
            self._unseen_capacity,
        )  # fmt: skip
        self._frames.append(whole)
        return whole

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network."""
        return tuple(self._run("trunk", images))

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Run the region network."""
        embeddings, deltas = self._run("head", *region_features)
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
        for whole in self._frames:
            whole.close()
        self._frames.clear()
        with self._lock:
            for lane in self._lanes:
                lane.close()
            self._lanes.clear()
        self._local = threading.local()
        self._engines.clear()
        self._device.close()

    def _run(self, stage: str, *arrays: Floats) -> list[Floats]:
        engine = self._engines[stage]
        lane = getattr(self._local, "lane", None)
        if lane is None:
            self._device.activate()  # CUDA's current device is a thread's own
            lane = self._local.lane = _Lane(self._device)
            with self._lock:
                self._lanes.append(lane)
        most = engine.check([array.shape for array in arrays])
        parts = [
            lane.run(engine, [np.ascontiguousarray(a[start : start + most]) for a in arrays])
            for start in range(0, len(arrays[0]), most)
        ]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class Engine:
    """A deserialised plan, and what its manifest entry says of it."""

    def __init__(self, package: Package, bundle: Bundle, entry: Mapping[str, Any]) -> None:
        stage = bundle.stage(entry["stage"])
        self.package, self.stage = package, str(entry["stage"])
        self.inputs: list[str] = [value["name"] for value in stage["inputs"]]
        self.outputs: list[str] = [output["name"] for output in stage["outputs"]]
        self._command = build_command(bundle, entry["precision"], package, entry["target"])
        self._least, self._most = (
            [entry["profile"][name][key] for name in self.inputs] for key in ("min", "max")
        )
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

    def check(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Compare shapes with the profile; return the most entries of the first axis at a time."""
        for index, (shape, least, most) in enumerate(
            zip(shapes, self._least, self._most, strict=True)
        ):
            inside = all(
                low <= size <= high
                for size, low, high in zip(shape[1:], least[1:], most[1:], strict=True)
            )
            if not inside or shape[0] < least[0]:
                raise self.refusal(shape, index)
        return min(int(most[0]) for most in self._most)

    def refusal(self, shape: tuple[int, ...], index: int = 0) -> ShapeError:
        """The error for a shape of an input outside the profile."""
        return ShapeError(
            f"the {self.stage} engine was built for shapes {tuple(self._least[index])} to "
            f"{tuple(self._most[index])}, {self.inputs[index]} has {shape}. Build one for it with "
            f"--batch and --size: {self._command}"
        )

    def failure(self, shapes: Sequence[tuple[int, ...]]) -> DeviceError:
        """The error for a call that TensorRT refused."""
        return DeviceError(
            f"{self.package} cannot run the {self.stage} engine on "
            f"{', '.join(map(str, shapes))}: {self.package.last_message}"
        )


class FixedEngine:
    """An engine at one shape and, once bound, fixed addresses: what a CUDA graph can capture.

    Args:
        engine: to run; it has one input.
        shape: of that.

    Attributes:
        output_shapes: in the order of the engine's outputs.

    Raises:
        DeviceError: TensorRT gives no context for it.
        ShapeError: the engine was not built for the shape.
    """

    def __init__(self, engine: Engine, shape: tuple[int, ...]) -> None:
        if shape[0] > engine.check([shape]):
            raise engine.refusal(shape)
        context = engine.engine.create_execution_context()
        if context is None or not context.set_input_shape(engine.inputs[0], shape):
            raise engine.failure([shape])
        self._engine, self._shape, self._context = engine, shape, context
        self.output_shapes = [tuple(context.get_tensor_shape(name)) for name in engine.outputs]

    def bind(self, addresses: Sequence[int]) -> None:
        """Say where its input and its outputs lie, in order."""
        names, context = [*self._engine.inputs, *self._engine.outputs], self._context
        for name, address in zip(names, addresses, strict=True):
            if not context.set_tensor_address(name, address):
                raise self._engine.failure([self._shape])

    def enqueue(self, stream: int) -> None:
        """Put it on a stream."""
        context = self._context
        if not context.execute_async_v3(stream):
            raise self._engine.failure([self._shape])


class _Lane:
    """What one thread needs to run engines."""

    def __init__(self, device: Device) -> None:
        self._device, self._stream = device, device.stream()
        self._contexts: dict[str, Any] = {}
        self._memory: dict[tuple[str, str], tuple[Any, int]] = {}  # and its bytes

    def run(self, engine: Engine, arrays: Sequence[Floats]) -> list[Floats]:
        stage = engine.stage
        if stage not in self._contexts:
            self._contexts[stage] = engine.engine.create_execution_context()
        context = self._contexts[stage]
        done, results = context is not None, []
        for name, array in zip(engine.inputs, arrays, strict=True):
            if not (done := done and context.set_input_shape(name, array.shape)):
                break
            memory = self._reserve(stage, name, array.nbytes)
            self._device.upload(memory, array, self._stream)
            done = context.set_tensor_address(name, int(memory))
        for name in engine.outputs if done else ():
            result = np.empty(tuple(context.get_tensor_shape(name)), np.float32)
            memory = self._reserve(stage, name, result.nbytes)
            done = done and context.set_tensor_address(name, int(memory))
            results.append((result, memory))
        if not (done and context.execute_async_v3(int(self._stream))):
            raise engine.failure([array.shape for array in arrays])
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
