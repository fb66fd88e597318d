"""The little of CUDA's driver that is used: a device, memory, streams, copies, captured graphs.

Not run on a GPU yet: every call is checked against the signatures of ``cuda.bindings`` by a double.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import DeviceError, require

__all__ = ["Device"]


class Device:
    """One GPU, by its primary context, which other libraries of the process share.

    Args:
        index: as CUDA counts GPUs.
        extra: of this project that installs the bindings.

    Attributes:
        name: of the GPU.
        capability: its compute capability, such as "sm86".

    Raises:
        DeviceError: there is no driver or no such GPU.
        MissingPackageError: ``cuda-bindings`` is not installed.
    """

    def __init__(self, index: int, extra: str) -> None:
        driver = self._driver = require("cuda.bindings.driver", extra)
        try:
            self._call("cuInit", 0)
        except RuntimeError as error:  # the bindings find no libcuda
            raise DeviceError(
                f"CUDA cannot start: {str(error).splitlines()[0]} An engine needs an NVIDIA GPU "
                "and its driver; the backends 'onnxruntime' and 'openvino' run without."
            ) from error
        count = self._call("cuDeviceGetCount")
        if not 0 <= index < count:
            raise DeviceError(f"no GPU number {index}; this machine has {count}.")
        self._handle = self._call("cuDeviceGet", index)
        kinds = driver.CUdevice_attribute
        major, minor = (
            self._call("cuDeviceGetAttribute", kind, self._handle)
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.capability = f"sm{major}{minor}"
        self.name = self._call("cuDeviceGetName", 256, self._handle).split(b"\0")[0].decode()
        self._context = self._call("cuDevicePrimaryCtxRetain", self._handle)

    def activate(self) -> None:
        """Make this GPU current for the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def stream(self) -> Any:
        """A new stream that does not wait for the default stream."""
        return self._call(
            "cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        )

    def drop_stream(self, stream: Any) -> None:
        """Free a stream."""
        self._call("cuStreamDestroy", stream)

    def allocate(self, size: int) -> Any:
        """Device memory of ``size`` bytes; its address as ``int()`` of the result."""
        return self._call("cuMemAlloc", size)

    def free(self, memory: Any) -> None:
        """Free what ``allocate`` gave."""
        self._call("cuMemFree", memory)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Host memory that copies need not stage; to be given to ``free_pinned``, this array."""
        address = int(self._call("cuMemAllocHost", size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Free what ``pinned`` gave; no view of it may be used afterwards."""
        self._call("cuMemFreeHost", array.ctypes.data)

    def upload(self, memory: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a contiguous array to the device, in stream order; the array must stay."""
        self._call("cuMemcpyHtoDAsync", memory, array.ctypes.data, array.nbytes, stream)

    def download(self, array: NDArray[Any], memory: Any, stream: Any) -> None:
        """Copy from the device into an array, which is filled once the stream is done."""
        assert array.flags.c_contiguous
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, memory, array.nbytes, stream)

    def wait(self, stream: Any) -> None:
        """Wait until a stream has done all."""
        self._call("cuStreamSynchronize", stream)

    @contextmanager
    def waiting(self, stream: Any) -> Iterator[None]:
        """Wait for a stream at the end of the body, and if it fails too.

        What was put on the stream reads and writes the host's memory until then.
        """
        try:
            yield
        except BaseException:
            self._driver.cuStreamSynchronize(stream)  # its own failure would hide the cause
            raise
        self.wait(stream)

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Record what ``enqueue`` puts on the stream, running none of it; for ``replay``."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            status, graph = self._driver.cuStreamEndCapture(stream)
            if int(status) == 0:  # its own failure would hide the cause
                self._driver.cuGraphDestroy(graph)
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def replay(self, recording: Any, stream: Any) -> None:
        """Run what was captured, with the same addresses, in stream order."""
        self._call("cuGraphLaunch", recording, stream)

    def drop_recording(self, recording: Any) -> None:
        """Free what ``capture`` gave."""
        self._call("cuGraphExecDestroy", recording)

    def close(self) -> None:
        """Let go of the GPU."""
        self._call("cuDevicePrimaryCtxRelease", self._handle)

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *results = getattr(self._driver, function)(*arguments)
        if int(status) != 0:
            raise DeviceError(f"{function} failed: {getattr(status, 'name', status)}.")
        return results[0] if results else None
