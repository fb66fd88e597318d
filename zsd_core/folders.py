"""Files that are whole or absent, and folders that one process at a time writes into."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zsd_core.errors import ConfigError

__all__ = ["clear_parts", "lock_folder", "written_whole"]

LOCK, PART = ".lock", ".part"
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


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
        with _unsupported_is_well():  # some shared folders cannot be made to last
            _sync(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def _unsupported_is_well() -> Iterator[None]:
    """Go on where a file system has no such call."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


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
        with _unsupported_is_well():  # some file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(
            f"{folder} is in use by another run; wait for it, or take another --output."
        ) from error
    return lock
