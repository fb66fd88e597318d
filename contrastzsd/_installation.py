"""Make sure that the packages beside this one are what Python finds under their names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("zsd_core", "runtime", "export")  # each imports those before it


def own_package(name: str) -> ModuleType:
    """Import one of ``PACKAGES`` from this installation, checked with those it imports.

    Raises:
        ImportError: Python finds another project's module of that name first; the message names
            its path and the cure. Or the package is not installed.
    """
    for package in PACKAGES[: PACKAGES.index(name) + 1]:
        _check(package, ROOT / package)
    return importlib.import_module(name)


def _check(name: str, expected: Path) -> None:
    """Compare what Python would import, or has imported, under a name with our own package."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    found = _place(spec.origin, spec.submodule_search_locations) if spec else None
    if found is None or not expected.is_dir():
        raise ImportError(
            f"contrastzsd: the package {name!r} is not at {expected}; the installation is "
            "incomplete. Install it again: pip install --force-reinstall --no-deps contrastzsd"
        )
    if os.path.realpath(found) != os.path.realpath(expected):
        raise ImportError(
            f"contrastzsd: Python finds {found} under the name {name!r}, which hides the package "
            f"at {expected} that contrastzsd needs. Rename {found}, or take {found.parent} out of "
            "Python's path: start Python in another folder, or check PYTHONPATH."
        )


def _place(origin: str | None, locations: object) -> Path | None:
    """The folder of a package, or the file of a plain module."""
    if origin and origin != "namespace":
        path = Path(origin)
        return path.parent if path.name == "__init__.py" else path
    folders = list(locations) if locations is not None else []  # type: ignore[call-overload]
    return Path(folders[0]) if folders else None
