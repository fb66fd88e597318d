"""Time and memory of loaders by the size of a file: neither may grow faster than the file."""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.trust.attempts import Cost, WrongResultError, loader_part
from benchmarks.trust.parts.bundles import Files
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from benchmarks.trust.wire import BYTES, VARINT, Field, field, message, varint
from runtime.archive import MANIFEST
from runtime.arguments import parse_classes
from runtime.bundle import open_bundle
from zsd_core.errors import ZsdError

__all__ = ["PARTS", "climb", "scale"]

Ladder = Callable[[int], Callable[[], None]]  # writes a file of a size, and gives its loading
STEPS = (1, 2, 4)  # times the first size
TIMES = 2.0  # times as long as in proportion; machines are noisy, and squares reach 4
LEAST = 0.06  # seconds beyond those in proportion: less is no danger
RATIO = 60.0  # bytes of memory for a byte of the file; objects of Python take some tens
SLACK = 64.0  # megabytes beyond the ratio


def climb(load: Ladder, size: int, bytes_of: Callable[[], int]) -> None:
    """Load files of ``size``, twice and four times as much.

    Args:
        load: the ladder.
        size: of its first step.
        bytes_of: size of the file that was loaded last.

    Raises:
        WrongResultError: time or memory grows faster than the file.
    """
    seconds = list[float]()
    cost = Cost()
    for step in STEPS:
        loading, least = load(step * size), float("inf")
        for _ in range(2):  # of two, the quicker: others use the machine too
            cost.begin(exact=True)
            with suppress(ZsdError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loading()
            least = min(least, cost.seconds)
            if cost.grown_mb > SLACK + RATIO * bytes_of() / 1e6:
                raise WrongResultError(
                    f"{cost.grown_mb:,.0f} MB of memory for a file of {bytes_of():,} bytes"
                )
            if least < LEAST:
                break
        seconds.append(least)
    most = TIMES * STEPS[-1] / STEPS[0] * seconds[0] + LEAST
    if seconds[-1] > most:
        said = ", ".join(f"{each:.3f}" for each in seconds)
        raise WrongResultError(f"sizes {size} x {STEPS} take {said} s, not in proportion")


def scale(folder: Path) -> Attempt:
    """Files of one shape and three sizes."""
    ladders = {**_tables(folder), **_bundles(folder)}

    def attempt(rng: random.Random) -> None:
        name = rng.choice(sorted(ladders))
        file, size, ladder = ladders[name]
        try:
            climb(ladder, int(size * rng.uniform(0.7, 1.3)), lambda: file.stat().st_size)
        except WrongResultError as error:
            raise WrongResultError(f"{name}: {error}") from error

    return attempt


def _tables(folder: Path) -> dict[str, tuple[Path, int, Ladder]]:
    """Files of learning: what is written for a size, and what reads it."""
    from zsd_core.learning.data.coco import read_coco
    from zsd_core.learning.data.splits import load_split
    from zsd_core.learning.data.voc import read_voc
    from zsd_core.learning.experiment import load_config
    from zsd_core.learning.vectors import load_vectors

    (folder / "JPEGImages").mkdir()
    (folder / "a.jpg").touch()
    image = {"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}
    note = {"image_id": 9, "category_id": 0, "bbox": [1, 2, 3, 4]}

    def coco(images: Any, notes: Any, categories: Any) -> str:
        values = {"images": images, "annotations": notes, "categories": categories}
        return json.dumps(values)

    def words(count: int) -> list[str]:
        return [f"c{n}" for n in range(count)]

    def named(count: int) -> list[Any]:
        return [{"id": n, "name": name} for n, name in enumerate(words(count))]

    def parsed(path: Path) -> None:
        with suppress(argparse.ArgumentTypeError):
            parse_classes(f"@{path}")

    texts: dict[str, tuple[str, int, Callable[[int], str], Callable[[Path], Any]]] = {
        "categories": ("a.json", 2000, lambda n: coco([image], [], named(n)), _coco(read_coco)),
        "notes": ("a.json", 2000, lambda n: coco([image], [note] * n, named(1)), _coco(read_coco)),
        "images": (
            "a.json",
            1000,
            lambda n: coco([{**image, "id": i} for i in range(n)], [], []),
            _coco(read_coco),
        ),
        "a split": (
            "a.json",
            2500,
            lambda n: json.dumps({"seen": [*words(n), f"c{n - 1}"], "unseen": []}),
            load_split,
        ),
        "a split in YAML": (
            "a.yaml",
            1500,
            lambda n: f"seen: [{', '.join(words(n))}]\nunseen: []\n",
            load_split,
        ),
        "a sexagesimal": ("a.yaml", 12_000, lambda n: "a: " + "1:" * n + "1", _config(load_config)),
        "a hexadecimal": ("a.yaml", 20_000, lambda n: "a: 0x" + "f" * n, _config(load_config)),
        "keys": (
            "a.yaml",
            1500,
            lambda n: "".join(f"{name}: 1\n" for name in words(n)),
            _config(load_config),
        ),
        "a list of VOC": (
            "list.txt",
            2500,
            lambda n: "\n".join([*words(n), f"c{n - 1}"]),
            lambda path: read_voc(path, folder / "JPEGImages"),
        ),
        "names": ("names.txt", 2000, lambda n: "\n".join(words(n)), parsed),
        "quotes": ("names.txt", 10_000, lambda n: "a" + "'" * n, parsed),
        "vectors": (
            "a.txt",
            1500,
            lambda n: "".join(f"{name} 1 2 3\n" for name in words(n)),
            lambda path: load_vectors(path, ["c1", "zebra"]),
        ),
        "a wide vector": (
            "a.csv",
            5000,
            lambda n: "a" + ",1" * n + "\n",
            lambda path: load_vectors(path, ["a"]),
        ),
    }

    def ladder(file: str, make: Callable[[int], str], load: Callable[[Path], Any]) -> Ladder:
        def step(size: int) -> Callable[[], None]:
            (folder / file).write_text(make(size), encoding="utf-8")
            return lambda: load(folder / file)

        return step

    return {
        name: (folder / file, size, ladder(file, make, load))
        for name, (file, size, make, load) in texts.items()
    }


def _coco(read: Callable[[Path, Path], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path, path.parent)


def _config(load: Callable[[Path, list[str]], Any]) -> Callable[[Path], Any]:
    return lambda path: load(path, [])


def _bundles(folder: Path) -> dict[str, tuple[Path, int, Ladder]]:
    """Manifests, networks and safetensors of a bundle."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    files = Files(path, "trunk.onnx", "scorer.safetensors")
    good = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    nothing = {"sha256": "0" * 64, "bytes": 0}

    def opened() -> None:
        open_bundle(path)

    def written(change: Callable[[dict[str, Any], int], None]) -> Ladder:
        def step(size: int) -> Callable[[], None]:
            values = json.loads(json.dumps(good))
            change(values, size)
            (path / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
            return opened

        return step

    def network(tensor: Callable[[int], bytes]) -> Ladder:
        def step(size: int) -> Callable[[], None]:
            data = files.good["trunk.onnx"] + field(7, BYTES, tensor(size))

            def load() -> None:
                with files.replaced("trunk.onnx", data):
                    open_bundle(path).file("trunk.onnx")

            (path / "size").write_bytes(data)
            return load

        return step

    def stages(values: dict[str, Any], size: int) -> None:
        values["files"] |= {f"f{n}": nothing for n in range(size)}
        values["stages"] |= {f"s{n}": {"file": f"f{size - 1}"} for n in range(size)}

    def classes(values: dict[str, Any], size: int) -> None:
        values["classes"][:0] = [{"name": f"c{n}", "role": "seen"} for n in range(size)]

    def engines(values: dict[str, Any], size: int) -> None:
        values["files"] |= {f"engines/f{n}": nothing for n in range(size)}
        values["engines"] = [{"file": f"engines/f{size - 1}"}] * size

    manifest = path / MANIFEST
    many: list[Field] = [(1, VARINT, 1 << 62)]
    raw: list[Field] = [(2, VARINT, 1), (9, BYTES, b"1234")]
    return {
        "stages": (manifest, 700, written(stages)),
        "classes": (manifest, 2000, written(classes)),
        "engines": (manifest, 700, written(engines)),
        "sizes of a tensor": (
            path / "size",
            2000,
            network(lambda n: field(5, BYTES, message([*many * n, *raw]))),
        ),
        "packed sizes": (
            path / "size",
            2000,
            network(lambda n: field(5, BYTES, message([(1, BYTES, varint(1 << 62) * n), *raw]))),
        ),
        "tensors": (
            path / "size",
            500,
            network(lambda n: field(5, BYTES, message(raw)) * n),
        ),
    }


PARTS = (
    loader_part(
        scale,
        "scale",
        "files of one shape and three sizes: time and memory in proportion",
        5_000,
        24,
    ),
)
