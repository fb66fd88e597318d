"""Backends: the same numbers from each, and errors that say how to get one."""

import importlib
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
import tiny

from runtime import Detector, backends
from runtime.backends import BACKENDS, installed_backends, open_backend
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError, ConfigError, DeviceError, MissingPackageError

CPU = ("onnxruntime", "openvino")  # run the networks themselves; the others have tests of their own


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return open_bundle(bundle_path)


@pytest.fixture(params=CPU)
def backend(request, bundle):
    pytest.importorskip(request.param)
    opened = open_backend(request.param, bundle, threads=1)
    yield opened
    opened.close()


def exact_trunk(images):
    """The tiny trunk in float64."""
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in tiny.trunk_model().graph.initializer}
    n, c, h, w = images.shape
    pooled = images.astype(np.float64).reshape(n, c, h // 16, 16, w // 16, 16).mean(axis=(3, 5))

    def conv(x, name):
        return np.einsum("nchw,dc->ndhw", x, weights[name][:, :, 0, 0].astype(np.float64))

    features = np.maximum(conv(pooled, "w_features"), 0)
    return features, conv(features, "w_objectness"), conv(features, "w_deltas")


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 64, 96)])
def test_the_trunk_computes_its_network(backend, shape):
    images = tiny.random(0).normal(size=shape).astype(np.float32)
    for ours, exact in zip(backend.trunk(images), exact_trunk(images), strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == exact.shape
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regions", [1, 5, 300])
def test_the_head_takes_any_number_of_regions(backend, regions):
    patches = tiny.random(1).normal(size=(regions, tiny.CHANNELS, 3, 3)).astype(np.float32)
    embeddings, deltas = backend.head(patches)
    assert embeddings.shape == (regions, tiny.JOINT)
    assert deltas.shape == (regions, 4)
    one, _ = backend.head(patches[-1:])
    np.testing.assert_allclose(embeddings[-1:], one, rtol=1e-5, atol=1e-6)


def test_results_stay_when_the_network_runs_again(backend):
    images = tiny.random(0).normal(size=(2, 1, 3, 32, 32)).astype(np.float32)
    first = backend.trunk(images[0])
    before = [array.copy() for array in first]
    backend.trunk(images[1])
    for array, copy in zip(first, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_many_threads_may_run_one_backend(backend):
    images = tiny.random(0).normal(size=(8, 1, 3, 32, 32)).astype(np.float32)
    expected = [backend.trunk(i)[0] for i in images]
    results = [None] * 8

    def work(index):
        for _ in range(20):
            results[index] = backend.trunk(images[index])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, alone in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours, alone)


def test_backends_find_the_same_objects(bundle, photo):
    pytest.importorskip("openvino")
    found = []
    for name in ("onnxruntime", "openvino"):
        with Detector(bundle, backend=name, threads=1, score_threshold=0.0) as detector:
            assert detector.backend == name
            assert name in detector.description
            found.append(detector(photo))
    one, two = found
    assert one.class_names == two.class_names
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4)
    np.testing.assert_allclose(one.boxes, two.boxes, rtol=1e-4, atol=1e-3)


def test_auto_takes_the_first_that_is_installed_and_says_which(bundle, monkeypatch):
    with Detector(bundle, threads=1) as detector:
        assert detector.backend == installed_backends()[0]
    monkeypatch.setattr(backends, "BACKENDS", ("openvino", "onnxruntime"))
    if "openvino" in installed_backends():
        with Detector(bundle, threads=1) as detector:
            assert detector.backend == "openvino"


def test_without_any_backend_the_error_says_how_to_get_one(bundle, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[cpu\]'"):
        open_backend("auto", bundle)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("onnxruntime", "cpu"),
        ("openvino", "openvino"),
        ("tensorrt", "tensorrt"),
        ("tensorrt_rtx", "tensorrt-rtx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(bundle, monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=rf"{name} is needed.*contrastzsd\[{extra}\]"):
        open_backend(name, bundle)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("onnxruntim", {}), ConfigError, "did you mean 'onnxruntime'"),
        (("onnxruntime", {"provider": []}), ConfigError, "did you mean 'providers'"),
        (("onnxruntime", ["providers"]), ConfigError, "must be a mapping"),
        (("onnxruntime", {"providers": "CPU"}), ConfigError, r"must be a list: \['CPU'\]"),
        ((None, {}), ConfigError, "backend is None, must be 'auto' or one of"),
        (("onnxruntime", {"precision": "int8"}), ConfigError, "no option 'precision'"),
        (("onnxruntime", {"providers": ["MoonProvider"]}), DeviceError, "has no MoonProvider"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(bundle, arguments, error, message):
    name, options = arguments
    with pytest.raises(error, match=message):
        open_backend(name, bundle, options=options)


@pytest.mark.parametrize(
    ("precision", "error", "message"),
    [
        ("fp61", ConfigError, "did you mean 'fp16'"),
        ("int8", BundleError, r"no trunk in 'int8'.*only float32.*python -m export\.quantize"),
    ],
)
def test_a_precision_that_is_not_there_says_how_to_make_it(bundle, precision, error, message):
    with pytest.raises(error, match=message):
        open_backend("onnxruntime", bundle, precision=precision)


def test_an_unknown_device_of_openvino_lists_the_known(bundle):
    pytest.importorskip("openvino")
    with pytest.raises(DeviceError, match=r"no device 'TPU' here, only .*CPU"):
        open_backend("openvino", bundle, options={"device": "TPU"})


def test_the_first_of_several_devices_of_a_kind_may_be_meant(bundle, monkeypatch):
    openvino = pytest.importorskip("openvino")

    class Core(openvino.Core):
        available_devices = ("CPU.0", "CPU.1")  # so OpenVINO lists GPUs, where there are two

    core = Core()
    monkeypatch.setattr("runtime.backends.openvino.core", lambda: core)
    backend = open_backend("openvino", bundle, 1, {"device": "CPU"})
    assert "CPU, float32" in backend.description
    backend.close()


SIGNAL_AFTER_A_CLOSE_ELSEWHERE = """
import gc, signal, sys, threading
from runtime import Detector

signal.signal(signal.SIGTERM, lambda *_: print("caught"))
kept = [Detector(sys.argv[1], backend="openvino")]

def close():
    kept.pop().close()
    gc.collect()

thread = threading.Thread(target=close)
thread.start()
thread.join()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_after_another_thread_closed_openvino_is_caught(bundle_path):
    pytest.importorskip("openvino")
    run = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_A_CLOSE_ELSEWHERE, bundle_path],
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "caught\n"), run.stderr


def test_a_closed_backend_says_so_and_may_be_closed_again(backend):
    images = np.zeros((1, 3, 32, 32), np.float32)
    backend.trunk(images)
    backend.close()
    backend.close()
    for run in (backend.trunk, backend.head):
        with pytest.raises(DeviceError, match="networks are closed; open the detector again"):
            run(images)


@pytest.mark.parametrize("threads", [0, -3, 2.5, "2", 1025, 2**40, float("inf")])
def test_threads_have_a_range(bundle, threads):
    with pytest.raises(ConfigError, match="from 1 to 1024; leave it out for all cores"):
        open_backend("onnxruntime", bundle, threads)


def test_a_named_provider_is_used(bundle, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    backend = open_backend("onnxruntime", bundle, 1, {"providers": ["CPUExecutionProvider"]})
    assert backend.description.endswith("CPUExecutionProvider, float32, 1 thread")
    assert open_backend("onnxruntime", bundle).description.endswith(", all threads")


def test_a_device_that_takes_no_threads_does_not_say_it_did(bundle):
    pytest.importorskip("openvino")
    described = {
        device: open_backend("openvino", bundle, 2, {"device": device}).description
        for device in ("CPU", "AUTO")
    }
    assert described["CPU"].endswith("CPU, float32, 2 threads")
    assert described["AUTO"].endswith("AUTO, float32")


@pytest.mark.parametrize("name", CPU)
def test_a_network_the_backend_cannot_load_is_an_error_of_the_bundle(tmp_path, name):
    pytest.importorskip(name)
    files = {"trunk.onnx": b"\x08\x09", "head.onnx": tiny.head_model().SerializeToString()}
    broken = open_bundle(tiny.tiny_bundle(tmp_path / "b", files=files))
    with pytest.raises(BundleError, match=rf"{name}.* cannot load trunk\.onnx"):
        open_backend(name, broken)


@pytest.mark.parametrize("name", ["trunk.onnx", "head.onnx"])
def test_a_file_that_changed_after_the_opening_is_refused_when_it_is_read_later(
    fresh_bundle_path, name
):
    backend = open_backend("onnxruntime", open_bundle(fresh_bundle_path), threads=2)
    images = np.zeros((2, 3, 32, 32), np.float32)
    patches = np.zeros((1, tiny.CHANNELS, 3, 3), np.float32)

    def later():
        return backend.trunk(images) if name == "trunk.onnx" else backend.head(patches)

    place = fresh_bundle_path / name
    right = place.read_bytes()
    place.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        later()
    place.write_bytes(right)
    assert len(later()) >= 2
    backend.close()


def test_a_network_that_is_refused_prints_nothing(tmp_path, capfd):
    # An operator's name that is no text: ONNX Runtime's own error cannot be decoded, and it would
    # try again and print "EP Error" on standard output.
    trunk = tiny.trunk_model().SerializeToString().replace(b"Relu", b"R\xfflu")
    files = {"trunk.onnx": trunk, "head.onnx": tiny.head_model().SerializeToString()}
    broken = open_bundle(tiny.tiny_bundle(tmp_path / "b", files=files))
    with pytest.raises(BundleError, match=r"cannot load trunk\.onnx"):
        open_backend("onnxruntime", broken)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_file_follows_the_contract(name):
    module = importlib.import_module(f"runtime.backends.{name}")
    assert isinstance(module.PACKAGE, str)
    assert isinstance(module.EXTRA, str)
    assert callable(module.load)
