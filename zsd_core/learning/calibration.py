"""Fit the calibration of scores, and say how far scores are from probabilities.

A detection counts as right as in COCO: it found a free box of its class at IoU 0.5, so the second
one of a box is wrong. Detections of crowds and difficult boxes are neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.calibration import IDENTITY, LEAST, CalibrationConfig, Curve
from zsd_core.errors import DataError
from zsd_core.kernels import reference
from zsd_core.learning.matching import Matches
from zsd_core.learning.metrics import harmonic_mean

__all__ = [
    "BINS",
    "FLOOR",
    "THRESHOLDS",
    "Fit",
    "Outcomes",
    "balanced_f1",
    "best_balance",
    "best_f1",
    "calibrated",
    "expected_error",
    "f1_at",
    "fit",
    "fit_curve",
    "outcomes",
]

Floats = NDArray[np.float64]

BINS, FLOOR = 20, 0.05  # of the calibration error: equal bins of [0, 1], scores above the floor
THRESHOLDS = np.arange(1, 100) / 100
# Of scores that are no probabilities: 0, and every number of two digits up to 9.9.
CUTS = (0.0, *(float(f"{digits}e{power}") for power in range(-9, 0) for digits in range(10, 100)))
FLATTEST = 0.1  # least a: below it small scores would become equal in float32
ENOUGH = 10  # right and wrong detections that a role needs


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Detections and whether they are right, those that count as neither left out.

    Attributes:
        scores: ``(D,)``, falling.
        right: ``(D,)``.
        images: ``(D,)``, the photograph of each.
        seen: ``(D,)``, its class is a seen one.
        truths: ``(N,)`` boxes to be found in each photograph.
    """

    scores: Floats
    right: NDArray[np.bool_]
    images: NDArray[np.int64]
    seen: NDArray[np.bool_]
    truths: NDArray[np.int64]


def outcomes(matches: Matches, threshold: float = 0.5) -> Outcomes:
    """Outcomes of the detections of a test at one IoU, one of ``matches.thresholds``."""
    at = matches.thresholds.index(threshold)
    counted = ~matches.ignored[at]
    roles = np.array([role == "seen" for role in matches.roles])
    return Outcomes(
        matches.scores[counted],
        matches.hits[at, counted],
        matches.images[counted],
        roles[matches.columns[counted]],
        matches.truths.sum(axis=1),
    )


def fit_curve(scores: ArrayLike, right: ArrayLike) -> Curve:
    """The most likely beta calibration of scores, rounded to six digits.

    Targets are smoothed as Platt did, by one detection each way, so that the numbers stay finite.

    Args:
        scores: ``(D,)`` in (0, 1]; others are left out, since they stay 0.
        right: ``(D,)``, whether each detection is right.

    Raises:
        DataError: too few right or wrong detections, a score above 1, or scores that say nothing:
            those of right detections are not larger.

    References:
        Kull et al., "Beta calibration", AISTATS 2017; Platt, 1999.
    """
    values, hits = np.asarray(scores, np.float64), np.asarray(right, bool)
    used = values > 0
    values, hits = values[used], hits[used]
    count = int(hits.sum()), int((~hits).sum())
    if min(count) < ENOUGH:
        raise DataError(
            f"calibration: {count[0]} right and {count[1]} wrong detections; {ENOUGH} of each are "
            "needed. Give more labelled photographs."
        )
    if values.max() > 1:
        raise DataError(
            f"calibration: a score of {values.max():.3g} is above 1. Set scoring.fusion to "
            "'softmax' and scoring.seen_scale to at most 1: the calibration takes their place."
        )
    targets = np.where(hits, (count[0] + 1) / (count[0] + 2), 1 / (count[1] + 2))
    rise, fall = np.log(values), -np.log(np.maximum(1 - values, LEAST))
    one, nothing = np.ones_like(rise), np.zeros_like(rise)
    # The best within the bounds is the best without bounds on one of these faces.
    (a, b, c), both = _logistic([rise, fall, one], targets, nothing)
    (steep, shift), rising = _logistic([rise, one], targets, nothing)
    (bent, offset), flattest = _logistic([fall, one], targets, FLATTEST * rise)
    faces = [(both, (a, b, c)), (rising, (steep, 0.0, shift)), (flattest, (FLATTEST, bent, offset))]
    allowed = [(loss, curve) for loss, curve in faces if curve[0] >= FLATTEST and curve[1] >= 0]
    if not allowed:
        raise DataError(
            "calibration: higher scores are right less often on these photographs, so no "
            "probability can be made of them; do the annotations belong to the photographs?"
        )
    a, b, c = (float(f"{number:.6g}") for number in min(allowed)[1])
    return a, b, c


def _logistic(
    columns: Sequence[Floats], targets: Floats, given: Floats
) -> tuple[list[float], float]:
    """Weights of a logistic regression by Newton's method, and their mean loss.

    ``given`` is a part of every logit that stays.
    """
    features = np.stack(columns, axis=1)
    weights = np.zeros(features.shape[1])

    def loss(at: Floats) -> float:
        logits = given + features @ at
        return float(np.mean(np.logaddexp(0, logits) - targets * logits))

    now = loss(weights)
    for _ in range(100):
        probabilities = 1 / (1 + np.exp(-np.clip(given + features @ weights, -500, 500)))
        gradient = features.T @ (probabilities - targets)
        curvature = probabilities * (1 - probabilities)
        hessian = (features * curvature[:, None]).T @ features + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > now:
            size /= 2
        after = loss(weights - size * step)
        if not after < now - 1e-12:
            break
        weights, now = weights - size * step, after
    return weights.tolist(), now


def calibrated(found: Outcomes, config: CalibrationConfig) -> Outcomes:
    """Detections with calibrated scores, sorted anew."""
    scores = np.empty_like(found.scores)
    for own, curve in ((found.seen, config.seen), (~found.seen, config.unseen)):
        table = np.array([curve or IDENTITY])
        scores[own] = reference.calibrate_scores(found.scores[own][:, None], table)[:, 0]
    order = np.argsort(-scores, kind="stable")
    return Outcomes(
        scores[order], found.right[order], found.images[order], found.seen[order], found.truths
    )


def expected_error(found: Outcomes, weights: Floats | None = None) -> Floats:
    """Expected calibration error ``(B,)`` over detections above ``FLOOR``, as a fraction.

    Mean over detections of ``|share that is right - mean score|`` in their bin, of ``BINS`` equal
    ones of [0, 1].

    Args:
        found: detections.
        weights: ``(B, N)`` how often each photograph counts; None is one row of ones. NaN where no
            detection is above the floor.

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    rows = np.ones((1, len(found.truths))) if weights is None else np.asarray(weights)
    used = found.scores > FLOOR
    scores, images = found.scores[used], found.images[used]
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    sums = np.zeros((len(found.truths), BINS, 2))  # right - score, and how many
    np.add.at(sums, (images, bins), np.stack([found.right[used] - scores, np.ones_like(scores)], 1))
    totals = np.tensordot(rows, sums, axes=1)  # (B, BINS, 2)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(totals[..., 0]).sum(axis=1) / totals[..., 1].sum(axis=1))


def f1_at(
    found: Outcomes, threshold: float | Floats, weights: Floats | None = None
) -> dict[str, Floats]:
    """Precision, recall and F1 ``(B,)`` of detections above a score, all classes together.

    Args:
        found: detections.
        threshold: a detection counts if its score is above; one number, or ``(D,)``.
        weights: ``(B, N)`` how often each photograph counts; None is one row of ones.
    """
    rows = np.ones((1, len(found.truths))) if weights is None else np.asarray(weights)
    used = found.scores > threshold
    counts = np.zeros((len(found.truths), 2))  # detections, and right ones
    np.add.at(counts, found.images[used], np.stack([np.ones(used.sum()), found.right[used]], 1))
    made, hits = (rows @ counts).T
    truths = rows @ found.truths
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / made, hits / truths
        return {"precision": precision, "recall": recall, "F1": 2 * hits / (made + truths)}


def best_f1(found: Outcomes) -> tuple[float, float]:
    """The score threshold, a multiple of 0.01, with the best F1 of all classes together; that F1.

    (0.5, 0.0) where nothing is right above any.
    """
    f1 = _f1_above(THRESHOLDS, found.scores, found.right, int(found.truths.sum()))
    best = int(f1.argmax())
    return (float(THRESHOLDS[best]), float(f1[best])) if f1[best] > 0 else (0.5, 0.0)


def balanced_f1(matches: Matches, *, threshold: float = 0.5) -> Floats:
    """Harmonic mean of seen and unseen F1 at every score threshold of ``CUTS``, as fractions.

    Each F1 is over all detections of its classes together, so that both roles weigh alike.

    Args:
        matches: of a generalised test.
        threshold: IoU, one of ``matches.thresholds``.
    """
    found = outcomes(matches, threshold)
    roles = np.array([role == "seen" for role in matches.roles])
    parts = [
        _f1_above(CUTS, found.scores[own], found.right[own], int(matches.truths[:, of_role].sum()))
        for own, of_role in ((found.seen, roles), (~found.seen, ~roles))
    ]
    return harmonic_mean(*parts)


def best_balance(f1: Floats) -> tuple[float, float]:
    """The highest of the score thresholds with the best ``balanced_f1``, and that F1.

    (0, 0) where nothing unseen or nothing seen is found.
    """
    best = len(f1) - 1 - int(f1[::-1].argmax())
    return (CUTS[best], float(f1[best])) if f1[best] > 0 else (0.0, 0.0)


def _f1_above(
    thresholds: ArrayLike, scores: Floats, right: NDArray[np.bool_], boxes: int
) -> Floats:
    """F1 ``(T,)`` of the detections with a score above each threshold, in float32 as detectors."""
    order = np.argsort(-scores, kind="stable")
    rising = scores[order[::-1]].astype(np.float32)
    below = np.searchsorted(rising, np.asarray(thresholds, np.float32), side="right")
    made = len(scores) - below
    hits = np.concatenate([[0], np.cumsum(right[order])])[made]
    return np.asarray(2 * hits / np.maximum(made + boxes, 1), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted calibration and how it was found.

    Attributes:
        calibration: of both roles.
        threshold: the score threshold with the best F1.
        report: JSON values: per role the curve and the number of detections; the calibration error
            before, after, and on photographs that the curve had not seen ("held out": each half is
            judged by the curve of the other); F1 and its threshold.
    """

    calibration: CalibrationConfig
    threshold: float
    report: Mapping[str, Any]


def fit(matches: Matches, before: CalibrationConfig, roles: tuple[str, ...] = ()) -> Fit:
    """Fit the curve of every role that the test shows, and the default threshold.

    Args:
        matches: a test by scores without calibration.
        before: what the bundle has, for roles that are not fitted.
        roles: fit these only; () fits those with enough detections, and a role without them takes
            the curve of the other one, so that both stay comparable.

    Raises:
        DataError: as ``fit_curve``.
    """
    found = outcomes(matches)
    config, fitted = _fit_roles(found, before, roles)
    halves = [_half(found, side) for side in (0, 1)]
    report: dict[str, Any] = {
        "photographs": len(found.truths),
        "boxes": int(found.truths.sum()),
        "roles": {
            role: {
                "curve": list(getattr(config, role)),
                "fitted": role in fitted,
                "detections": int(own.sum()),
                "right": int(found.right[own].sum()),
            }
            for role, own in (("seen", found.seen), ("unseen", ~found.seen))
            if getattr(config, role) is not None
        },
    }
    after = calibrated(found, config)
    threshold, f1 = best_f1(after)
    errors = {"before": found, "after": after}
    try:
        parts = [
            calibrated(halves[1 - side], _fit_roles(halves[side], before, fitted)[0])
            for side in (0, 1)
        ]
    except DataError:  # one half alone is too small
        pass
    else:
        errors["held out"] = _joined(parts)
    report["expected calibration error, percent"] = {
        name: None if np.isnan(value := expected_error(part)[0]) else 100 * float(value)
        for name, part in errors.items()
    } | {"detections above": FLOOR, "bins of [0, 1]": BINS}
    report["score threshold"], report["F1, percent"] = threshold, 100 * f1
    return Fit(config, threshold, report)


def _fit_roles(
    found: Outcomes, before: CalibrationConfig, roles: tuple[str, ...]
) -> tuple[CalibrationConfig, tuple[str, ...]]:
    curves: dict[str, Curve | None] = {"seen": before.seen, "unseen": before.unseen}
    masks = {"seen": found.seen, "unseen": ~found.seen}
    fitted = roles or tuple(
        role
        for role, own in masks.items()
        if min(found.right[own].sum(), (~found.right[own]).sum()) >= ENOUGH
    )
    for role in fitted or ("seen",):  # the latter says what is missing
        curves[role] = fit_curve(found.scores[masks[role]], found.right[masks[role]])
    if len(fitted) == 1 and not roles:
        curves = dict.fromkeys(curves, curves[fitted[0]])
    return CalibrationConfig(**curves), fitted


def _half(found: Outcomes, side: int) -> Outcomes:
    own = found.images % 2 == side
    truths = np.where(np.arange(len(found.truths)) % 2 == side, found.truths, 0)
    return Outcomes(found.scores[own], found.right[own], found.images[own], found.seen[own], truths)


def _joined(parts: list[Outcomes]) -> Outcomes:
    scores, right, images, seen = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("scores", "right", "images", "seen")
    )
    order = np.argsort(-scores, kind="stable")
    truths = np.sum([part.truths for part in parts], axis=0)
    return Outcomes(scores[order], right[order], images[order], seen[order], truths)
