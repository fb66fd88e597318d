"""Put a bundle in the place of another in one step, and never of anything else."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.archive import MANIFEST, folder_of, manifest_text
from runtime.signature import SIGNATURE
from zsd_core.errors import BundleError, ZsdError
from zsd_core.files import parse_json

__all__ = ["check_replaceable", "replacing", "unlisted"]

NAMED = 5  # files in a message


def unlisted(path: Path) -> list[str]:
    """Files of a folder or a zip that its manifest does not list; all of them without one.

    Raises:
        OSError: the folder or a file cannot be read.
        zipfile.BadZipFile: a file is no zip.
    """
    if path.is_dir():
        entries = sorted(path.rglob("*"))
        files = [file for file in entries if file.is_symlink() or not file.is_dir()]
        names = [file.relative_to(path).as_posix() for file in files]
        text = manifest_text(path, path) if MANIFEST in names else "{}"
    else:
        with zipfile.ZipFile(path) as archive:
            packed = [name for name in archive.namelist() if not name.endswith("/")]
            prefix = folder_of(archive.namelist())
            names = [name.removeprefix(prefix) for name in packed]
            text = archive.read(prefix + MANIFEST).decode() if MANIFEST in names else "{}"
    manifest = parse_json(text, f"{path}/{MANIFEST}", BundleError)
    files_of = manifest.get("files") if isinstance(manifest, dict) else None
    listed = {MANIFEST, SIGNATURE, *files_of} if isinstance(files_of, dict) else set()
    return [name for name in names if name not in listed]


def check_replaceable(target: Path) -> None:
    """Make sure that nothing but a bundle is lost when another takes its place.

    Raises:
        BundleError: ``target`` is there and is not, or not only, a bundle.
    """
    if not target.exists():
        return
    try:
        others = unlisted(target)
    except (ZsdError, OSError, ValueError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        raise BundleError(
            f"{target} exists and is no bundle that can be read, so it is not replaced; remove it, "
            "or name another place."
        ) from None
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise BundleError(
            f"{target} holds files that are not part of a bundle: "
            f"{', '.join(others[:NAMED])}{more}. They are neither lost nor signed; move them "
            "elsewhere, or name another place."
        )


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a directory that takes the place of ``target`` when all went well.

    A link stays one: what it points to is replaced.

    Raises:
        BundleError: as ``check_replaceable``, or the folder around it cannot be written to.
    """
    check_replaceable(target)
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
