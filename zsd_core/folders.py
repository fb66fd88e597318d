"""Files that are whole or absent, and folders that one process at a time writes into."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zsd_core.errors import ConfigError

__all__ = ["clear_parts", "lock_folder", "written_whole"]

LOCK, PART = ".lock", ".part"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield another name beside ``path``; what is written there takes the name once on disk.

    Through a kill or a power cut ``path`` is what it was before, or all of the new content.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    aside.unlink(missing_ok=True)
    try:
        yield aside
        _sync(aside)
        aside.replace(path)
        _sync(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_parts(folder: Path) -> None:
    """Remove what killed processes had not finished; the folder must be locked."""
    for part in folder.glob(f".*{PART}"):
        part.unlink()


def lock_folder(folder: Path) -> IO[str]:
    """Keep other processes out of a folder, until the file that is returned is closed.

    The lock ends with its process, however that ends.

    Raises:
        ConfigError: another run has the folder.
        OSError: the folder is not there or cannot be written into.
    """
    lock = (folder / LOCK).open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"{folder} is in use by another run; wait for it, or take another --output."
        ) from error
    return lock
