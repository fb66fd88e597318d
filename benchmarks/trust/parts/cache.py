"""The cache of zip bundles, while others open, replace and refuse the same files."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.archive import MANIFEST
from runtime.bundle import Bundle, open_bundle
from runtime.cache_files import cache_folder
from zsd_core.errors import ZsdError

__all__ = ["PARTS", "cache"]

NAMES = ("one", "two")
OPENINGS = 3  # of each thread, while another replaces the zip


def cache(folder: Path) -> Attempt:
    """A zip that threads open while it is replaced, opened short of files, or damaged as a copy."""
    bundles = {name: _zip(folder, name) for name in NAMES}
    path = folder / "bundle.zip"
    kinds = (_replaced, _short_of_files, _older, _damaged_copy, _together)

    def attempt(rng: random.Random) -> None:
        unpacked = cache_folder("bundles")
        shutil.rmtree(unpacked, ignore_errors=True)
        _put(path, bundles["one"])
        rng.choice(kinds)(path, bundles, rng)
        for name in NAMES:  # whatever happened, each zip is what it is
            _put(path, bundles[name])
            _expect(lambda: open_bundle(path), (name,))
        if strange := [
            p.name for p in unpacked.iterdir() if len(p.stem) != 64 and p.name != "lock"
        ]:
            raise WrongResultError(f"left behind: {strange}")

    return attempt


def _zip(folder: Path, name: str) -> bytes:
    made: Path = helper("tiny").tiny_bundle(folder / f"{name}.zip", name=name)
    data = made.read_bytes()
    made.unlink()
    return data


def _put(path: Path, data: bytes) -> None:
    """Replace a file in one step, as whoever copies with care does."""
    aside = path.with_name(f"{path.name}.{threading.get_ident()}")
    aside.write_bytes(data)
    os.replace(aside, path)


def _expect(opening: Callable[[], Bundle], names: tuple[str, ...]) -> None:
    """Raise unless a bundle, which is whole, opens as one of those, with its files."""
    try:
        bundle = opening()
        _ = bundle.file("trunk.onnx"), bundle.class_vectors
    except ZsdError as error:
        raise WrongResultError(f"a whole zip is refused: {error}") from error
    if bundle.name not in names:
        raise WrongResultError(f"opened {bundle.name!r} in place of {names}")


def _replaced(path: Path, bundles: dict[str, bytes], rng: random.Random) -> None:
    """Two threads open while the zip is replaced again and again."""
    done, faults = threading.Event(), list[BaseException]()

    def replace() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            _put(path, bundles[NAMES[turn % 2]])

    def opening() -> None:
        try:
            for _ in range(OPENINGS):
                with suppress(ZsdError):  # "it has changed" is a fair answer
                    bundle = open_bundle(path)
                    _expect(lambda bundle=bundle: bundle, NAMES)  # type: ignore[misc]
        except BaseException as error:
            faults.append(error)

    other = threading.Thread(target=replace)
    openers = [threading.Thread(target=opening) for _ in range(2)]
    for thread in (other, *openers):
        thread.start()
    for thread in openers:
        thread.join()
    done.set()
    other.join()
    if faults:
        raise faults[0]


def _together(path: Path, bundles: dict[str, bytes], rng: random.Random) -> None:
    """Many open a new zip at once: all get it."""
    faults = list[BaseException]()

    def opening() -> None:
        try:
            _expect(lambda: open_bundle(path), NAMES[:1])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=opening) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _short_of_files(path: Path, bundles: dict[str, bytes], rng: random.Random) -> None:
    """Whoever may open no more files is refused, and takes nothing from those who have it open."""
    bundle = open_bundle(path)
    with _few_files(rng.randint(0, 6)), suppress(ZsdError):
        open_bundle(path)
    _expect(lambda: bundle, NAMES[:1])


def _older(path: Path, bundles: dict[str, bytes], rng: random.Random) -> None:
    """An older version refuses the bundle, and takes nothing from those who have it open."""
    bundle = open_bundle(path)
    with mock.patch("runtime.manifest.FORMAT", 0), suppress(ZsdError):
        open_bundle(path)
    _expect(lambda: bundle, NAMES[:1])


@contextmanager
def _few_files(count: int) -> Iterator[None]:
    """This process may open only some files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _damaged_copy(path: Path, bundles: dict[str, bytes], rng: random.Random) -> None:
    """A copy whose files were changed, are gone or more is made anew."""
    bundle = open_bundle(path)
    file = bundle.root / rng.choice(["trunk.onnx", "scorer.safetensors", MANIFEST])
    kind = rng.randrange(4)
    if kind == 0:
        file.unlink()
    elif kind == 1:
        file.write_bytes(file.read_bytes()[: rng.randrange(100)])
    elif kind == 2:
        (bundle.root / "more").write_bytes(b"x")
    else:
        values = json.loads((bundle.root / MANIFEST).read_text(encoding="utf-8"))
        values["name"] = "edited"
        (bundle.root / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
    _expect(lambda: open_bundle(path), NAMES[:1])


PARTS = (
    loader_part(
        cache,
        "cache",
        "zips opened by threads while they are replaced, opened short of files, damaged copies",
        20_000,
        80,
    ),
)
