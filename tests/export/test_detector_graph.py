"""The ONNX middle of ``detector.onnx`` against the reference kernels, operator by operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from export.graphs import detector as graph
from export.graphs.compose import new_builder, sealed
from export.graphs.scorers import contrastzsd
from zsd_core.config import DetectionConfig, ProposalConfig, RegionConfig, ScoringConfig
from zsd_core.kernels import reference

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def session(function, **inputs):
    """One operator of the middle as a checked model in ONNX Runtime."""
    builder = new_builder("operator")
    outputs = function(builder.op, *(builder.input(n, d, s) for n, (d, s) in inputs.items()))
    builder.graph.outputs.extend(outputs if isinstance(outputs, tuple) else [outputs])
    model = ir.to_proto(sealed(builder))
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda *arrays: loaded.run(None, dict(zip(inputs, arrays, strict=True)))


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def boxes(rng, count, side):
    corners = np.sort(rng.uniform(0, side, (count, 2, 2)), axis=1)
    return corners.astype(np.float32).reshape(count, 4)


def assert_same(got, expected, tolerance=2e-5):
    assert [g.shape for g in got] == [e.shape for e in expected]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-6, atol=tolerance)


PROPOSALS = ProposalConfig(
    stride=16, anchor_sizes=(24.0, 64.0), pre_nms_top=100, post_nms_top=20, min_size=4.0
)


@pytest.fixture(scope="module")
def propose():
    anchors = len(PROPOSALS.anchors())
    return session(
        lambda op, *values: graph.propose(op, *values, PROPOSALS),
        objectness=(FLOAT, ["N", anchors, "H", "W"]),
        deltas=(FLOAT, ["N", 4 * anchors, "H", "W"]),
        image_sizes=(FLOAT, ["N", 2]),
    )


def reference_propose(objectness, deltas, sizes):
    limits = ("stride", "pre_nms_top", "post_nms_top", "nms_threshold", "min_size")
    return reference.propose(
        objectness,
        deltas,
        PROPOSALS.anchors(),
        sizes,
        **{name: getattr(PROPOSALS, name) for name in limits},
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (2, 9, 9), (3, 2, 13)], ids=str)
@pytest.mark.parametrize("step", [0.0, 25.0], ids=["distinct", "tied and saturated"])
def test_propose_selects_what_the_reference_selects(propose, shape, step):
    rng = np.random.default_rng(0)
    batch, height, width = shape
    anchors = len(PROPOSALS.anchors())
    objectness = 40 * normal(rng, batch, anchors, height, width)
    if step:  # many equal logits, and many that sigmoid cannot tell from 1
        objectness = np.round(objectness / step) * np.float32(step)
    deltas = 0.3 * normal(rng, batch, 4 * anchors, height, width)
    sizes = rng.uniform(8, 16, (batch, 2)).astype(np.float32) * np.float32([height, width])

    expected = reference_propose(objectness, deltas, sizes)
    assert len(expected[0])
    assert_same(propose(objectness, deltas, sizes), expected)


def test_propose_of_an_image_below_min_size_is_empty_beside_one_that_is_not(propose):
    rng = np.random.default_rng(1)
    anchors = len(PROPOSALS.anchors())
    objectness, deltas = normal(rng, 3, anchors, 4, 4), normal(rng, 3, 4 * anchors, 4, 4)
    sizes = np.float32([[3, 60], [64, 64], [1, 1]])
    rois, batch_indices, _ = propose(objectness, deltas, sizes)
    assert len(rois) and set(batch_indices) == {1}
    nothing = propose(objectness[::2], deltas[::2], sizes[::2])
    assert [a.shape for a in nothing] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.6, 0.7, 0.9])
def test_a_box_at_the_threshold_is_treated_as_the_kernels_treat_it(threshold):
    # Integer boxes one pixel high: IoUs are ratios of small integers and hit thresholds exactly.
    config = DetectionConfig(nms_threshold=threshold, min_size=0.0)
    run = detect_session(config)
    widths = np.arange(1, 41, dtype=np.float32)
    rois = np.stack([0 * widths, 0 * widths, widths, 0 * widths + 1], axis=1)
    scores = np.random.default_rng(2).permutation(40)[:, None].astype(np.float32) + 1
    arguments = (
        scores,
        np.zeros((40, 4), np.float32),
        rois,
        np.zeros(40, np.int64),
        np.float32([[64, 64]]),
        np.float32([0.5]),
    )
    assert_same(run(*arguments), reference_detect(config, *arguments))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_roi_align_follows_the_reference(count, ratio):
    config = RegionConfig(stride=16, output_size=(7, 5), sampling_ratio=ratio)
    run = session(
        lambda op, *values: graph.roi_align(op, *values, config),
        features=(FLOAT, ["N", 6, "H", "W"]),
        rois=(FLOAT, ["R", 4]),
        batch=(INT64, ["R"]),
    )
    rng = np.random.default_rng(3)
    features, rois = normal(rng, 2, 6, 8, 9), boxes(rng, count, 170) - 10
    batch = rng.integers(0, 2, count)
    expected = reference.roi_align(
        features, rois, batch, output_size=(7, 5), spatial_scale=1 / 16, sampling_ratio=ratio
    )
    assert_same(run(features, rois, batch), [expected])


def mlp_weights(rng, joint, hidden):
    return [
        normal(rng, hidden, joint) / 5,
        normal(rng, hidden),
        normal(rng, hidden),
        normal(rng, 1),
    ]


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (7, 5), (40, 81)], ids=str)
def test_product_mlp_scores_every_pair_as_the_reference_does(shape):
    rng = np.random.default_rng(4)
    weights = mlp_weights(rng, 24, 16)

    def build(op, regions, prototypes):
        values = (op.initializer(ir.tensor(w), f"w{i}") for i, w in enumerate(weights))
        return graph.product_mlp(op, regions, prototypes, *values)

    run = session(build, regions=(FLOAT, ["R", 24]), prototypes=(FLOAT, ["K", 24]))
    regions, prototypes = np.abs(normal(rng, shape[0], 24)), np.abs(normal(rng, shape[1], 24))
    expected = reference.product_mlp(regions, prototypes, *weights)
    assert_same(run(regions, prototypes), [expected])


@pytest.mark.parametrize(
    "extra",
    [{}, {"seen_scale": 0.6, "objectness_power": 0.5}, {"seen_evidence": True, "seen_scale": 0.6}],
    ids=str,
)
@pytest.mark.parametrize("fusion", ["softmax", "sigmoid", "raw"])
def test_fuse_reads_equation_14_as_the_reference_does(fusion, extra):
    config = ScoringConfig(fusion=fusion, **extra)
    run = session(
        lambda op, *values: graph.fuse(op, *values, config),
        logits=(FLOAT, ["R", "K"]),
        unseen=(FLOAT, ["R", "U"]),
        similarity=(FLOAT, ["K", "U"]),
        objectness=(FLOAT, ["R"]),
    )
    rng = np.random.default_rng(5)
    for regions, seen, unseen in [(5, 3, 2), (0, 3, 2), (5, 3, 0), (0, 3, 0), (4, 3, 1), (4, 0, 2)]:
        logits = normal(rng, regions, 1 + seen + unseen)
        probabilities = rng.uniform(size=(regions, unseen)).astype(np.float32)
        block = rng.uniform(size=(seen, unseen)).astype(np.float32)
        objectness = rng.uniform(size=regions).astype(np.float32)
        expected = reference.fuse(
            logits, probabilities, block, fusion=fusion, objectness=objectness, **extra
        )
        got = run(logits, probabilities, full_similarity(block), objectness)
        assert_same(got, [expected], tolerance=1e-6)


def full_similarity(block):
    unseen = block.shape[1]
    background = np.zeros((1, unseen), np.float32)
    return np.concatenate([background, block, np.eye(unseen, dtype=np.float32)])


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_score_takes_the_unseen_path_over_the_last_rows_only(activation):
    config = ScoringConfig(joint_dim=24, hidden_dim=16, seen_activation=activation)
    rng = np.random.default_rng(6)
    paths = {name: mlp_weights(rng, 24, 16) for name in ("score_seen", "score_unseen")}

    def build(op, embeddings, objectness, prototypes, similarity):
        parts = ("weight1", "bias1", "weight2", "bias2")
        weights = {
            f"{name}.{part}": op.initializer(ir.tensor(array), f"{name}.{part}")
            for name, arrays in paths.items()
            for part, array in zip(parts, arrays, strict=True)
        }
        floors = op.initializer(ir.tensor(np.zeros(1, np.float32)), "floors")
        return contrastzsd.score(
            op, embeddings, objectness, prototypes, similarity, floors, weights, config
        )

    run = session(
        build,
        embeddings=(FLOAT, ["R", 24]),
        objectness=(FLOAT, ["R"]),
        prototypes=(FLOAT, ["K", 24]),
        similarity=(FLOAT, ["K", "U"]),
    )
    for regions, seen, unseen in [(6, 3, 2), (6, 3, 0), (0, 3, 0), (6, 3, 1), (2, 0, 3)]:
        embeddings = np.abs(normal(rng, regions, 24))
        prototypes = np.abs(normal(rng, 1 + seen + unseen, 24))
        block = rng.uniform(size=(seen, unseen)).astype(np.float32)
        seen_logits = reference.product_mlp(embeddings, prototypes, *paths["score_seen"])
        if activation == "relu":
            seen_logits = np.maximum(seen_logits, 0)
        unseen_logits = reference.product_mlp(
            embeddings, prototypes[1 + seen :], *paths["score_unseen"]
        )
        probabilities = 1 / (1 + np.exp(-unseen_logits))
        expected = reference.fuse(seen_logits, probabilities, block, fusion="softmax")
        similarity = full_similarity(block)
        got = run(embeddings, np.ones(regions, np.float32), prototypes, similarity)
        assert_same(got, [expected], tolerance=1e-6)


def detect_session(config):
    return session(
        lambda op, *values: graph.detect(op, *values, config),
        class_scores=(FLOAT, ["R", "C"]),
        deltas=(FLOAT, ["R", 4]),
        rois=(FLOAT, ["R", 4]),
        batch_indices=(INT64, ["R"]),
        image_sizes=(FLOAT, ["N", 2]),
        thresholds=(FLOAT, ["T"]),
    )


def reference_detect(config, class_scores, deltas, rois, batch_indices, sizes, thresholds):
    thresholds = np.broadcast_to(thresholds, class_scores.shape[1])
    return reference.detect(
        class_scores,
        deltas,
        rois,
        batch_indices,
        sizes,
        thresholds,
        nms_threshold=config.nms_threshold,
        max_detections=config.max_detections,
        min_size=config.min_size,
    )


DETECT_CASES = {
    "one image": (1, 30, 4, [0.1]),
    "three images": (3, 30, 4, [0.1]),
    "an image without regions": (4, 20, 3, [0.2]),
    "no region at all": (3, 0, 4, [0.1]),
    "nothing above the threshold": (2, 10, 1, [2.0]),
    "every pair": (2, 100, 30, [0.0]),
    "a threshold per class": (2, 50, 4, [np.inf, 0.1, np.inf, 0.5]),
}


@pytest.mark.parametrize("limit", [100, 5])
@pytest.mark.parametrize("case", DETECT_CASES.values(), ids=DETECT_CASES)
def test_detect_keeps_what_the_reference_keeps_in_the_same_order(case, limit):
    images, regions, classes, thresholds = case
    config = DetectionConfig(max_detections=limit, min_size=2.0)
    rng = np.random.default_rng(7)
    class_scores = rng.integers(0, 9, (regions, classes)).astype(np.float32) / 8  # many ties
    batch_indices = np.sort(rng.integers(0, images, regions))
    if images == 4:
        batch_indices[batch_indices == 1] = 2
    arguments = (
        class_scores,
        normal(rng, regions, 4),
        boxes(rng, regions, 100),
        np.sort(batch_indices),
        np.tile(np.float32([90, 80]), (images, 1)),
        np.float32(thresholds),
    )
    expected = reference_detect(config, *arguments)
    assert bool(len(expected[1])) == (regions > 0 and thresholds != [2.0])
    assert_same(detect_session(config)(*arguments), expected)
