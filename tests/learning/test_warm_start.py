"""Heads that start as a ridge regression: exactly the dot product, and nothing of it lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.models.head import Projection
from zsd_core.learning.models.scorers import build_scorer
from zsd_core.learning.training.warm_start import fit_ridge, regress, warm_start

CONFIG = ScoringConfig(vector_dim=12, joint_dim=64, hidden_dim=8, contrast_dim=8, center=True)


@pytest.fixture
def task():
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(7, 12), dim=1)
    scorer = build_scorer(CONFIG, None)
    scorer.read_classes(vectors[:5], vectors[5:])
    maps = torch.randn(12, 20)
    labels = torch.randint(0, 6, (600,))
    rows = torch.cat([torch.zeros(1, 12), scorer.centered(vectors[:5])])
    features = rows[labels] @ maps + 0.1 * torch.randn(600, 20)
    return scorer, vectors, features, labels


def ridge_of(task, strength=0.01):
    scorer, vectors, features, labels = task
    seen = scorer.centered(vectors[:5])
    return fit_ridge(features, labels, torch.ones(len(labels)), seen, strength)


def test_the_heads_are_the_dot_product(task):
    scorer, vectors, features, _ = task
    ridge, visual = ridge_of(task), Projection(20, CONFIG.joint_dim)
    warm_start(visual, scorer, ridge)
    with torch.no_grad():
        embeddings, prototypes = visual(features), scorer.prototypes(vectors)
        found = features @ ridge.weight + ridge.bias
        dots = found @ (scorer.centered(vectors) @ ridge.basis.T).T
        seen = scorer.seen_logits(embeddings, prototypes)
        unseen = scorer.unseen_logits(embeddings, prototypes[6:])
    background = (ridge.margin + features @ ridge.empty_weight + ridge.empty_bias).clamp(min=0)
    assert background.std() > 0.01  # every region has its own
    expected = torch.cat([background[:, None], dots], dim=1) / ridge.temperature
    torch.testing.assert_close(seen, expected, atol=1e-3, rtol=1e-3)
    margin = ridge.margin / ridge.temperature
    torch.testing.assert_close(unseen, expected[:, 6:] - margin, atol=1e-3, rtol=1e-3)


def test_it_knows_classes_and_background_of_what_it_was_fitted_on(task):
    scorer, vectors, features, labels = task
    visual = Projection(20, CONFIG.joint_dim)
    warm_start(visual, scorer, ridge_of(task))
    with torch.no_grad():
        logits = scorer.seen_logits(visual(features), scorer.prototypes(vectors[:5]))
    assert (logits.argmax(dim=1) == labels).float().mean() > 0.95


def test_background_that_looks_like_no_class_is_known_by_its_own_column():
    torch.manual_seed(1)
    seen = F.normalize(torch.randn(4, 12), dim=1)
    labels = torch.randint(0, 5, (800,))
    features = 0.3 * torch.randn(800, 20)
    features[:, :4] += F.one_hot(labels, 5)[:, 1:]
    features[:, 4] += (labels == 0) * 3.0  # a direction that no class vector explains
    ridge = fit_ridge(features, labels, torch.ones(800), seen, 0.01)
    background = ridge.background(features)
    assert background[labels == 0].mean() > background[labels > 0].mean() + 0.3


def test_objects_have_the_length_one(task):
    ridge, (_, _, features, labels) = ridge_of(task), task
    lengths = (features @ ridge.weight + ridge.bias)[labels > 0].norm(dim=1)
    np.testing.assert_allclose(lengths.mean(), 1, rtol=1e-5)


def test_every_part_still_learns(task):
    scorer, vectors, features, labels = task
    visual = Projection(20, CONFIG.joint_dim)
    warm_start(visual, scorer, ridge_of(task))
    logits = scorer.seen_logits(visual(features), scorer.prototypes(vectors[:5]))
    F.cross_entropy(logits, labels).backward()
    assert (scorer.score_seen.output.weight.grad != 0).sum() > 1
    assert scorer.project_semantic.linear1.weight.grad.abs().sum() > 0
    assert visual.linear1.weight.grad.abs().sum() > 0


def test_a_joint_space_too_narrow_is_refused(task):
    scorer, *_ = task
    with pytest.raises(ConfigError, match="joint_dim above 16"):
        warm_start(Projection(20, 16), scorer, ridge_of(task))


def test_another_method_is_refused(task):
    other = build_scorer(dataclasses.replace(CONFIG, method="conse"), None)
    with pytest.raises(ConfigError, match="conse"):
        warm_start(Projection(20, 64), other, ridge_of(task))


def test_features_that_do_not_vary_are_refused(task):
    scorer, vectors, features, labels = task
    with pytest.raises(ConfigError, match="alike"):
        ridge_of((scorer, vectors, torch.zeros_like(features), labels))


def test_regression_finds_a_linear_map():
    torch.manual_seed(0)
    features, weight, bias = torch.randn(500, 6), torch.randn(6, 4), torch.randn(4)
    found = regress(features, features @ weight + bias, torch.rand(500), 1e-6)
    torch.testing.assert_close(found, (weight, bias), atol=1e-4, rtol=1e-4)
