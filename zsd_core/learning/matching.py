"""Matching of detections with boxes: one matching, from which every metric is counted.

* The cap keeps an image's best 100 detections over all classes, before any matching; or 100 seen
  and 100 unseen ones ("100 + 100").
* Matching is COCO's: by falling score, each detection takes the free truth box of its class with
  the highest IoU at or above the threshold. Ignored boxes (crowd, difficult) take detections that
  match nothing else, out of both counts; a crowd takes any number, at intersection over the
  detection's area. IoU has no "+ 1".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.options import check_option

__all__ = ["Matches", "Prediction", "box_iou", "check_limit", "match"]

Floats = NDArray[np.float64]
Prediction = tuple[ArrayLike, ArrayLike, ArrayLike]  # boxes (n, 4), scores (n,), columns (n,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Every kept detection of a test, and what became of it.

    Attributes:
        classes: names, in the order of the columns.
        roles: "seen" or "unseen" per class.
        thresholds: T IoU thresholds.
        cap: "100", "100 + 100" ..., for reports.
        truths: ``(N, C)`` boxes to be found, per image and class.
        images: ``(D,)`` image of each detection; detections are sorted by falling score.
        columns: ``(D,)`` its class.
        scores: ``(D,)`` its score.
        hits: ``(T, D)`` it found a box.
        ignored: ``(T, D)`` it counts as neither hit nor miss.
    """

    classes: tuple[str, ...]
    roles: tuple[str, ...]
    thresholds: tuple[float, ...]
    cap: str
    truths: NDArray[np.int64]
    images: NDArray[np.int64]
    columns: NDArray[np.int64]
    scores: Floats
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def box_iou(boxes: ArrayLike, others: ArrayLike, crowd: ArrayLike | None = None) -> Floats:
    """IoU of ``(n, 4)`` and ``(m, 4)`` boxes, ``(n, m)``; against a crowd, cover of ``boxes``."""
    a = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(np.maximum(x[..., 2:] - x[..., :2], 0), axis=-1) for x in (a, b)]
    whole = areas[0] + areas[1] - shared
    if crowd is not None:
        whole = np.where(np.asarray(crowd, dtype=bool)[None], areas[0], whole)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))


def check_limit(limit: int) -> None:
    """Refuse to keep fewer than one detection of an image."""
    check_option(limit >= 1, "limit", limit, "must be at least 1")


def match(
    images: Sequence[ImageRecord],
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    seen: Sequence[str],
    *,
    thresholds: Sequence[float] = (0.4, 0.5, 0.6),
    limit: int = 100,
    separate: bool = False,
    areas: tuple[float, float] = (0.0, np.inf),
) -> Matches:
    """Match detections to the truth.

    Args:
        images: the test, as :func:`zsd_core.learning.data.protocol.test_set` gives it.
        predictions: per image boxes ``(n, 4)`` in its pixels, scores ``(n,)`` and columns ``(n,)``
            into ``classes``.
        classes: what was asked for; columns of background do not exist.
        seen: which of them are seen.
        thresholds: IoU from which a box is found.
        limit: detections kept per image.
        separate: keep ``limit`` seen and ``limit`` unseen ones.
        areas: square pixels, from and below; boxes of another area are ignored, and so are
            detections of another area that find nothing, as in COCO.

    Raises:
        ConfigError: a limit below 1.
        DataError: not one prediction per image, a truth class that is not in ``classes``, a column
            or shape out of range, or a score that is not finite.
    """
    check_limit(limit)
    if len(predictions) != len(images) or not images:
        raise DataError(
            f"match: {len(predictions)} predictions for {len(images)} images; there must be one "
            "for each of at least one image."
        )
    column_of = {name: column for column, name in enumerate(classes)}
    is_seen = np.array([name in set(seen) for name in classes], dtype=bool)
    groups = [is_seen, ~is_seen] if separate else [np.ones(len(classes), dtype=bool)]
    truths = np.zeros((len(images), len(classes)), dtype=np.int64)
    found: list[list[NDArray[Any]]] = []
    for index, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        boxes, scores, columns = _checked(prediction, len(classes), image)
        kept = _capped(scores, columns, groups, limit)
        boxes, scores, columns = boxes[kept], scores[kept], columns[kept]
        missing = sorted(set(image.labels) - set(column_of))
        if missing:
            raise DataError(f"match: {image.path} has truth of {missing[0]!r}, not asked for.")
        truth = np.array([column_of[name] for name in image.labels], dtype=np.int64)
        ignore = image.ignore | ~_within(image.boxes, areas)
        np.add.at(truths[index], truth[~ignore], 1)
        hits = np.zeros((len(thresholds), len(scores)), dtype=bool)
        ignored = np.zeros_like(hits)
        for column in np.intersect1d(columns, truth):
            mine, its = np.flatnonzero(columns == column), np.flatnonzero(truth == column)
            its = its[np.argsort(ignore[its], kind="stable")]  # objects before ignored boxes
            iou = box_iou(boxes[mine], image.boxes[its], image.crowd[its])
            for t, threshold in enumerate(thresholds):
                hits[t, mine], ignored[t, mine] = _greedy(
                    iou, ignore[its], image.crowd[its], threshold
                )
        ignored |= ~hits & ~_within(boxes, areas)
        found.append([np.full(len(scores), index), columns, scores, hits, ignored])
    image_of, columns, scores, hits, ignored = (
        np.concatenate([part[i] for part in found], axis=-1) for i in range(5)
    )
    order = np.argsort(-scores, kind="stable")
    return Matches(
        classes=tuple(classes),
        roles=tuple("seen" if flag else "unseen" for flag in is_seen),
        thresholds=tuple(thresholds),
        cap=f"{limit} + {limit}" if separate else f"{limit}",
        truths=truths,
        images=image_of[order],
        columns=columns[order],
        scores=scores[order],
        hits=hits[:, order],
        ignored=ignored[:, order],
    )


def _within(boxes: NDArray[Any], areas: tuple[float, float]) -> NDArray[np.bool_]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    area = sides[:, 0] * sides[:, 1]
    return np.asarray((area >= areas[0]) & (area < areas[1]))


def _checked(
    prediction: Prediction, classes: int, image: ImageRecord
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    boxes = np.asarray(prediction[0], dtype=np.float64)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"match: {image.path} has boxes of shape {boxes.shape}, must be (n, 4).")
    boxes = boxes.reshape(-1, 4)
    scores = np.asarray(prediction[1], dtype=np.float64).reshape(-1)
    columns = np.asarray(prediction[2], dtype=np.int64).reshape(-1)
    if not len(boxes) == len(scores) == len(columns):
        raise DataError(
            f"match: {image.path} has {len(boxes)} boxes, {len(scores)} scores and {len(columns)} "
            "columns; there must be one of each per detection."
        )
    if columns.size and not (0 <= columns.min() and columns.max() < classes):
        raise DataError(f"match: {image.path} has a column outside the {classes} classes.")
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise DataError(f"match: {image.path} has a score or box that is not finite.")
    return boxes, scores, columns


def _capped(
    scores: Floats, columns: NDArray[np.int64], groups: Sequence[NDArray[np.bool_]], limit: int
) -> NDArray[np.int64]:
    """Indices of the best ``limit`` detections of each group, by falling score."""
    order = np.argsort(-scores, kind="stable")
    kept = np.concatenate([order[group[columns[order]]][:limit] for group in groups])
    return np.asarray(kept[np.argsort(-scores[kept], kind="stable")])


def _greedy(
    iou: Floats, ignore: NDArray[np.bool_], crowd: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Assign truth boxes (objects first) to detections of one class and image, best score first.

    Among equal IoUs the last box wins, as in pycocotools.
    """
    hits, ignored = (np.zeros(len(iou), dtype=bool) for _ in range(2))
    free, objects = np.ones(len(ignore), dtype=bool), int((~ignore).sum())
    for d, row in enumerate(iou):
        usable = np.where(free & (row >= min(threshold, 1 - 1e-10)), row, -1.0)
        for part, flags in ((slice(0, objects), hits), (slice(objects, None), ignored)):
            candidates = usable[part][::-1]
            if candidates.size and candidates.max() >= 0:
                chosen = (part.stop or len(row)) - 1 - int(candidates.argmax())
                flags[d] = True
                free[chosen] = crowd[chosen]
                break
    return hits, ignored
