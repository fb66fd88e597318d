"""TensorRT-RTX, on engines that ``export.engine`` built anywhere. Not run on a GPU yet."""

from __future__ import annotations

from runtime.backends.trt_engines import EngineBackend
from runtime.bundle import Bundle

__all__ = ["EXTRA", "PACKAGE", "load"]

PACKAGE, EXTRA = "tensorrt_rtx", "tensorrt-rtx"


def load(
    bundle: Bundle, threads: int | None = None, precision: str = "float32", device: int = 0
) -> EngineBackend:
    """Load the engines of this package, its version and this GPU.

    Args:
        bundle: that holds them.
        threads: for the kernels; an engine takes none.
        precision: of the engines.
        device: the GPU, as CUDA counts.
    """
    return EngineBackend(PACKAGE, bundle, precision, device)
