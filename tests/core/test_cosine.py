"""Cosine scores, which SB and SAN learn: by hand, grown, as a graph, in a bundle, learned."""

import dataclasses

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers import build_scorer, san

CONFIG = ScoringConfig(method="cosine", learned="sb", **method.SIZES)
CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, cosine_background=True, center=True),
    dataclasses.replace(CONFIG, seen_scale=0.3, objectness_power=2.0),
]
SAN = dataclasses.replace(CONFIG, learned="san")


def tensors():
    draw = tiny.random(2).normal
    weight = draw(size=(8, 16)).astype(np.float32)
    return {
        "background": method.unit(weight.sum(axis=1)),  # near to some of the regions
        "project.weight": weight,
        "project.bias": draw(size=8).astype(np.float32),
        "center": tiny.unit_vectors(7, 5).mean(axis=0),
    }


def hand(config, tensors, v, known, new):
    point = tensors["project.weight"] @ v + tensors["project.bias"]
    cosines = [float(a @ point / np.linalg.norm(point)) for a in (*known, *new)]
    background = float(tensors["background"] @ point / np.linalg.norm(point))
    lost = config.cosine_background and background > max(cosines)
    return [0.0 if lost else max(cosine, 0.0) for cosine in cosines]


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    method.check_hand(config, tensors(), hand, unseen)


def test_some_regions_are_lost_to_the_background():
    scores = method.by_hand(CASES[1], tensors(), hand, 11, 1)
    assert 0 < (scores.max(axis=1) == 0).sum() < 11


def test_classes_grow_bit_for_bit():
    method.check_growth(CASES[1], tensors())


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    method.check_graph(config, tensors(), unseen)


def test_a_bundle_runs(tmp_path, photo):
    method.check_bundle(tmp_path / "bundle", CASES[1], tensors(), photo)


def test_sb_and_san_learn():
    method.check_learns(CONFIG, {"margin", "reconstruction"})
    method.check_learns(CONFIG, {"margin"}, LossConfig(sb_reconstruction=0))
    method.check_learns(SAN, {"margin", "clustering"}, LossConfig(san_groups=3))
    method.check_learns(SAN, {"margin"}, LossConfig(san_balance=1))


def test_the_losses_are_those_by_hand():
    vectors, (embeddings, _) = tiny.unit_vectors(4, 5), method.regions(6)
    labels = np.array([0, 1, 2, 3, 4, 1])
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)

    scorer, own, rows = method.halves(dataclasses.replace(CONFIG, center=True), vectors)
    flat = embeddings.astype(np.float64) @ own["project.weight"].T
    known = np.concatenate([np.eye(1, 8), rows])
    np.testing.assert_array_equal(own["background"], known[0])
    cosines = method.unit(flat + own["project.bias"]) @ known.T
    lags = [
        max(0, 0.4 - cosines[r, y] + cosines[r, c])
        for r, y in enumerate(labels)
        for c in range(5)
        if c != y
    ]
    found = scorer.losses(*given, LossConfig(sb_margin=0.4))
    assert found["margin"].item() == pytest.approx(np.mean(lags), rel=1e-5)
    rebuilt = 1e-3 * ((flat @ own["project.weight"] - embeddings) ** 2).mean()
    assert found["reconstruction"].item() == pytest.approx(rebuilt, rel=1e-5)

    scorer, own, rows = method.halves(dataclasses.replace(SAN, center=True), vectors)
    points = embeddings @ own["project.weight"].T + own["project.bias"]
    middle = method.unit(vectors.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(own["background"], middle, rtol=1e-6)
    scores = points @ np.concatenate([middle[None], rows]).T
    soft = lambda x: np.log1p(np.exp(x))  # noqa: E731
    margin = np.mean(
        [
            np.mean([soft(scores[r, c] - scores[r, y]) for c in range(5) if c != y])
            for r, y in enumerate(labels)
        ]
    )
    group = san.groups_of(rows @ rows.T, 2)
    clustering = np.mean(
        [
            np.mean(
                [
                    soft(scores[r, 1 + c] - scores[r, 1 + j])
                    for c in range(4)
                    for j in range(4)
                    if group[c] != group[y - 1] and group[j] == group[y - 1]
                ]
            )
            for r, y in enumerate(labels)
            if y
        ]
    )
    options = LossConfig(san_groups=2, san_balance=0.7)
    found = scorer.losses(*given, options)
    assert found["margin"].item() == pytest.approx(0.7 * margin, rel=1e-5)
    assert found["clustering"].item() == pytest.approx(0.3 * clustering, rel=1e-5)


def test_groups_hold_rows_that_are_alike():
    rows = method.unit(np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1], [-1, 0]], np.float32))
    assert san.groups_of(rows @ rows.T, 3).tolist() == [0, 1, 0, 1, 2]
    assert san.groups_of(rows @ rows.T, 9).tolist() == [0, 1, 2, 3, 4]


def test_a_training_half_and_its_method_belong_together():
    for changes, message in (
        ({"learned": ""}, "'cosine', which nothing trains; set learned to one of .*'san', 'sb'"),
        ({"learned": "sann"}, "did you mean 'san'"),
        ({"method": "conse"}, "trains the method 'cosine', but method is 'conse'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_scorer(dataclasses.replace(CONFIG, **changes), None)
