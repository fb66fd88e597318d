"""BLC: by hand in float64, grown, as a graph, in a bundle, learned."""

import dataclasses

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers import build_scorer

CONFIG = ScoringConfig(method="blc", **method.SIZES)
CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, blc_stages=1, seen_scale=0.3, objectness_power=2.0),
    dataclasses.replace(CONFIG, center=True),
]


def tensors(stages=3):
    draw = tiny.random(2).normal
    shapes = {"visual.weight": (8, 16), "visual.bias": (8,), "flow.weight": (8, 8)}
    made = {name: draw(size=(stages, *shape)).astype(np.float32) for name, shape in shapes.items()}
    center = tiny.unit_vectors(7, 5).mean(axis=0)
    return {"background": tiny.unit_vectors(1, 3)[0], "center": center, **made}


def hand(config, tensors, v, known, new):
    rows = np.concatenate([tensors["background"][None], known, new])
    total, found = np.zeros(len(rows)), np.zeros(8)
    for stage in range(config.blc_stages):
        carried = tensors["flow.weight"][stage] @ np.maximum(found, 0) if stage else 0
        found = tensors["visual.weight"][stage] @ v + tensors["visual.bias"][stage] + carried
        powers = np.exp(rows @ found - (rows @ found).max())
        total += powers / powers.sum()
    return list(total[1:] / config.blc_stages)


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    method.check_hand(config, tensors(config.blc_stages), hand, unseen)


def test_classes_grow_bit_for_bit():
    method.check_growth(CASES[2], tensors())


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    method.check_graph(config, tensors(config.blc_stages), unseen)


def test_a_bundle_runs(tmp_path, photo):
    method.check_bundle(tmp_path / "bundle", CASES[2], tensors(), photo)


def test_it_learns():
    method.check_learns(CONFIG, {"stage1", "stage2", "stage3"})
    method.check_learns(CASES[1], {"stage1"})


def test_the_losses_are_those_by_hand():
    embeddings, _ = method.regions(6)
    labels = np.array([0, 1, 2, 3, 7, 1])
    config = dataclasses.replace(CONFIG, center=True)
    scorer, own, known = method.halves(config, tiny.unit_vectors(7, 5))
    assert np.linalg.norm(own["background"]) == pytest.approx(1)
    found = scorer.losses(torch.from_numpy(embeddings), torch.from_numpy(labels), LossConfig())
    rows = np.concatenate([own["background"][None], known])
    values = np.zeros((6, 3))
    for r, v in enumerate(embeddings.astype(np.float64)):
        s = np.zeros(8)
        for t in range(3):
            carried = own["flow.weight"][t] @ np.maximum(s, 0) if t else 0
            s = own["visual.weight"][t] @ v + own["visual.bias"][t] + carried
            values[r, t] = np.log(np.exp(rows @ s).sum()) - rows[labels[r]] @ s
    for t, expected in enumerate(values.mean(axis=0) / [1, 2, 4]):
        assert found[f"stage{t + 1}"].item() == pytest.approx(expected, rel=1e-5)


def test_the_background_may_be_the_proposal_networks():
    own = torch.nn.Parameter(torch.randn(8))
    scorer = build_scorer(dataclasses.replace(CONFIG, background="rpn"), own)
    assert scorer.background is own
