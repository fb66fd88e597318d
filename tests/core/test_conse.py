"""ConSE-ZSD: by hand in float64, grown, as a graph, in a bundle, learned."""

import dataclasses

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from zsd_core.config import ScoringConfig
from zsd_core.errors import BundleError, ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers import build_scorer
from zsd_core.scoring import scorer_for

SEEN = tiny.unit_vectors(7, 5)
CONFIG = ScoringConfig(method="conse", conse_top=3, **method.SIZES)


def tensors():
    draw = tiny.random(2).normal
    return {
        "background": np.zeros(8, np.float32),
        "classifier.weight": draw(size=(8, 16)).astype(np.float32),
        "classifier.bias": draw(size=8).astype(np.float32),
        "center": SEEN.mean(axis=0),
    }


def hand(config, tensors, v, known, new):
    powers = np.exp(tensors["classifier.weight"] @ v + tensors["classifier.bias"])
    p = powers / powers.sum()
    best = sorted(range(7), key=lambda i: -p[1 + i])[: config.conse_top]
    combined = method.unit(sum(p[1 + i] * known[i] for i in best))
    return [*p[1:], *(max(vector @ combined, 0) * (1 - p[0]) for vector in new)]


CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, center=True, conse_top=50),
    dataclasses.replace(CONFIG, conse_top=1, seen_scale=0.3, objectness_power=2.0),
]


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    method.check_hand(config, tensors(), hand, unseen)


def test_classes_grow_bit_for_bit():
    method.check_growth(CASES[1], tensors())


def test_a_classifier_of_other_classes_is_refused():
    with pytest.raises(BundleError, match="6 seen classes for a classifier of 7"):
        scorer_for(CONFIG, tensors()).class_set(method.NAMES[:6], SEEN[:6], [], SEEN[:0])


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    method.check_graph(config, tensors(), unseen)


def test_a_bundle_runs(tmp_path, photo):
    method.check_bundle(tmp_path / "bundle", CONFIG, tensors(), photo)


def test_it_learns():
    method.check_learns(CONFIG, {"seen"})


def test_the_loss_is_that_by_hand():
    embeddings, _ = method.regions(6)
    labels = np.array([0, 1, 2, 3, 4, 1])
    scorer, own, _ = method.halves(CONFIG, tiny.unit_vectors(4, 5))
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)
    expected = method.cross_entropy(own, embeddings.astype(np.float64), labels)
    assert scorer.losses(*given, LossConfig())["seen"].item() == pytest.approx(expected, rel=1e-5)


def test_the_classifier_has_no_size_before_the_classes_are_known():
    with pytest.raises(ConfigError, match="read_classes"):
        build_scorer(CONFIG, None).tensors()
