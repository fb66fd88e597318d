"""Zip bundles, unpacked once for all processes of a user.

The files lie in the user's cache, in a folder named by the SHA-256 of the zip, and no process owns
them: neither a fork nor a signal takes them away from another process, and however many processes
open a zip or are killed, there is one copy. It is made aside and renamed, under a lock that ends
with its process; what a killed process left half made is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from runtime.archive import MANIFEST, packed_manifest, sha256_of, unpack
from runtime.cache_files import cache_folder
from zsd_core.errors import BundleError, ConfigError

__all__ = ["open_unpacked"]

T = TypeVar("T")


def open_unpacked(
    archive: Path, check: Callable[[Path, str], Mapping[str, Any]], opened: Callable[[Path], T]
) -> T:
    """Unpack a zip unless its files are there, and open the folder.

    Args:
        archive: the zip.
        check: parses and checks the manifest's text, given the path for messages.
        opened: opens the folder and verifies every file in it, and a signature that is required;
            raises ``BundleError`` otherwise. A copy that it refuses is unpacked again, once.

    Raises:
        BundleError: the zip is no bundle or damaged, or there is no room for its files.
    """
    try:
        cache = cache_folder("bundles")
    except ConfigError as error:
        raise _no_room(archive, str(error).partition(". ")[0]) from error
    try:
        # One file, whatever takes its name meanwhile.
        with archive.open("rb", buffering=0) as file:
            return _copy(archive, file, cache, check, opened)
    except OSError as error:
        raise _no_room(archive, error.strerror or str(error).rstrip(".")) from error


def _copy(
    archive: Path,
    file: FileIO,
    cache: Path,
    check: Callable[[Path, str], Mapping[str, Any]],
    opened: Callable[[Path], T],
) -> T:
    digest, manifest = sha256_of(file), packed_manifest(archive, file)
    place = cache / digest
    if (bundle := _opened(place, manifest, opened)) is not None:
        return bundle
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / "lock"):
        if (bundle := _opened(place, manifest, opened)) is not None:  # another process was faster
            return bundle
        aside, old = place.with_suffix(".aside"), place.with_suffix(".old")
        for left in (aside, old):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            aside.mkdir()
            unpack(archive, file, aside, check)
            if sha256_of(file) != digest:
                raise BundleError(f"{archive} was changed while it was unpacked; open it again.")
            opened(aside)  # a copy that is refused does not replace one that others may use
            if place.is_dir():
                place.rename(old)
            aside.rename(place)
        finally:
            for left in (aside, old):
                shutil.rmtree(left, ignore_errors=True)
        return opened(place)


def _no_room(archive: Path, said: str) -> BundleError:
    return BundleError(
        f"{archive} cannot be unpacked into the user's cache: {said}. Set XDG_CACHE_HOME to a "
        "folder that can be written to and has room, or unzip the bundle yourself and open its "
        "folder."
    )


def _opened(place: Path, manifest: bytes, opened: Callable[[Path], T]) -> T | None:
    """Open a copy; None where there is none or it is damaged, though the zip may be whole."""
    try:
        return opened(place) if (place / MANIFEST).read_bytes() == manifest else None
    except (BundleError, OSError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process at the latest."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may hold the file open
        os.close(file)
