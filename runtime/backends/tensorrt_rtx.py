"""TensorRT-RTX, on engines that ``export.engine`` built anywhere. Not run on a GPU yet."""

from __future__ import annotations

from runtime.backends.trt_backend import EngineBackend
from runtime.backends.trt_engines import UNSEEN_CAPACITY
from runtime.bundle import Bundle

__all__ = ["EXTRA", "PACKAGE", "load"]

PACKAGE, EXTRA = "tensorrt_rtx", "tensorrt-rtx"


def load(
    bundle: Bundle,
    threads: int | None = None,
    precision: str = "float32",
    device: int = 0,
    on_device: bool = False,
    unseen_capacity: int = UNSEEN_CAPACITY,
) -> EngineBackend:
    """Load the engines of this package, its version and this GPU.

    Args:
        bundle: that holds them.
        threads: for the kernels; an engine takes none.
        precision: of the engines.
        device: the GPU, as CUDA counts.
        on_device: whether a detector keeps whole images on the GPU, with the CUDA kernels, which
            must be built; else only the networks run there.
        unseen_capacity: the most unseen classes at a time, where ``on_device``.
    """
    return EngineBackend(PACKAGE, bundle, precision, device, on_device, unseen_capacity)
