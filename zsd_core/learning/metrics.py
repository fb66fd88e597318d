"""Recall@100 and mAP of zero-shot detection, with bootstrap intervals over images.

Detections are matched to the truth once (``zsd_core.learning.matching``); every number is a
weighted count over those matches, so that a bootstrap costs cumulative sums only. What is computed,
since public evaluators differ:

* Recall@100 of a class is the share of its boxes found by all kept detections. It is neither an
  average over a cumulative curve nor a share of the detections.
* AP: "area" is the exact area under the precision envelope (VOC since 2010), "voc11" its mean at
  11 recalls (VOC 2007), "coco101" its mean at 101 recalls (COCO).
* Means run over classes with truth in the test; HM is the harmonic mean of the seen and the unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.matching import Matches
from zsd_core.options import check_option

__all__ = [
    "AP_KINDS",
    "bootstrap",
    "compare",
    "harmonic_mean",
    "measure",
    "report",
    "resamples",
    "table",
]

Floats = NDArray[np.float64]
Numbers = dict[str, dict[str, Floats]]  # {"mAP@0.5 area": {"seen": (B,), ...}, ...}
AP_KINDS = ("area", "voc11", "coco101")
# COCO's points are products (0.01 * 35 > 0.35), which decides exact ties as pycocotools does.
_POINTS = {"voc11": np.arange(11) / 10, "coco101": np.linspace(0, 1, 101)}


def measure(
    matches: Matches,
    weights: NDArray[np.float64] | None = None,
    *,
    threshold: float = 0.5,
    kinds: Sequence[str] = AP_KINDS,
) -> dict[str, Floats]:
    """Recall and AP per class, for one or many weightings of the images.

    Args:
        matches: of one test.
        weights: ``(B, N)`` how often each image counts; None is one row of ones.
        threshold: IoU of AP; must be one of ``matches.thresholds``.
        kinds: of AP, some of ``AP_KINDS``.

    Returns:
        ``"recall"`` ``(B, T, C)`` and, for each of ``kinds``, ``(B, C)``; fractions, NaN for a
        class without truth.

    Raises:
        ConfigError: no such threshold.
    """
    count = len(matches.truths)
    rows = np.ones((1, count)) if weights is None else np.asarray(weights, dtype=np.float64)
    at = _place(matches, threshold)
    result = {kind: np.full((len(rows), len(matches.classes)), np.nan) for kind in kinds}
    result["recall"] = np.full((len(rows), len(matches.thresholds), len(matches.classes)), np.nan)
    totals = rows @ matches.truths  # (B, C)
    for column in np.flatnonzero(matches.truths.sum(axis=0)):
        mine = np.flatnonzero(matches.columns == column)
        weight = rows[:, matches.images[mine]]  # (B, d)
        known = totals[:, column] > 0
        total = np.where(known, totals[:, column], np.nan)
        hits = matches.hits[:, mine].astype(np.float64)  # (T, d)
        result["recall"][:, :, column] = (weight @ hits.T) / total[:, None]
        gained = weight * hits[at]
        found = np.cumsum(gained, axis=1)
        counted = np.cumsum(weight * ~matches.ignored[at, mine], axis=1)
        precision = found / np.maximum(counted, np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for kind in kinds:
            result[kind][:, column] = (
                (envelope * gained).sum(axis=1) / total
                if kind == "area"
                else _interpolated(found / total[:, None], envelope, _POINTS[kind])
            )
    return result


def _place(matches: Matches, threshold: float) -> int:
    if threshold not in matches.thresholds:
        raise ConfigError(
            f"detections were matched at IoU {', '.join(f'{t:g}' for t in matches.thresholds)}, "
            f"not {threshold:g}; give match() that threshold too."
        )
    return matches.thresholds.index(threshold)


def _interpolated(recall: Floats, envelope: Floats, points: Floats) -> Floats:
    """Mean of the precision envelope at the first place that reaches each recall, ``(B,)``."""
    sums = np.zeros(len(recall))
    padded = np.concatenate([envelope, np.zeros((len(recall), 1))], axis=1)
    for row, (reached, height) in enumerate(zip(recall, padded, strict=True)):
        sums[row] = height[np.searchsorted(reached, points, side="left")].sum()
    sums[np.isnan(recall).any(axis=1)] = np.nan
    return sums / len(points)


def resamples(images: int, samples: int, seed: int, chunk: int = 64) -> Iterator[Floats]:
    """Bootstrap weights ``(<= chunk, images)``: how often each image is drawn, with replacement."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        share = np.full(images, 1 / images)
        yield generator.multinomial(images, share, size=rows).astype(np.float64)


def harmonic_mean(seen: ArrayLike, unseen: ArrayLike) -> Floats:
    """2 s u / (s + u), 0 where both are 0."""
    s, u = np.asarray(seen, dtype=np.float64), np.asarray(unseen, dtype=np.float64)
    total = s + u
    return np.divide(2 * s * u, total, out=np.zeros_like(total), where=total != 0)


def report(
    matches: Matches, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """Everything about one test as JSON values, in percent.

    Args:
        matches: of the test.
        samples: bootstrap samples over images; 0 leaves the intervals out.
        seed: of the bootstrap.
        level: of its intervals.
    """
    per_class = measure(matches)
    values = {
        n: {g: _percent(v[0]) for g, v in groups.items()}
        for n, groups in _means(per_class, matches).items()
    }
    drawn = bootstrap(matches, samples, seed) if samples else {}
    boxes = matches.truths.sum(axis=0)
    return {
        "images": len(matches.truths),
        "boxes": int(boxes.sum()),
        "cap": matches.cap,
        "unit": "percent",
        "values": values,
        "intervals": {
            n: {g: _interval(v, level) for g, v in groups.items()} for n, groups in drawn.items()
        },
        "bootstrap": {"over": "images", "samples": samples, "seed": seed, "level": level},
        "classes": [
            {
                "name": name,
                "role": role,
                "boxes": int(boxes[column]),
                **{f"AP@0.5 {kind}": _percent(per_class[kind][0, column]) for kind in AP_KINDS},
                **{
                    f"recall IoU {threshold:g}": _percent(per_class["recall"][0, t, column])
                    for t, threshold in enumerate(matches.thresholds)
                },
            }
            for column, (name, role) in enumerate(zip(matches.classes, matches.roles, strict=True))
        ],
    }


def compare(
    ours: Matches, theirs: Matches, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired bootstrap of two systems on one test: the same images are drawn for both.

    Returns:
        Per number and group, ours - theirs in percentage points: ``difference``, its ``interval``
        and ``above``, the share of samples in which ours is higher; a sample without a class of
        the group does not count.

    Raises:
        ConfigError: no samples.
        DataError: the two were not tested on the same truth.
    """
    check_option(samples >= 1, "compare: samples", samples, "must be at least 1")
    if ours.classes != theirs.classes or not np.array_equal(ours.truths, theirs.truths):
        raise DataError("compare: the two systems were tested on different images or classes.")
    point = [_means(measure(matches), matches) for matches in (ours, theirs)]
    drawn = [bootstrap(matches, samples, seed) for matches in (ours, theirs)]
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for name, groups in point[0].items():
        for group, value in groups.items():
            if name not in point[1]:
                raise DataError(f"compare: {name} was measured for one system only; same cap?")
            spread = drawn[0][name][group] - drawn[1][name][group]
            known = spread[~np.isnan(spread)]
            result.setdefault(name, {})[group] = {
                "difference": _percent((value - point[1][name][group])[0]),
                "interval": _interval(spread, level),
                "above": float(np.mean(known > 0)) if known.size else None,
            }
    return result


def table(result: Mapping[str, Any], *, per_class: bool = True) -> str:
    """A report as text: means with intervals, then the classes if they are wanted."""
    groups = list(next(iter(result["values"].values())))
    rows = [["", *groups]]
    for name, values in result["values"].items():
        spans = result["intervals"].get(name, {})
        rows.append([name, *(_cell(values[g], spans.get(g)) for g in groups)])
    columns = [key for key in result["classes"][0] if key not in ("name", "role")]
    classes = [["class", "role", *columns]]
    for entry in result["classes"]:
        if entry["boxes"]:
            cells = [entry["name"], entry["role"], str(entry["boxes"])]
            classes.append([*cells, *(_cell(entry[key], None) for key in columns[1:])])
    head = f"{result['images']} images, {result['boxes']} boxes, best {result['cap']} per image; %"
    if result["intervals"]:
        bootstrap = result["bootstrap"]
        head += f", [{bootstrap['level']:.0%} interval, {bootstrap['samples']} bootstrap samples]"
    return "\n".join([head, "", *_aligned(rows), *(["", *_aligned(classes)] if per_class else [])])


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _cell(value: float | None, span: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" [{span[0]:.1f}, {span[1]:.1f}]" if span else "")


def _percent(value: Any) -> float | None:
    return None if np.isnan(value) else float(100 * value)


def _interval(values: Floats, level: float) -> list[float]:
    """Percentile interval in percent; samples without a class of the group do not count."""
    known = values[~np.isnan(values)]
    ends = [(1 - level) / 2, (1 + level) / 2]
    return [float(100 * v) for v in np.quantile(known, ends)] if known.size else []


def bootstrap(matches: Matches, samples: int, seed: int) -> Numbers:
    """Every mean in every bootstrap sample, ``(samples,)``; the same seed draws the same images.

    Fractions, by number and group as ``report`` names them.
    """
    parts = [
        _means(measure(matches, weights), matches)
        for weights in resamples(len(matches.truths), samples, seed)
    ]
    return {
        name: {group: np.concatenate([part[name][group] for part in parts]) for group in groups}
        for name, groups in parts[0].items()
    }


def _means(values: Mapping[str, Floats], matches: Matches) -> Numbers:
    """Means over classes with truth: of all, and of each role if there are both."""
    roles = np.array(matches.roles)
    numbers = {f"mAP@0.5 {kind}": values[kind] for kind in AP_KINDS}
    for t, threshold in enumerate(matches.thresholds):
        numbers[f"Recall@{matches.cap} IoU {threshold:g}"] = values["recall"][:, t]
    present = [role for role in ("seen", "unseen") if (roles == role).any()]
    result: Numbers = {}
    for name, per_class in numbers.items():
        means = {role: _nan_mean(per_class[:, roles == role]) for role in present}
        if len(present) == 2:
            means["hm"] = harmonic_mean(means["seen"], means["unseen"])
            means["all"] = _nan_mean(per_class)
        result[name] = means
    return result


def _nan_mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    sums = np.where(known, values, 0).sum(axis=1)
    return np.asarray(np.divide(sums, count, out=np.full(len(values), np.nan), where=count > 0))
