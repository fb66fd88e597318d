"""Write the rows of a finished run as JSON Lines, Parquet and COCO results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from runtime.batch.folder import written_aside
from zsd_core.errors import ClassError, ConfigError, ImageError, require
from zsd_core.files import parse_json
from zsd_core.semantics import fold_name

__all__ = ["FORMATS", "CocoIds", "check_formats"]

Row = dict[str, Any]
Add = Callable[[list[Row]], None]  # appends the rows of one shard
Files = AbstractContextManager[Add]


@dataclass(frozen=True, slots=True)
class CocoIds:
    """Numbers of images and categories in COCO files.

    Attributes:
        categories: number per class name.
        images: number per file name; None numbers the images of the run from 1.
    """

    categories: Mapping[str, int]
    images: Mapping[str, int] | None = None

    @classmethod
    def of(cls, classes: Sequence[str], annotations: Path | None, paths: Sequence[str]) -> CocoIds:
        """Number by an annotation file, so that it can judge the results; else from 1.

        Raises:
            ClassError: a class is no category of the file.
            ConfigError: the file cannot be read, is no COCO file, or has two ids for one name, or
                one for two images or classes.
            ImageError: an image is not in the file.
        """
        if annotations is None:
            return cls({name: number for number, name in enumerate(classes, 1)})
        try:
            data = parse_json(annotations.read_bytes(), "the file")
            asked = set(map(fold_name, classes))
            listed = [(str(c["name"]), int(c["id"])) for c in data["categories"]]
            numbers = _one_each((pair for pair in listed if fold_name(pair[0]) in asked), fold_name)
            files = _one_each((str(i["file_name"]), int(i["id"])) for i in data["images"])
            # As Windows writes them, and without "./", unless a file is called so.
            plain = {PurePath(name.replace("\\", "/")).as_posix(): n for name, n in files.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--coco-ids {annotations}: cannot be read as COCO annotations: {error}"
            ) from error
        if unknown := [name for name in classes if fold_name(name) not in numbers]:
            raise ClassError(
                f"--coco-ids {annotations}: has no category {', '.join(map(repr, unknown))}; "
                "choose --classes among its categories."
            )
        ids = cls({name: numbers[fold_name(name)] for name in classes}, plain | files)
        _refuse_shared(ids.categories.items(), annotations, "give each category an id of its own")
        _refuse_shared(
            ((path, ids.image(index, path)) for index, path in enumerate(paths)),
            annotations,
            "let each file_name say the folder, or search one of them",
        )
        return ids

    def image(self, index: int, path: str) -> int:
        """Number of an image: by the longest end of its path that is a file name there.

        Raises:
            ImageError: the annotation file has no such image.
        """
        if self.images is None:
            return index + 1
        if (number := self.images.get(path)) is not None:
            return number
        end, more = PurePath(path).as_posix(), "/"
        while more:
            if (number := self.images.get(end)) is not None:
                return number
            _, more, end = end.partition("/")
        raise ImageError(f"{path}: --coco-ids has no image with this file name.")


def _one_each(pairs: Iterable[tuple[str, int]], key: Callable[[str], str] = str) -> dict[str, int]:
    """Ids by the key of their names; a key with two ids is a ValueError."""
    found: dict[str, tuple[str, int]] = {}
    for name, number in pairs:
        first, known = found.setdefault(key(name), (name, number))
        if known != number:
            raise ValueError(
                f"{first!r} has the id {known}, and {name!r} the id {number}; leave one of them out"
            )
    return {name: number for name, (_, number) in found.items()}


def _refuse_shared(pairs: Iterable[tuple[str, int]], annotations: Path, cure: str) -> None:
    """Refuse two names with one id: their results could not be told apart."""
    owners: dict[int, str] = {}
    for name, number in pairs:
        if (first := owners.setdefault(number, name)) != name:
            raise ConfigError(
                f"--coco-ids {annotations}: {first!r} and {name!r} would both get the id {number}; "
                f"{cure}."
            )


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format before the work whose package is missing.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    if "parquet" in formats:
        require("pyarrow.parquet", "batch")


@contextmanager
def _jsonl(folder: Path, ids: CocoIds) -> Iterator[Add]:
    with written_aside(folder / "detections.jsonl") as file:

        def add(rows: list[Row]) -> None:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        yield add


@contextmanager
def _parquet(folder: Path, ids: CocoIds) -> Iterator[Add]:
    """One row group per shard, the same rows as in JSON."""
    pyarrow, parquet = require("pyarrow", "batch"), require("pyarrow.parquet", "batch")
    found = pyarrow.struct(
        [
            ("box", pyarrow.list_(pyarrow.float32(), 4)),
            ("score", pyarrow.float32()),
            ("class", pyarrow.string()),
            ("role", pyarrow.string()),
        ]
    )
    schema = pyarrow.schema(
        [
            ("index", pyarrow.int64()),
            ("path", pyarrow.string()),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("error", pyarrow.string()),
            ("detections", pyarrow.list_(found)),
        ]
    )
    with written_aside(folder / "detections.parquet", binary=True) as file:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(pyarrow.Table.from_pylist(rows, schema))


@contextmanager
def _coco(folder: Path, ids: CocoIds) -> Iterator[Add]:
    """``coco_results.json`` for ``COCO.loadRes``, and the images it speaks of."""
    with (
        written_aside(folder / "coco_images.json") as images,
        written_aside(folder / "coco_results.json") as results,
    ):
        categories = [{"id": number, "name": name} for name, number in ids.categories.items()]
        head = {"info": {}, "annotations": [], "categories": categories}
        images.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "images": [')
        results.write("[")
        commas = {images: "\n", results: "\n"}

        def write(file: Any, value: Any) -> None:
            file.write(commas[file] + json.dumps(value, ensure_ascii=False))
            commas[file] = ",\n"

        def add(rows: list[Row]) -> None:
            for row in rows:
                number = ids.image(row["index"], row["path"])
                size = {"width": row["width"] or 0, "height": row["height"] or 0}
                write(images, {"id": number, "file_name": row["path"], **size})
                for found in row["detections"]:
                    write(results, _coco_result(number, ids.categories[found["class"]], found))

        yield add
        images.write("\n]}\n")
        results.write("\n]\n")


def _coco_result(image: int, category: int, found: Row) -> Row:
    x1, y1, x2, y2 = found["box"]
    box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
    return {"image_id": image, "category_id": category, "bbox": box, "score": found["score"]}


# format: (files it writes, what writes them)
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Path, CocoIds], Files]]] = {
    "parquet": (("detections.parquet",), _parquet),
    "coco": (("coco_results.json", "coco_images.json"), _coco),
    "jsonl": (("detections.jsonl",), _jsonl),
}
