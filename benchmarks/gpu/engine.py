"""The networks of a bundle in PyTorch, where ``runtime.backends.device_pipeline`` has TensorRT's.

``TorchEngine`` offers what ``trt_engines.FixedEngine`` asks of an engine, of its package and of its
contexts, so that everything else of the pipeline is the one that ships. PyTorch's own work is put
on the pipeline's stream; in a capture it is recorded like the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.network import FixedNetwork
from runtime.backends.device_arrays import DeviceArray
from runtime.bundle import Bundle
from zsd_core.errors import ShapeError

__all__ = ["CudaPlace", "Place", "TorchEngine", "exact_arithmetic"]


class Place(Protocol):
    """Where networks run: the GPU, or a double of it.

    Attributes:
        name: as torch names the device.
    """

    name: str

    def view(self, address: int, shape: tuple[int, ...]) -> Tensor:
        """The float32 array at an address, as a tensor."""

    def run(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream."""


class CudaPlace:
    """The current GPU.

    PyTorch keeps the memory of every stream apart and gives it to nothing else, so that what a
    captured graph reads and writes stays its stream's between two launches, as long as nobody calls
    ``torch.cuda.empty_cache``. Its pools (``use_mem_pool``) are not for this: they look for the
    PyTorch graph that is being captured, and this one is the driver's.
    """

    name = "cuda"

    def view(self, address: int, shape: tuple[int, ...]) -> Tensor:
        """See ``Place``."""
        return torch.as_tensor(DeviceArray(address, shape, np.float32), device=self.name)

    def run(self, stream: int, work: Callable[[], None]) -> None:
        """See ``Place``."""
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            work()


class TorchEngine:
    """A network of a bundle, as ``trt_engines.Engine`` is; also its package and its cache.

    Args:
        bundle: that holds the network.
        stage: "trunk" or "head".
        place: where it runs.
    """

    def __init__(self, bundle: Bundle, stage: str, place: Place) -> None:
        entry = bundle.stage(stage)
        self.stage, self.place, self._path = stage, place, bundle.network(stage)
        self.inputs: list[str] = [value["name"] for value in entry["inputs"]]
        self.outputs: list[str] = [output["name"] for output in entry["outputs"]]
        self.command = "python -m benchmarks.gpu"
        self.package = self.kernels = self
        self._networks: dict[tuple[int, ...], FixedNetwork] = {}

    def network(self, shape: tuple[int, ...]) -> FixedNetwork:
        """The network at a shape of its input, made once."""
        if shape not in self._networks:
            self._networks[shape] = FixedNetwork(self._path, shape, self.place.name)
        return self._networks[shape]

    def parts(self, shapes: Sequence[tuple[int, ...]]) -> list[slice]:
        """All at once: a shape of any size will do."""
        return [slice(0, shapes[0][0])]

    def refusal(self, shape: tuple[int, ...]) -> ShapeError:
        """See ``trt_engines.Engine``; never needed, since every shape is one part."""
        return ShapeError(f"the {self.stage} network takes no {shape}.")

    def failure(self, shapes: Sequence[tuple[int, ...]]) -> ShapeError:
        """See ``trt_engines.Engine``."""
        return ShapeError(f"the {self.stage} network cannot run on {shapes}.")

    def context(self, *, eager: bool = False) -> _Context:
        """What runs it at one shape."""
        return _Context(self)

    def set_shapes(self, context: _Context, shapes: Sequence[tuple[int, ...]]) -> None:
        """Tell a context the shape of its input."""
        context.take(self.network(tuple(shapes[0])), tuple(shapes[0]))

    # Of the package:

    def room(self, context: _Context) -> int:
        """No memory of the pipeline's: PyTorch has its own."""
        return 0

    def capturable(self, context: _Context, stream: int) -> bool:
        """It asks the device for nothing, so that a graph can hold it."""
        return True

    # Of the cache of compiled kernels:

    def save(self) -> None:
        """Nothing to keep."""


class _Context:
    """An engine at one shape, with addresses: as an execution context of TensorRT."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._tensors: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def take(self, network: FixedNetwork, shape: tuple[int, ...]) -> None:
        """Run this network from now on."""
        self._network = network
        self._shapes = {network.inputs[0]: shape, **network.output_shapes}

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an input or an output."""
        return self._shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Say where an input or an output lies."""
        self._tensors[name] = self._engine.place.view(address, self._shapes[name])
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Put the network on a stream."""
        network, tensors = self._network, dict(self._tensors)

        def work() -> None:
            with torch.no_grad():
                results = network(tensors[network.inputs[0]])
                for name, result in zip(network.outputs, results, strict=True):
                    tensors[name].copy_(result)

        self._engine.place.run(stream, work)
        return True


def exact_arithmetic() -> None:
    """Keep PyTorch's float32 products in float32, as ONNX Runtime's are on a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
