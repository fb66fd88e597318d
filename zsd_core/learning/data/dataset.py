"""Result of every reader: photographs with named boxes, checked when made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import DataError
from zsd_core.files import shown

__all__ = ["Dataset", "ImageRecord", "image_record", "join", "require_files"]

MOST = 2**31 - 1  # pixels of a side
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageRecord:
    """One photograph and its annotation.

    Attributes:
        path: the image file.
        id: as the annotation names it.
        width: pixels, as annotated.
        height: pixels, as annotated.
        boxes: ``(n, 4)`` float32 ``x1 y1 x2 y2`` in pixels of the image, clipped to it.
        labels: n class names.
        scores: ``(n,)`` float32 confidence of the labeller; 1 for a human's box.
        crowd: ``(n,)`` the box surrounds a group (COCO's iscrowd).
        difficult: ``(n,)`` VOC's difficult, or a box without area.
        ignore: ``(n,)`` neither an object to learn or to be found, nor background: crowd and
            difficult boxes, and what the protocol sets aside.
    """

    path: Path
    id: int | str
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    crowd: Flags
    difficult: Flags
    ignore: Flags

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert self.boxes.shape == (count, 4), self.boxes.shape
        for flags in (self.scores, self.crowd, self.difficult, self.ignore):
            assert flags.shape == (count,), flags.shape

    def select(self, keep: ArrayLike) -> ImageRecord:
        """Keep the boxes that the ``(n,)`` mask marks."""
        mask = np.asarray(keep, dtype=bool)
        kept: dict[str, Any] = {
            name: getattr(self, name)[mask]
            for name in ("boxes", "scores", "crowd", "difficult", "ignore")
        }
        labels = tuple(label for label, wanted in zip(self.labels, mask, strict=True) if wanted)
        return replace(self, labels=labels, **kept)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Photographs in a fixed order.

    Attributes:
        images: the photographs.
        categories: class names the annotation declares, present or not; () if it declares none.
        counts: how the set came about, for reports: what was read, dropped and kept.
    """

    images: tuple[ImageRecord, ...]
    categories: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def boxes_per_class(self) -> Counter[str]:
        """Number of boxes of each class that are not ignored."""
        return Counter(
            label
            for image in self.images
            for label, ignored in zip(image.labels, image.ignore, strict=True)
            if not ignored
        )


def image_record(
    *,
    where: str,
    path: Path,
    id: int | str,
    width: float,
    height: float,
    boxes: Sequence[Sequence[float]],
    labels: Iterable[str],
    scores: Sequence[float] | None = None,
    crowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
) -> ImageRecord:
    """Check and clip one image's annotation.

    A box without area inside the image (COCO has a few) stays, flagged difficult: its class still
    counts for the protocol, but nothing learns from it or is measured by it.

    Raises:
        DataError: a size that is not a positive whole number, or a box that is not finite, is
            inverted or lies wholly outside the image. The message starts with ``where``.
    """
    if not (_is_size(width) and _is_size(height)):
        raise DataError(
            f"{where}: image {shown(id)} has size {shown(width)} x {shown(height)}; both must be "
            f"positive whole numbers, at most {MOST}."
        )
    raw = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    count, limits = len(raw), np.array([width, height, width, height], dtype=np.float64)
    outside = (raw[:, :2] > limits[:2]).any(axis=1) | (raw[:, 2:] < 0).any(axis=1)
    bad = ~np.isfinite(raw).all(axis=1) | (raw[:, 2:] < raw[:, :2]).any(axis=1) | outside
    if bad.any():
        box = ", ".join(f"{v:g}" for v in raw[int(np.flatnonzero(bad)[0])])
        raise DataError(
            f"{where}: image {shown(id)} ({width} x {height}) has a box x1 y1 x2 y2 = ({box}); "
            "it must be finite, with x1 <= x2 and y1 <= y2, and lie in the image."
        )
    clipped = np.clip(raw, 0, limits).astype(np.float32)
    crowded, hard = (
        np.zeros(count, dtype=bool) if flags is None else np.array(flags, dtype=bool)
        for flags in (crowd, difficult)
    )
    hard = hard | (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    return ImageRecord(
        path=path,
        id=id,
        width=int(width),
        height=int(height),
        boxes=clipped,
        labels=tuple(labels),
        scores=np.ones(count, np.float32) if scores is None else np.array(scores, np.float32),
        crowd=crowded,
        difficult=hard,
        ignore=crowded | hard,
    )


def _is_size(side: object) -> bool:
    """Whether it is a number of pixels, as 640 or 640.0; ``true`` is none."""
    if isinstance(side, bool) or not isinstance(side, (int, float)):
        return False
    return 1 <= side <= MOST and side == int(side)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Put data sets one after another, as VOC 2007 and 2012.

    Raises:
        DataError: an image file stands in two of them.
    """
    images = tuple(image for dataset in datasets for image in dataset.images)
    repeated = [path for path, n in Counter(image.path for image in images).items() if n > 1]
    if repeated:
        raise DataError(
            f"image {repeated[0]} stands in more than one data set, as do {len(repeated) - 1} "
            "others; name each image once."
        )
    counts: Counter[str] = Counter()
    for dataset in datasets:
        counts.update(dataset.counts)
    categories = dict.fromkeys(name for dataset in datasets for name in dataset.categories)
    return Dataset(images=images, categories=tuple(categories), counts=dict(counts))


def require_files(images: Sequence[ImageRecord], where: str) -> None:
    """Raise if an image file is missing.

    Raises:
        DataError: with the first missing file, how many there are, and the annotation file.
    """
    missing = [image.path for image in images if not os.path.isfile(image.path)]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(images)} image files are missing, first "
            f"{missing[0]}; is the image folder the right one?"
        )
