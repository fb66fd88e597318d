"""The detector that stays on the device, on doubles of a GPU (none runs here).

The kernels are those of csrc/kernels, built for a CPU; an engine is a network in ONNX Runtime; a
stream and a captured graph do what CUDA documents of them (trt_double.py). What is compared are the
detections of the ordinary pipeline.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading

import numpy as np
import pytest
import tiny
from device_double import compare, device, images, on_device, on_host, shim
from engine_double import engine_entry, gpu, path
from hostile import not_finite, put, with_huge_scores

from export.writing.bundle_writer import amend_bundle
from runtime.backends import device_arrays, open_backend, trt_backend, trt_engines
from runtime.bundle import open_bundle
from runtime.results import StageTimes
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import (
    BundleError,
    ConfigError,
    DeviceError,
    ImageError,
    MissingPackageError,
    ShapeError,
)

trt = pytest.importorskip("tensorrt_rtx")
__all__ = ["device", "gpu", "path", "shim"]  # fixtures
CURRENT, CAPTURE, REPLAY = "cuCtxSetCurrent", "cuStreamBeginCapture", "cuGraphLaunch"


def count(gpu, name: str) -> int:
    return sum(called == name for _, called, _ in gpu.calls)


def test_frames_are_those_of_the_ordinary_pipeline_and_captured_once(device, path):
    frames = images(4)
    with on_device(path) as ours, on_host(path) as exact:
        assert "on the device throughout" in ours.description
        for frame in frames:
            found = ours(frame)
            assert len(found) > 3
            compare(found, exact(frame))
    assert count(device, CAPTURE) == 1  # the first frame runs as it is
    assert count(device, REPLAY) == 3


def test_a_replayed_frame_is_one_copy_in_one_launch_one_copy_out_one_wait(device, path):
    frames = images(4)
    with on_device(path) as ours:
        for frame in frames[:3]:
            ours(frame)
        device.calls.clear()
        ours(frames[3])
        assert [name for _, name, _ in device.calls] == [CURRENT, REPLAY, "cuStreamSynchronize"]
        device.calls.clear()
        ours(images(1, 60, 60)[0])  # as it is: what a graph holds
    copies = [name for _, name, _ in device.calls if "Memcpy" in name]
    made, *copies = copies  # the first belongs to the making of the program
    assert made == "cuMemcpyHtoDAsync"
    assert copies == ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"]
    operators = [
        name for owner, name, _ in device.calls if owner in ("kernels", "IExecutionContext")
    ]
    assert [name for name in operators if not name.startswith(("set_", "get_", "update_"))] == [
        "preprocess",
        "execute_async_v3",
        "propose",
        "roi_align",
        "execute_async_v3",
        "product_mlp",
        "product_mlp",
        "fuse",
        "all_finite",
        "detect",
        *["all_finite"] * 4,
    ]


def test_classes_change_between_frames_without_capturing_again(device, path):
    frame, *_ = images(1)
    changes = [
        lambda d: d.add_classes(["zebra", "teapot"]),
        lambda d: d.remove_classes(["cat"]),
        lambda d: d.set_classes(["truck", "zebra"]),
        lambda d: d.set_classes(["truck", "person"]),  # no unseen class: another formula
        lambda d: d.set_classes(None, mode="zsd"),
        lambda d: d.set_thresholds(score_threshold=(0.0, 0.4)),
    ]
    with on_device(path) as ours, on_host(path) as exact:
        for _ in range(2):
            compare(ours(frame), exact(frame))
        assert count(device, CAPTURE) == 1
        seen = set()
        for change in changes:
            change(ours), change(exact)
            device.calls.clear()
            found = ours(frame)
            compare(found, exact(frame))
            seen.add((found.class_names, tuple(found.scores)))
            names = [name for _, name, _ in device.calls]
            assert names == [CURRENT, "cuMemcpyHtoDAsync", REPLAY, "cuStreamSynchronize"]
    assert len(seen) > 4  # the changes did change something


def test_scores_are_calibrated_on_the_device_too(device, path):
    frame, *_ = images(1)
    with on_host(path) as before:
        raw = before(frame).scores
    curves = CalibrationConfig(seen=(0.6, 1.2, 2.2), unseen=(0.4, 0.0, 0.8))
    model = dataclasses.replace(open_bundle(path).model_config, calibration=curves)
    amend_bundle(path, model=dataclasses.asdict(model))
    with on_device(path) as ours, on_host(path) as exact:
        for _ in range(3):
            compare(ours(frame), exact(frame))
        ours.add_classes(["zebra"]), exact.add_classes(["zebra"])
        compare(ours(frame), exact(frame))
        assert raw.max() < exact(frame).scores.max()


def test_more_classes_than_there_is_room_for_name_the_fix(device, path):
    frame, *_ = images(1)
    with on_device(path, capacity=2) as ours, on_host(path) as exact:
        ours.add_classes(["zebra"])
        with pytest.raises(
            ConfigError, match=r"3 unseen classes.*room for 2.*'unseen_capacity': 3"
        ):
            ours(frame)
        ours.remove_classes(["zebra"])
        np.testing.assert_allclose(ours(frame).scores, exact(frame).scores, rtol=1e-4)
    with pytest.raises(ConfigError, match="unseen_capacity is 0"):
        on_device(path, capacity=0)


@pytest.mark.parametrize("regions", [0, 1, 12])
def test_any_number_of_regions(device, tmp_path, regions: int):
    proposals = dataclasses.replace(
        tiny.MODEL.proposals, post_nms_top=max(regions, 1), min_size=0.0 if regions else 1e4
    )
    model = dataclasses.replace(tiny.MODEL, proposals=proposals)
    path = tiny.tiny_bundle(tmp_path / "tiny", model=model)
    stages = ("trunk", "head")
    entries = [engine_entry(stage, trt.__version__) for stage in stages]
    amend_bundle(path, {f"engines/{s}.plan": s.encode() for s in stages}, engines=entries)
    with on_device(path) as ours, on_host(path) as exact:
        found = [ours(frame) for frame in images(6)]
        for result, frame in zip(found, images(6), strict=True):
            compare(result, exact(frame))
        assert any(found) == bool(regions)


def test_sizes_and_colours_have_programs_and_old_ones_make_room(device, path, photo):
    frames = [*images(1, 48, 64), *images(1, 60, 60), photo]
    with on_device(path) as ours, on_host(path) as exact:
        for _ in range(2):
            for color in ("rgb", "bgr"):
                for found, other in zip(
                    ours(frames, color=color), exact(frames, color=color), strict=True
                ):
                    compare(found, other)
        assert count(device, CAPTURE) == 0  # six programs for room of four: none is met twice
        memory, pinned = len(device.memory), len(device.pinned)
        ours(frames)
        ours(frames)
        assert (len(device.memory), len(device.pinned)) == (memory, pinned)
        assert count(device, CAPTURE) == 3
        assert ours(np.zeros((48, 64, 4), np.uint8)).times_ms.keys() == {"device"}
        times = StageTimes()
        times.add(ours(frames[0]))
        assert ": device " in str(times)
    assert device.memory == device.pinned == device.streams == device.graphs == {}


def test_threads_have_streams_classes_and_graphs_of_their_own(device, path):
    frames = images(3)
    with on_device(path) as ours, on_host(path) as exact:
        expected = [exact(frame) for frame in frames]
        found, together = [[] for _ in frames], threading.Barrier(3)

        def work(index: int) -> None:
            together.wait()
            found[index] = [ours(frames[index]) for _ in range(3)]
            together.wait()  # one that ended early would leave its own to the next

        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for results, other in zip(found, expected, strict=True):
            assert len(results) == 3
            for result in results:
                compare(result, other)
        assert len(device.streams) == 3 and count(device, CAPTURE) == 3


def test_its_gpu_is_current_again_whatever_the_thread_did_in_between(device, path):
    """A detector on another GPU, say, that the same thread uses in turn."""
    with on_device(path) as ours, on_host(path) as exact:
        for frame in images(4):
            compare(ours(frame), exact(frame))
            device.current[threading.get_ident()] = "another GPU"


def test_the_double_sees_a_graph_whose_context_has_gone(device, path):
    frame, *_ = images(1)
    with on_device(path) as ours:
        ours(frame), ours(frame)
        with ours._pipeline._lanes.lent() as lane:
            (program,) = lane._programs.values()
        context, program._trunk._context = program._trunk._context, None
        ours(frame)
        del context
        with pytest.raises(AssertionError, match="must outlive what they enqueued"):
            ours(frame)


def test_what_cannot_run_there_is_an_error(device, path):
    with pytest.raises(ConfigError, match=r"'contrastzsd' in float32 only"):
        on_device(path, scoring_precision="int8")
    assert device.calls[-1][1] == "cuDevicePrimaryCtxRelease"  # nothing stays open
    wide = engine_entry("head", trt.__version__)
    few = {"region_features": {"min": [1, 6, 3, 3], "opt": [1, 6, 3, 3], "max": [4, 6, 3, 3]}}
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    entry = wide | {"profile": few}
    engine = trt_engines.Engine(backend._package, open_bundle(path), entry, "a GPU")
    with pytest.raises(ShapeError, match=r"to \(4, 6, 3, 3\), region_features has \(12, 6, 3, 3\)"):
        trt_engines.FixedEngine(engine, (12, 6, 3, 3))
    device.accepts = 0
    with pytest.raises(DeviceError, match="cannot run the trunk engine"):
        trt_engines.FixedEngine(backend._engines["trunk"], (1, 3, 64, 96))
    backend.close()


@pytest.mark.parametrize("where", [on_device, on_host])
@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_a_batch_below_one_is_refused_on_every_backend(device, path, where, number):
    with where(path) as detector, pytest.raises(ConfigError, match=f"max_batch is {number}"):
        detector(images(2), max_batch=number)


def test_what_is_no_image_is_refused_before_anything_is_made_for_it(device, path):
    """Pinned memory would take any numbers, as uint8."""
    with on_device(path) as ours:
        ours(images(1)[0])
        classes, thresholds = ours._state.active.class_set, ours._state.thresholds
        memory, run = dict(device.memory), ours._pipeline.run
        for wrong in (
            np.ones((48, 60, 3), np.float32),
            np.zeros((0, 60, 3), np.uint8),
            np.zeros((48, 60, 4), np.uint8),
            np.zeros((48, 60), np.uint8),
        ):
            with pytest.raises(
                ImageError, match=r"run, image0: image has shape .*must be \(H, W, 3"
            ):
                run(classes, [wrong], thresholds)
        with pytest.raises(ConfigError, match="run: color is 'hsv', must be 'rgb' or 'bgr'"):
            run(classes, images(1, 60, 60), thresholds, color="hsv")
        assert device.memory.keys() == memory.keys()


def test_an_engine_that_cannot_be_captured_names_the_command(device, path):
    device.capturable = False
    frame, *_ = images(1)
    with on_device(path) as ours:
        ours(frame)
        with pytest.raises(
            DeviceError, match=r"trunk engine from a CUDA graph.*export\.engine.*on_"
        ):
            ours(frame)
        assert device.captured == {}


@pytest.mark.parametrize("failing", ["cuMemAllocHost", "cuGraphInstantiate", "cuMemcpyDtoHAsync"])
def test_a_failure_leaves_nothing_behind_and_the_next_image_is_found(device, path, failing: str):
    frames = images(2)
    with on_device(path) as ours, on_host(path) as exact:
        ours(images(1, 60, 60)[0])
        before = len(device.memory), len(device.pinned), len(device.graphs)
        if failing == "cuGraphInstantiate":
            ours(frames[0])
            before = len(device.memory), len(device.pinned), len(device.graphs)
        device.failing = failing
        with pytest.raises(DeviceError, match=f"{failing} failed"):
            ours(frames[0])
        assert list(device.streams.values()) == [[]]  # nothing reads or writes the host any more
        if failing != "cuMemcpyDtoHAsync":  # after which the program stays
            assert (len(device.memory), len(device.pinned), len(device.graphs)) == before
        device.failing = None
        for frame in frames:
            compare(ours(frame), exact(frame))
    assert device.memory == device.pinned == device.streams == device.graphs == {}


def test_missing_kernels_say_how_to_build_them(gpu, path, monkeypatch):
    def missing():
        raise MissingPackageError("build them: -DZSD_CUDA=ON")

    monkeypatch.setattr(trt_backend, "compiled_cuda", missing)
    with pytest.raises(MissingPackageError, match="ZSD_CUDA=ON"):
        on_device(path)


@pytest.mark.parametrize("value", ["up", "none"])
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("trunk", "objectness"),
        ("trunk", "deltas"),
        ("head", "embeddings"),
        ("head", "deltas"),
    ],
)
def test_engines_that_give_no_numbers_are_an_error(device, path, tmp_path, stage, name, value):
    """As an fp16 engine does whose numbers become too large."""
    network = tmp_path / f"{stage}.onnx"
    network.write_bytes(not_finite(stage, name, value))
    device.networks[stage.encode()] = network
    with on_device(path) as ours:
        for _ in range(2):  # as it is, and from a graph
            with pytest.raises(BundleError, match=f"the {stage} gives numbers that are not finite"):
                ours(images(1)[0])


def test_scores_that_are_no_numbers_are_an_error(device, path, tmp_path):
    """Some of the seen classes would vanish, and nothing would say why."""
    bundle = shutil.copytree(path, tmp_path / "b")
    scorer = with_huge_scores((bundle / "scorer.safetensors").read_bytes())
    put(bundle, "scorer.safetensors", scorer)
    with on_device(bundle) as ours:
        for _ in range(2):
            with pytest.raises(BundleError, match="the scoring gives numbers that are not finite"):
                ours(images(1)[0])


def test_nothing_found_by_numbers_is_no_error(device, path):
    with on_device(path) as ours:
        ours.set_thresholds(score_threshold=1.0)
        assert [len(ours(frame)) for frame in images(3)] == [0, 0, 0]


def test_a_failed_capture_ends_it_and_carries_the_cause(device, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    stream = backend._device.stream()
    with pytest.raises(KeyError, match="cause"):
        backend._device.capture(stream, lambda: {}["cause"])
    assert device.captured == device.graphs == {}
    backend._device.drop_stream(stream)
    backend.close()


def test_a_block_lies_at_aligned_addresses_and_crosses_whole(device, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    driver = backend._device
    layout = {"a": ((3, 2), np.float32), "b": ((5,), np.int32), "none": ((0, 4), np.float32)}
    block, stream = device_arrays.Block(driver, layout, mirrored=True), driver.stream()
    assert block["b"].address - block["a"].address == device_arrays.ALIGNMENT
    assert block["a"].rows_from(1).address == block["a"].address + 8
    assert block["a"].entry(2).__cuda_array_interface__["shape"] == (2,)
    block.host["a"][:] = 1.5
    block.host["b"][:] = range(5)
    block.upload(stream)
    driver.wait(stream)
    block.host["a"][:] = block.host["b"][:] = 0
    block.download(stream)
    driver.wait(stream)
    assert (block.host["a"] == 1.5).all() and block.host["b"].tolist() == [0, 1, 2, 3, 4]
    block.close()
    driver.drop_stream(stream)
    backend.close()
    assert device.memory == device.pinned == {}
