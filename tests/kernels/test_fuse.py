from __future__ import annotations

import numpy as np
import pytest

from zsd_core import kernels
from zsd_core.errors import ConfigError, ShapeError
from zsd_core.kernels import reference
from zsd_core.semantics import seen_similarity, similarity


def fuse_arguments(regions, seen, unseen, seed=0):
    rng = np.random.default_rng(seed)
    block = seen_similarity(rng.standard_normal((seen, 8)), rng.standard_normal((unseen, 8)), 0.3)
    logits = rng.standard_normal((regions, 1 + seen + unseen)) * 4
    return tuple(a.astype(np.float32) for a in (logits, rng.random((regions, unseen)), block))


@pytest.mark.parametrize("fusion", ["softmax", "sigmoid", "raw"])
@pytest.mark.parametrize(
    "shape", [(0, 3, 2), (1, 1, 0), (5, 0, 1), (4, 0, 0), (3, 2, 16), (67, 48, 17), (2, 3, 1155)]
)
def test_agrees_with_the_float64_twin(shape, fusion):
    arguments = fuse_arguments(*shape)
    objectness = np.linspace(0, 1, shape[0], dtype=np.float32)
    for power, evidence in ((0.0, False), (0.4, False), (0.0, True), (0.4, True)):
        options = {
            "fusion": fusion,
            "seen_scale": 0.7,
            "objectness_power": power,
            "seen_evidence": evidence,
        }
        result = kernels.fuse(*arguments, objectness=objectness, **options)
        exact = reference.fuse(
            *(a.astype(np.float64) for a in arguments),
            objectness=objectness.astype(np.float64),
            **options,
        )
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, exact, rtol=2e-5, atol=1e-7)


def test_is_equation_14_with_s_in_full():
    rng = np.random.default_rng(1)
    seen, unseen = rng.standard_normal((5, 8)), rng.standard_normal((3, 8))
    logits, probabilities = rng.standard_normal((6, 9)), rng.random((6, 3))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = ((probabilities @ similarity(seen, unseen, 0.5).T) * softmax)[:, 1:]
    block = seen_similarity(seen, unseen, 0.5)
    result = kernels.fuse(logits, probabilities, block, fusion="softmax")
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_seen_evidence_is_the_similarity_expected_of_the_seen_classes():
    logits, probabilities, block = fuse_arguments(6, 5, 3)
    shares = np.exp(logits[:, 1:6].astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    plain = kernels.fuse(logits, probabilities, block, fusion="softmax")
    result = kernels.fuse(logits, probabilities, block, fusion="softmax", seen_evidence=True)
    assert np.array_equal(result[:, :5], plain[:, :5])
    np.testing.assert_allclose(result[:, 5:], plain[:, 5:] * (shares @ block), rtol=1e-5)


def test_without_unseen_classes_the_factor_is_one():
    logits = np.array([[0.0, 1.0, 2.0]], np.float32)
    scores = kernels.fuse(logits, np.zeros((1, 0)), np.zeros((2, 0)), fusion="softmax")
    assert scores.sum() == pytest.approx(1 - np.exp(0) / np.exp([0, 1, 2]).sum(), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(value):
    arguments = fuse_arguments(5, 4, 3)
    clean = kernels.fuse(*arguments, fusion="softmax")
    arguments[0][2, 3] = value
    result = kernels.fuse(*arguments, fusion="softmax")
    others = np.arange(5) != 2
    assert np.array_equal(result[others], clean[others])


def test_errors_are_sentences():
    arguments = fuse_arguments(5, 4, 3)
    with pytest.raises(ConfigError, match="'max', must be 'softmax', 'sigmoid' or 'raw'"):
        kernels.fuse(*arguments, fusion="max")
    with pytest.raises(ShapeError, match="objectness"):
        kernels.fuse(*arguments, fusion="raw", objectness_power=1.0)
    with pytest.raises(ShapeError, match="seen_logits has shape"):
        kernels.fuse(arguments[0][:, 1:], *arguments[1:], fusion="raw")
