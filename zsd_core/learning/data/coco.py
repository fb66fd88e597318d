"""Read a COCO-format annotation file, from humans or from a detector."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from zsd_core.errors import DataError
from zsd_core.files import parse_json, read_file, shown
from zsd_core.learning.data.dataset import Dataset, ImageRecord, image_record, require_files

__all__ = ["read_coco"]

LARGEST = sys.float_info.max  # an integer of JSON may lie above it
_HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can write it, UTF-8 cannot


def read_coco(annotations: str | Path, images: str | Path) -> Dataset:
    """Read instances in COCO's JSON format, as label tools write it.

    Ids are numbers or texts; 7, 7.0 and "7" are the same one, because tables make floats and pages
    make texts of numbers. Roboflow's first category, which groups all others and has no boxes, is
    left out.

    Args:
        annotations: JSON with ``images``, ``annotations`` (``bbox`` is x, y, width, height) and
            ``categories``. An annotation may carry a ``score`` in [0, 1], the confidence of a
            machine that made it; without one, or with null, it is a human's and has score 1.
        images: the folder that ``file_name`` is relative to; it may hold Windows' backslashes.

    Raises:
        DataError: an unreadable or malformed file, a box or category that is not valid, an
            annotation of an unknown image, or a missing image file.
    """
    path, folder = Path(annotations), Path(images)
    data = _load(path)
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for image in data["images"]:
        key = _key(image, "id", path, "an image")
        if key in grouped:
            raise DataError(f"{path}: image id {shown(image['id'])} stands there twice.")
        grouped[key] = []
    for note in data["annotations"]:
        key = _key(note, "image_id", path, "an annotation")
        if key not in grouped:
            raise DataError(
                f"{_note(note, path)} names image {shown(note['image_id'])}, not listed."
            )
        grouped[key].append(note)
    used = {_key(note, "category_id", path, "an annotation") for note in data["annotations"]}
    names = _categories(data["categories"], used, path)
    records = tuple(
        _record(image, notes, names, folder, path)
        for image, notes in zip(data["images"], grouped.values(), strict=True)
    )
    require_files(records, str(path))
    counts = {"images read": len(records), "boxes read": len(data["annotations"])}
    return Dataset(images=records, categories=tuple(names.values()), counts=counts)


def _load(path: Path) -> Mapping[str, Any]:
    data = parse_json(read_file(path, "annotations"), str(path))
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, Mapping) or not isinstance(data.get(key), list):
            raise DataError(f"{path} is not in COCO format: there is no list {key!r}.")
    return dict(data)


def _field(entry: Mapping[str, Any], key: str, path: Path, what: str) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise DataError(f"{path}: {what} has no {key!r}: {shown(entry)}")
    return entry[key]


def _id(entry: Mapping[str, Any], key: str, path: Path, what: str) -> int | str:
    value = _field(entry, key, path, what)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not (isinstance(value, int) or _is_text(value)):
        raise DataError(f"{path}: {what} has {key} {shown(value)}, must be a number or a string.")
    assert isinstance(value, (int, str))
    return value


def _key(entry: Mapping[str, Any], key: str, path: Path, what: str) -> str:
    """An id in the form that ids are compared in."""
    return str(_id(entry, key, path, what))


def _is_text(value: object) -> bool:
    """Whether it is a string that can be written as UTF-8."""
    return isinstance(value, str) and not _HALF.search(value)


def _is_number(value: object) -> bool:
    """Whether it is a finite number; ``true`` is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -LARGEST <= value <= LARGEST


def _note(note: Mapping[str, Any], path: Path) -> str:
    """Where an annotation is, for a message."""
    return f"{path}: annotation {shown(note.get('id'))}"


def _categories(
    entries: list[Mapping[str, Any]], used: Collection[str], path: Path
) -> dict[str, str]:
    """Names of categories by id; ``used`` are the ids that have boxes."""
    names: dict[str, str] = {}
    known: set[str] = set()
    for place, entry in enumerate(entries):
        key = _key(entry, "id", path, "a category")
        name = _field(entry, "name", path, "a category")
        if not _is_text(name) or not name.strip():
            raise DataError(
                f"{path}: category {shown(entry['id'])} has name {shown(name)}, must be a word or "
                "phrase."
            )
        if place == 0 and key == "0" and key not in used and _groups_all(entries):
            continue
        if key in names or name in known:
            raise DataError(
                f"{path}: category {shown(name)} (id {shown(entry['id'])}) stands there twice; "
                "give each a name and an id of its own."
            )
        names[key] = name
        known.add(name)
    return names


def _groups_all(entries: list[Mapping[str, Any]]) -> bool:
    """Whether the first category is the group of all others, and in none itself, as Roboflow's."""
    groups = [e.get("supercategory") if isinstance(e, Mapping) else None for e in entries]
    name = entries[0]["name"]
    return len(groups) > 1 and groups == ["none", *[name] * (len(groups) - 1)] and name != "none"


def _record(
    image: Mapping[str, Any],
    notes: list[Mapping[str, Any]],
    names: Mapping[str, str],
    folder: Path,
    path: Path,
) -> ImageRecord:
    file_name, width, height = (
        _field(image, key, path, "an image") for key in ("file_name", "width", "height")
    )
    if not isinstance(file_name, str):
        raise DataError(f"{path}: an image has file_name {shown(file_name)}, must be a string.")
    boxes, labels, scores = [], [], []
    for note in notes:
        category = _key(note, "category_id", path, "an annotation")
        if category not in names:
            raise DataError(
                f"{_note(note, path)} has category_id {shown(note['category_id'])}, which is not "
                f"among the {len(names)} categories."
            )
        labels.append(names[category])
        boxes.append(_corners(_field(note, "bbox", path, "an annotation"), note, path))
        scores.append(_score(note, path))
    return image_record(
        where=str(path),
        path=_file(folder, file_name),
        id=_id(image, "id", path, "an image"),
        width=width,
        height=height,
        boxes=boxes,
        labels=labels,
        scores=scores,
        crowd=[_crowd(note, path) for note in notes],
    )


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    return path if "\\" not in name or os.path.isfile(path) else folder / name.replace("\\", "/")


def _corners(bbox: Any, note: Mapping[str, Any], path: Path) -> tuple[float, ...]:
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
        raise DataError(
            f"{_note(note, path)} has bbox {shown(bbox)}, must be x, y, width, height: four finite "
            "numbers."
        )
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height


def _crowd(note: Mapping[str, Any], path: Path) -> bool:
    crowd = note.get("iscrowd")
    crowd = 0 if crowd is None else crowd
    if not isinstance(crowd, (int, float)) or crowd not in (0, 1):  # true and 0.0 among them
        raise DataError(f"{_note(note, path)} has iscrowd {shown(crowd)}, must be 0 or 1.")
    return bool(crowd)


def _score(note: Mapping[str, Any], path: Path) -> float:
    score = 1.0 if note.get("score") is None else note["score"]
    if not _is_number(score) or not 0 <= score <= 1:
        raise DataError(f"{_note(note, path)} has score {shown(score)}, must lie in [0, 1].")
    return float(score)
