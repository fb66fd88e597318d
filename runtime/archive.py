"""Files of a bundle on disk: names that stay inside, hashes, and zips."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat as modes
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from runtime.signature import SIGNATURE, SIGNATURE_BYTES
from zsd_core.errors import BundleError
from zsd_core.files import shown

__all__ = [
    "MANIFEST",
    "Stamp",
    "folder_of",
    "manifest_text",
    "packed_manifest",
    "read_verified",
    "safe_name",
    "safe_names",
    "sha256",
    "sha256_of",
    "stamp",
    "unpack",
    "verify",
]

Stamp = tuple[int, ...]
MANIFEST = "manifest.json"
MANIFEST_BYTES = 16 << 20  # most; those that ship have some ten thousand
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take memory that a header asks for
# How many times as large as in the zip a file may be. Text shrinks to a twentieth, weights hardly.
INFLATED = 100
SMALL = 1 << 20  # bytes of a file that is never too large
# Of zipfile; a wrong password or method is a RuntimeError, a broken stream a zlib.error.
BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError)
PLAIN = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+=@,()[]{}!#$%&'~^ /"
)
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10)),
}


def unpack(
    archive: Path,
    file: BinaryIO,
    destination: Path,
    check: Callable[[Path, str], Mapping[str, Any]],
) -> None:
    """Unpack what the manifest of a zip lists, and nothing else.

    Args:
        archive: the zip, for messages.
        file: the zip.
        destination: an empty directory.
        check: parses and checks the manifest's text, given the path for messages.

    Raises:
        BundleError: it is no zip, damaged, or holds no manifest.
        OSError: a file cannot be read or written.
    """
    try:
        with zipfile.ZipFile(file) as source:
            prefix, entries = _entries(archive, source)
            text = source.read(prefix + MANIFEST)
            (destination / MANIFEST).write_bytes(text)
            listed = check(archive, text.decode("utf-8"))["files"]
            packed_files = [(name, entries.get(prefix + name)) for name in listed]
            there = [(name, info) for name, info in packed_files if info is not None]
            for name, info in there:  # of all files, before the first is written
                if info.file_size != listed[name]["bytes"]:
                    _check_no_link(archive, info)
                    raise _damaged(archive, name, info.file_size, listed[name]["bytes"])
                _check_packed(archive, info)
            size = os.fstat(file.fileno()).st_size
            total = sum(info.file_size for _, info in there)
            if total > max(SMALL, INFLATED * size):  # many small ones fill a disk, too
                raise BundleError(
                    f"{archive}: the zip has {size} bytes and would unpack to {total}; do not use "
                    "this bundle."
                )
            if sum(info.compress_size for _, info in there) > size:
                raise BundleError(
                    f"{archive}: files of the zip share their bytes; do not use this bundle."
                )
            signature = entries.get(prefix + SIGNATURE)
            if signature is not None and signature.file_size <= SIGNATURE_BYTES:
                _check_packed(archive, signature)
                there.append((SIGNATURE, signature))
            for name, info in there:  # one that is not is reported when the files are verified
                place = destination / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as packed, place.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
    except BundleError:
        raise
    except BROKEN as error:
        raise _not_unpacked(archive, error) from error


def packed_manifest(archive: Path, file: BinaryIO) -> bytes:
    """Bytes of the manifest of a zip; ``archive`` is for messages.

    Raises:
        BundleError: it is no zip, damaged, or holds no manifest.
        OSError: the zip cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as source:
            return source.read(_entries(archive, source)[0] + MANIFEST)
    except BundleError:
        raise
    except BROKEN as error:
        raise _not_unpacked(archive, error) from error


def _entries(archive: Path, source: zipfile.ZipFile) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """What the names of a zip's files begin with, and the files; the manifest may be read."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in source.infolist():
        if entries.setdefault(info.filename, info) is not info:
            raise BundleError(
                f"{archive}: the zip holds two files of one name, {shown(info.filename)}; pack the "
                "bundle again."
            )
    prefix = folder_of(entries)
    manifest = entries.get(prefix + MANIFEST)
    if manifest is None:
        raise BundleError(f"{archive}: the zip holds no {MANIFEST}; is it a bundle?")
    if manifest.file_size > MANIFEST_BYTES:
        raise _endless(archive, manifest.file_size)
    _check_no_link(archive, manifest)
    _check_packed(archive, manifest)
    return prefix, entries


def _not_unpacked(archive: Path, error: Exception) -> BundleError:
    return BundleError(f"{archive} cannot be unpacked ({error}); copy it again.")


def _check_no_link(archive: Path, info: zipfile.ZipInfo) -> None:
    """Say what a file is of which the zip holds the name of another one only."""
    if modes.S_ISLNK(info.external_attr >> 16):
        raise BundleError(
            f"{archive}: {shown(info.filename)} is a link in the zip; pack the bundle again with "
            "the files themselves (zip without -y)."
        )


FINDER = {"__MACOSX", ".DS_Store"}  # what macOS puts beside the folder that it packs


def folder_of(entries: Collection[str]) -> str:
    """Beginning of the names of a zip's files: the bundle's folder and a slash, or nothing."""
    tops = {entry.split("/")[0] for entry in entries} - FINDER
    return "" if MANIFEST in entries or len(tops) != 1 else f"{tops.pop()}/"


def _check_packed(archive: Path, info: zipfile.ZipInfo) -> None:
    """Refuse a file of a zip that would fill memory or disk, whatever its size says."""
    if info.compress_type not in METHODS:
        raise BundleError(
            f"{archive}: {info.filename} is packed by method {info.compress_type}; pack the bundle "
            "again, stored or deflated."
        )
    if info.file_size > max(SMALL, INFLATED * info.compress_size):
        raise BundleError(
            f"{archive}: {info.filename} has {info.compress_size} bytes in the zip and would "
            f"unpack to {info.file_size}; do not use this bundle."
        )


def manifest_text(given: Path, root: Path) -> str:
    """Text of the manifest of a bundle directory.

    Args:
        given: the bundle, for messages.
        root: its directory.

    Raises:
        BundleError: there is no such file, or it is no text, or far too large.
    """
    try:
        with open(root / MANIFEST, "rb", opener=_without_waiting) as file:
            data = file.read(MANIFEST_BYTES + 1)  # /dev/zero has no size, and no end
    except OSError as error:
        raise BundleError(
            f"{given}: {MANIFEST} cannot be read ({error.strerror}); is this a bundle, that is, "
            "what export.onnx wrote?"
        ) from error
    if len(data) > MANIFEST_BYTES:
        raise _endless(given, (root / MANIFEST).stat().st_size)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{given}/{MANIFEST} is not text: {error}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is empty."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _endless(given: Path, size: int) -> BundleError:
    return BundleError(
        f"{given}: {MANIFEST} has {size} bytes, more than {MANIFEST_BYTES}; do not use this bundle."
    )


def safe_names(path: Path, names: Iterable[str]) -> None:
    """Check the names of all files of a bundle, alone and beside each other.

    Raises:
        BundleError: as ``safe_name``, or two are one file where case does not count.
    """
    folded: dict[str, str] = {MANIFEST: MANIFEST}
    for name in names:
        other = folded.setdefault(safe_name(path, name).casefold(), name)
        if other != name:
            raise BundleError(
                f"{path}: the manifest lists {name!r} beside {other!r}, one file on many systems; "
                "do not use this bundle."
            )


def safe_name(path: Path, name: str) -> str:
    """Return a relative name that stays inside the bundle, on every file system.

    Plain ASCII, so that no letter looks like another; no name that Windows cuts or means a device
    by; at most 200 characters.

    Raises:
        BundleError: it would leave the bundle, or is not spelt plainly.
    """
    parts = PurePosixPath(name).parts
    bad = not parts or len(name) > 200 or name.startswith("/") or ".." in parts
    bad = bad or not PLAIN.issuperset(name) or PurePosixPath(name).as_posix() != name
    for part in parts:
        bad = bad or part[-1] in ". " or part[0] == " "
        bad = bad or part.partition(".")[0].rstrip(" ").lower() in DEVICES
    if bad or name.lower() in (MANIFEST, SIGNATURE):
        raise BundleError(
            f"{path}: the manifest lists {shown(name)}, which is not a plain path inside the "
            "bundle; do not use this bundle."
        )
    return name


def verify(bundle: Path, name: str, path: Path, record: Mapping[str, Any]) -> Stamp:
    """Compare a file with its entry in the manifest.

    Returns:
        The file's stamp from before it was hashed.

    Raises:
        BundleError: it is missing or cannot be read, or its size or hash is another.
    """
    with _reading(bundle, name, path, record):
        before = stamp(path)
        digest = sha256(path)
    _check_digest(bundle, name, digest, record)
    return before


def read_verified(bundle: Path, name: str, path: Path, record: Mapping[str, Any]) -> bytes:
    """Read a file once, and compare those very bytes with its entry in the manifest.

    Raises:
        BundleError: it is missing or cannot be read, or its size or hash is another.
    """
    with _reading(bundle, name, path, record), path.open("rb", buffering=0) as file:
        data = file.read(record["bytes"] + 1)
        while len(data) <= record["bytes"] and (more := file.read(record["bytes"] + 1)):
            data += more  # a system reads at most two gigabytes at a time
    if len(data) != record["bytes"]:
        raise _damaged(bundle, name, len(data), record["bytes"])
    _check_digest(bundle, name, hashlib.sha256(data).hexdigest(), record)
    return data


def stamp(path: Path) -> Stamp:
    """A file's number, size and times of change; whoever writes to it or replaces it changes one.

    Nobody can set the last, the time at which the file's entry changed.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _reading(bundle: Path, name: str, path: Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Check that a file is there and as long as its entry says, and name what cannot be read."""
    try:
        if not path.is_file():
            raise BundleError(
                f"{bundle}: {name} is missing; copy the bundle again, with all files."
            )
        size = path.stat().st_size
        if size != record["bytes"]:
            raise _damaged(bundle, name, size, record["bytes"])
        yield
    except OSError as error:
        raise BundleError(f"{bundle}: {name} cannot be read: {error.strerror}.") from error


def _check_digest(bundle: Path, name: str, digest: str, record: Mapping[str, Any]) -> None:
    if digest != record["sha256"]:
        raise BundleError(
            f"{bundle}: {name} is damaged: its SHA-256 is {digest[:16]}..., the manifest says "
            f"{record['sha256'][:16]}... Copy or export the bundle again; if it was replaced "
            "since it was opened, open it again."
        )


def _damaged(bundle: Path, name: str, size: int, expected: int) -> BundleError:
    return BundleError(
        f"{bundle}: {name} is damaged: {size} bytes, the manifest says {expected}. "
        "Copy or export the bundle again (a few hundred bytes: a Git LFS pointer?); if it was "
        "replaced since it was opened, open it again."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb", buffering=0) as file:
        return sha256_of(file)


def sha256_of(file: RawIOBase) -> str:
    """SHA-256 of an open file from its beginning on."""
    # One block for all: fresh memory for each costs more than the hash.
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    file.seek(0)
    while size := file.readinto(block):
        digest.update(block[:size])
    return digest.hexdigest()
