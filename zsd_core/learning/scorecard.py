"""Numbers that a user wants to know of a detector, with intervals: beside the protocol's numbers.

Every interval is of the same bootstrap: photographs are drawn with replacement, by one seed, so
that two numbers, or two detectors on the same photographs, are drawn in pairs.

* mAP@0.5 is the mean over classes with truth of the exact area under the precision envelope (as VOC
  since 2010); Recall@100 the mean share of boxes that an image's best 100 detections find.
* Sizes are COCO's: below 32 x 32, to 96 x 96, and above, by the area of a box in pixels of the
  photograph as it is stored.
* The calibration error and F1 are over all detections together: see ``learning.calibration``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.learning.calibration import BINS, FLOOR, expected_error, f1_at, outcomes
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.learning.matching import Matches, Prediction, match
from zsd_core.learning.metrics import measure, resamples

__all__ = ["SIZES", "scorecard"]

Floats = NDArray[np.float64]
Groups = Mapping[str, NDArray[np.bool_]]

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}


def scorecard(
    images: Sequence[ImageRecord],
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    seen: Sequence[str],
    *,
    threshold: float,
    unseen_threshold: float | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    limit: int = 100,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Numbers of one test as JSON values, in percent.

    Args:
        images: the test; as ``match`` takes it, and so are the next three.
        predictions: one for each image.
        classes: what was asked for.
        seen: which of them are seen.
        threshold: the score above which precision, recall and F1 count detections.
        unseen_threshold: the same of unseen classes; None takes ``threshold``.
        groups: names of classes for which mAP and recall are given apart; "all" is always there.
        limit: detections kept per image.
        samples: of the bootstrap; 0 leaves the intervals out.
        seed: of the bootstrap.
        level: of its intervals.

    Returns:
        ``groups`` and ``sizes``: per name the number of classes and boxes, "mAP@0.5" and
        "Recall@100"; ``scores``: calibration error, precision, recall and F1. A number is
        {"value", "interval"}; its value is None where there is nothing to measure.
    """

    def matched(areas: tuple[float, float]) -> Matches:
        return match(
            images, predictions, classes, seen, thresholds=(0.5,), limit=limit, areas=areas
        )

    whole = matched((0.0, np.inf))
    everything = np.ones(len(classes), bool)
    masks = {"all": everything} | {
        name: np.array([c in set(members) for c in classes], bool)
        for name, members in (groups or {}).items()
    }
    draws = [*resamples(len(images), samples, seed)] if samples else []
    spans = _Spans(draws, level)
    found = outcomes(whole)
    unseen = threshold if unseen_threshold is None else unseen_threshold
    limits = np.where(found.seen, threshold, unseen)
    scores = {
        "expected calibration error": spans(lambda w: expected_error(found, w)),
        **{
            name: spans(lambda w, name=name: f1_at(found, limits, w)[name])
            for name in ("precision", "recall", "F1")
        },
    }
    return {
        "groups": _by_class(whole, masks, spans, limit),
        "sizes": {
            name: _by_class(matched(areas), {name: everything}, spans, limit)[name]
            for name, areas in SIZES.items()
        },
        "scores": {
            **scores,
            "score threshold": threshold,
            **({} if unseen == threshold else {"unseen score threshold": unseen}),
            "detections above": FLOOR,
            "bins of [0, 1]": BINS,
            "counted": int((found.scores > FLOOR).sum()),
        },
        "bootstrap": {"over": "images", "samples": samples, "seed": seed, "level": level},
    }


class _Spans:
    """A number and its interval from a function of weights ``(B, N)``, or None, to ``(B,)``."""

    def __init__(self, draws: Sequence[Floats], level: float) -> None:
        self.draws, self.ends = draws, [(1 - level) / 2, (1 + level) / 2]

    def __call__(self, number: Any) -> dict[str, Any]:
        return self.of(number(None), [number(weights) for weights in self.draws])

    def of(self, value: Floats, drawn: Sequence[Floats]) -> dict[str, Any]:
        """``value`` ``(1,)`` and the percentiles of what was drawn, in percent."""
        known = np.concatenate([np.zeros(0), *drawn])
        known = known[~np.isnan(known)]
        interval = [float(100 * end) for end in np.quantile(known, self.ends)] if known.size else []
        return {
            "value": None if np.isnan(value[0]) else float(100 * value[0]),
            "interval": interval,
        }


def _by_class(matches: Matches, masks: Groups, spans: _Spans, limit: int) -> dict[str, Any]:
    """Mean AP and recall of each group of classes; classes are measured once for all groups."""
    boxes = matches.truths.sum(axis=0)
    measured = [measure(matches, w, kinds=("area",)) for w in (None, *spans.draws)]
    numbers = {
        "mAP@0.5": [part["area"] for part in measured],  # (B, C) each
        f"Recall@{limit}": [part["recall"][:, 0] for part in measured],
    }
    return {
        group: {
            "classes": int((boxes[mask] > 0).sum()),
            "boxes": int(boxes[mask].sum()),
            **{
                name: spans.of(_mean(parts[0][:, mask]), [_mean(p[:, mask]) for p in parts[1:]])
                for name, parts in numbers.items()
            },
        }
        for group, mask in masks.items()
    }


def _mean(values: Floats) -> Floats:
    """Over classes with truth, ``(B,)``; NaN without any."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    sums = np.where(known, values, 0).sum(axis=1)
    return np.asarray(np.divide(sums, count, out=np.full(len(values), np.nan), where=count > 0))
