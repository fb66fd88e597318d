"""Files of a bundle that are what its manifest says whenever they are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.archive import Stamp, read_verified, stamp, verify
from runtime.onnx_file import SUFFIX, check_network
from zsd_core.errors import BundleError

__all__ = ["VerifiedFiles"]


class VerifiedFiles:
    """Files in a folder, each with its size and hash.

    Args:
        path: of the bundle as it was given, for messages.
        root: directory of the files; of a zip, where they were unpacked.
        files: the manifest's entries by name: ``sha256`` and ``bytes``.
    """

    def __init__(self, path: Path, root: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        self.path, self.root, self._files = path, root, files
        self._verified: dict[str, Stamp] = {}
        self._weights: dict[str, set[str]] = {}  # of networks, in other files
        self._kept: dict[str, bytes] = {}

    def file(self, name: str) -> Path:
        """Path of a listed file, its hash checked; a network's sizes and outside weights too.

        A file that looks as it did when it was hashed is not hashed again.

        Raises:
            BundleError: not listed, missing or damaged, or a network that lies about its weights.
        """
        self._hashed(name)
        return self.root / name

    @contextmanager
    def loading(self, name: str, *, anew: bool = False) -> Iterator[Path]:
        """Check a file as ``file`` does, for a library that reads it in the body.

        Args:
            name: of a listed file.
            anew: hash again, whatever the file looks like: the bundle was opened long ago.

        Raises:
            BundleError: as ``file``, or the file, or one of its weights, was changed meanwhile.
        """
        hashed = self._hashed(name, anew)
        yield self.root / name
        self._check_unchanged(hashed)

    def verify(self, name: str, *, keep: bool = False) -> None:
        """Hash a listed file.

        Args:
            name: of the file.
            keep: read its bytes, for the next ``read``; it is small, and every use parses it.

        Raises:
            BundleError: not listed, missing or damaged.
        """
        if keep:
            seen = _stamp_of(self.root / name)
            self._kept[name] = self.read(name)
            if seen is not None:  # a network may keep its weights there
                self._verified[name] = seen
        else:
            self._verify(name)

    def read(self, name: str) -> bytes:
        """Bytes of a listed file: they are read, hashed, and then returned.

        Raises:
            BundleError: not listed, missing or damaged.
        """
        record = self._record(name)
        kept = self._kept.pop(name, None)
        return read_verified(self.path, name, self.root / name, record) if kept is None else kept

    def _hashed(self, name: str, anew: bool = False) -> dict[str, Stamp]:
        """A listed file, hashed, and the files of its weights behind it."""
        found = {name: self._verify(name, anew)}
        if name.endswith(SUFFIX):
            if name not in self._weights:  # a hash stands for one content

                def verified(part: str) -> Path:
                    if part not in found:
                        found[part] = self._verify(part, anew)
                    return self.root / part

                check_network(self.path, name, self.root / name, self._files, verified)
                self._check_unchanged(found)  # so what was checked is what was hashed
                self._weights[name] = found.keys() - {name}
            for part in self._weights[name] - found.keys():
                found[part] = self._verify(part, anew)
        return found

    def _check_unchanged(self, hashed: Mapping[str, Stamp]) -> None:
        """Make sure that files are those that were hashed."""
        for name, before in hashed.items():
            if _stamp_of(self.root / name) != before:
                raise BundleError(
                    f"{self.path}: {name} was changed while it was loaded; open the bundle again. "
                    "Replace a bundle whole, by renaming, never file by file."
                )

    def _record(self, name: str) -> Mapping[str, Any]:
        try:
            return self._files[name]
        except KeyError:
            raise BundleError(
                f"{self.path}: {name} is not part of this bundle, which lists "
                f"{', '.join(self._files)}."
            ) from None

    def _verify(self, name: str, anew: bool = False) -> Stamp:
        record, path, known = self._record(name), self.root / name, self._verified.get(name)
        if known is None or anew or _stamp_of(path) != known:
            known = self._verified[name] = verify(self.path, name, path, record)
        return known


def _stamp_of(path: Path) -> Stamp | None:
    """Stamp of a file; None where there is none."""
    try:
        return stamp(path)
    except OSError:
        return None
