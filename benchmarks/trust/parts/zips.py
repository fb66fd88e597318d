"""Hostile zips: names that leave, links, bombs, methods, and files that say another size."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import INTEGERS, NAMES, mutated_bytes
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.archive import MANIFEST, sha256
from runtime.bundle import open_bundle
from runtime.cache_files import cache_folder

__all__ = ["PARTS", "zips"]

# The last two are refused at once, and take twenty times as long to pack.
METHODS = {
    zipfile.ZIP_STORED: 0.55,
    zipfile.ZIP_DEFLATED: 0.44,
    zipfile.ZIP_BZIP2: 0.005,
    zipfile.ZIP_LZMA: 0.005,
}


def zips(folder: Path) -> Attempt:
    """Zips of a bundle; whatever they hold, nothing may be written beside the unpacked files."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    contents = {p.name: p.read_bytes() for p in sorted(path.iterdir())}
    archive, work = folder / "bundle.zip", folder / "work"
    work.mkdir()
    tempfile.tempdir = str(work)
    unpacked = cache_folder("bundles")  # in `folder` too, as the frame has it
    ours = {path.name, archive.name, work.name, "cache"}

    def attempt(rng: random.Random) -> None:
        data = _zip(_more(contents, rng) if rng.random() < 0.1 else contents, rng)
        if rng.random() < 0.5:
            data = _other_sizes(data, rng) if rng.random() < 0.5 else mutated_bytes(data, rng)
        archive.write_bytes(data)
        try:
            bundle = open_bundle(archive)
            if any(
                (bundle.root / name).read_bytes() != contents[name]
                for name in contents
                if name != MANIFEST
            ):
                raise WrongResultError("an unpacked file is another one")
        finally:
            left = [p.name for place in (work, unpacked) if place.is_dir() for p in place.iterdir()]
            if strange := set(left) - {"lock", sha256(archive)}:
                raise WrongResultError(f"left behind: {sorted(strange)}")
            shutil.rmtree(unpacked, ignore_errors=True)
            if strange := {p.name for p in folder.iterdir()} - ours:
                raise WrongResultError(f"written outside: {sorted(strange)}")

    return attempt


def _more(contents: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """The files of a bundle whose manifest lists others too, with their hashes."""
    manifest = json.loads(contents[MANIFEST])
    count, size = rng.choice(((1, 1), (1, 1), (30, 100), (1, 1 << 20), (3, 1 << 20)))
    names = (
        [rng.choice((*NAMES, "a" * 190, "engines/x", "model.sig")) for _ in range(count)],
        [f"{'a/' * n}b" for n in range(count)],
        ["a", "a/b", "a/b/c"],
        [f"f{n}" for n in range(count)],
    )
    more = {name.replace("\ud800", "?"): bytes(size) for name in rng.choice(names)}
    for name, data in more.items():
        said = rng.choice((len(data), len(data), len(data), 0, -1, 2**70))
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": said}
    return {**contents, **more, MANIFEST: json.dumps(manifest).encode()}


def _zip(contents: dict[str, bytes], rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    method = rng.choices(list(METHODS), list(METHODS.values()))[0]
    prefix = rng.choice(("", "", "inside/", "../", "/"))
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, data in contents.items():
            info = zipfile.ZipInfo(prefix + name)
            info.compress_type = method
            if rng.random() < 0.03:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                data = b"/etc/passwd"
            if rng.random() < 0.02:
                data = bytes(rng.choice((0, 1 << 20)))
            if rng.random() > 0.03:
                archive.writestr(info, data)
            if rng.random() < 0.03:
                archive.writestr(rng.choice((*NAMES, name)).replace("\ud800", "?"), b"x")
    return buffer.getvalue()


def _other_sizes(data: bytes, rng: random.Random) -> bytes:
    """Write another number into a field of a file's header or of the directory."""
    changed = bytearray(data)
    mark, fields = rng.choice(
        (
            (b"PK\x03\x04", (4, 6, 8, 14, 18, 22, 26, 28)),
            (b"PK\x01\x02", (6, 8, 10, 16, 20, 24, 28, 30, 32, 34, 38, 42)),
            (b"PK\x05\x06", (4, 6, 8, 10, 12, 16, 20)),
        )
    )
    places = [found.start() for found in re.finditer(re.escape(mark), data[:-46])]
    at = rng.choice(places or [0]) + rng.choice(fields)
    changed[at : at + 4] = struct.pack("<I", rng.choice(INTEGERS) % 2**32)
    return bytes(changed)


PARTS = (
    loader_part(
        zips,
        "zip",
        "zips: names that leave, links, bombs, methods, doubles, other sizes, bytes",
        1_000_000,
        200,
    ),
)
