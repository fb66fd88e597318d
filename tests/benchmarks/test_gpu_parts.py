"""Parts of ``scripts/gpu-proof`` on doubles: its engines, judges, and the detector on a GPU."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_proof import build
from cuda_proof.cases import all_cases, roi_arguments
from cuda_proof.engines import GpuEngine, ShimEngine, guarded_call

from benchmarks.gpu import binaries, kernels, large, pipeline, sanitizer
from benchmarks.gpu.network import FixedNetwork
from benchmarks.gpu.report import Report
from zsd_core.errors import ConfigError


def test_an_engine_copies_between_guards_and_brings_back_what_changed():
    given, untouched = torch.ones(3), torch.zeros(2, dtype=torch.int32)

    def operator(first, same, other, *, option):
        assert first is same and first is not given and option.tolist() == [5.0]
        assert other is not untouched
        first += 1

    options = {"option": torch.tensor([5.0])}
    guarded_call(operator, [given, given, untouched], options)
    assert given.tolist() == [2, 2, 2] and untouched.tolist() == [0, 0]

    def beyond(first):
        torch.as_strided(first, (4,), (1,))[3] = 1.0

    with pytest.raises(AssertionError, match="wrote behind"):
        guarded_call(beyond, [given], {})


def test_the_engine_of_a_gpu_hands_over_copies_and_waits(monkeypatch):
    calls = []
    module = SimpleNamespace(fuse=lambda *arrays, **options: calls.append((arrays, options)))
    monkeypatch.setattr(
        "cuda_proof.engines.guarded_call",
        lambda function, arguments, options, device, guard, finish: (
            function(*arguments, **options),
            calls.append((device, guard, finish)),
        ),
    )
    GpuEngine(module, guards=False).call("fuse", 1, power=2)
    assert calls == [((1,), {"power": 2}), ("cuda", 0, torch.cuda.synchronize)]


def test_other_seeds_make_other_inputs():
    shape = (2, 5, 13, 9, 7, (3, 2), 2)
    first, second = (roi_arguments(shape, "float32", seed)[0] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert all_cases(3).keys() == all_cases().keys()


def test_the_large_cases_are_of_every_operator():
    small = {kernels.operator_of(name) for name in all_cases()}
    assert {kernels.operator_of(name) for name in large.large_cases(0)} == small
    assert {kernels.operator_of(name) for name in kernels.FEW} == small


def test_the_judges_of_large_cases_pass_the_shim_and_catch_what_is_wrong():
    """At a small size, with the judge on the CPU."""
    shim = ShimEngine(build.shim_module())

    class Wrong:
        def call(self, operator, *arguments, **options):
            shim.call(operator, *arguments, **options)
            output = arguments[-1]
            output.view(-1)[0] += 0.05 * max(1.0, float(output.abs().max()))

    pooled = (2, 5, 13, 9, 7, (3, 2), 2)
    for check, options in (
        (large.check_scores, {"shape": (9, 40, 24, 16), "dtype": "float32"}),
        (large.check_patches, {"shape": pooled, "dtype": "float16"}),
        (large.check_gradients, {"shape": pooled}),
    ):
        check(shim, **options, seed=2, device="cpu")
        with pytest.raises(AssertionError, match="twice"):
            check(Wrong(), **options, seed=2, device="cpu")


def test_a_process_that_dies_costs_one_case_and_the_rest_go_on(tmp_path, monkeypatch):
    report = Report(tmp_path, "kernels", 0, None)
    asked = []

    def run(command, **options):
        names = json.loads(options["input"])
        asked.append(names)
        lines = [
            json.dumps({"case": n}) + "\n" + json.dumps({"case": n, "error": None}) for n in "a"
        ]
        if names[0] == "a":
            lines.append(json.dumps({"case": "b"}))
            return SimpleNamespace(stdout="\n".join(lines), stderr="illegal address", returncode=3)
        lines = [json.dumps({"case": "c"}), json.dumps({"case": "c", "error": "far off"})]
        return SimpleNamespace(stdout="\n".join(lines), stderr="", returncode=0)

    monkeypatch.setattr(kernels.subprocess, "run", run)
    errors = kernels.run_cases(report, "gpu", ["a", "b", "c"])
    assert asked == [["a", "b", "c"], ["c"]]
    assert errors == {"b": "its process ended with 3: illegal address", "c": "far off"}


def test_a_case_that_hangs_is_named(tmp_path, monkeypatch):
    def run(command, **options):
        said = json.dumps({"case": "a"}).encode()
        raise subprocess.TimeoutExpired(command, options["timeout"], output=said)

    monkeypatch.setattr(kernels.subprocess, "run", run)
    monkeypatch.setattr(kernels, "SECONDS", -1)
    errors = kernels.run_cases(Report(tmp_path, "kernels", 0, None), "gpu", ["a", "b"])
    assert "not at its end" in errors["a"] and "not run" in errors["b"]


def test_functions_of_the_driver_take_what_they_are_given():
    driver = pytest.importorskip("cuda.bindings.driver")
    from trt_double import checked

    arguments = dict(zip(binaries.FUNCTIONS, (1, 2, 2, 3, 3), strict=True))
    for name, count in arguments.items():
        checked(driver, name, (None,) * count, {})


@pytest.mark.parametrize(
    ("said", "failures", "not_checked"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, 0),
        ("========= Invalid read\n========= ERROR SUMMARY: 2 errors", 1, 0),
        ("========= Error: Device not supported.", 0, 1),
    ],
)
def test_what_compute_sanitizer_says_is_read(tmp_path, said, failures, not_checked):
    report = Report(tmp_path, "sanitizer", 0, "a GPU")
    told = json.dumps({"case": "x"}) + "\n" + json.dumps({"case": "x", "error": None})
    ran = "not supported" not in said
    sanitizer.judge(report, "memcheck", (told + "\n" if ran else "") + said, ["x"])
    assert len(report.content["failures"]) == failures
    assert len(report.content["not_checked"]) == not_checked
    assert sanitizer.summary("racecheck", "RACECHECK SUMMARY: 3 hazards displayed (3 e") == 3


def test_without_compute_sanitizer_the_part_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "tool", lambda: None)
    report = Report(tmp_path, "sanitizer", 0, "a GPU")
    sanitizer.run(report)
    assert "not on this machine" in report.content["not_checked"][0]
    assert not report.end()


def test_an_operator_that_is_not_known_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Softsign", ["x"], ["y"])
    ends = [value(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="operator Softsign is not known"):
        FixedNetwork(tmp_path / "net.onnx", (1, 2), "cpu")


class DoublePlace:
    """Networks in PyTorch on the double of a GPU, in the order of its streams."""

    name = "cpu"

    def __init__(self, gpu):
        self._gpu = gpu

    def view(self, address, shape):
        size = 4 * int(np.prod(shape))
        memory = self._gpu.at(address, size)
        return torch.from_numpy(memory.view(np.float32).reshape(shape))

    def run(self, stream, work):
        self._gpu.calls.append(("torch", "network", None))
        self._gpu.enqueue(stream, work)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["anchors", "queries"])
def test_the_pipeline_with_networks_in_pytorch_finds_what_the_cpu_finds(
    tmp_path, monkeypatch, kind
):
    driver = pytest.importorskip("cuda.bindings.driver")
    pytest.importorskip("onnxruntime")
    import tiny
    import tiny_given
    from trt_double import Gpu, Kernels

    from runtime.backends import cuda_driver
    from runtime.bundle import open_bundle

    make = {"anchors": tiny.tiny_bundle, "queries": tiny_given.given_bundle}[kind]
    bundle = open_bundle(make(tmp_path / kind))
    gpu = Gpu(None, driver)
    monkeypatch.setattr(cuda_driver, "require", lambda name, extra: gpu.driver_module())
    shim = ShimEngine(build.shim_module(), guards=False)
    device = pipeline.CountingDevice(0, "tensorrt")
    report = Report(tmp_path / "out", "pipeline", 0, None)
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (3, 3, 4, 3), np.uint8)
    pictures = {str(n): p.repeat(16, axis=0).repeat(16, axis=1) for n, p in enumerate(coarse)}
    parts = (DoublePlace(gpu), Kernels(shim, gpu))
    pipeline.prove(report, bundle, device, *parts, pictures)
    assert report.content["failures"] == []
    images, changed = report.content["rows"]
    assert images["detections"] == images["agree"] > 9 and changed["agree"] > 3
    assert (changed["captures"], changed["launches"], device.captures) == (0, 5, 1)
    assert gpu.memory == gpu.graphs == gpu.streams == {}
    assert sum(name == "network" for _, name, _ in gpu.calls) >= 2 * 2  # as it is, and captured


def test_detections_that_differ_do_not_agree():
    from runtime import Detections

    def found(score):
        boxes = np.array([[0, 0, 9, 9]], np.float32)
        return Detections(
            boxes=boxes,
            scores=np.array([score], np.float32),
            class_ids=np.zeros(1, np.int64),
            class_names=("cat",),
            roles=("seen",),
            class_set_version=1,
        )

    tally = pipeline.Tally()
    tally.add(found(0.5), found(0.505))
    assert (tally.found, tally.agreed) == (1, 1) and 0 < tally.score < 0.01
    tally.add(found(0.5), found(0.7))
    assert (tally.found, tally.agreed) == (2, 1)
