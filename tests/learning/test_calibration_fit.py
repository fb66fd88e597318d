"""Fitting a calibration: known distortions come back, and every number by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import DataError
from zsd_core.kernels import reference
from zsd_core.learning.calibration import (
    Outcomes,
    balanced_f1,
    best_balance,
    best_f1,
    calibrated,
    expected_error,
    f1_at,
    fit,
    fit_curve,
    outcomes,
)
from zsd_core.learning.matching import Matches


def drawn(curve, count, seed=0):
    """Scores as a detector's, right as often as a curve says."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.5, 3, count)
    probabilities = reference.calibrate_scores(scores[:, None], np.array([curve]))[:, 0]
    return scores, rng.random(count) < probabilities


def found(scores, right, images=None, truths=None, seen=None):
    count = len(scores)
    images = np.zeros(count, np.int64) if images is None else np.asarray(images)
    return Outcomes(
        np.asarray(scores, np.float64),
        np.asarray(right, bool),
        images,
        np.ones(count, bool) if seen is None else np.asarray(seen),
        np.array([count]) if truths is None else np.asarray(truths),
    )


def matches(scores, right, *, seen=None, images=1):
    """A test of two classes, "person" seen and "cat" unseen, one detection a score."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    seen = np.ones(len(scores), bool) if seen is None else np.asarray(seen)
    count = len(scores)
    truths = np.zeros((images, 2), np.int64)
    np.add.at(truths, (np.arange(count) % images, (~seen).astype(int)), np.asarray(right, int))
    return Matches(
        classes=("person", "cat"),
        roles=("seen", "unseen"),
        thresholds=(0.4, 0.5),
        cap="100",
        truths=truths,
        images=(np.arange(count) % images)[order],
        columns=(~seen).astype(np.int64)[order],
        scores=np.asarray(scores)[order],
        hits=np.stack([np.asarray(right)[order]] * 2),
        ignored=np.zeros((2, count), bool),
    )


@pytest.mark.parametrize(
    "curve", [(1.0, 1.0, 0.0), (1.9, 2.8, -0.5), (0.6, 0.0, 1.0), (0.1, 2.0, -1.0)]
)
def test_a_known_distortion_is_recovered(curve):
    scores, right = drawn(curve, 60_000)
    fitted = np.array([fit_curve(scores, right)])
    grid = np.linspace(0.02, 0.9, 50)[:, None]
    expected = reference.calibrate_scores(grid, np.array([curve]))
    np.testing.assert_allclose(reference.calibrate_scores(grid, fitted), expected, atol=0.03)
    assert fitted[0, 0] > 0 <= fitted[0, 1]


def test_slopes_never_fall_below_zero():
    """Chance asks for a negative b here; the best monotone curve has none."""
    scores, right = drawn((0.5, 0.0, 0.0), 3000, seed=2)
    for seed in range(6):
        scores, right = drawn((0.5, 0.0, 0.0), 400, seed)
        a, b, _ = fit_curve(scores, right)
        assert a > 0 and b >= 0
        CalibrationConfig(seen=fit_curve(scores, right))


def test_perfect_scores_stay_finite():
    curve = fit_curve([0.9] * 20 + [0.1] * 20, [True] * 20 + [False] * 20)
    assert np.isfinite(curve).all()
    low, high = reference.calibrate_scores(np.array([[0.1], [0.9]]), np.array([curve]))[:, 0]
    assert low < 0.1 and high > 0.9


def test_what_cannot_be_fitted_is_an_error():
    with pytest.raises(DataError, match="5 right and 20 wrong detections; 10 of each"):
        fit_curve([0.5] * 25, [True] * 5 + [False] * 20)
    with pytest.raises(DataError, match=r"a score of 1\.5 is above 1.*seen_scale"):
        fit_curve([1.5] * 25, [True] * 12 + [False] * 13)
    scores, right = drawn((1.0, 1.0, 0.0), 4000)
    with pytest.raises(DataError, match="right less often"):
        fit_curve(scores, ~right)


def test_expected_error_by_hand():
    # bin [0.5, 0.55): scores .5, .52, one right; bin [0.9, 0.95): .9, right; .04 is too low
    detections = found([0.9, 0.52, 0.5, 0.04], [True, True, False, True])
    by_hand = (abs(1 - 0.9) + abs(1 - (0.5 + 0.52))) / 3
    assert expected_error(detections)[0] == pytest.approx(by_hand)
    assert expected_error(found([0.5] * 4, [True, True, False, False]))[0] == 0
    assert np.isnan(expected_error(found([0.01], [True])))[0]
    assert expected_error(found([1.0, 1.0], [True, True]))[0] == 0  # 1 is in the last bin


def test_expected_error_of_resampled_photographs_by_hand():
    detections = found([0.6, 0.6], [True, False], images=[0, 1], truths=[1, 1])
    weights = np.array([[1.0, 1], [2, 0], [0, 2]])
    np.testing.assert_allclose(expected_error(detections, weights), [0.1, 0.4, 0.6])


def test_precision_recall_and_f1_by_hand():
    detections = found([0.9, 0.8, 0.4], [True, False, True], images=[0, 1, 1], truths=[2, 3])
    at = f1_at(detections, 0.5)
    assert (at["precision"][0], at["recall"][0]) == (0.5, pytest.approx(1 / 5))
    assert at["F1"][0] == pytest.approx(2 / 7)
    assert f1_at(detections, 0.8)["precision"][0] == 1  # above, not at
    weighted = f1_at(detections, 0.3, np.array([[0.0, 2]]))
    assert weighted["recall"][0] == pytest.approx(1 / 3)


def test_the_best_threshold_is_the_best():
    scores, right = drawn((1.5, 1.5, 0.0), 4000)
    detections = found(scores, right, truths=[int(right.sum())])
    threshold, f1 = best_f1(detections)
    assert f1 == max(f1_at(detections, t / 100)["F1"][0] for t in range(1, 100))
    assert f1_at(detections, threshold)["F1"][0] == f1
    assert best_f1(found([0.9], [False])) == (0.5, 0.0)


def balance_above(test, threshold):
    """Harmonic mean of seen and unseen F1 of the detections that a detector shows."""
    shown, f1 = test.scores.astype(np.float32) > np.float32(threshold), []
    for column in (0, 1):
        own = shown & (test.columns == column)
        boxes = test.truths[:, column].sum()
        f1.append(2 * (own & test.hits[1]).sum() / max(own.sum() + boxes, 1))
    return 2 * f1[0] * f1[1] / max(f1[0] + f1[1], 1e-9)


@pytest.mark.parametrize(
    ("scores", "right", "seen", "boxes", "expected"),
    [
        # F1 of people 2/3, 2/3, 2/4, 2/4, 2/4; of cats 0, 2/3, 2/3, 2/4, 4/5
        ([0.9, 0.7, 0.5, 0.4, 0.3], [1, 1, 0, 0, 1], [1, 0, 1, 0, 0], [2, 2], (0.69, 2 / 3)),
        # all four or none: the two right ones alone have no threshold
        ([0.5] * 4, [1, 1, 0, 0], [1, 0, 1, 0], [1, 1], (0.49, 2 / 3)),
        ([0.5, 0.5, 0.4996, 0.4996], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1], (0.49, 2 / 3)),
        ([0.5, 0.5, 0.48, 0.48], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1], (0.49, 1)),
        # upwards to two digits would be 0.0013, above the lowest right one
        ([0.9, 0.00126], [1, 1], [1, 0], [1, 1], (0.0012, 1)),
        ([np.float32(0.7)] * 2, [1, 1], [1, 0], [1, 1], (0.69, 1)),  # 0.7 would remove both
        ([3.7, 0.9], [1, 1], [1, 0], [1, 1], (0.89, 1)),
        ([0.9, 0.8], [1, 1], [1, 1], [2, 1], (0, 0)),  # nothing unseen
        ([], [], [], [1, 1], (0, 0)),
    ],
)
def test_the_balance_is_that_of_what_is_above_the_threshold(scores, right, seen, boxes, expected):
    test = matches(scores, np.array(right, bool), seen=np.array(seen, bool))
    test = dataclasses.replace(test, truths=np.array([boxes]))
    threshold, f1 = best_balance(balanced_f1(test))
    assert (threshold, f1) == pytest.approx(expected)
    assert balance_above(test, threshold) == pytest.approx(f1)


def test_no_threshold_of_two_digits_gives_a_better_balance():
    scores, right = drawn((1.5, 1.5, 0.0), 500)
    test = matches(scores.round(2), right, seen=np.arange(500) % 3 > 0)
    threshold, f1 = best_balance(balanced_f1(test))
    cuts = [0.0, *np.unique([float(f"{score:.2g}") for score in scores])]
    assert f1 == pytest.approx(max(balance_above(test, cut) for cut in cuts))
    assert balance_above(test, threshold) == pytest.approx(f1) and threshold < 1


def test_a_fit_makes_scores_probabilities_on_photographs_it_has_not_seen():
    curve = (2.0, 1.0, 2.5)
    scores, right = drawn(curve, 20_000)
    result = fit(matches(scores, right, images=200), CalibrationConfig())
    errors = result.report["expected calibration error, percent"]
    assert errors["before"] > 10
    assert errors["after"] < 2 and errors["held out"] < 2.5
    assert result.report["photographs"] == 200
    assert result.report["roles"]["seen"]["fitted"]
    again = calibrated(outcomes(matches(scores, right, images=200)), result.calibration)
    assert result.threshold == best_f1(again)[0] == result.report["score threshold"]
    assert (np.diff(again.scores) <= 0).all()


def test_each_role_has_its_curve_and_a_role_without_truth_takes_the_other():
    first, second = drawn((1.0, 1.0, 2.0), 4000), drawn((1.0, 1.0, -1.0), 4000, seed=1)
    scores, right = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    seen = np.arange(8000) < 4000
    both = fit(matches(scores, right, seen=seen, images=40), CalibrationConfig()).calibration
    assert both.seen[2] > 1 and both.unseen[2] < 0
    borrowed = fit(matches(*first, images=40), CalibrationConfig())
    assert borrowed.calibration.unseen == borrowed.calibration.seen
    assert not borrowed.report["roles"]["unseen"]["fitted"]
    before = CalibrationConfig(unseen=(1.0, 2.0, 3.0))
    one = fit(matches(scores, right, seen=seen, images=40), before, ("seen",)).calibration
    assert one.seen == both.seen and one.unseen == before.unseen


def test_no_truth_at_all_is_an_error():
    with pytest.raises(DataError, match="0 right and 30 wrong"):
        fit(matches([0.5] * 30, [False] * 30, images=3), CalibrationConfig())
