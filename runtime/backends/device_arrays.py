"""Arrays in device memory as the CUDA kernels take them, many in one allocation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import Device

__all__ = ["Block", "DeviceArray", "Layout"]

ALIGNMENT = 256  # bytes, as CUDA's own allocations
Layout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


class DeviceArray:
    """Address, shape and type of an array; its memory belongs to a block."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "data": (self.address, False),
            "shape": self.shape,
            "typestr": self.dtype.str,
            "strides": None,
            "version": 3,
        }

    @property
    def rows(self) -> DeviceArray:
        """The same numbers with two axes: the first one, and all others."""
        return DeviceArray(self.address, (self.shape[0], math.prod(self.shape[1:])), self.dtype)

    def entry(self, index: int) -> DeviceArray:
        """One entry of the first axis."""
        return DeviceArray(self.rows_from(index).address, self.shape[1:], self.dtype)

    def rows_from(self, start: int) -> DeviceArray:
        """All from a row on, without the rows before it."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (self.shape[0] - start, *self.shape[1:])
        return DeviceArray(self.address + start * row, shape, self.dtype)


class Block:
    """Named arrays side by side in device memory.

    Args:
        device: whose memory.
        layout: shape and type per name.
        mirrored: whether pinned memory of the host shows the same arrays, so that one copy brings
            all of them over, or back.

    Attributes:
        arrays: by name, on the device.
        host: by name, in the mirror; empty without one.
    """

    def __init__(self, device: Device, layout: Layout, *, mirrored: bool = False) -> None:
        self._device, offsets, size = device, dict[str, int](), 0
        for name, (shape, dtype) in layout.items():
            offsets[name] = size
            size += -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        size = max(size, ALIGNMENT)
        with ExitStack() as owned:
            self._memory = device.allocate(size)
            owned.callback(device.free, self._memory)
            self._pinned = device.pinned(size) if mirrored else np.empty(0, np.uint8)
            if mirrored:
                owned.callback(device.free_pinned, self._pinned)
            self._owned = owned.pop_all()
        base = int(self._memory)
        self.arrays = {
            name: DeviceArray(base + offsets[name], shape, dtype)
            for name, (shape, dtype) in layout.items()
        }
        self.host = dict[str, NDArray[Any]]()
        for name, (shape, dtype) in layout.items() if mirrored else ():
            end = offsets[name] + math.prod(shape) * np.dtype(dtype).itemsize
            self.host[name] = self._pinned[offsets[name] : end].view(dtype).reshape(shape)

    def __getitem__(self, name: str) -> DeviceArray:
        return self.arrays[name]

    def upload(self, stream: Any) -> None:
        """Bring the mirror to the device, in stream order."""
        self._device.upload(self._memory, self._pinned, stream)

    def download(self, stream: Any) -> None:
        """Bring the device's arrays to the mirror, in stream order."""
        self._device.download(self._pinned, self._memory, stream)

    def close(self) -> None:
        """Free both; the stream must be done with them."""
        self.host.clear()
        self._owned.close()
