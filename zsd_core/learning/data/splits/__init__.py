"""Classes for training and classes for tests only: splits, checked in with a hash.

A split is a JSON (or YAML) file with ``name``, ``seen`` and ``unseen``. The ones in this folder
also carry their counts and a SHA-256, both verified on load, so that a list edited by accident
cannot pass for the published one. A split of your own may leave those out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from zsd_core.errors import DataError, did_you_mean
from zsd_core.files import parse_json, parse_yaml, read_text, shown
from zsd_core.semantics import fold_name, name_fault

__all__ = ["VOC_TO_COCO", "Split", "load_split", "split_names", "split_sha256"]

_FOLDER = Path(__file__).parent

# The classes that Pascal VOC and COCO spell differently; the other eleven VOC names are equal.
VOC_TO_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def _is_name(name: str) -> bool:
    """Whether a text can be the name of a class; it stands on one line."""
    return bool(fold_name(name)) and len(name.splitlines()) == 1 and not name_fault(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Seen and unseen class names, in the order in which every table lists them.

    Attributes:
        name: for reports.
        seen: classes that training may use.
        unseen: classes that appear in tests only.
        zsd_images: which photographs test "zsd": "any_unseen", those with an unseen object (COCO
            protocol), or "only_unseen", those with no seen object besides (VOC protocol).
    """

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    zsd_images: Literal["any_unseen", "only_unseen"] = "any_unseen"

    def __post_init__(self) -> None:
        if not self.seen:
            raise DataError(f"split {self.name}: there is no seen class; training needs one.")
        if self.zsd_images not in ("any_unseen", "only_unseen"):
            raise DataError(
                f"split {self.name}: zsd_images is {shown(self.zsd_images)}, must be 'any_unseen' "
                "or 'only_unseen'."
            )
        sides: dict[str, tuple[str, str]] = {}
        for side, names in (("seen", self.seen), ("unseen", self.unseen)):
            for name in names:
                if not (isinstance(name, str) and _is_name(name)):
                    raise DataError(
                        f"split {self.name}: {side} holds {shown(name)}, not a class name."
                    )
                other = sides.setdefault(fold_name(name), (side, name))
                if other != (side, name):
                    raise DataError(
                        f"split {self.name}: {shown(name)} ({side}) is {shown(other[1])} "
                        f"({other[0]}) again; a class must be on one side only."
                    )
            if twice := next((n for n, count in Counter(names).items() if count > 1), None):
                raise DataError(f"split {self.name}: {shown(twice)} stands in {side} twice.")

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names, seen first."""
        return self.seen + self.unseen

    def spellings(self) -> dict[str, str]:
        """Folded spellings of a data set, VOC's and COCO's included, to this split's names."""
        known = {fold_name(name): name for name in self.classes}
        for voc, coco in VOC_TO_COCO.items():
            for spelling, other in ((voc, coco), (coco, voc)):
                if spelling not in known and other in known:
                    known[spelling] = known[other]
        return known


def split_sha256(seen: Sequence[str], unseen: Sequence[str]) -> str:
    """Hash of the seen names, an empty line, and the unseen names, one a line, in UTF-8."""
    return hashlib.sha256("\n".join([*seen, "", *unseen]).encode()).hexdigest()


def split_names() -> tuple[str, ...]:
    """Names of the checked-in splits."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_split(name_or_path: str | Path) -> Split:
    """Read a checked-in split by name, or a split of your own from a ``.json`` or ``.yaml`` file.

    Raises:
        DataError: no such split, a malformed file, repeated or overlapping classes, or counts or
            a hash that do not belong to the lists.
    """
    name = str(name_or_path)
    if name in split_names():
        return _parse(_FOLDER / f"{name}.json", published=True)
    path = Path(name)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise DataError(
            f"no split is called {name!r}; there are {', '.join(split_names())}, or give a .json "
            f"or .yaml file{did_you_mean(name, split_names())}"
        )
    return _parse(path, published=False)


def _parse(path: Path, *, published: bool) -> Split:
    values = _read(path)
    known = ("name", "seen", "unseen", "zsd_images", "counts", "sha256")
    for key in values:
        if key not in known:
            raise DataError(f"split {path} has no field {shown(key)}{did_you_mean(key, known)}")
    for side in ("seen", "unseen"):
        if not isinstance(values.get(side), list):
            raise DataError(f"split {path}: {side!r} must be a list of class names.")
    name = values.get("name", path.stem)
    if not (isinstance(name, str) and name.isprintable()):
        raise DataError(
            f"split {path}: name is {shown(name)}, must be a text of one line; put it in quotes."
        )
    split = Split(
        name=name,
        seen=tuple(values["seen"]),
        unseen=tuple(values["unseen"]),
        zsd_images=cast(Any, values.get("zsd_images", "any_unseen")),
    )
    found = {
        "counts": {"seen": len(split.seen), "unseen": len(split.unseen)},
        "sha256": split_sha256(split.seen, split.unseen),
    }
    for field, actual in found.items():
        if (published or field in values) and values.get(field) != actual:
            raise DataError(
                f"split {path}: {field} is {shown(values.get(field))}, but the lists give "
                f"{actual}; they were changed. Restore the file, or save your lists under another "
                "name."
            )
    return split


def _read(path: Path) -> Mapping[str, Any]:
    where = f"split {path}"
    text = read_text(path, "split")
    if path.suffix == ".json":
        values = parse_json(text, where, strict=True)
    else:
        values = parse_yaml(text, where, DataError)
    if not isinstance(values, Mapping):
        raise DataError(f"split {path} must be a mapping with 'seen' and 'unseen'.")
    return values
