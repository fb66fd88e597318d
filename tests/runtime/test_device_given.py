"""A given detector that stays on the device, on doubles of a GPU (see test_device_pipeline.py).

The kernels are those of csrc/kernels, built for a CPU; an engine is a network in ONNX Runtime. What
is compared are the detections of the ordinary pipeline.
"""

from __future__ import annotations

import dataclasses
import re

import made_up
import numpy as np
import pytest
import tiny
import tiny_given
from device_double import compare, device, images, on_device, on_host, shim
from engine_double import engine_entry, gpu
from hostile import not_finite

from export import gpu_check
from export.writing.bundle_writer import amend_bundle
from runtime import bundled
from runtime.backends import device_program, trt_backend
from runtime.backends.device_pipeline import DevicePipeline
from runtime.bundle import open_bundle
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import BundleError, ConfigError
from zsd_core.scoring import scorer_for

trt = pytest.importorskip("tensorrt_rtx")
__all__ = ["device", "gpu", "shim"]  # fixtures
CAPTURE, REPLAY = "cuStreamBeginCapture", "cuGraphLaunch"
MIXED = ["person", "truck", "zebra", "teapot"]


def span(counts, edge: int) -> dict[str, list[int]]:
    """The profile of an input of so many square images at least, mostly and at most."""
    return {k: [n, 3, edge, edge] for k, n in zip(("min", "opt", "max"), counts, strict=True)}


def with_engines(path, model=tiny_given.MODEL):
    """A tiny given detector whose plans are the names of its networks."""
    path = tiny_given.given_bundle(path, model)
    side, pixels = tiny_given.SIDE, tiny_given.PIXELS
    profiles = {
        "trunk": {
            "images": {k: [n, 3, side, side] for k, n in (("min", 1), ("opt", 1), ("max", 4))}
        },
        "head": {
            "region_image": {
                k: [n, 3, pixels, pixels] for k, n in (("min", 1), ("opt", 3), ("max", 48))
            }
        },
    }
    entries = [
        engine_entry(stage, trt.__version__, profile=profile) for stage, profile in profiles.items()
    ]
    files = {f"engines/{stage}.plan": stage.encode() for stage in profiles}
    return amend_bundle(path, files, engines=entries)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return with_engines(tmp_path_factory.mktemp("device") / "given")


def operators(gpu) -> list[str]:
    """The kernels and engines that were put on a stream, in order."""
    return [
        name for owner, name, _ in gpu.calls if owner == "kernels" or name == "execute_async_v3"
    ]


def count(gpu, name: str) -> int:
    return sum(called == name for _, called, _ in gpu.calls)


def test_frames_are_those_of_the_ordinary_pipeline_and_captured_once(device, path):
    with on_device(path, classes=MIXED) as ours, on_host(path, classes=MIXED) as exact:
        assert "on the device throughout" in ours.description
        for frame in images(5):
            found = ours(frame)
            assert len(found) > 3
            assert {"seen", "unseen"} <= set(found.roles)
            compare(found, exact(frame))
    assert (count(device, CAPTURE), count(device, REPLAY)) == (1, 4)
    assert device.memory == device.pinned == device.streams == device.graphs == {}


def test_everything_between_two_copies_is_on_the_stream(device, path):
    with on_device(path, classes=MIXED) as ours:
        device.calls.clear()
        ours(images(1)[0])  # as it is: what a graph holds
    copies = [name for _, name, _ in device.calls if "Memcpy" in name]
    # weights, what all_finite writes to, classes, image
    assert copies == ["cuMemcpyHtoDAsync"] * 4 + ["cuMemcpyDtoHAsync"]
    assert operators(device) == [
        "preprocess",
        "execute_async_v3",
        "top_regions",
        "second_look",
        "roi_align",
        "execute_async_v3",
        "spoken_for",
        "score_prototypes",
        "all_finite",
        "detect",
        *["all_finite"] * 4,
    ]


def test_the_head_does_not_run_for_the_detectors_own_classes(device, path):
    frame, *_ = images(1)
    with (
        on_device(path, classes=["person", "truck"]) as ours,
        on_host(path, classes=["person", "truck"]) as exact,
    ):
        device.calls.clear()
        compare(ours(frame), exact(frame))
        assert operators(device).count("execute_async_v3") == 1
        assert "second_look" not in operators(device)
        ours.add_classes(["zebra"]), exact.add_classes(["zebra"])
        device.calls.clear()
        found = ours(frame)
        compare(found, exact(frame))
        assert "zebra" in found.class_names
        assert operators(device).count("execute_async_v3") == 2
        ours.remove_classes(["zebra"]), exact.remove_classes(["zebra"])
        compare(ours(frame), exact(frame))


def test_names_and_vectors_change_between_frames_without_capturing_again(device, path):
    frame, *_ = images(1)
    named, looked = tiny.unit_vectors(1, 9)[0], tiny.random(9).normal(size=tiny_given.VISUAL)
    changes = [
        lambda d: d.add_classes({"nut": named, "bolt": looked.astype(np.float32)}),
        lambda d: d.remove_classes(["teapot"]),
        lambda d: d.set_thresholds(score_threshold=(0.0, 0.3)),
        lambda d: d.set_classes(["truck", "zebra"]),
        lambda d: d.set_classes(MIXED, mode="zsd"),
    ]
    with on_device(path, classes=MIXED) as ours, on_host(path, classes=MIXED) as exact:
        for _ in range(2):
            compare(ours(frame), exact(frame))
        captured, seen = count(device, CAPTURE), set()
        for change in changes:
            change(ours), change(exact)
            found = ours(frame)
            compare(found, exact(frame))
            seen.add((found.class_names, tuple(found.scores)))
        assert count(device, CAPTURE) == captured == 1
        assert len(seen) == len(changes)


def test_scores_are_calibrated_and_thresholds_are_probabilities(device, tmp_path):
    curves = CalibrationConfig(seen=(1.5, 0.8, 0.3), unseen=(0.5, 0.7, -0.4))
    model = dataclasses.replace(tiny_given.MODEL, calibration=curves)
    path = with_engines(tmp_path / "calibrated", model)
    with on_device(path, classes=MIXED) as ours, on_host(path, classes=MIXED) as exact:
        for limits in (0.0, (0.2, 0.4), (0.5, 0.9)):
            (
                ours.set_thresholds(score_threshold=limits),
                exact.set_thresholds(score_threshold=limits),
            )
            for frame in images(3):
                compare(ours(frame), exact(frame))


@pytest.mark.parametrize(("contest", "rivalry"), [(0.0, 0.0), (2.0, 0.0), (2.0, 0.7)])
def test_roles_contest_on_the_device_as_on_the_host(device, tmp_path, contest, rivalry):
    scoring = dataclasses.replace(
        tiny_given.SCORING, contest=contest, contest_margin=-0.5, rivalry=rivalry
    )
    path = with_engines(tmp_path / "given", dataclasses.replace(tiny_given.MODEL, scoring=scoring))
    with on_device(path, classes=MIXED) as ours, on_host(path, classes=MIXED) as exact:
        for frame in images(3):
            compare(ours(frame), exact(frame))
        ours.set_thresholds(score_threshold=(0.0, 0.5))
        exact.set_thresholds(score_threshold=(0.0, 0.5))
        compare(ours(frame), exact(frame))
        for detector in (ours, exact):
            detector.set_classes(["person", "zebra"])  # teapot is no rival any more
        compare(ours(frame), exact(frame))


@pytest.mark.parametrize(("regions", "look"), [(1, 3), (16, 1), (40, 12)])
def test_any_number_of_regions_and_of_looks(device, tmp_path, regions: int, look: int):
    model = tiny_given.with_look(look)
    proposals = dataclasses.replace(model.proposals, post_nms_top=regions, pre_nms_top=regions)
    path = with_engines(tmp_path / "given", dataclasses.replace(model, proposals=proposals))
    with on_device(path, classes=MIXED) as ours, on_host(path, classes=MIXED) as exact:
        for frame in images(4):
            compare(ours(frame), exact(frame))


def test_no_region_at_all(device, tmp_path):
    proposals = dataclasses.replace(tiny_given.MODEL.proposals, min_size=1e4)
    model = dataclasses.replace(tiny_given.MODEL, proposals=proposals)
    path = with_engines(tmp_path / "given", model)
    with on_device(path, classes=MIXED) as ours:
        assert [len(ours(frame)) for frame in images(3)] == [0, 0, 0]


@pytest.mark.parametrize("value", ["up", "none"])
@pytest.mark.parametrize(
    ("stage", "name"),
    [("trunk", "boxes"), ("trunk", "logits"), ("head", "embeddings"), ("head", "deltas")],
)
def test_engines_that_give_no_numbers_are_an_error(device, path, tmp_path, stage, name, value):
    """As an fp16 engine does whose numbers become too large."""
    networks = {"trunk": tiny_given.trunk_model, "head": tiny_given.look_model}
    network = tmp_path / f"{stage}.onnx"
    network.write_bytes(not_finite(stage, name, value, networks))
    device.networks[stage.encode()] = network
    with on_device(path, classes=MIXED) as ours:
        for _ in range(2):  # as it is, and from a graph
            with pytest.raises(BundleError, match=f"the {stage} gives numbers that are not finite"):
                ours(images(1)[0])


def test_another_scoring_method_is_refused_and_told_the_other_way():
    bundle = open_bundle(bundled("coco48"))
    scorer = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    config = dataclasses.replace(tiny_given.MODEL, scoring=bundle.model_config.scoring)
    with pytest.raises(ConfigError, match=r"'prototypes' only.*Leave 'on_device' out of backend"):
        DevicePipeline(None, {}, None, config, scorer, 80, 8)


def test_the_shipped_model_can_stay_on_the_device():
    """Its programs are made when an image comes; here only that nothing refuses it."""
    bundle = open_bundle(bundled("open"))
    scorer = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    assert DevicePipeline(None, {}, None, bundle.model_config, scorer, 80, 8)


def test_the_gpu_check_compares_it_with_the_path_through_the_host(device, path, monkeypatch):
    monkeypatch.setattr(gpu_check, "compiled_cuda", trt_backend.compiled_cuda)
    monkeypatch.setattr(gpu_check, "sample_images", lambda: made_up.images(2))
    line, good = gpu_check.device_line(path, "tensorrt_rtx", "float32", 1)
    agreed, found = re.search(r"throughout: (\d+) of (\d+) detections agree;", line).groups()
    assert good and int(agreed) == int(found) > 5
    assert operators(device).count("second_look") > 0  # words that only the look can find

    monkeypatch.setattr(device_program, "to_original", lambda boxes, *sizes: boxes + 5)
    line, good = gpu_check.device_line(path, "tensorrt_rtx", "float32", 1)
    assert not good and "agree: NO" in line


def test_threads_may_take_equal_queries_in_another_order_and_no_other_ones(path):
    class Swapping:
        calls, added = 0, 0.0

        def trunk(self, array):
            random = np.random.default_rng(0)
            logits = random.normal(size=(1, 9, 4)).astype(np.float32)
            Swapping.calls += 1
            order = np.roll(np.arange(9), Swapping.calls)
            return np.zeros((1, 9, 4), np.float32), logits[:, order] + self.added * Swapping.calls

    networks = Swapping()
    assert gpu_check.threads_agree(networks, path, count=2, calls=2)
    networks.added = 0.1
    assert not gpu_check.threads_agree(networks, path, count=2, calls=2)
