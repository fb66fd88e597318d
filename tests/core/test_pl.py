"""PL: by hand in float64, grown, as a graph, in a bundle, learned."""

import dataclasses

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers import build_scorer

CONFIG = ScoringConfig(method="pl", **method.SIZES)
CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, center=True, seen_scale=0.3, objectness_power=2.0),
]


def tensors():
    draw = tiny.random(2).normal
    shapes = {"bend": (8, 8), "project.weight": (8, 16), "project.bias": 8, "bias": 1}
    made = {name: draw(size=shape).astype(np.float32) for name, shape in shapes.items()}
    center = tiny.unit_vectors(7, 5).mean(axis=0)
    return {"background": np.zeros(8, np.float32), "center": center, **made}


def hand(config, tensors, v, known, new):
    point = tensors["project.weight"] @ v + tensors["project.bias"]
    logits = [np.tanh(a @ tensors["bend"]) @ point + tensors["bias"][0] for a in (*known, *new)]
    return [1 / (1 + np.exp(-logit)) for logit in logits]


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
    method.check_learns(CONFIG, {"polarity"})


def test_the_loss_is_that_by_hand():
    vectors, (embeddings, _) = tiny.unit_vectors(4, 5), method.regions(6)
    labels = np.array([0, 1, 2, 3, 4, 1])
    start = build_scorer(CONFIG, None)
    with pytest.raises(ConfigError, match="read_classes"):
        start.tensors()
    start.read_classes(torch.from_numpy(vectors), torch.zeros(0, 8))
    bend = start.tensors()["bend"]
    np.testing.assert_allclose(vectors @ bend, vectors, atol=1e-5)  # where M starts
    config = dataclasses.replace(CONFIG, center=True)
    scorer, own, known = method.halves(config, vectors)
    total = 0.0
    for v, y in zip(embeddings.astype(np.float64), labels, strict=True):
        p = hand(config, own, v, known, [])
        for c in range(4):
            right = c == y - 1
            chance = p[c] if right else 1 - p[c]
            focal = -(0.3 if right else 0.7) * (1 - chance) ** 1.5 * np.log(chance)
            gap = p[c] - p[y - 1]
            total += focal * (1 / (1 + np.exp(-5 * gap)) if y else 1)
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)
    options = LossConfig(pl_alpha=0.3, pl_focus=1.5, pl_steepness=5)
    assert scorer.losses(*given, options)["polarity"].item() == pytest.approx(total / 5, rel=1e-4)
