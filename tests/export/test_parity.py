"""Comparing stages, and ``python -m export.verify``, on a tiny bundle."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny
from tiny_detector import detector_bundle

from export import verify
from export.checks.differences import Comparison, Limits, table
from export.checks.images import NamedImage, folder_images, sample_images
from export.checks.parity import class_table
from export.checks.traces import DetectorGraph, inputs_of, pipeline_trace
from runtime import Detector
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError, ConfigError, DataError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(detector_bundle(tmp_path_factory.mktemp("detector") / "tiny"))


@pytest.fixture(scope="module")
def photographs():
    return [image for image in sample_images() if image.name in ("chelsea", "rocket", "noise")]


def trace(**changes):
    """Two images, three regions, four detections."""
    rng = np.random.default_rng(0)
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 70, 30], [0, 0, 10, 10]])
    made = {
        "features": rng.normal(size=(2, 3, 4, 4)).astype(np.float32),
        "rois": boxes[:3],
        "roi_batch_indices": np.array([0, 0, 1]),
        "roi_scores": np.float32([0.9, 0.5, 0.7]),
        "embeddings": rng.normal(size=(3, 5)).astype(np.float32),
        "boxes": boxes,
        "scores": np.float32([0.8, 0.4, 0.6, 0.3]),
        "columns": np.array([1, 2, 0, 3]),
        "batch_indices": np.array([0, 0, 1, 1]),
    }
    return made | changes


def compared(expected, got, config=tiny.MODEL, **limits):
    comparison = Comparison("a", "b", Limits(**limits), config)
    comparison.add(expected, got)
    return comparison, {row["stage"]: row for row in comparison.rows()}


def test_equal_traces_agree_in_every_row():
    comparison, rows = compared(trace(), trace())
    assert comparison.passed
    assert list(rows) == ["trunk: features", "regions: rois", "head: embeddings", "detections"]
    assert rows["regions: rois"]["matched"] == 3 and rows["detections"]["matched"] == 4


def test_order_does_not_matter_but_the_image_does():
    order = np.array([2, 0, 1])
    shuffled = {
        name: trace()[name][order] for name in ("rois", "roi_batch_indices", "roi_scores")
    } | {"embeddings": trace()["embeddings"][order]}
    assert compared(trace(), trace(**shuffled))[0].passed
    moved = trace(batch_indices=np.array([0, 1, 1, 1]))
    comparison, rows = compared(trace(), moved)
    assert not comparison.passed and rows["detections"]["matched"] == 3


@pytest.mark.parametrize("name", ["features", "embeddings", "boxes", "scores"])
def test_a_difference_beyond_its_limit_fails_its_row_alone(name):
    changed = trace()[name].copy()
    changed[0] += 0.06
    comparison, rows = compared(trace(), trace(**{name: changed}))
    assert not comparison.passed
    failed = [stage for stage, row in rows.items() if not row["passed"]]
    assert len(failed) == 1 and failed[0].split(": ")[-1] in (name, "detections")
    assert "!" in table({"comparisons": [comparison.report()]})
    assert compared(trace(), trace(**{name: changed}), relative=1.0, pixels=0.1)[0].passed


def test_nan_is_a_difference_and_json_can_hold_it():
    features = trace()["features"].copy()
    features[0, 0, 0, 0] = np.nan
    comparison, rows = compared(trace(), trace(features=features))
    assert not comparison.passed and rows["trunk: features"]["largest"] is None
    json.dumps(comparison.report(), allow_nan=False)


def test_a_class_flip_is_counted_and_fails():
    comparison, rows = compared(trace(), trace(columns=np.array([1, 3, 0, 3])))
    assert rows["detections"]["class_flips"] == 1 and rows["detections"]["matched"] == 3
    assert not comparison.passed


def without_the_first(made):
    names = ("boxes", "scores", "columns", "batch_indices")
    return made | {name: made[name][1:] for name in names}


def test_a_missing_box_fails():
    comparison, rows = compared(trace(), without_the_first(trace()))
    assert not comparison.passed and rows["detections"]["undecided"] == 0


def test_a_box_cut_off_by_the_cap_is_undecided_if_its_score_is_that_of_the_last():
    tied = trace(scores=np.float32([0.4, 0.4, 0.6, 0.3]))
    single = dataclasses.replace(tiny.MODEL.detection, max_detections=1)
    full = dataclasses.replace(tiny.MODEL, detection=single)
    comparison, rows = compared(tied, without_the_first(tied), full)
    assert comparison.passed and rows["detections"]["undecided"] == 1
    assert not compared(tied, without_the_first(tied))[0].passed  # there was room for both


def test_a_box_is_undecided_if_one_that_suppresses_it_scores_the_same():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 8], [50, 0, 70, 30]])
    owners, columns = np.zeros(3, np.int64), np.zeros(3, np.int64)

    def kept(*rows, scores):
        chosen = list(rows)
        return trace(
            boxes=boxes[chosen],
            scores=np.float32(scores),
            columns=columns[chosen],
            batch_indices=owners[chosen],
        )

    comparison, rows = compared(kept(0, 2, scores=[0.5, 0.4]), kept(1, 2, scores=[0.5, 0.4]))
    assert comparison.passed and rows["detections"]["undecided"] == 2
    assert not compared(kept(0, 2, scores=[0.5, 0.4]), kept(1, 2, scores=[0.45, 0.4]))[0].passed


def test_a_neighbour_of_the_same_score_is_another_box_and_only_a_few_may_be():
    places = np.arange(200, dtype=np.float32)[:, None]
    boxes = np.concatenate([200 * places, 0 * places, 200 * places + 100, 0 * places + 100], axis=1)
    many = trace(
        boxes=boxes,
        scores=np.linspace(0.9, 0.1, 200, dtype=np.float32),
        columns=np.zeros(200, np.int64),
        batch_indices=np.zeros(200, np.int64),
    )
    one = many["boxes"].copy()
    one[7, 3] += 5  # overlaps the first by 0.95, and has its score
    comparison, rows = compared(many, many | {"boxes": one})
    assert comparison.passed and rows["detections"]["matched"] == 199
    for shift in (1, 5):
        moved = many | {"boxes": many["boxes"] + np.float32(shift)}
        assert not compared(many, moved)[0].passed
    apart = many | {"boxes": one, "scores": many["scores"] - np.float32(1e-3)}
    assert not compared(many, apart)[0].passed


def test_comparing_nothing_is_not_agreement():
    nothing = {
        "boxes": np.zeros((0, 4), np.float32),
        "scores": np.zeros(0, np.float32),
        "columns": np.zeros(0, np.int64),
        "batch_indices": np.zeros(0, np.int64),
    }
    assert not compared(nothing, nothing)[0].passed


def test_limits_must_be_positive():
    with pytest.raises(ConfigError, match=r"Limits\.pixels is 0"):
        Limits(pixels=0)


def test_the_sample_images_cover_sizes_and_hold_a_pair_of_one_size():
    images = {image.name: image.pixels for image in sample_images()}
    assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in images.values())
    assert images["chelsea"].shape == images["chelsea, mirrored"].shape
    assert images["1 x 1"].shape == (1, 1, 3)
    assert len({p.shape for p in images.values()}) >= 7


def test_every_stage_of_the_graph_is_that_of_the_pipeline(bundle, photographs):
    scorer, classes = class_table(bundle)
    thresholds = np.zeros(len(classes.names), np.float32)
    graph = DetectorGraph(bundle.file("detector.onnx"), stages=True)
    networks = open_backend("onnxruntime", bundle)
    comparison = Comparison("graph", "pipeline", Limits(), tiny.MODEL)
    for image in photographs:
        expected = pipeline_trace(
            networks, scorer, classes, bundle.model_config, [image.pixels], thresholds
        )
        assert len(expected["boxes"]) == tiny.MODEL.detection.max_detections
        comparison.add(
            expected, graph(inputs_of(bundle.model_config, [image.pixels]), classes, thresholds)
        )
    stages = {row["stage"].split(":")[0] for row in comparison.rows()}
    assert stages == {"trunk", "regions", "head", "scores", "detections"}
    assert comparison.passed, table({"comparisons": [comparison.report()]})


@pytest.mark.parametrize("names", [["cat"], [], ["cat", "zebra", "teapot", "forklift"]], ids=str)
def test_the_graph_takes_any_number_of_unseen_classes(bundle, photographs, names):
    scorer, _ = class_table(bundle)
    seen, vectors = bundle.seen, bundle.class_vectors
    rows = np.reshape([bundle.vocabulary.lookup(name) for name in names], (-1, tiny.VECTOR))
    classes = scorer.class_set(seen, vectors[: len(seen)], names, rows.astype(np.float32))
    thresholds = np.zeros(len(classes.names), np.float32)
    graph = DetectorGraph(bundle.file("detector.onnx"))
    networks = open_backend("onnxruntime", bundle)
    comparison = Comparison("graph", "pipeline", Limits(), tiny.MODEL)
    for image in photographs:
        expected = pipeline_trace(
            networks, scorer, classes, bundle.model_config, [image.pixels], thresholds
        )
        inputs = inputs_of(bundle.model_config, [image.pixels])
        comparison.add_detections(expected, graph(inputs, classes, thresholds))
    assert comparison.passed, table({"comparisons": [comparison.report()]})


def test_one_threshold_serves_all_classes_and_infinity_finds_nothing(bundle, photographs):
    _, classes = class_table(bundle)
    graph = DetectorGraph(bundle.file("detector.onnx"))
    inputs = inputs_of(bundle.model_config, [photographs[0].pixels])
    middle = np.median(graph(inputs, classes, np.float32([0]))["scores"])
    alike = graph(inputs, classes, np.full(len(classes.names), middle, np.float32))
    single = graph(inputs, classes, np.float32([middle]))
    assert 0 < len(single["scores"]) and single["scores"].min() > middle
    np.testing.assert_array_equal(single["boxes"], alike["boxes"])
    nothing = graph(inputs, classes, np.float32([np.inf]))
    assert nothing["boxes"].shape == (0, 4) and nothing["columns"].shape == (0,)


def test_verify_agrees_on_the_packaged_photographs(bundle, capsys, tmp_path):
    report = tmp_path / "report.json"
    assert verify.main([str(bundle.path), "--json", str(report)]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("agrees\n") and "[4/4]" in printed.err
    written = json.loads(report.read_text())
    assert written["passed"] and len(written["comparisons"]) == 3
    found = written["conditions"]["detections"]
    assert found["chelsea"] >= 20 and written["conditions"]["packages"]["onnxruntime"]


def test_verify_finds_a_graph_that_is_another_detector(tmp_path, photographs, capsys):
    import cv2

    for image in photographs:
        cv2.imwrite(str(tmp_path / f"{image.name}.png"), image.pixels)
    wrong = detector_bundle(tmp_path / "wrong", wrong=True)
    assert verify.main([str(wrong), "--compare-on", str(tmp_path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_verify_needs_a_detector_graph_and_images(bundle_path, bundle, tmp_path, capsys):
    with pytest.raises(BundleError, match=r"detector\.onnx is not part of this bundle"):
        verify.verify(bundle_path, [NamedImage("grey", np.zeros((9, 9, 3), np.uint8))])
    import cv2

    with pytest.raises(DataError, match="holds no image"):
        folder_images(tmp_path)
    assert cv2.imwrite(str(tmp_path / "x.ppm"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / ".trash").mkdir()
    for hidden in ("._x.ppm", ".trash/y.ppm"):  # what macOS leaves beside pictures is none
        (tmp_path / hidden).write_bytes(b"no picture")
    assert [image.name for image in folder_images(tmp_path)] == ["x.ppm"]  # as runtime.detect does
    for none in ("x.ppm", "missing"):
        with pytest.raises(DataError, match=f"{none} is no folder"):
            folder_images(tmp_path / none)
    (tmp_path / "x.ppm").unlink()
    assert verify.main([str(bundle.path), "--compare-on", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_file_finds_what_the_detector_finds_for_a_batch_of_mirror_images(bundle):
    images = {image.name: image.pixels for image in sample_images()}
    pair = [images["chelsea"], images["chelsea, mirrored"]]
    _, classes = class_table(bundle)
    graph = DetectorGraph(bundle.file("detector.onnx"))
    got = graph(inputs_of(bundle.model_config, pair), classes, np.float32([0]))
    with Detector(bundle, backend="onnxruntime", score_threshold=0.0, threads=1) as detector:
        for index, detections in enumerate(detector(pair)):
            own = got["batch_indices"] == index
            assert len(detections) == own.sum() >= 20
            np.testing.assert_allclose(got["scores"][own], detections.scores, atol=1e-5)
