"""Hostile annotations, splits, subsets and photographs; COCO compared with a strict reading."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import NAMES, mutated_bytes, mutated_json, written_json
from benchmarks.trust.parts.files import YAML
from benchmarks.trust.table import Attempt

__all__ = ["PARTS", "check_coco", "labels", "photographs", "splits"]

SIZE = (100, 80)  # of the photograph
COCO: dict[str, Any] = {
    "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 20, 30, 40], "score": 0.5},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
}
VOC = (
    b"<annotation><size><width>100</width><height>80</height></size><object><name>dog</name>"
    b"<difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>50</xmax>"
    b"<ymax>60</ymax></bndbox></object></annotation>"
)


def labels(folder: Path) -> Attempt:
    """Annotations in COCO's JSON and in VOC's XML."""
    from zsd_core.learning.data.coco import read_coco
    from zsd_core.learning.data.voc import read_voc

    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir()
    lines = b"".join(
        b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10 if n else b"dog") for n in range(12)
    )
    bomb = b"<!DOCTYPE a [" + lines + b"]>" + VOC.replace(b"dog", b"&e11;")
    (folder / "a.jpg").touch()
    (folder / "JPEGImages" / "a.jpg").touch()

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.7:
            data = written_json(mutated_json(COCO, rng), rng)
            (folder / "coco.json").write_bytes(data)
            dataset = read_coco(folder / "coco.json", folder)
            check_coco(json.loads(data), dataset)
        else:
            xml = bomb if rng.random() < 0.01 else mutated_bytes(VOC, rng)
            for mark in (b"3", b"100", b"dog"):
                if rng.random() < 0.2:
                    xml = xml.replace(mark, rng.choice((b"nan", b"1e400", b"-1", b"", b"9" * 500)))
            (folder / "list.txt").write_bytes(_list(rng))
            (folder / "Annotations" / "a.xml").write_bytes(xml)
            dataset = read_voc(folder / "list.txt", folder / "JPEGImages")
        for image in dataset.images:
            if not np.isfinite(image.boxes).all() or min(image.width, image.height) < 1:
                raise WrongResultError(f"an image of {image.width} x {image.height}, {image.boxes}")

    return attempt


def _list(rng: random.Random) -> bytes:
    """A list of images, most of the time of the one that is there."""
    if rng.random() < 0.6:
        return b"a\n"
    if rng.random() < 0.5:
        return mutated_bytes(b"a\n", rng)
    name = rng.choice((*NAMES, "x" * 5000, "a\n" * 1000, "a 1", "\ufeffa", "a\r"))
    return name.encode("utf-8", "surrogatepass") + b"\n"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{type(value).__name__} in place of a number")
    return float(value)


def _key(value: Any) -> str:
    """An id as a text: 7, 7.0 and "7" are one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{type(value).__name__} in place of an id")
    if isinstance(value, float) and value % 1:
        raise TypeError("a fraction in place of an id")
    return str(int(value)) if isinstance(value, float) else str(value)


def check_coco(data: Any, dataset: Any) -> None:
    """Raise unless a data set holds what its JSON says, read in the strictest way."""
    try:
        names = {_key(entry["id"]): entry["name"] for entry in data["categories"]}
        notes: dict[Any, list[Any]] = {_key(image["id"]): [] for image in data["images"]}
        for note in data["annotations"]:
            notes[_key(note["image_id"])].append(note)
        if len(notes) != len(data["images"]) or len(set(names.values())) != len(data["categories"]):
            raise ValueError("an id or a name twice")
        right = [_strict(image, notes[_key(image["id"])], names) for image in data["images"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WrongResultError(f"COCO is taken with {type(error).__name__}: {error}") from error
    found = [
        (
            *(image.path.name, image.id, image.width, image.height),
            *(list(image.labels), image.boxes.tolist(), image.scores.tolist()),
            image.crowd.tolist(),
        )
        for image in dataset.images
    ]
    if found != right or tuple(names.values()) != dataset.categories:
        raise WrongResultError("COCO is taken as something else than it says")


def _strict(image: Any, notes: list[Any], names: Any) -> tuple[Any, ...]:
    """One image by a reading of our own."""
    width, height = _number(image["width"]), _number(image["height"])
    if not isinstance(image["file_name"], str):
        raise TypeError("a name of a file that is no text")
    boxes, scores, crowd = [], [], []
    for note in notes:
        if not isinstance(note["bbox"], list):
            raise TypeError("a box that is no list")
        x, y, w, h = map(_number, note["bbox"])
        ends = (x, width), (y, height), (x + w, width), (y + h, height)
        boxes.append([float(np.float32(min(max(end, 0), most))) for end, most in ends])
        score = note.get("score")
        scores.append(float(np.float32(1 if score is None else _number(score))))
        if note.get("iscrowd") not in (0, 1, None):
            raise ValueError(f"iscrowd {note['iscrowd']!r}")
        crowd.append(bool(note.get("iscrowd")))
    labels = [names[_key(note["category_id"])] for note in notes]
    name = Path(image["file_name"]).name
    return (name, image["id"], int(width), int(height), labels, boxes, scores, crowd)


def splits(folder: Path) -> Attempt:
    """Splits in JSON and YAML, and subsets by the hash of an id."""
    from zsd_core.learning.data.splits import load_split
    from zsd_core.learning.data.subsets import draw

    split = {"name": "x", "seen": ["dog"], "unseen": ["cat"], "zsd_images": "any_unseen"}
    text = b"name: x\nseen: [dog, bird]\nunseen:\n- cat\nzsd_images: any_unseen\n"
    ends = [i for i, byte in enumerate(text) if byte in b" [,"]

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.05:
            count = rng.choice((500, 501, 520))
            odd = ("1", 1, "\ud800", "", 10**400, "\u0661", "x" * 5000)
            ids = [*range(1, count + 1), *(rng.choice(odd) for _ in range(rng.randrange(3)))]
            _check_subsets(ids, draw(ids))
            return
        if kind < 0.4:
            data, suffix = written_json(mutated_json(split, rng), rng), rng.choice(("json", "yaml"))
        else:
            at, suffix = rng.choice(ends) + 1, "yaml"
            data = text[:at] + rng.choice(YAML) + rng.choice((b"", b" ", b"\n")) + text[at:]
            data = mutated_bytes(data, rng) if rng.random() < 0.3 else data
        file = folder / f"split.{suffix}"
        file.write_bytes(data)
        found = load_split(file)
        if suffix == "json":
            said = json.loads(data)
            if [list(found.seen), list(found.unseen)] != [said["seen"], said["unseen"]]:
                raise WrongResultError("a split is taken as another one")
            if not isinstance(said.get("name", ""), str):
                raise WrongResultError("a split's name is taken that is no text")

    return attempt


def _check_subsets(ids: list[Any], found: Any) -> None:
    hashes = sorted(hashlib.sha256(str(key).encode()).digest() for key in ids)
    for key in ids:
        place = hashes.index(hashlib.sha256(str(key).encode()).digest())
        wanted = "test" if place < 300 else "validation" if place < 500 else "train"
        if found[key] != wanted:
            raise WrongResultError(f"{key!r} is drawn for {found[key]}, not for {wanted}")


def photographs(folder: Path) -> Attempt:
    """Photographs that COCO lists: damaged, cut short, huge by their header, of another size."""
    import cv2

    from zsd_core.learning.data.coco import read_coco
    from zsd_core.learning.data.photographs import read_image

    width, height = SIZE
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    good = [bytes(cv2.imencode(form, pixels)[1]) for form in (".jpg", ".png", ".bmp", ".ppm")]
    (folder / "coco.json").write_text(json.dumps(COCO), encoding="utf-8")
    (folder / "a.jpg").touch()
    (record,) = read_coco(folder / "coco.json", folder).images

    def attempt(rng: random.Random) -> None:
        kind, data = rng.random(), rng.choice(good)
        cut = kind < 0.2
        if cut:
            data = data[: rng.randrange(len(data) // 8, len(data) * 9 // 10)]
        elif kind < 0.3:
            data = _declared(good[1], rng.choice(SIDES), rng.choice(SIDES))
        elif kind < 0.9:
            data = mutated_bytes(data, rng)
        record.path.write_bytes(data)
        found = read_image(record)
        if found.shape != (height, width, 3) or cut:
            raise WrongResultError(f"taken: {'a cut' if cut else 'a'} file, {found.shape}")

    return attempt


SIDES = (0, 1, 100, 80, 40_000, 60_000, 1 << 19, 1 << 21, 2**31 - 1)


def _declared(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size, with a right sum."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


PARTS = (
    loader_part(
        labels, "annotations", "COCO and VOC: bytes, values, bombs; COCO as it says", 1_000_000, 500
    ),
    loader_part(splits, "splits", "splits in JSON and YAML, subsets", 1_000_000, 500),
    loader_part(
        photographs, "photographs", "damaged, cut and huge photographs of COCO", 1_000_000, 300
    ),
)
