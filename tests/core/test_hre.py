"""HRE: by hand in float64, grown, as a graph, in a bundle, learned."""

import dataclasses

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig

CONFIG = ScoringConfig(method="hre", conse_top=3, **method.SIZES)
CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, center=True, conse_top=50, seen_scale=0.3, objectness_power=2.0),
]


def tensors():
    draw = tiny.random(2).normal
    shapes = {"classifier.weight": (8, 16), "classifier.bias": 8}
    shapes |= {"project.weight": (8, 16), "project.bias": 8}
    made = {name: draw(size=shape).astype(np.float32) for name, shape in shapes.items()}
    center = tiny.unit_vectors(7, 5).mean(axis=0)
    return {"background": np.zeros(8, np.float32), "center": center, **made}


def hand(config, tensors, v, known, new):
    powers = np.exp(tensors["classifier.weight"] @ v + tensors["classifier.bias"])
    p = powers / powers.sum()
    best = sorted(range(7), key=lambda i: -p[1 + i])[: config.conse_top]
    combined = method.unit(sum(p[1 + i] * known[i] for i in best))
    projected = method.unit(tensors["project.weight"] @ v + tensors["project.bias"])
    both = [(a @ combined + a @ projected) / 2 for a in (*known, *new)]
    return [max(value, 0.0) * (1 - p[0]) for value in both]


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    method.check_hand(config, tensors(), hand, unseen)


def test_classes_grow_bit_for_bit():
    method.check_growth(CASES[1], tensors())


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    method.check_graph(config, tensors(), unseen)


def test_a_bundle_runs(tmp_path, photo):
    method.check_bundle(tmp_path / "bundle", CASES[1], tensors(), photo)


def test_it_learns():
    method.check_learns(CONFIG, {"seen", "margin"})


def test_the_losses_are_those_by_hand_the_margin_over_objects_alone():
    embeddings, _ = method.regions(6)
    labels = np.array([0, 1, 2, 3, 4, 1])
    config = dataclasses.replace(CONFIG, center=True)
    scorer, own, known = method.halves(config, tiny.unit_vectors(4, 5))
    exact = embeddings.astype(np.float64)
    points = exact @ own["project.weight"].T + own["project.bias"]
    cosines = method.unit(points) @ known.T
    lags = [
        max(0, 0.4 - cosines[r, y - 1] + cosines[r, c])
        for r, y in enumerate(labels)
        for c in range(4)
        if y and c != y - 1
    ]
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)
    found = scorer.losses(*given, LossConfig(hre_margin=0.4))
    assert found["margin"].item() == pytest.approx(np.mean(lags), rel=1e-5)
    assert found["seen"].item() == pytest.approx(method.cross_entropy(own, exact, labels), rel=1e-5)
