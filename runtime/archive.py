"""Files of a bundle on disk: names that stay inside, hashes, zip, and replacing in one step."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from zsd_core.errors import BundleError

__all__ = ["MANIFEST", "replacing", "safe_name", "sha256", "unpack", "verify"]

MANIFEST = "manifest.json"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a directory that takes the place of ``target`` when all went well.

    A link stays one: what it points to is replaced.

    Raises:
        BundleError: the folder around it cannot be written to.
    """
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise BundleError(f"{target.parent}: cannot be written to: {error.strerror}.") from error
    with folder as work:
        root = Path(work) / "new"
        root.mkdir()
        yield root
        ready = root
        if target.suffix == ".zip":
            ready = Path(work) / "new.zip"
            with zipfile.ZipFile(ready, "w", zipfile.ZIP_STORED) as archive:  # weights: random bits
                for file in sorted(root.rglob("*")):
                    if file.is_file():
                        archive.write(file, file.relative_to(root).as_posix())
        old = Path(work) / "old"
        if target.is_dir():
            target.rename(old)
        try:
            ready.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def unpack(
    archive: Path, destination: Path, check: Callable[[Path, str], Mapping[str, Any]]
) -> None:
    """Unpack what the manifest of a zip lists, and nothing else.

    Args:
        archive: the zip.
        destination: an empty directory.
        check: parses and checks the manifest's text, given the path for messages.

    Raises:
        BundleError: it is no zip, damaged, or holds no manifest.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = {info.filename: info for info in source.infolist()}
            tops = {entry.split("/")[0] for entry in entries}
            prefix = "" if MANIFEST in entries or len(tops) != 1 else f"{tops.pop()}/"
            if prefix + MANIFEST not in entries:
                raise BundleError(f"{archive}: the zip holds no {MANIFEST}; is it a bundle?")
            text = source.read(prefix + MANIFEST)
            (destination / MANIFEST).write_bytes(text)
            listed = check(archive, text.decode("utf-8"))["files"]
            for name, record in listed.items():
                info = entries.get(prefix + name)
                if info is None:
                    continue  # reported, with its name, when the files are verified
                if info.file_size != record["bytes"]:
                    raise _damaged(archive, name, info.file_size, record["bytes"])
                place = destination / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as packed, place.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
    except BundleError:
        raise
    # A wrong password or method is a RuntimeError, a broken stream a zlib.error.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
        raise BundleError(f"{archive} cannot be unpacked ({error}); copy it again.") from error


def safe_name(path: Path, name: str) -> str:
    """Return a relative name that stays inside the bundle.

    Raises:
        BundleError: it would leave the bundle, or is not spelt plainly.
    """
    parts = PurePosixPath(name).parts
    bad = not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0")
    if bad or PurePosixPath(name).as_posix() != name or name == MANIFEST:
        raise BundleError(
            f"{path}: the manifest lists {name!r}, which is not a plain path inside the bundle; "
            "do not use this bundle."
        )
    return name


def verify(bundle: Path, name: str, path: Path, record: Mapping[str, Any]) -> None:
    """Compare a file with its entry in the manifest.

    Raises:
        BundleError: it is missing or cannot be read, or its size or hash is another.
    """
    try:
        if not path.is_file():
            raise BundleError(
                f"{bundle}: {name} is missing; copy the bundle again, with all files."
            )
        size = path.stat().st_size
        if size != record["bytes"]:
            raise _damaged(bundle, name, size, record["bytes"])
        digest = sha256(path)
    except OSError as error:
        raise BundleError(f"{bundle}: {name} cannot be read: {error.strerror}.") from error
    if digest != record["sha256"]:
        raise BundleError(
            f"{bundle}: {name} is damaged: its SHA-256 is {digest[:16]}..., the manifest says "
            f"{record['sha256'][:16]}... Copy or export the bundle again."
        )


def _damaged(bundle: Path, name: str, size: int, expected: int) -> BundleError:
    return BundleError(
        f"{bundle}: {name} is damaged: {size} bytes, the manifest says {expected}. "
        "Copy or export the bundle again (a few hundred bytes: a Git LFS pointer?)."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
