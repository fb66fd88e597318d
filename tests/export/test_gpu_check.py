"""The report that a machine with a GPU makes, against the double of one."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from cuda_proof import build
from cuda_proof.engines import ShimEngine
from engine_double import engine_entry, gpu, path
from made_up import images
from trt_double import Kernels

from export import gpu_check
from export.gpu_check import check, device_line, inspected_types, main, threads_agree
from export.writing.bundle_writer import amend_bundle
from runtime.backends import device_program, open_backend, trt_backend
from runtime.bundle import default_bundle, open_bundle
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
        return entries

    monkeypatch.setattr(gpu_check, "build_engines", build)
    monkeypatch.setattr(gpu_check, "sample_images", lambda: images(2))
    monkeypatch.setattr("export.tradeoff.photographs", lambda: images(2))
    layer = {"LayerType": "conv", "Inputs": [{"Name": "x", "Format/Datatype": "Float"}]}
    gpu.inspected = json.dumps({"Layers": [layer, "a name only"]})
    return fresh_bundle_path


def test_a_machine_that_agrees_passes(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=2)
    text = "\n".join(lines)
    assert good
    assert f"tensorrt_rtx {trt.__version__}; Double of a GPU, sm86" in text
    assert "!" not in text
    assert "against onnxruntime" in text and "times as fast" in text
    assert "  head: layers by what they read, as the engine inspector says: 1 float32" in lines
    assert len(json.loads((tmp_path / "trunk.float32.json").read_text())["Layers"]) == 2
    assert [e["inspected"] for e in open_bundle(device).engines] == [{"float32": 1}] * 2
    assert json.loads((tmp_path / "float32.json").read_text())["precision"] == "float32"


def test_without_the_kernels_the_report_says_what_was_not_checked(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)
    assert good
    assert "on the device throughout: not checked" in lines[-1] and "-DZSD_CUDA=ON" in lines[-1]


def test_the_path_on_the_device_is_compared_with_the_one_through_the_host(
    device, gpu, tmp_path, monkeypatch
):
    kernels = Kernels(ShimEngine(build.shim_module(), guards=False), gpu)
    for module in (gpu_check, trt_backend):
        monkeypatch.setattr(module, "compiled_cuda", lambda: kernels)
    check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)  # makes the engines
    line, good = device_line(device, "tensorrt_rtx", "float32", 1)
    agreed, found = re.search(r"throughout: (\d+) of (\d+) detections agree;", line).groups()
    assert good and int(agreed) == int(found) > 5

    monkeypatch.setattr(device_program, "to_original", lambda boxes, *sizes: boxes + 5)
    line, good = device_line(device, "tensorrt_rtx", "float32", 1)
    assert not good and "agree: NO" in line


def test_a_precision_that_fails_is_in_the_report_and_the_others_go_on(device, tmp_path):
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["fp16", "float32"], calls=1)
    assert not good
    assert "- fp16: FAILED: DeviceError: fp16 cannot be built here" in lines
    assert "against onnxruntime" in "\n".join(lines)


def test_engines_beyond_a_tolerance_fail(device, gpu, tmp_path):
    plan = open_bundle(device).network("trunk").read_bytes()
    model = onnx.load_from_string(plan)
    (weight,) = (w for w in model.graph.initializer if w.name == "w_objectness")
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), weight.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    gpu.networks[b"trunk"] = tmp_path / "wrong.onnx"
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)
    assert not good
    assert any(line.startswith("! noise of objectness 1.00% > 0.01%") for line in lines)


def test_an_engine_in_another_type_fails(device, gpu, tmp_path):
    gpu.inspected = gpu.inspected.replace("Float", "Half")
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)
    assert not good and "! no layer of the trunk works in float32" in lines


def test_types_are_read_from_what_the_inspector_writes():
    def layer(said, kind="CaskConvolution"):
        return {"LayerType": kind, "Inputs": [{"Format/Datatype": said}, {"Format/Datatype": "?"}]}

    layers = [
        layer("Row major linear FP32"),
        layer("Channel major FP16 format where channel % 8 == 0"),
        layer("Half"),
        layer("Thirty-two wide channel vectorized row major Int8 format."),
        layer("BFloat16"),
        layer("N/A due to dynamic shapes"),
        layer("Float", "Reformat"),
        layer("Float", "Myelin"),
        {"LayerType": "gemm", "Inputs": []},
        "only a name",
    ]
    expected = {"float32": 1, "float16": 2, "int8": 1, "bfloat16": 1}
    assert inspected_types(json.dumps({"Layers": layers, "Bindings": ["x"]})) == expected


def test_what_nobody_expected_is_in_the_report_too(device, tmp_path, monkeypatch, capsys):
    def surprise(*arguments):
        raise AttributeError("no attribute 'execute_async_v4'")

    monkeypatch.setattr(gpu_check, "threads_agree", surprise)
    lines, good = check(device, "tensorrt_rtx", tmp_path, precisions=["float32"], calls=1)
    assert not good
    assert lines[-1] == "- float32: FAILED: AttributeError: no attribute 'execute_async_v4'"
    assert "Traceback" in capsys.readouterr().err


def test_the_command_says_passed_or_failed(device, tmp_path, capsys):
    assert main([str(device), "--calls", "1", "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.rstrip().endswith("FAILED")


def test_without_a_name_the_command_takes_copies_of_what_is_here(tmp_path, monkeypatch, capsys):
    checked = []

    def check(path, package, output, *, precisions, calls):
        checked.append((path.name, output.name, precisions))
        assert path.parent == tmp_path / "out" / "bundles"
        return [f"- {path.name}"], path.name != "coco48"

    monkeypatch.setattr(gpu_check, "check", check)
    assert main(["--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAILED"
    names = sorted(path.name for path in default_bundle().parent.iterdir())
    assert [name for name, _, _ in checked] == names and "open" in names
    # The int8 head of "open" is that of CPUs.
    assert all(precisions == ["float32", "fp16"] for _, _, precisions in checked)


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
