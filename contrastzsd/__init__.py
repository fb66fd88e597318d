"""Find any classes in images, and change the classes while it runs.

    from contrastzsd import Detector

    detector = Detector(classes=["cat", "cup"])
    print(detector("photo.jpg"))

The public names come from ``runtime`` and are loaded when they are first used. A folder or file of
another project that is called ``runtime``, ``zsd_core`` or ``export`` and hides ours is an error
that names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contrastzsd._installation import own_package

if TYPE_CHECKING:
    from runtime import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":  # what Python's own tools look for
        raise AttributeError(f"module 'contrastzsd' has no attribute {name!r}")
    runtime = own_package("runtime")
    if name == "__all__":
        return runtime.__all__
    if name not in runtime.__all__:
        raise AttributeError(
            f"module 'contrastzsd' has no attribute {name!r}, only {', '.join(runtime.__all__)}"
        )
    return getattr(runtime, name)


def __dir__() -> list[str]:
    return sorted(own_package("runtime").__all__)
