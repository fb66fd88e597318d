"""Files of the user's cache: what was compiled once and need not be again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from zsd_core.errors import ConfigError

__all__ = ["cache_folder", "write_whole"]


def cache_folder(name: str) -> Path:
    """This project's folder of a name in the user's cache; it may not exist yet.

    Raises:
        ConfigError: the user has no home, as a number without an entry in a container.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "contrastzsd" / name
    except RuntimeError:
        raise ConfigError(
            "this user has no home, where files are kept for later. Set XDG_CACHE_HOME to a folder "
            "that can be written to."
        ) from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others may read or write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
