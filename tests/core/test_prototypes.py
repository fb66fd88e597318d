"""Prototypes: rows of classes from names and from examples, and scores, by hand in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import tiny_given

from zsd_core.errors import BundleError, ClassError, ConfigError
from zsd_core.kernels.offered import sigmoid
from zsd_core.scoring import Needed, scorer_for
from zsd_core.scoring.prototypes import PrototypeScorer

WIDTH = tiny_given.VISUAL + tiny.VECTOR + 1  # P


@pytest.fixture
def scorer():
    return PrototypeScorer(tiny_given.scorer_tensors(), tiny_given.SCORING)


def exact_rows(vectors, config=tiny_given.SCORING):
    """Rows of names, one at a time, in float64."""
    tensors = {name: a.astype(np.float64) for name, a in tiny_given.scorer_tensors().items()}
    slope, bias = tensors["name_scale"]
    rows = []
    for vector in np.asarray(vectors, np.float64):
        visual = np.zeros(tiny_given.VISUAL)
        for known, weights in zip(
            tensors["taught.vectors"], tensors["taught.weights"], strict=True
        ):
            cosine = float(vector @ known)
            near = np.exp((cosine - 1) / config.kernel_width)
            visual += (cosine + config.kernel_weight * near) * weights
        visual /= np.sqrt((visual**2).sum())
        rows.append([*(slope * visual), *(slope * config.evidence * vector), bias])
    return np.array(rows)


@pytest.mark.parametrize("count", [1, 3, 17])
def test_a_name_is_interpolated_between_the_taught_names(scorer, count):
    vectors = tiny.unit_vectors(count, 31)
    rows = scorer.prototypes_of(vectors)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, exact_rows(vectors), rtol=1e-4, atol=1e-5)


def test_no_name_at_all_is_no_row(scorer):
    assert scorer.prototypes_of(np.zeros((0, tiny.VECTOR), np.float32)).shape == (0, WIDTH)


def class_set(scorer, unseen=2):
    names = [f"n{i}" for i in range(unseen)]
    return scorer.class_set(
        tiny.SEEN, tiny.unit_vectors(3, 5), names, tiny.unit_vectors(max(unseen, 1), 31)[:unseen]
    )


def embeddings(regions, seed=0):
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(regions, 3 + WIDTH)).astype(np.float32)
    found[:, -1] = 1
    found[1::3, 3:] = 0  # not looked at
    return found, rng.random(regions).astype(np.float32)


@pytest.mark.parametrize("contest", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("regions", [0, 1, 8])
def test_scores_are_those_of_the_formula(regions, power, contest):
    config = dataclasses.replace(
        tiny_given.SCORING,
        objectness_power=power,
        seen_scale=0.8,
        contest=contest,
        contest_margin=-0.5,
        rivalry=contest / 2,
    )
    scorer = PrototypeScorer(tiny_given.scorer_tensors(), config)
    classes, (given, objectness) = class_set(scorer), embeddings(regions)
    scores = scorer.score(given, objectness, classes)
    assert scores.shape == (regions, 5)
    rows, known = exact_rows(tiny.unit_vectors(2, 31)), exact_rows(tiny.unit_vectors(3, 5))
    for r in range(regions):
        exact = given[r].astype(np.float64)
        own = 0.8 / (1 + np.exp(-exact[:3]))
        if not exact[-1]:
            np.testing.assert_allclose(scores[r, :3], own, rtol=1e-5)
            assert not scores[r, 3:].any()
            continue
        logits = rows @ exact[3:]
        if contest:
            ahead = logits.max() - np.log(2) - np.maximum(known @ exact[3:], 0)
            own /= 1 + np.exp(contest * (ahead + 0.5))
        np.testing.assert_allclose(scores[r, :3], own, rtol=1e-4, atol=1e-6)
        rival = contest / 2 * max((known @ exact[3:]).max(), 0)
        expected = float(objectness[r]) ** power / (1 + np.exp(rival - logits))
        np.testing.assert_allclose(scores[r, 3:], expected, rtol=1e-4, atol=1e-6)


def test_a_hidden_class_takes_nothing_from_others(scorer):
    (given, objectness), classes = embeddings(8), class_set(scorer)
    images = np.zeros(8, np.int32)
    hidden = Needed(np.float32([0, 0, 0, 0, np.inf]), images)
    nobody = Needed(np.float32([0, 0, 0, np.inf, np.inf]), images)
    alone = scorer.score(given, objectness, class_set(scorer, 1))
    np.testing.assert_array_equal(
        scorer.score(given, objectness, classes, hidden)[:, :3], alone[:, :3]
    )
    np.testing.assert_array_equal(
        scorer.score(given, objectness, classes, nobody)[:, :3], sigmoid(given[:, :3])
    )


def test_without_unseen_classes_only_the_detectors_own_scores_are_left(scorer):
    scores = scorer.score(*embeddings(4), class_set(scorer, 0))
    assert scores.shape == (4, 3)


@pytest.mark.parametrize("length", [1.0, 0.01, 50.0])
def test_a_class_from_examples_is_its_direction_whatever_the_length(scorer, length):
    vector = tiny.unit_vectors(1, 41, tiny_given.VISUAL)
    rows = scorer.example_rows(class_set(scorer), ["bracket"], vector * np.float32(length))
    expected = np.zeros(WIDTH)
    expected[: tiny_given.VISUAL] = 9.0 * vector[0]
    expected[-1] = -4.0
    np.testing.assert_allclose(rows.prototypes[0], expected, rtol=1e-5, atol=1e-6)
    assert rows.cosines.shape == (1, 3)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_examples_without_a_direction_are_refused(scorer, bad):
    vectors = np.full((1, tiny_given.VISUAL), bad, np.float32)
    with pytest.raises(ClassError, match=r"'bracket' has length .* must be finite and not zero"):
        scorer.example_rows(class_set(scorer), ["bracket"], vectors)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.05, 0.3, 0.99, 1.0])
def test_no_region_below_the_least_objectness_scores_above_the_threshold(power, threshold):
    config = dataclasses.replace(tiny_given.SCORING, objectness_power=power)
    scorer = PrototypeScorer(tiny_given.scorer_tensors(), config)
    least = scorer.least_objectness(threshold)
    assert 0 <= least <= 1
    if not least:
        assert threshold == 0 or power == 0  # objectness bounds no unseen score
        return
    given, _ = embeddings(200)
    given[:, 3:-1] *= 100  # scores as high as they can be
    likely = np.float32(least) * np.linspace(0.01, 1, 200, dtype=np.float32)
    given[:, :3] = (np.log(likely) - np.log1p(-likely))[:, None]  # of the seen classes, all alike
    scores = scorer.score(given, likely, class_set(scorer))
    assert (scores <= threshold).all()
    assert scores.max() > 0.5 * threshold  # the bound is no wider than it must be


def test_a_missing_tensor_and_another_method_are_sentences(scorer):
    tensors = tiny_given.scorer_tensors()
    del tensors["taught.weights"]
    with pytest.raises(BundleError, match=r"tensor 'taught.weights' is missing"):
        PrototypeScorer(tensors, tiny_given.SCORING)
    other = scorer_for(tiny.MODEL.scoring, tiny.scorer_tensors())
    assert other.example_width is None
    with pytest.raises(ConfigError, match="cannot learn a class from examples"):
        other.example_rows(class_set(scorer), ["a"], np.ones((1, 5), np.float32))
    assert scorer.example_width == tiny_given.VISUAL
