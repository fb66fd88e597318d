"""Scores to probabilities: the compiled kernel against its twin and against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zsd_core import kernels
from zsd_core.errors import ShapeError
from zsd_core.kernels import reference


def arguments(regions, classes, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((regions, classes)) ** 4  # most are small, as a detector's
    curves = np.concatenate(
        [3 * rng.random((classes, 2)), 4 * rng.random((classes, 1)) - 2], axis=1
    )
    return scores.astype(np.float32), curves.astype(np.float32)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (7, 5), (300, 97)])
@pytest.mark.parametrize("floored", [False, True])
def test_agrees_with_the_float64_twin(shape, floored):
    scores, curves = arguments(*shape)
    floors = np.linspace(0, 0.5, shape[1], dtype=np.float32) if floored else None
    result = kernels.calibrate_scores(scores, curves, floors)
    exact = reference.calibrate_scores(
        scores.astype(np.float64),
        curves.astype(np.float64),
        None if floors is None else floors.astype(np.float64),
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=2e-5, atol=1e-7)
    if floors is not None:
        assert not result[scores <= floors].any()


def test_is_the_formula():
    (result,) = kernels.calibrate_scores([[0.2, 0.7]], [[1.5, 0.5, -0.3], [0, 2, 0.1]])
    logits = 1.5 * math.log(0.2) - 0.5 * math.log(0.8) - 0.3, -2 * math.log(0.3) + 0.1
    np.testing.assert_allclose(result, [1 / (1 + math.exp(-z)) for z in logits], rtol=1e-5)


def test_identity_changes_nothing():
    scores, _ = arguments(50, 4)
    result = kernels.calibrate_scores(scores, [[1, 1, 0]] * 4)
    np.testing.assert_allclose(result, scores, rtol=1e-5, atol=1e-8)


def test_no_order_changes():
    scores = np.sort(np.random.default_rng(1).random((4000, 1)).astype(np.float32), axis=0)
    for curve in ((2, 3, -0.5), (0.3, 0, 4), (0, 5, -2)):
        result = kernels.calibrate_scores(scores, [curve])
        assert (np.diff(result[:, 0]) >= 0).all(), curve
        assert result.min() >= 0 and result.max() <= 1


def test_what_is_no_score_becomes_zero_and_one_stays_finite():
    scores = np.array([[0.0, -1.0, np.nan, 1.0, 2.0]], np.float32)
    (result,) = kernels.calibrate_scores(scores, [[1, 1, 0]] * 5)
    assert result[:3].tolist() == [0, 0, 0]
    assert (result[3:] > 0.999).all() and (result[3:] <= 1).all()
    (flat,) = kernels.calibrate_scores(scores, [[0, 1, 3]] * 5)  # 0 times ln 0 is asked for nowhere
    assert flat[:3].tolist() == [0, 0, 0]


def test_errors_are_sentences():
    scores, curves = arguments(3, 5)
    with pytest.raises(ShapeError, match=r"parameters has shape \(4, 3\), expected \(C, 3\)"):
        kernels.calibrate_scores(scores, curves[:4])
    with pytest.raises(ShapeError, match="floors has shape"):
        kernels.calibrate_scores(scores, curves, np.zeros(3, np.float32))
