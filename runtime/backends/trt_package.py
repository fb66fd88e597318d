"""Differences between the packages ``tensorrt`` and ``tensorrt_rtx``, in one place.

Both offer one interface under two names. TensorRT-RTX compiles ahead of time for any of its
targets, without a GPU, and finishes the engine on the device, shape by shape; TensorRT compiles for
the GPU it runs on and keeps measurements in a timing cache. An engine of either runs with the very
version that built it.
"""

from __future__ import annotations

import functools
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from zsd_core.errors import ConfigError, require

__all__ = ["EXTRAS", "Message", "Package", "open_package", "warning_name"]

EXTRAS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True)
class Message:
    """A warning or an error of TensorRT.

    Attributes:
        severity: "WARNING", "ERROR" or "INTERNAL_ERROR".
        text: as TensorRT wrote it.
    """

    severity: str
    text: str


class Package:
    """One of the two packages, imported.

    Attributes:
        name: as it is imported.
        trt: the module.
        version: of the package.
        ahead_of_time: whether it builds for GPUs that are not there.
    """

    def __init__(self, name: str) -> None:
        trt = self.trt = require(name, EXTRAS[name])
        self.name, self.version = name, str(trt.__version__)
        self.ahead_of_time = name == "tensorrt_rtx"
        self._log = _logger(trt)  # TensorRT keeps the first logger of a process
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def logger(self) -> Any:
        """Logger for builders and runtimes."""
        return self._log

    @contextmanager
    def messages(self) -> Iterator[list[Message]]:
        """Collect the warnings and errors that TensorRT writes in the body."""
        found: list[Message] = []
        with self._lock:  # TensorRT may write from threads of its own, so they cannot tell whose
            self._log.found = found
            try:
                yield found
            finally:
                self._log.found = None

    @property
    def last_message(self) -> str:
        """The newest warning or error of the process, to explain a call that failed."""
        last = self._log.last
        return last.text if last else "it gave no reason"

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities it can be told to build for; none where the GPU decides."""
        if not self.ahead_of_time:
            return ()
        names = (name for name in self.trt.ComputeCapability.__members__ if name.startswith("SM"))
        return tuple(sorted((name.lower() for name in names), key=lambda name: int(name[2:])))

    def network_flags(self) -> int:
        """Flags of a strongly typed network; where all networks are, there may be none."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def configure(self, config: Any, target: str) -> None:
        """Tell a builder's configuration what to build for, and in which arithmetic.

        TensorRT takes the GPU in use. TensorRT-RTX must leave memory to its caller, lest it
        allocates while a CUDA graph is captured; ``context`` and ``room`` are made for that.
        """
        trt = self.trt
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: float32 with 10 bits of mantissa
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the engine inspector
        if self.ahead_of_time:
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)

    def load_timings(self, config: Any, known: bytes) -> None:
        """Reuse measurements of earlier builds; TensorRT-RTX measures nothing when it builds.

        Those of another driver are of no use: TensorRT refuses them, and measures again.
        """
        if self.ahead_of_time:
            return
        before = len(self._log.found or ())
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
            del (self._log.found or [])[before:]  # what it said of that is nothing to judge

    def timings(self, config: Any) -> bytes:
        """The measurements so far; none where nothing is measured."""
        cache = None if self.ahead_of_time else config.get_timing_cache()
        return b"" if cache is None else bytes(cache.serialize())

    def runtime_cache(self, engine: Any) -> Any:
        """For what is compiled on the device; None for TensorRT, which compiles nothing there."""
        if not self.ahead_of_time:
            return None
        runtime_config = engine.create_runtime_config()
        return runtime_config.create_runtime_cache()

    def context(self, engine: Any, cache: Any = None, *, eager: bool = False) -> Any:
        """An execution context, whose memory ``room`` asks for; None on failure.

        Args:
            engine: to run.
            cache: from ``runtime_cache``, where kernels are taken from and put; it must outlive
                the context.
            eager: TensorRT-RTX runs a makeshift kernel for a new shape and puts a better one in its
                place later, which a captured graph would not notice; so compile that at once.
        """
        if not self.ahead_of_time:
            return engine.create_execution_context()
        runtime_config = engine.create_runtime_config()
        own = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        runtime_config.set_execution_context_allocation_strategy(own)
        if cache is not None and not runtime_config.set_runtime_cache(cache):
            warnings.warn(f"{self} takes no runtime cache: {self.last_message}", stacklevel=2)
        if eager:
            strategies = self.trt.DynamicShapesKernelSpecializationStrategy
            runtime_config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return engine.create_execution_context(runtime_config)

    def room(self, context: Any) -> int:
        """Bytes for ``set_device_memory`` at the shapes of a context; TensorRT has its own."""
        return int(context.update_device_memory_size_for_shapes()) if self.ahead_of_time else 0

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether what a context runs can be captured; TensorRT does not say before it fails."""
        return not self.ahead_of_time or bool(context.is_stream_capturable(stream))


_opened = functools.cache(Package)


def open_package(name: str) -> Package:
    """One of the two packages, imported once.

    Raises:
        ConfigError: there is no such package.
        MissingPackageError: it is not installed.
    """
    if name not in EXTRAS:
        raise ConfigError(f"package is {name!r}, must be one of {', '.join(EXTRAS)}.")
    require(name, EXTRAS[name])
    return _opened(name)


def warning_name(text: str) -> str:
    """A name for a warning, so that it can be allowed: its first six words without values."""
    text = re.sub(r"^\[?[\w.]*\.(cpp|h)[^\]]*\]:?", " ", text)  # where in its source it was written
    text = re.sub(r"\(.*?\)|\[.*?\]|'.*?'|\".*?\"", " ", text)
    words = re.findall(r"[A-Za-z][A-Za-z-]+", text)
    return "-".join(words[:6]).lower() or "unnamed"


def _logger(trt: ModuleType) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc,name-defined]
        """Keeps warnings and errors for whoever runs ``Package.messages``, and the newest."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.found: list[Message] | None = None  # None: nobody collects
            self.last: Message | None = None

        def log(self, level: Any, text: str) -> None:
            if level <= trt.ILogger.WARNING:
                self.last = Message(level.name, text.strip())
                if (found := self.found) is not None:
                    found.append(self.last)

    return Log()
