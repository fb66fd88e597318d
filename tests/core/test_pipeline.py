"""One definition of inference: grouping, coordinates, empty images, times."""

import dataclasses
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core import pipeline, stages
from zsd_core.errors import ConfigError, DeviceError, ImageError, ShapeError
from zsd_core.kernels import reference
from zsd_core.scoring import scorer_for


@pytest.fixture(scope="module")
def parts(bundle_path):
    bundle = open_bundle(bundle_path)
    scorer = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    vectors, count = bundle.class_vectors, len(bundle.seen)
    classes = scorer.class_set(bundle.seen, vectors[:count], bundle.unseen, vectors[count:])
    networks = open_backend("onnxruntime", bundle, threads=1)
    yield networks, scorer, classes, bundle.model_config
    networks.close()


def run(networks, scorer, classes, config, images, thresholds, **options):
    own = {name: options.pop(name) for name in ("kernels", "clock") if name in options}
    host = pipeline.HostPipeline(networks, config, scorer, **own)
    return host.run(classes, images, thresholds, **options)


def everything(parts):
    return np.zeros(len(parts[2].names), np.float32)


def image(height, width, seed=0):
    coarse = tiny.random(seed).integers(0, 256, (-(-height // 9), -(-width // 9), 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(9, 0).repeat(9, 1)[:height, :width])


SIZES = st.tuples(st.integers(1, 150), st.integers(1, 150))


@settings(max_examples=25)
@given(sizes=st.lists(SIZES, max_size=6), max_batch=st.integers(1, 4))
def test_a_batch_of_any_sizes_equals_single_images(parts, sizes, max_batch):
    images = [image(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    thresholds = everything(parts)

    batch = run(*parts, images, thresholds, max_batch=max_batch)
    single = [run(*parts, [i], thresholds)[0] for i in images]

    assert len(batch) == len(images)
    for ours, alone in zip(batch, single, strict=True):
        np.testing.assert_array_equal(ours.columns, alone.columns)
        np.testing.assert_allclose(ours.scores, alone.scores, rtol=1e-6)
        np.testing.assert_allclose(ours.boxes, alone.boxes, rtol=1e-5, atol=1e-4)


@settings(max_examples=25)
@given(size=SIZES)
def test_boxes_lie_inside_the_original_image(parts, size):
    (result,) = run(*parts, [image(*size)], everything(parts))
    height, width = size
    assert result.boxes.dtype == np.float32
    assert (result.boxes >= 0).all()
    assert (result.boxes <= [width, height, width, height]).all()
    assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()


def test_a_box_keeps_its_place_when_the_image_is_twice_as_large(parts):
    small = image(64, 96)
    large = small.repeat(2, axis=0).repeat(2, axis=1)  # resized back to the very same input
    one, two = run(*parts, [small, large], everything(parts))
    assert len(one.boxes) > 0
    np.testing.assert_allclose(two.boxes, 2 * one.boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(two.scores, one.scores, rtol=1e-5)


def test_to_original_scales_each_axis_by_its_own_ratio():
    boxes = np.float32([[0, 0, 50, 100], [25, 50, 50, 100]])
    result = stages.to_original(boxes, (100, 50), (300, 75))
    np.testing.assert_allclose(result, [[0, 0, 75, 300], [37.5, 150, 75, 300]])


def test_the_reference_kernels_find_the_same(parts):
    networks, _, classes, config = parts
    scorer = scorer_for(config.scoring, tiny.scorer_tensors(), kernels=reference)
    images = [image(100, 140)]
    (ours,) = run(*parts, images, everything(parts))
    (twin,) = run(networks, scorer, classes, config, images, everything(parts), kernels=reference)
    np.testing.assert_array_equal(ours.columns, twin.columns)
    np.testing.assert_allclose(ours.boxes, twin.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(ours.scores, twin.scores, rtol=1e-4)


def test_bgr_finds_what_rgb_does(parts):
    rgb = image(90, 120)
    (one,) = run(*parts, [rgb], everything(parts))
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    (two,) = run(*parts, [bgr], everything(parts), color="bgr")
    (wrong,) = run(*parts, [bgr], everything(parts))
    np.testing.assert_array_equal(one.scores, two.scores)
    assert not np.array_equal(one.scores, wrong.scores)


def test_thresholds_hide_classes_and_results_are_sorted(parts):
    thresholds = np.full(len(parts[2].names), np.inf, np.float32)
    thresholds[[1, 3]] = 0
    (result,) = run(*parts, [image(90, 120)], thresholds)
    assert set(result.columns.tolist()) == {1, 3}
    assert (np.diff(result.scores) <= 0).all()
    assert result.best is None


def test_an_empty_result_names_the_best_class_that_was_asked_for(parts):
    thresholds = np.full(len(parts[2].names), np.inf, np.float32)
    thresholds[2] = 1.0
    (empty,) = run(*parts, [image(90, 120)], thresholds)
    thresholds[2] = 0.0
    (found,) = run(*parts, [image(90, 120)], thresholds)
    assert len(empty.boxes) == 0
    score, column = empty.best
    assert column == 2
    assert score >= found.scores[0] > 0


class NoRegions:
    """Networks whose proposal stage finds nothing; the head must not run."""

    def __init__(self, networks):
        self._networks = networks

    def trunk(self, images):
        features, objectness, deltas = self._networks.trunk(images)
        return features, objectness, np.full_like(deltas, -50)  # all lie outside of the image

    def head(self, region_features):
        raise AssertionError("the head was run on no region")


def test_no_region_is_an_ordinary_image(parts):
    networks, *rest = parts
    results = run(NoRegions(networks), *rest, [image(9, 9)] * 2, everything(parts))
    for result in results:
        assert result.boxes.shape == (0, 4)
        assert result.boxes.dtype == np.float32
        assert result.best is None
        assert set(result.times_ms) == set(stages.STAGES)


def test_limits_given_to_the_call_win(parts):
    (few,) = run(*parts, [image(90, 120)], everything(parts), max_detections=3)
    assert len(few.scores) == 3
    (all_,) = run(
        *parts, [image(90, 120)], everything(parts), max_detections=10**6, nms_threshold=1.0
    )
    assert len(all_.scores) > parts[3].detection.max_detections


def test_times_of_a_batch_are_shared_equally(parts):
    ticks = iter(range(1000))
    results = run(*parts, [image(64, 64)] * 2, everything(parts), clock=lambda: next(ticks))
    for result in results:
        assert result.times_ms == dict.fromkeys(stages.STAGES, 500.0)


def test_wrong_arguments_are_refused(parts):
    good = everything(parts)
    with pytest.raises(ShapeError, match="one threshold per class"):
        run(*parts, [image(9, 9)], good[:-1])
    for wrong in (image(9, 9)[:, :, 0], image(9, 9)[:0], image(9, 9) / 255):
        with pytest.raises(ImageError, match="image1"):
            run(*parts, [image(9, 9), wrong], good)
    for number in (0, 2.5, "2"):
        with pytest.raises(ConfigError, match=r"max_batch is .*, must be a whole number"):
            run(*parts, [image(9, 9)], good, max_batch=number)
    with pytest.raises(ConfigError, match="'rgb' or 'bgr'"):
        run(*parts, [image(9, 9)], good, color="BGR")


def test_max_batch_bounds_what_the_networks_see(parts):
    networks, *rest = parts
    seen = []

    class Counting(NoRegions):
        def trunk(self, images):
            seen.append(len(images))
            return super().trunk(images)

    run(Counting(networks), *rest, [image(64, 64)] * 7, everything(parts), max_batch=3)
    assert seen == [3, 3, 1]


def test_objectness_power_reaches_the_scores(parts):
    networks, _, classes, config = parts
    scoring = dataclasses.replace(config.scoring, objectness_power=1.0)
    scorer = scorer_for(scoring, tiny.scorer_tensors())
    (plain,) = run(*parts, [image(64, 64)], everything(parts))
    (weighted,) = run(networks, scorer, classes, config, [image(64, 64)], everything(parts))
    assert weighted.scores[0] < plain.scores[0]


@pytest.mark.parametrize("threshold", [0.005, 0.01])
def test_regions_that_objectness_rules_out_change_no_detection(parts, threshold, monkeypatch):
    networks, scorer, classes, config = parts
    proposals = dataclasses.replace(config.proposals, pre_nms_top=1000, post_nms_top=200)
    config = dataclasses.replace(config, proposals=proposals)
    scoring = dataclasses.replace(config.scoring, objectness_power=1.0)
    scorer = type(scorer)(scorer.tensors, scoring)
    images = [image(64, 96, 1), image(64, 96, 2), image(30, 90, 3)]
    thresholds = np.full(len(classes.names), threshold, np.float32)
    seen = []

    def spread(images):
        features, objectness, deltas = networks.trunk(images)
        objectness -= objectness.mean()  # objectness from nearly 0 to nearly 1
        return features, 4 * objectness / objectness.std(), deltas

    counting = SimpleNamespace(trunk=spread, head=lambda x: seen.append(len(x)) or networks.head(x))

    fewer = run(counting, scorer, classes, config, images, thresholds)
    pruned = sum(seen)
    monkeypatch.setattr(type(scorer), "least_objectness", lambda self, threshold: 0.0)
    every = run(counting, scorer, classes, config, images, thresholds)

    assert 0 < pruned < sum(seen) - pruned
    assert sum(len(result.boxes) for result in every) > 0
    for ours, full in zip(fewer, every, strict=True):
        np.testing.assert_array_equal(ours.columns, full.columns)
        np.testing.assert_allclose(ours.scores, full.scores, rtol=1e-6)
        np.testing.assert_allclose(ours.boxes, full.boxes, rtol=1e-5, atol=1e-4)


def test_portions_of_regions_change_nothing(parts, monkeypatch):
    whole = run(*parts, [image(64, 96)], everything(parts))
    monkeypatch.setattr(stages, "PORTION", 3 * 4 * tiny.CHANNELS * 9)  # three regions
    (result,) = run(*parts, [image(64, 96)], everything(parts))
    assert len(result.boxes) > 3
    np.testing.assert_array_equal(result.columns, whole[0].columns)
    np.testing.assert_allclose(result.boxes, whole[0].boxes, rtol=1e-5, atol=1e-4)


def test_images_that_the_memory_does_not_hold_are_refused_with_a_sentence(parts):
    networks, scorer, classes, config = parts
    large = dataclasses.replace(
        config, preprocess=dataclasses.replace(config.preprocess, square=16384)
    )
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1])
    )  # the network input alone takes 3 GiB
    try:
        with pytest.raises(DeviceError, match="not enough memory for 1 images, 8 at a time"):
            run(networks, scorer, classes, large, [image(20, 20)], everything(parts))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert run(*parts, [image(20, 20)], everything(parts))
