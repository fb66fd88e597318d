"""Properties that hold for any input: batches, class counts, sizes, and images without a region."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_detector import detector_bundle

from export.checks.differences import Comparison, Limits, table
from export.checks.parity import class_table
from export.checks.traces import DetectorGraph, inputs_of, pipeline_trace
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.config import ModelConfig
from zsd_core.scoring import ClassSet

pytest.importorskip("onnxruntime")
SIZES = st.tuples(st.integers(1, 150), st.integers(1, 150))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Bundle, its networks in ONNX Runtime and OpenVINO, and ``detector.onnx``."""
    pytest.importorskip("openvino")
    bundle = open_bundle(detector_bundle(tmp_path_factory.mktemp("properties") / "tiny"))
    networks = {name: open_backend(name, bundle, 1) for name in ("onnxruntime", "openvino")}
    yield bundle, networks, DetectorGraph(bundle.file("detector.onnx"), stages=True, threads=1)
    for backend in networks.values():
        backend.close()


def picture(size: tuple[int, int], seed: int):
    """Blocks with structure at any size."""
    blocks = tiny.random(seed).integers(0, 256, (5, 7, 3), np.uint8)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, (5, 7), strict=True))
    return np.ascontiguousarray(blocks[rows][:, columns])


def agree(expected, got, config: ModelConfig, least: int = 1):
    """Raw scores of regions and detections agree; thresholds are 0, so there is what to compare."""
    comparison = Comparison("got", "expected", Limits(), config)
    comparison.add(expected, got)
    assert comparison.passed, table({"comparisons": [comparison.report()]})
    assert len(expected["boxes"]) >= least


@settings(max_examples=12)
@given(size=SIZES, seed=st.integers(0, 99))
def test_odd_sizes_agree_over_graph_and_backends(parts, size, seed):
    bundle, networks, graph = parts
    config, image = bundle.model_config, picture(size, seed)
    scorer, classes = class_table(bundle)
    thresholds = np.zeros(len(classes.names), np.float32)
    arguments = (scorer, classes, config, [image], thresholds)
    expected = pipeline_trace(networks["onnxruntime"], *arguments)
    least = int(min(size) >= 4)  # an image thinner than that may have no region
    agree(expected, pipeline_trace(networks["openvino"], *arguments), config, least)
    agree(expected, graph(inputs_of(config, [image]), classes, thresholds), config, least)


@settings(max_examples=12)
@given(size=SIZES, count=st.integers(2, 5), seed=st.integers(0, 99))
def test_a_batch_of_n_is_n_times_one(parts, size, count, seed):
    bundle, networks, graph = parts
    config = bundle.model_config
    scorer, classes = class_table(bundle)
    thresholds = np.zeros(len(classes.names), np.float32)
    images = [picture(size, seed + i) for i in range(count)]
    together = graph(inputs_of(config, images), classes, thresholds)
    for backend in networks.values():
        batch = pipeline_trace(backend, scorer, classes, config, images, thresholds)
        for index, image in enumerate(images):
            alone = pipeline_trace(backend, scorer, classes, config, [image], thresholds)
            for found in (batch, together):
                own = found["batch_indices"] == index
                assert own.sum() == len(alone["boxes"]) >= (min(size) >= 4)  # else: no region
                np.testing.assert_allclose(found["scores"][own], alone["scores"], atol=1e-5)


@settings(max_examples=12)
@given(unseen=st.one_of(st.integers(0, 40), st.sampled_from([1200])), seed=st.integers(0, 99))
def test_any_number_of_classes(parts, unseen, seed):
    """3 classes of the training and up to 1,200 more: 1,203 as in LVIS."""
    bundle, networks, graph = parts
    config, image = bundle.model_config, picture((70, 90), seed)
    scorer, _ = class_table(bundle)
    names = tuple(f"thing {i}" for i in range(unseen))
    classes = scorer.class_set(
        bundle.seen,
        bundle.class_vectors[: len(bundle.seen)],
        names,
        tiny.unit_vectors(unseen, seed).reshape(unseen, tiny.VECTOR),
    )
    assert_all_agree(networks, graph, scorer, classes, config, image)


def test_a_single_class_of_all(parts):
    bundle, networks, graph = parts
    scorer, _ = class_table(bundle)
    classes = scorer.class_set(bundle.seen[:1], bundle.class_vectors[:1], (), np.zeros((0, 8)))
    image = picture((70, 90), 0)
    assert_all_agree(networks, graph, scorer, classes, bundle.model_config, image)


def assert_all_agree(networks, graph, scorer, classes: ClassSet, config, image):
    thresholds = np.zeros(len(classes.names), np.float32)
    arguments = (scorer, classes, config, [image], thresholds)
    expected = pipeline_trace(networks["onnxruntime"], *arguments)
    agree(expected, pipeline_trace(networks["openvino"], *arguments), config)
    agree(expected, graph(inputs_of(config, [image]), classes, thresholds), config)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_no_region_is_an_empty_answer_everywhere(parts, name):
    """No proposal is as large as asked for; nor does a head mind being given none."""
    bundle, networks, _ = parts
    proposals = dataclasses.replace(bundle.model_config.proposals, min_size=1e4)
    config = dataclasses.replace(bundle.model_config, proposals=proposals)
    scorer, classes = class_table(bundle)
    thresholds = np.zeros(len(classes.names), np.float32)
    image = picture((70, 90), 0)
    found = pipeline_trace(networks[name], scorer, classes, config, [image, image], thresholds)
    assert found["boxes"].shape == (0, 4) and found["scores"].shape == (0,)
    head = networks[name].head(np.zeros((0, tiny.CHANNELS, 3, 3), np.float32))
    assert [array.shape for array in head] == [(0, tiny.JOINT), (0, 4)]
