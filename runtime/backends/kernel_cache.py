"""Kernels that TensorRT-RTX compiled on the device, kept for the next process.

Not run on a GPU yet: exercised with a double (tests/runtime/test_kernel_cache.py). TensorRT-RTX
finishes an engine where it runs, shape by shape, and offers the result as a runtime cache. It is
kept in the user's cache and not beside the plan: a bundle is hashed, copied, and may be read-only.
Nothing is refused because of it; what cannot be read or written is a warning, and is compiled
again.
"""

from __future__ import annotations

import re
import threading
import warnings
from pathlib import Path
from typing import Any

from runtime.backends.trt_package import Package
from runtime.cache_files import cache_folder, write_whole
from zsd_core.errors import ConfigError

__all__ = ["KernelCache"]


class KernelCache:
    """The runtime cache of an engine; its contexts share it, of whatever thread.

    Args:
        package: TensorRT keeps nothing, as it compiles nothing on the device.
        engine: deserialised; its GPU is current.
        content: hash of its plan.
        gpu: name of the GPU, since one home may serve several machines.

    Attributes:
        shared: TensorRT's own object, which contexts are made with; None where nothing is kept.
    """

    def __init__(self, package: Package, engine: Any, content: str, gpu: str) -> None:
        self.shared = package.runtime_cache(engine)
        self._package, self._lock = package, threading.Lock()
        self._file: Path | None = None
        self._kept = b""
        if self.shared is None:
            return
        try:
            self._file = cache_folder("kernels") / f"{content}.{re.sub(r'[^A-Za-z0-9]+', '-', gpu)}"
            self._kept = self._file.read_bytes() if self._file.is_file() else b""
        except (OSError, ConfigError) as error:
            self._warn("cannot be read", error)
        if self._kept:
            runtime_cache = self.shared
            with package.messages() as messages:
                taken = runtime_cache.deserialize(self._kept)
            if not taken:
                said = "; ".join(message.text for message in messages) or "it gave no reason"
                self._warn(f"is not what {package} takes here", said)

    def save(self) -> None:
        """Write what was compiled since it was read or written last."""
        with self._lock:
            if (runtime_cache := self.shared) is None or self._file is None:
                return
            made = runtime_cache.serialize()
            if made is None or (data := bytes(made)) == self._kept:
                return
            self._kept = data  # even if it cannot be written, which is said once
            try:
                write_whole(self._file, data)
            except OSError as error:
                self._warn("cannot be written", error)

    def close(self) -> None:
        """Save, and let go of TensorRT's object: after the contexts, before the engine."""
        self.save()
        self.shared = None

    def _warn(self, what: str, why: object) -> None:
        name = self._file or "the cache of compiled kernels"
        warnings.warn(f"{name} {what} ({why}); kernels are compiled again.", stacklevel=4)
