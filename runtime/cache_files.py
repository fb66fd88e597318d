"""Files of the user's cache: what was compiled once and need not be again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["cache_folder", "write_whole"]


def cache_folder(name: str) -> Path:
    """This project's folder of a name in the user's cache; it may not exist yet.

    Raises:
        RuntimeError: the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "contrastzsd" / name


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others may read or write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
