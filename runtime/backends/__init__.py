"""Backends: what runs the two networks of a bundle. One file each, found by its name.

A backend's file defines ``PACKAGE`` (what must be importable), ``EXTRA`` (the extra of
``contrastzsd`` that installs it) and ``load(bundle, threads, precision, **options) -> Backend``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeVar

from runtime.backends.shares import CLOSED
from runtime.bundle import PRECISIONS, Bundle
from runtime.processes import never_freed_in_a_fork
from zsd_core import kernels
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, ConfigError, DeviceError, MissingPackageError, did_you_mean
from zsd_core.files import shown
from zsd_core.kernels.info import check_threads
from zsd_core.pipeline import Pipeline
from zsd_core.scoring import Scorer
from zsd_core.stages import Networks

__all__ = [
    "BACKENDS",
    "Backend",
    "check_floats",
    "check_weights",
    "installed_backends",
    "open_backend",
    "opened",
    "thread_count",
]

T = TypeVar("T")

# "auto" takes the first that is installed; the last two need an engine built for the machine.
BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")


class Backend(Networks, Protocol):
    """Both networks of a bundle, ready to run from any thread.

    Attributes:
        name: of the backend, one of ``BACKENDS``.
        description: version, device and threads in use, for people.
    """

    name: str
    description: str

    def pipeline(self, config: ModelConfig, scorer: Scorer) -> Pipeline:
        """Make what runs whole images: on the backend's device, or its networks from the host.

        Raises:
            ConfigError: the model or the scoring method cannot run there.
        """

    def close(self) -> None:
        """Free the networks; calls after it raise ``DeviceError``, and it may be repeated.

        Calls that other threads are in finish first, with a result or a ``DeviceError``.
        """


def installed_backends() -> tuple[str, ...]:
    """The backends whose package is there, in the order "auto" tries them."""
    return tuple(
        name for name in BACKENDS if importlib.util.find_spec(_module(name).PACKAGE) is not None
    )


def open_backend(
    name: str,
    bundle: Bundle,
    threads: int | None = None,
    options: Mapping[str, Any] | None = None,
    precision: str = "float32",
) -> Backend:
    """Load the networks of a bundle.

    Args:
        name: one of ``BACKENDS``, or "auto" for the first that is installed.
        bundle: whose networks.
        threads: CPU threads; None takes ``kernels.thread_limit()``, and where that is no limit it
            leaves the choice to the backend.
        options: of the backend, keyword arguments of its ``load``.
        precision: one of ``runtime.bundle.PRECISIONS``; the bundle must hold it.

    Raises:
        BundleError: the bundle lacks the precision, or a network cannot be loaded.
        ConfigError: an unknown name, precision or option, or ``threads`` outside 1 to 1,024.
        MissingPackageError: the backend's package, or every backend's, is missing.
    """
    if threads is not None:
        threads = check_threads("threads", threads, "; leave it out for all cores")
    if name == "auto":
        found = installed_backends()
        if not found:
            raise MissingPackageError(
                "no backend is installed. Install one: pip install 'contrastzsd[cpu]'"
            )
        name = found[0]
    if name not in BACKENDS:
        raise ConfigError(
            f"backend is {name!r}, must be 'auto' or one of "
            f"{', '.join(map(repr, BACKENDS))}{did_you_mean(name, BACKENDS)}"
        )
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision is {precision!r}, must be one of {', '.join(map(repr, PRECISIONS))}"
            f"{did_you_mean(precision, PRECISIONS)}"
        )
    if not isinstance(options or {}, Mapping):
        raise ConfigError(f"backend_options is {options!r}, must be a mapping of names to values.")
    module = _module(name)
    known = [key for key in inspect.signature(module.load).parameters][3:]
    for option in options or {}:
        if option not in known:
            raise ConfigError(
                f"backend {name!r} has no option {option!r}, only {', '.join(map(repr, known))}"
                f"{did_you_mean(option, known)}"
            )
    threads = kernels.thread_limit() if threads is None else threads
    backend: Backend = module.load(bundle, threads, precision, **(options or {}))
    return never_freed_in_a_fork(backend)


def check_weights(bundle: Bundle, precision: str, family: str) -> None:
    """Refuse networks whose integers would overflow on this CPU, where nothing would say so.

    Raises:
        DeviceError: the int8 weights have 8 bits, and this CPU has no VNNI.
    """
    entry = (bundle.manifest.get("precisions") or {}).get(precision, {})
    if entry.get("weight_levels", {}).get(family, 0) > 64 and not kernels.sums_int8_exactly():
        raise DeviceError(
            f"{bundle.path}: its int8 weights have 8 bits, and sums of their products overflow on "
            "this CPU, which has no VNNI. Take precision='float32', or make them again without "
            "--full-range: python -m export.quantize BUNDLE"
        )


def check_floats(
    where: str, names: Sequence[str], types: Mapping[str, object], float32: object
) -> None:
    """Refuse a network whose values are not all float32, as everything around it reads them.

    Args:
        where: the network, for messages.
        names: of the values that are read.
        types: type of the elements of each value that the network has, in its library's words.
        float32: what that library calls float32.

    Raises:
        BundleError: a value is missing or has other elements.
    """
    for name in names:
        if name not in types:
            raise BundleError(
                f"{where} has no {shown(name)}, only {shown(', '.join(types))}. Export the bundle "
                "again."
            )
        if types[name] != float32:
            raise BundleError(
                f"{where}: {shown(name)} is {types[name]}, must be {float32}. Export the bundle "
                "again."
            )


def opened(networks: Mapping[str, T], stage: str) -> T:
    """The network of a stage, of a backend that forgets its networks when it is closed.

    Raises:
        DeviceError: it is closed.
    """
    try:
        return networks[stage]
    except KeyError:
        raise DeviceError(CLOSED) from None


def thread_count(threads: int | None) -> str:
    """Threads in words, for a description."""
    return f"{'all' if threads is None else threads} thread{'s' * (threads != 1)}"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"runtime.backends.{name}")
