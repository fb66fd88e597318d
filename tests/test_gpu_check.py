"""The report that a machine with a GPU makes, against the double of one."""

from __future__ import annotations

import json
import re

import pytest
from cuda_proof import build
from cuda_proof.engines import ShimEngine
from test_backends_tensorrt import engine_entry, gpu, path
from test_quantize import images
from trt_double import Kernels

from export import gpu_check
from export.gpu_check import check, device_line, main, threads_agree
from runtime.backends import device_pipeline, open_backend, trt_engines
from runtime.bundle import amend_bundle, open_bundle
from zsd_core.errors import DeviceError

trt = pytest.importorskip("tensorrt_rtx")
__all__ = ["gpu", "path"]  # fixtures


@pytest.fixture
def device(gpu, path, monkeypatch, fresh_bundle_path):
    """The double, a bundle to change, and a build that enters the networks as plans."""

    def build(bundle_path, *, targets, precision, package):
        assert targets == []
        if precision == "fp16":
            raise DeviceError("fp16 cannot be built here")
        entries = [engine_entry(stage, trt.__version__) for stage in ("trunk", "head")]
        files = {f"engines/{stage}.plan": stage.encode() for stage in ("trunk", "head")}
        amend_bundle(bundle_path, files, engines=entries)

    monkeypatch.setattr(gpu_check, "build_engines", build)
    monkeypatch.setattr(gpu_check, "sample_images", lambda: images(2))
    monkeypatch.setattr("export.tradeoff.photographs", lambda: images(2))
    monkeypatch.setattr(
        "runtime.backends.trt_engines.EngineBackend.inspect", lambda self, stage: '{"Layers": []}'
    )
    return fresh_bundle_path


def test_a_machine_that_agrees_passes(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=2)
    text = "\n".join(lines)
    assert good
    assert f"tensorrt_rtx {trt.__version__}; Double of a GPU, sm86" in text
    assert "threads agree: yes" in text
    assert "against onnxruntime" in text and "times as fast" in text
    assert json.loads((tmp_path / "trunk.float32.json").read_text()) == {"Layers": []}
    assert json.loads((tmp_path / "float32.json").read_text())["precision"] == "float32"


def test_without_the_kernels_the_report_says_what_was_not_checked(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)
    assert good
    assert "on the device throughout: not checked" in lines[-1] and "-DZSD_CUDA=ON" in lines[-1]


def test_the_path_on_the_device_is_compared_with_the_one_through_the_host(
    device, gpu, tmp_path, monkeypatch
):
    kernels = Kernels(ShimEngine(build.shim_module(), guards=False), gpu)
    for module in (gpu_check, trt_engines):
        monkeypatch.setattr(module, "compiled_cuda", lambda: kernels)
    check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)  # makes the engines
    line, good = device_line(device, "tensorrt_rtx", "float32", 1)
    agreed, found = re.search(r"throughout: (\d+) of (\d+) detections agree;", line).groups()
    assert good and int(agreed) == int(found) > 5

    monkeypatch.setattr(device_pipeline, "to_original", lambda boxes, *sizes: boxes + 5)
    line, good = device_line(device, "tensorrt_rtx", "float32", 1)
    assert not good and "agree: NO" in line


def test_a_precision_that_fails_is_in_the_report_and_the_others_go_on(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["fp16", "float32"], calls=1)
    assert not good
    assert "- fp16: FAILED: fp16 cannot be built here" in lines
    assert "threads agree: yes" in "\n".join(lines)


def test_the_command_says_passed_or_failed(device, tmp_path, capsys):
    assert main([str(device), "--calls", "1", "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.rstrip().endswith("FAILED")


def test_without_a_gpu_the_command_says_so(bundle_path, tmp_path, monkeypatch, capsys):
    def absent(*_):
        raise DeviceError("CUDA cannot start")

    monkeypatch.setattr(gpu_check, "Device", absent)
    assert main([str(bundle_path), "--output", str(tmp_path)]) == 1
    assert "error: CUDA cannot start" in capsys.readouterr().err


def test_threads_that_disturb_each_other_are_seen(bundle_path):
    class Drifting:
        calls = 0

        def trunk(self, array):
            Drifting.calls += 1
            return (array + (Drifting.calls > 6),)

    single = open_backend("onnxruntime", open_bundle(bundle_path), 1)
    assert threads_agree(single, bundle_path, count=2, calls=2)
    assert not threads_agree(Drifting(), bundle_path, count=2, calls=5)
