"""TD: by hand in float64, grown, as a graph, in a bundle, learned."""

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
from zsd_core.scoring import scorer_for

CONFIG = ScoringConfig(method="td", td_words=3, **(method.SIZES | {"vector_dim": 12}))
CASES = [CONFIG, dataclasses.replace(CONFIG, seen_scale=0.3, objectness_power=2.0)]


def tensors():
    draw = tiny.random(2).normal
    shapes = {"word.weight": (8, 4), "region.weight": (8, 16), "region.bias": 8}
    shapes |= {"empty.weight": (1, 16), "empty.bias": 1}
    made = {name: draw(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {"background": np.zeros(12, np.float32), **made}


def matched(tensors, v, vector):
    """The logit of a class by hand."""
    point = tensors["region.weight"] @ v + tensors["region.bias"]
    words = [word for word in vector.reshape(3, 4) if word.any()]
    dots = np.array([point @ tensors["word.weight"] @ method.unit(word) for word in words])
    powers = np.exp(dots / np.sqrt(8))
    return float(powers @ dots / powers.sum())


def hand(config, tensors, v, known, new):
    empty = float(tensors["empty.weight"][0] @ v + tensors["empty.bias"][0])
    powers = np.exp([empty, *(matched(tensors, v, a) for a in (*known, *new))])
    return list(powers[1:] / powers.sum())


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    method.check_hand(config, tensors(), hand, unseen)


def test_a_missing_word_takes_no_part():
    vectors = tiny.unit_vectors(3, 5, 12)
    vectors[1, 8:] = 0
    vectors[2, :8] = 0
    scorer, (embeddings, objectness) = scorer_for(CONFIG, tensors()), method.regions(5)
    classes = scorer.class_set(["a", "b", "c"], vectors, [], vectors[:0])
    scores = scorer.score(embeddings, objectness, classes)
    exact = {name: tensor.astype(np.float64) for name, tensor in tensors().items()}
    expected = [hand(CONFIG, exact, v, vectors.astype(np.float64), []) for v in embeddings]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_classes_grow_bit_for_bit():
    method.check_growth(CONFIG, tensors())


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    method.check_graph(config, tensors(), unseen)


def test_a_bundle_runs(tmp_path, photo):
    method.check_bundle(tmp_path / "bundle", CASES[1], tensors(), photo)


def test_it_learns():
    method.check_learns(CONFIG, {"seen"})


def test_the_loss_is_that_by_hand():
    vectors, (embeddings, _) = tiny.unit_vectors(7, 5, 12), method.regions(6)
    vectors[1, 8:] = 0
    labels = np.array([0, 1, 2, 3, 7, 1])
    scorer, own, known = method.halves(CONFIG, vectors)
    values = []
    for v, y in zip(embeddings.astype(np.float64), labels, strict=True):
        chances = hand(CONFIG, own, v, known, [])
        values.append(-np.log(chances[y - 1] if y else 1 - sum(chances)))
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)
    found = scorer.losses(*given, LossConfig())["seen"]
    assert found.item() == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.parametrize("changes", [{"td_words": 5}, {"center": True}])
def test_a_class_vector_that_is_no_row_of_words_is_refused(changes):
    with pytest.raises(ConfigError, match="td_words vectors of one width behind each other"):
        build_scorer(dataclasses.replace(CONFIG, **changes), None)
