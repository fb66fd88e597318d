"""What the packages ``tensorrt`` and ``tensorrt_rtx`` do differently, in one place.

Both offer one interface under two names. TensorRT-RTX compiles ahead of time for any of its
targets, without a GPU, and finishes the engine on the device; TensorRT compiles for the GPU it runs
on and keeps measurements in a timing cache. An engine of either runs with the very version that
built it.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
        """What builders and runtimes are made with."""
        return self._log

    @contextmanager
    def messages(self) -> Iterator[list[Message]]:
        """Collect the warnings and errors that TensorRT writes in the body."""
        with self._lock:  # TensorRT may write from threads of its own, so they cannot tell whose
            self._log.found = []
            yield self._log.found

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

    def set_target(self, config: Any, target: str) -> None:
        """Tell a builder's configuration what to build for; TensorRT takes the GPU in use."""
        if self.ahead_of_time:
            trt = self.trt
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)

    def load_timings(self, config: Any, path: Path) -> None:
        """Reuse measurements of earlier builds; TensorRT-RTX measures nothing when it builds."""
        if not self.ahead_of_time:
            known = path.read_bytes() if path.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(known), False)

    def save_timings(self, config: Any, path: Path) -> None:
        """Keep this build's measurements."""
        if not self.ahead_of_time:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(bytes(config.get_timing_cache().serialize()))
            partial.replace(path)


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
    severity = trt.ILogger

    class Log(severity):  # type: ignore[misc,valid-type]
        """Keeps warnings and errors for whoever runs ``Package.messages``."""

        def __init__(self) -> None:
            severity.__init__(self)
            self.found: list[Message] = []
            self.last: Message | None = None

        def log(self, level: Any, text: str) -> None:
            if level <= severity.WARNING:
                self.last = Message(level.name, text.strip())
                self.found.append(self.last)

    return Log()
