"""Read Pascal VOC's layout: an image set, one XML file per photograph."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from zsd_core.errors import DataError, did_you_mean
from zsd_core.files import read_file, read_text, shown
from zsd_core.learning.data.dataset import Dataset, ImageRecord, image_record, require_files

__all__ = ["read_voc"]

COLUMN = re.compile(r"\s+(?:-1|0|1)$")  # of a class's image set: whether it is there
FLAGS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")


def read_voc(
    image_set: str | Path,
    images: str | Path,
    *,
    categories: Collection[str] | None = None,
) -> Dataset:
    """Read the photographs an image set lists.

    VOC's corners are 1-based pixels, both included: ``xmin`` becomes ``xmin - 1`` and ``xmax``
    stays, so that width is ``x2 - x1``.

    Args:
        image_set: text file, one image id a line (``ImageSets/Main/trainval.txt``). Label tools
            also write file names, such as ``a.png`` or ``JPEGImages/a.png``, quotes around names
            with blanks, more columns, and comments (``# ours``).
        images: folder of ``<id>.jpg``, or another suffix (``JPEGImages``); ``Annotations`` with
            ``<id>.xml`` lies beside it, or else these are in the folder, as Roboflow packs them.
        categories: class names that may occur; None accepts any.

    Raises:
        DataError: a missing or malformed file, a box that is not valid, or an unknown class.
    """
    path, folder = Path(image_set), Path(images)
    lines = map(str.strip, read_text(path, "image set").split("\n"))
    notes = folder.parent / "Annotations"
    notes = notes if os.path.isdir(notes) else folder
    names = [name for line in lines if line and (name := _id(line, notes, folder.name))]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise DataError(f"{path}: image {shown(twice)} stands there twice.")
    known = None if categories is None else frozenset(categories)
    records = tuple(_record(name, folder, notes, known) for name in names)
    require_files(records, str(path))
    boxes = sum(len(record.labels) for record in records)
    return Dataset(
        images=records,
        categories=tuple(categories or ()),
        counts={"images read": len(records), "boxes read": boxes},
    )


def _id(line: str, notes: Path, folder: str) -> str:
    """The id in a line of an image set: of what the line may mean, the first with an annotation.

    A comment has none. ``folder`` is the name of the photographs' folder.
    """
    first, column = COLUMN.sub("", line).strip("\"'"), line.split()[0]
    parts = [f"/{name}".rpartition(f"/{folder}/") for name in (first, column)]
    inside = [name for _, found, name in parts if found]
    for name in (line, first, column, *inside):
        stem, suffix = os.path.splitext(name)
        for spelling in (name, stem) if suffix in SUFFIXES else (name,):
            if os.path.isfile(notes / f"{spelling}.xml"):
                return spelling
    return "" if column == "#" else first


def _photograph(folder: Path, name: str) -> Path:
    """The file of an id; a missing one is a .jpg, as in VOC."""
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if os.path.isfile(file)), files[0])


def _record(name: str, folder: Path, notes: Path, categories: frozenset[str] | None) -> ImageRecord:
    path = notes / f"{name}.xml"
    data = read_file(path, "annotation")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # and unknown encodings
        raise DataError(f"{path} is not valid XML: {error}") from error
    objects = root.findall("object")
    labels = [_text(entry, "name", path) for entry in objects]
    for label in labels:
        if categories is not None and label not in categories:
            raise DataError(
                f"{path}: unknown class {shown(label)}{did_you_mean(label, categories)}"
            )
    return image_record(
        where=str(path),
        path=_photograph(folder, name),
        id=name,
        width=_number(root, "size/width", path),
        height=_number(root, "size/height", path),
        boxes=[
            (
                _number(entry, "bndbox/xmin", path) - 1,
                _number(entry, "bndbox/ymin", path) - 1,
                _number(entry, "bndbox/xmax", path),
                _number(entry, "bndbox/ymax", path),
            )
            for entry in objects
        ],
        labels=labels,
        difficult=[_difficult(entry, path) for entry in objects],
    )


def _text(entry: ElementTree.Element, tag: str, path: Path) -> str:
    text = (entry.findtext(tag) or "").strip()
    if not text:
        raise DataError(f"{path}: <{entry.tag}> has no <{tag}>.")
    return text


def _number(entry: ElementTree.Element, tag: str, path: Path) -> float:
    text = _text(entry, tag, path)
    try:
        if "_" not in text:  # Python takes 1_0 for 10
            return float(text)
    except ValueError:
        pass
    raise DataError(f"{path}: <{tag}> is {shown(text)}, must be a number.")


def _difficult(entry: ElementTree.Element, path: Path) -> bool:
    text = (entry.findtext("difficult") or "").strip()
    if text.lower() not in FLAGS:
        raise DataError(f"{path}: <difficult> is {shown(text)}, must be 0 or 1.")
    return FLAGS[text.lower()]
