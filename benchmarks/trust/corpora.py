"""Inputs that reached new code of a loader, kept in the repository: a zip for each loader."""

from __future__ import annotations

import zipfile
from pathlib import Path

from benchmarks.trust.small import HELPERS

__all__ = ["CORPORA", "read_corpus", "write_corpus"]

CORPORA = HELPERS.parent / "benchmarks" / "corpora"


def read_corpus(loader: str, folder: Path = CORPORA) -> dict[str, bytes]:
    """Inputs that are kept for a loader, by name; empty where there are none."""
    file = folder / f"{loader}.zip"
    if not file.is_file():
        return {}
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


def write_corpus(loader: str, inputs: Path, folder: Path = CORPORA) -> int:
    """Keep the files of a folder for a loader, in the place of what was kept; return their number.

    The same files make the same zip, to the byte.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in inputs.iterdir() if path.is_file())
    with zipfile.ZipFile(folder / f"{loader}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            info = zipfile.ZipInfo(path.name)  # with no time of day
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return len(files)
