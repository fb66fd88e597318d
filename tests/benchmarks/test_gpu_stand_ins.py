"""The GPU's side of ``scripts/gpu-proof``, line by line, where "cuda" stands for the CPU.

The shim is the kernels' module, a clock that does not tick is the GPU's. This says that the lines
run and write what they should, and nothing of a GPU.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_proof import build
from cuda_proof.cases import all_cases
from cuda_proof.engines import GpuEngine, ShimEngine
from torch.overrides import TorchFunctionMode

from benchmarks.gpu import cases, kernels, pipeline, speed, timing, training
from benchmarks.gpu.report import Report
from zsd_core.kernels import cuda

TINY = {"paper-80": (9, 5, 24, 16), "coco48-65": (4, 3, 8, 8)}


class CpuForCuda(TorchFunctionMode):
    """Every call that names the device "cuda" gets the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def mapped(value):
            return "cpu" if isinstance(value, str) and value == "cuda" else value

        if function is torch.Tensor.cuda:
            return args[0]
        options = {name: mapped(value) for name, value in (kwargs or {}).items()}
        return function(*map(mapped, args), **options)


class Event:
    """Of a clock that moves by 2 ms with each look."""

    now = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream=None):
        Event.now += 2
        self.at = Event.now

    def synchronize(self): ...

    def elapsed_time(self, other):
        return float(other.at - self.at)


@pytest.fixture
def cpu(monkeypatch):
    shim = ShimEngine(build.shim_module(), guards=False)
    current = SimpleNamespace(cuda_stream=0)
    for name, stand_in in {
        "Event": Event,
        "ExternalStream": lambda pointer: pointer,
        "current_stream": lambda: current,
        "empty_cache": lambda: None,
        "get_device_capability": lambda index: (9, 0),
        "get_device_name": lambda index: "a CPU",
        "max_memory_allocated": lambda: 10**9,
        "reset_peak_memory_stats": lambda: None,
        "synchronize": lambda: None,
    }.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(cuda, "compiled_cuda", lambda: shim.module)
    with CpuForCuda():
        yield shim


def report(tmp_path, part):
    return Report(tmp_path, part, 3, "a CPU, in a test")


def test_speed_writes_a_row_for_everything(cpu, tmp_path, monkeypatch):
    def timed(work):
        work()
        return 1.0

    monkeypatch.setattr(speed, "graph_ms", timed)
    monkeypatch.setattr(speed, "copy_gigabytes", lambda: 4000.0)
    monkeypatch.setattr(speed, "matmul_tflops", lambda dtype: 700.0)
    monkeypatch.setattr(speed, "MLP_SHAPES", TINY)
    monkeypatch.setattr(speed, "COMPILED", tuple(TINY))
    monkeypatch.setattr(speed, "POOLED", ("paper",))
    monkeypatch.setattr(speed, "ROI_SHAPES", {"paper": (1, 3, 7, 9, 5, (2, 2), 2)})
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    seen = []
    monkeypatch.setattr(speed.binaries, "occupancy_rows", lambda *args: seen.append(args))
    made = build.ROOT / "zsd_core" / "_compiled_cuda.made-up.so"
    monkeypatch.setattr(type(made), "glob", lambda self, pattern: iter([made]))
    result = report(tmp_path, "speed")
    speed.run(result)
    assert seen == [(result, made, 90)]
    rows = result.content["rows"]
    kinds = [(row["kind"], row["operator"]) for row in rows]
    assert kinds.count(("operator", "roi_align")) == 3
    assert kinds.count(("operator", "product_mlp")) == kinds.count(("compile", "product_mlp")) == 6
    mlp = next(row for row in rows if row["operator"] == "product_mlp")
    assert mlp["tflops"] == pytest.approx(2 * 9 * 5 * 16 * 25 / 1e9)
    assert mlp["share_of_matmul"] == pytest.approx(mlp["tflops"] / 700)
    patches = next(row for row in rows if row["dtype"] == "float16")
    assert patches["gb_per_s"] == pytest.approx(2 * (3 * 7 * 9 + 5 * 3 * 2 * 2) / 1e6)


def test_the_cases_run_on_the_engine_of_a_gpu(cpu, monkeypatch):
    for guards in (True, False):
        engine = GpuEngine(cpu.module, guards=guards)
        for name in kernels.FEW:
            all_cases(5)[name](engine)
    monkeypatch.setattr("cuda_proof.engines.GpuEngine", lambda module, guards: guards)
    assert cases.engine_of("gpu", bare=True) is False and cases.works()


def test_launches_are_timed_by_events_around_them(cpu, monkeypatch):
    device = object.__new__(pipeline.TimedDevice)
    device.launches = []
    monkeypatch.setattr(pipeline.Device, "replay", lambda self, recording, stream: None)
    device.replay("graph", 5)
    device.replay("graph", 5)
    assert device.replays == 2
    assert [start.elapsed_time(end) for start, end in device.launches] == [2.0, 2.0]


def test_frames_are_counted_after_the_first_ones(cpu, tmp_path):
    device = SimpleNamespace(launches=[])

    def ours(frame):
        start, end = Event(True), Event(True)
        start.record(), end.record()
        device.launches.append((start, end))
        return SimpleNamespace(times_ms={"device": 3.0})

    ours.classes = ("cat", "cup")
    result = report(tmp_path, "pipeline")
    pipeline.time_frames(result, "open", ours, device, np.zeros((4, 6, 3), np.uint8))
    (row,) = result.content["rows"]
    assert (row["graph_ms"], row["call_ms"]) == (2.0, 3.0) and "6 x 4, 2 classes" in row["what"]
    assert len(device.launches) == pipeline.FRAMES


def test_a_time_is_that_of_one_call_of_a_graph_of_many(cpu, monkeypatch):
    class Graph:
        def replay(self): ...

    class Context:
        def __init__(self, *args, **options): ...

        def __enter__(self): ...

        def __exit__(self, *args): ...

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Context)
    monkeypatch.setattr(torch.cuda, "stream", Context)
    monkeypatch.setattr(torch.cuda, "graph", Context)
    calls = []
    # 2 ms a call by this clock, so ten of them in a graph.
    assert timing.graph_ms(lambda: calls.append(1)) == 2.0 / 10
    assert len(calls) == timing.WARM + 1 + 10


def test_training_says_images_a_second(cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fit_for", lambda config, device, seconds: [9.0] * 5 + [0.5] * 9)
    result = report(tmp_path, "training")
    training.run(result)
    first, second = result.content["rows"]
    assert (first["backbone"], first["batch"], first["images_per_second"]) == ("resnet101", 2, 4.0)
    assert (second["batch"], second["images_per_second"], second["steps"]) == (8, 16.0, 14)
