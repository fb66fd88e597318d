"""The engines of a bundle: the one that fits this device, loaded, and run with checked shapes."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import check_floats
from runtime.backends.cuda_driver import Device
from runtime.backends.kernel_cache import KernelCache
from runtime.backends.trt_package import Package
from runtime.bundle import Bundle
from zsd_core.errors import BundleError, DeviceError, ShapeError

__all__ = ["UNSEEN_CAPACITY", "Engine", "FixedEngine", "build_command", "find_engine"]

Floats = NDArray[np.float32]
UNSEEN_CAPACITY = 128


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
            self.engine = runtime.deserialize_cuda_engine(bundle.read(entry["file"]))
        if self.engine is None:
            said = "; ".join(message.text for message in messages) or "it gave no reason"
            raise BundleError(
                f"{bundle.path}: {package} cannot load {entry['file']}: {said}. "
                f"Build it again: {self.command}"
            )
        names = [*self.inputs, *self.outputs]
        types = {name: self.engine.get_tensor_dtype(name) for name in names}
        check_floats(f"{bundle.path}/{entry['file']}", names, types, package.trt.DataType.FLOAT)
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


def find_engine(
    bundle: Bundle, stage: str, precision: str, package: Package, device: Device
) -> dict[str, Any]:
    """The manifest's entry of the engine for this machine.

    Raises:
        DeviceError: there is no such engine; the message names both sides and the command that
            builds it.
    """
    made = [e for e in bundle.engines if e["stage"] == stage]
    target, wanted = device.capability, (precision, package.name, package.version)
    for entry in made:
        same = wanted == (entry["precision"], entry["package"], entry["version"])
        if same and entry["target"] == target and entry.get("gpu", device.name) == device.name:
            return entry
    held = sorted(
        {
            f"{e['package']} {e['version']}, {e['target']}"
            f"{' (' + e['gpu'] + ')' if 'gpu' in e else ''}, {e['precision']}"
            for e in made
        }
    )
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
