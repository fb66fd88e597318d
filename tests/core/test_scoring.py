"""Class sets and scores: eq. 3, 6 and 14 by hand, and growth that changes no bit."""

import dataclasses

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from zsd_core.config import ScoringConfig
from zsd_core.errors import BundleError, ClassError, ConfigError, ShapeError
from zsd_core.kernels import reference
from zsd_core.scoring import ContrastScorer, Needed, scorer_for
from zsd_core.semantics import similarity

CONFIG = tiny.MODEL.scoring
SEEN = tiny.unit_vectors(3, 5)


def scorer(**changes):
    return ContrastScorer(tiny.scorer_tensors(), dataclasses.replace(CONFIG, **changes))


def class_set(made, unseen, version=0):
    names = [f"u{i}" for i in range(len(unseen))]
    return made.class_set(["a", "b", "c"], SEEN, names, unseen, version)


def by_hand(config, embeddings, objectness, unseen):
    """Eq. 3, 6 and 14 as printed, in float64, with S in full."""
    t = {k: v.astype(np.float64) for k, v in tiny.scorer_tensors().items()}
    vectors = np.concatenate([t["background"][None], SEEN, unseen]).astype(np.float64)

    def two_layers(path, rows):
        hidden = np.maximum(rows @ t[f"{path}.weight1"].T + t[f"{path}.bias1"], 0)
        return hidden @ t[f"{path}.weight2"].T + t[f"{path}.bias2"]

    prototypes = np.maximum(two_layers("project_semantic", vectors), 0)
    products = embeddings[:, None].astype(np.float64) * prototypes
    seen = two_layers("score_seen", products)
    if config.seen_activation == "relu":
        seen = np.maximum(seen, 0)
    unseen_probability = 1 / (1 + np.exp(-two_layers("score_unseen", products[:, 4:])))
    s = similarity(SEEN, unseen, config.similarity_temperature).astype(np.float64)
    activated = {
        "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "raw": lambda x: x,
    }[config.fusion](seen)
    factor = unseen_probability @ s.T if len(unseen) else np.ones_like(activated)
    scores = (factor * activated)[:, 1:]
    scores[:, :3] *= config.seen_scale
    return scores * objectness[:, None] ** config.objectness_power


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("fusion", ["softmax", "sigmoid", "raw"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_scores_are_the_papers(unseen, fusion, activation):
    made = scorer(fusion=fusion, seen_activation=activation, seen_scale=0.7, objectness_power=0.5)
    vectors = tiny.unit_vectors(unseen, 8)
    rng = tiny.random(1)
    embeddings = np.maximum(rng.normal(size=(7, tiny.JOINT)), 0).astype(np.float32)
    objectness = rng.uniform(size=7).astype(np.float32)

    scores = made.score(embeddings, objectness, class_set(made, vectors))

    expected = by_hand(made.config, embeddings, objectness, vectors)
    assert scores.shape == (7, 3 + unseen)
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=1e-6)


def test_the_reference_kernels_give_the_same_scores():
    made = scorer()
    twin = scorer_for(CONFIG, tiny.scorer_tensors(), kernels=reference)
    classes = class_set(made, tiny.unit_vectors(2, 8))
    embeddings = np.abs(tiny.random(1).normal(size=(5, tiny.JOINT))).astype(np.float32)
    objectness = np.ones(5, np.float32)

    np.testing.assert_allclose(
        made.score(embeddings, objectness, classes),
        twin.score(embeddings, objectness, classes),
        rtol=1e-5,
    )


def test_probabilities_of_huge_logits_are_finite_and_quiet():
    tensors = tiny.scorer_tensors()
    for sign in (1, -1):
        tensors["score_unseen.bias2"] = np.float32([sign * 500])
        made = ContrastScorer(tensors, CONFIG)
        scores = made.score(
            np.ones((1, tiny.JOINT), np.float32),
            np.ones(1, np.float32),
            class_set(made, tiny.unit_vectors(2, 8)),
        )
        assert np.isfinite(scores).all()


@settings(max_examples=30)
@given(
    parts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    width=st.sampled_from([(8, 16), (7, 13), (64, 96)]),
    seed=st.integers(0, 99),
)
def test_growing_equals_building_at_once_bit_for_bit(parts, width, seed):
    vector, joint = width
    config = ScoringConfig(
        vector_dim=vector, joint_dim=joint, hidden_dim=5, similarity_temperature=0.1
    )
    made = ContrastScorer(tiny.scorer_tensors(seed, vector, joint, 5), config)
    seen, unseen = tiny.unit_vectors(9, 1, vector), tiny.unit_vectors(sum(parts), seed, vector)
    unseen *= 3  # rows are brought to unit length on the way in
    seen_names = [f"s{i}" for i in range(9)]
    names = [f"u{i}" for i in range(len(unseen))]
    whole = made.class_set(seen_names, seen, names, unseen)

    grown, start = made.class_set(seen_names, seen, [], unseen[:0]), 0
    for part in parts:
        end = start + part
        grown = made.extend(grown, names[start:end], unseen[start:end], 0)
        start = end

    assert grown.names == whole.names
    assert grown.roles == whole.roles
    np.testing.assert_array_equal(grown.prototypes, whole.prototypes)
    np.testing.assert_array_equal(grown.seen_similarity, whole.seen_similarity)


def test_keeping_some_equals_building_them():
    made, vectors = scorer(), tiny.unit_vectors(5, 8)
    kept = made.keep(class_set(made, vectors), [4, 1], version=9)
    built = made.class_set(["a", "b", "c"], SEEN, ["u4", "u1"], vectors[[4, 1]])

    assert kept.names == built.names
    assert kept.version == 9
    np.testing.assert_array_equal(kept.prototypes, built.prototypes)
    np.testing.assert_array_equal(kept.seen_similarity, built.seen_similarity)


def test_a_class_set_does_not_change_when_two_others_grow_from_it():
    made, vectors = scorer(), tiny.unit_vectors(5, 8)
    old = class_set(made, vectors[:2])
    before = old.prototypes.copy(), old.seen_similarity.copy()

    first = made.extend(old, ["x"], vectors[2:3], 1)
    second = made.extend(old, ["y", "z"], vectors[3:], 1)

    np.testing.assert_array_equal(old.prototypes, before[0])
    np.testing.assert_array_equal(old.seen_similarity, before[1])
    alone = [made.class_set([], SEEN[:0], ["n"], vectors[i : i + 1]).prototypes[1] for i in (2, 3)]
    np.testing.assert_array_equal(first.prototypes[-1], alone[0])
    np.testing.assert_array_equal(second.prototypes[-2], alone[1])
    with pytest.raises(ValueError, match="read-only"):
        old.prototypes[0, 0] = 1


def test_growth_shares_the_rows_it_had():
    made, vectors = scorer(), tiny.unit_vectors(3, 8)
    old = class_set(made, vectors[:2])
    new = made.extend(old, ["x"], vectors[2:], 1)
    assert np.shares_memory(old.prototypes, new.prototypes)


def test_growth_beyond_the_spare_room_moves_and_is_right():
    made, vectors = scorer(), tiny.unit_vectors(300, 8)
    grown = class_set(made, vectors[:1])
    for i in range(1, 300):
        grown = made.extend(grown, [f"u{i}"], vectors[i : i + 1], i)
    np.testing.assert_array_equal(grown.prototypes, class_set(made, vectors).prototypes)


def test_a_missing_tensor_is_named_with_what_to_do():
    tensors = tiny.scorer_tensors()
    del tensors["score_unseen.bias2"]
    with pytest.raises(
        BundleError, match=r"'score_unseen.bias2' is missing; export the checkpoint again"
    ):
        ContrastScorer(tensors, CONFIG)


def test_tensors_that_do_not_fit_each_other_are_refused():
    tensors = tiny.scorer_tensors()
    tensors["score_seen.bias1"] = np.zeros(tiny.HIDDEN + 1, np.float32)
    with pytest.raises(ShapeError, match=r"score_seen\.bias1"):
        ContrastScorer(tensors, CONFIG)


def test_an_unknown_method_lists_the_known():
    config = ScoringConfig(method="contrast")
    with pytest.raises(ConfigError, match="did you mean 'contrastzsd'"):
        scorer_for(config, tiny.scorer_tensors())


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_named(bad):
    made = scorer()
    with pytest.raises(ClassError, match="class 'u1' has length"):
        class_set(made, np.stack([SEEN[0], np.full(tiny.VECTOR, bad, np.float32)]))


def test_a_vector_of_the_wrong_width_says_the_right_one():
    with pytest.raises(ShapeError, match="width 8"):
        class_set(scorer(), np.ones((1, 9), np.float32))


@pytest.mark.parametrize("fusion", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("scale", "power"), [(1.0, 1.0), (2.5, 3.0), (0.3, 0.5)])
def test_less_objectness_than_the_bound_gives_no_score_above_the_threshold(fusion, scale, power):
    made = scorer(fusion=fusion, seen_scale=scale, objectness_power=power)
    embeddings = 50 * np.abs(tiny.random(0).normal(size=(300, tiny.JOINT))).astype(np.float32)
    classes = class_set(made, tiny.unit_vectors(2, 8))
    for threshold in (0.01, 0.2, 0.9):
        least = made.least_objectness(threshold)
        below = np.full(len(embeddings), np.nextafter(np.float32(least), np.float32(0)))
        assert 0 < least < 1
        assert made.score(embeddings, below, classes).max() <= threshold


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    threshold=st.floats(0, 1),
    hidden=st.booleans(),
    fusion=st.sampled_from(["softmax", "sigmoid", "raw"]),
    evidence=st.booleans(),
    unseen=st.sampled_from([0, 1, 127, 128, 200]),
    images=st.integers(1, 3),
)
def test_leaving_out_what_is_not_needed_changes_nothing_above_a_threshold(
    seed, threshold, hidden, fusion, evidence, unseen, images
):
    made = scorer(fusion=fusion, seen_evidence=evidence, seen_scale=0.5, objectness_power=1.0)
    classes, rng = class_set(made, tiny.unit_vectors(unseen, 8)), tiny.random(seed)
    embeddings = np.maximum(rng.normal(size=(30, tiny.JOINT)) * 3, 0).astype(np.float32)
    objectness = rng.uniform(size=30).astype(np.float32)
    owners = np.sort(rng.integers(0, images, 30)).astype(np.int32)
    every = made.score(embeddings, objectness, classes)
    # A threshold in the midst of the scores, so that there is something on either side.
    thresholds = np.full(every.shape[1], np.quantile(every, threshold), np.float32)
    thresholds[: 1 if hidden else 0] = np.inf

    some = made.score(embeddings, objectness, classes, Needed(thresholds, owners))

    above = every > thresholds
    assert np.array_equal(some > thresholds, above)
    assert np.array_equal(some[above], every[above])
    assert (some <= every).all()
    asked = thresholds < np.inf
    for image in np.unique(owners):  # how close it came can always be told
        best = some[owners == image][:, asked].max(axis=1, initial=-np.inf).argmax()
        row = np.flatnonzero(owners == image)[best]
        assert np.array_equal(some[row], every[row])


def test_regions_that_cannot_be_detected_are_not_asked_for_all_classes():
    made = scorer(fusion="softmax", seen_scale=0.5, objectness_power=5.0)
    classes = class_set(made, tiny.unit_vectors(200, 8))
    embeddings = np.abs(tiny.random(0).normal(size=(40, tiny.JOINT))).astype(np.float32)
    objectness = np.linspace(0, 1, 40, dtype=np.float32)
    every = made.score(embeddings, objectness, classes)
    thresholds = np.full(every.shape[1], np.quantile(every, 0.999), np.float32)
    some = made.score(embeddings, objectness, classes, Needed(thresholds, np.zeros(40, np.int32)))
    left_out = (some == 0).all(axis=1)
    assert 5 < left_out.sum() < 40


def test_objectness_bounds_nothing_where_scores_are_raw_or_ignore_it():
    assert scorer(fusion="raw", objectness_power=1.0).least_objectness(0.5) == 0
    assert scorer(objectness_power=0.0).least_objectness(0.5) == 0
    assert scorer(objectness_power=1.0).least_objectness(0.0) == 0


def test_int8_scores_are_near_and_other_precisions_are_refused():
    embeddings = np.abs(tiny.random(0).normal(size=(40, tiny.JOINT))).astype(np.float32)
    objectness = np.ones(40, np.float32)
    exact = scorer_for(CONFIG, tiny.scorer_tensors())
    small = scorer_for(CONFIG, tiny.scorer_tensors(), precision="int8")
    classes = class_set(exact, tiny.unit_vectors(2, 8))
    expected, got = (made.score(embeddings, objectness, classes) for made in (exact, small))
    assert 0 < np.abs(expected - got).max() < 0.05
    with pytest.raises(ConfigError, match="'float32' or 'int8'"):
        scorer_for(CONFIG, tiny.scorer_tensors(), precision="int4")
