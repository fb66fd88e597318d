"""Run the engines of a bundle with either TensorRT package; shared by their two backends.

Not run on a GPU yet: exercised with a double whose signatures come from the real bindings
(tests/test_backends_tensorrt.py); ``make gpu-check`` is what a machine with a GPU proves it with.
Arrays come from and return to the host at every network, or not at all: see device_pipeline.py.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.kernel_cache import KernelCache
from runtime.backends.per_thread import PerThread
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
        device_index: of the GPU, as CUDA counts.
        on_device: whether ``frames`` gives what keeps everything on the GPU.
        unseen_capacity: the unseen classes that has room for.
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
        """What TensorRT built, layer by layer, as its engine inspector writes it (JSON)."""
        engine, trt = self._engines[stage], self._package.trt
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
        lane, engine = self._lanes.get(), self._engines[stage]
        parts = [
            lane.run(engine, [np.ascontiguousarray(array[part]) for array in arrays])
            for part in engine.parts([array.shape for array in arrays])
        ]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class Engine:
    """A deserialised plan, and what its manifest entry says of it.

    Args:
        package: that built it.
        bundle: that holds it.
        entry: of the manifest.
        gpu: name of the current GPU.

    Attributes:
        kernels: what is compiled of it on the device; to be closed after its contexts.
        typical: shapes of the inputs that it was optimised for.
    """

    def __init__(
        self, package: Package, bundle: Bundle, entry: Mapping[str, Any], gpu: str
    ) -> None:
        stage = bundle.stage(entry["stage"])
        self.package, self.stage = package, str(entry["stage"])
        self.inputs: list[str] = [value["name"] for value in stage["inputs"]]
        self.outputs: list[str] = [output["name"] for output in stage["outputs"]]
        self.command = build_command(bundle, entry["precision"], package, entry["target"])
        self._least, self.typical, self._most = (
            [tuple(entry["profile"][name][key]) for name in self.inputs]
            for key in ("min", "opt", "max")
        )
        with package.messages() as messages:
            runtime = package.trt.Runtime(package.logger)
            self.engine = runtime.deserialize_cuda_engine(bundle.file(entry["file"]).read_bytes())
        if self.engine is None:
            said = "; ".join(message.text for message in messages) or "it gave no reason"
            raise BundleError(
                f"{bundle.path}: {package} cannot load {entry['file']}: {said}. "
                f"Build it again: {self.command}"
            )
        self._runtime = runtime  # must outlive its engines
        for message in messages:
            warnings.warn(f"{entry['file']}: {package} says: {message.text}", stacklevel=2)
        content = bundle.manifest["files"][entry["file"]]["sha256"]
        self.kernels = KernelCache(package, self.engine, content, gpu)

    def context(self, *, eager: bool = False) -> Any:
        """An execution context, as ``Package.context`` makes it."""
        return self.package.context(self.engine, self.kernels.shared, eager=eager)

    def parts(self, shapes: Sequence[tuple[int, ...]]) -> list[slice]:
        """Compare shapes with the profile; the parts of the first axis that run at a time.

        Raises:
            ShapeError: a shape, or a part of it, lies outside the profile.
        """
        count, most = shapes[0][0], min(most[0] for most in self._most)
        number = max(1, -(-count // most))
        for index, shape in enumerate(shapes):
            least, largest = self._least[index], self._most[index]
            inside = all(
                low <= size <= high
                for size, low, high in zip(shape[1:], least[1:], largest[1:], strict=True)
            )
            if not inside or count // number < least[0]:
                raise self.refusal(shape, index)
        edges = [count * part // number for part in range(number + 1)]
        return [slice(*ends) for ends in pairwise(edges)]

    def set_shapes(self, context: Any, shapes: Sequence[tuple[int, ...]]) -> None:
        """Tell an execution context the shapes of the inputs.

        Raises:
            DeviceError: there is no context, or it refuses them.
        """
        for name, shape in zip(self.inputs, shapes, strict=True):
            if context is None or not context.set_input_shape(name, shape):
                raise self.failure(shapes)

    def refusal(self, shape: tuple[int, ...], index: int = 0) -> ShapeError:
        """The error for a shape of an input outside the profile."""
        options = {"trunk": "--batch and --size", "head": "--regions"}[self.stage]
        return ShapeError(
            f"the {self.stage} engine was built for shapes {self._least[index]} to "
            f"{self._most[index]}, {self.inputs[index]} has {shape}. Build one for it with "
            f"{options}: {self.command}"
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
        room: bytes of memory that it works in; engines of one stream may share it.

    Raises:
        DeviceError: TensorRT gives no context for it.
        ShapeError: the engine was not built for the shape.
    """

    def __init__(self, engine: Engine, shape: tuple[int, ...]) -> None:
        if len(engine.parts([shape])) > 1:
            raise engine.refusal(shape)
        context = engine.context(eager=True)
        engine.set_shapes(context, [shape])
        self._engine, self._shape, self._context = engine, shape, context
        self.room = engine.package.room(context)
        self.output_shapes = [tuple(context.get_tensor_shape(name)) for name in engine.outputs]

    def bind(self, addresses: Sequence[int], room: int) -> None:
        """Say where its input and its outputs lie, in order, and its room."""
        names, context = [*self._engine.inputs, *self._engine.outputs], self._context
        if self.room:
            context.set_device_memory(room, self.room)
        for name, address in zip(names, addresses, strict=True):
            if not context.set_tensor_address(name, address):
                raise self._engine.failure([self._shape])

    def enqueue(self, stream: int) -> None:
        """Put it on a stream."""
        context = self._context
        if not context.execute_async_v3(stream):
            raise self._engine.failure([self._shape])

    def save_kernels(self) -> None:
        """Keep what was compiled for its shape."""
        self._engine.kernels.save()

    def check_capturable(self, stream: int) -> None:
        """Make sure that what it puts on a stream can be captured.

        Raises:
            DeviceError: it cannot.
        """
        engine = self._engine
        if not engine.package.capturable(self._context, stream):
            raise DeviceError(
                f"{engine.package} cannot run the {engine.stage} engine from a CUDA graph. Build "
                f"it again: {engine.command}; or leave 'on_device' out of backend_options."
            )


class _Lane:
    """What one thread needs to run engines."""

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


def find_engine(
    bundle: Bundle, stage: str, precision: str, package: Package, device: Device
) -> dict[str, Any]:
    """The manifest's entry of the engine for this machine.

    Raises:
        DeviceError: there is none; the message names both sides and the command that builds it.
    """
    made = [e for e in bundle.engines if e["stage"] == stage]
    target, wanted = device.capability, (precision, package.name, package.version)
    for entry in made:
        same = wanted == (entry["precision"], entry["package"], entry["version"])
        if same and entry["target"] == target and entry.get("gpu", device.name) == device.name:
            return entry
    held = sorted({
        f"{e['package']} {e['version']}, {e['target']}"
        f"{' (' + e['gpu'] + ')' if 'gpu' in e else ''}, {e['precision']}"
        for e in made
    })  # fmt: skip
    fix = f"Build it: {build_command(bundle, precision, package, target)}"
    if package.targets and target not in package.targets:
        fix = f"{package.name} has no engines for {target}: take the backend 'tensorrt'."
    raise DeviceError(
        f"{bundle.path}: no {stage} engine for this machine. Engines in the bundle: "
        f"{'; '.join(held) or 'none'}. This machine: {package}, {target} ({device.name}); asked "
        f"for {precision}. {fix}"
    )


def build_command(bundle: Bundle, precision: str, package: Package, target: str) -> str:
    """The command line that builds the engines of a bundle for a machine."""
    return (
        f"python -m export.engine {shlex.quote(str(bundle.path))} --package {package.name} "
        f"--target {target} --precision {precision}"
    )
