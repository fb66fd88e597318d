"""The TensorRT backends against a double of TensorRT and CUDA (no GPU runs here)."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
import tiny
from engine_double import engine_entry, gpu, path
from trt_double import accepts, checked, overloads

from export.engine import Shapes, profiles
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.backends import open_backend, trt_backend, trt_engines
from runtime.backends.trt_package import Message
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError, ConfigError, DeviceError, ShapeError

trt = pytest.importorskip("tensorrt_rtx")
driver = pytest.importorskip("cuda.bindings.driver")
pytest.importorskip("onnxruntime")
__all__ = ["gpu", "path"]  # fixtures


@pytest.fixture
def backend(gpu, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    yield backend
    backend.close()


def test_the_double_refuses_what_the_bindings_would():
    assert overloads(trt.IExecutionContext.execute_async_v3, "execute_async_v3") == [
        [("stream_handle", False)]
    ]
    assert overloads(driver.cuMemAlloc, "cuMemAlloc") == [[("bytesize", False)]]
    assert accepts([("a", False), ("b", True)], (1,), {})
    assert not accepts([("a", False)], (), {"b": 1})
    with pytest.raises(TypeError, match="it takes"):
        checked(trt.IExecutionContext, "execute_async_v3", (1, 2), {})
    with pytest.raises(AttributeError):
        checked(trt.IExecutionContext, "execute_async_v4", (1,), {})


def test_networks_compute_what_onnxruntime_computes(backend, path):
    plain = open_backend("onnxruntime", open_bundle(path), 1)
    images = tiny.random(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    patches = tiny.random(1).normal(size=(7, 6, 3, 3)).astype(np.float32)
    for ours, exact in zip(backend.trunk(images), plain.trunk(images), strict=True):
        np.testing.assert_array_equal(ours, exact)
    for ours, exact in zip(backend.head(patches), plain.head(patches), strict=True):
        np.testing.assert_array_equal(ours, exact)


def test_a_call_is_upload_run_download_wait_in_one_stream(backend, gpu):
    images = np.zeros((1, 3, 32, 32), np.float32)
    backend.trunk(images)
    gpu.calls.clear()
    backend.trunk(images)
    names = [name for _, name, _ in gpu.calls]
    assert names == [
        "cuCtxSetCurrent",
        "set_input_shape",
        "update_device_memory_size_for_shapes",
        "set_device_memory",
        "cuMemcpyHtoDAsync",
        "set_tensor_address",
        *["get_tensor_shape", "set_tensor_address"] * 3,
        "execute_async_v3",
        *["cuMemcpyDtoHAsync"] * 3,
        "cuStreamSynchronize",
    ]


def test_more_than_the_profile_takes_goes_in_parts(backend, gpu, path):
    gpu.accepts = 48
    patches = tiny.random(1).normal(size=(100, 6, 3, 3)).astype(np.float32)
    embeddings, deltas = backend.head(patches)
    assert embeddings.shape == (100, tiny.JOINT) and deltas.shape == (100, 4)
    exact, _ = open_backend("onnxruntime", open_bundle(path), 1).head(patches)
    np.testing.assert_allclose(embeddings, exact, rtol=1e-5, atol=1e-6)
    assert sum(name == "execute_async_v3" for _, name, _ in gpu.calls) == 3


@pytest.fixture
def two_maps(gpu, tmp_path):
    """A bundle whose head reads two maps, with engines."""
    path = tiny.split_bundle(tmp_path / "split")
    bundle = open_bundle(path)
    ranges = profiles(bundle.model_config, bundle, Shapes(regions=(1, 48)))
    entries = [engine_entry(s, trt.__version__, profile=ranges[s]) for s in ranges]
    amend_bundle(path, {f"engines/{s}.plan": s.encode() for s in ranges}, engines=entries)
    gpu.networks = {stage.encode(): bundle.network(stage) for stage in ranges}
    return path


def test_a_head_may_read_two_maps(two_maps):
    random = tiny.random(1).normal
    patches = [random(size=(100, *s)).astype(np.float32) for s in ((6, 3, 3), (5, 2, 2))]
    backend = open_backend("tensorrt_rtx", open_bundle(two_maps))
    exact = open_backend("onnxruntime", open_bundle(two_maps), 1)
    for ours, truth in zip(backend.head(*patches), exact.head(*patches), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match=r"region_shortcut has \(4, 5, 3, 3\)"):
        backend.head(patches[0][:4], np.zeros((4, 5, 3, 3), np.float32))
    backend.close()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    found = [
        Detector(two_maps, backend=name, threads=1, score_threshold=0)(image)
        for name in ("tensorrt_rtx", "onnxruntime")
    ]
    assert len(found[1]) > 5
    np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-4, atol=1e-6)


def test_kernels_on_the_device_know_one_map(two_maps, monkeypatch):
    monkeypatch.setattr(trt_backend, "compiled_cuda", object)
    with pytest.raises(ConfigError, match="one map, the bundle has reduced, shortcut"):
        Detector(two_maps, backend="tensorrt_rtx", backend_options={"on_device": True})


def test_an_engine_of_other_elements_is_refused(gpu, path, tmp_path):
    """What is copied to and from it is float32, whatever its own elements are."""
    for stage, side in (("trunk", "input"), ("head", "output")):
        model = onnx.load(gpu.networks[stage.encode()])
        value = getattr(model.graph, side)[0]
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        onnx.save(model, tmp_path / "half.onnx")
        right, gpu.networks[stage.encode()] = gpu.networks[stage.encode()], tmp_path / "half.onnx"
        says = rf"engines/{stage}\.plan: '{value.name}' is DataType\.HALF, must be DataType\.FLOAT"
        with pytest.raises(BundleError, match=says):
            open_backend("tensorrt_rtx", open_bundle(path))
        gpu.networks[stage.encode()] = right


def test_a_size_outside_the_profile_names_both_and_the_command(backend):
    with pytest.raises(
        ShapeError, match=r"\(1, 3, 32, 32\) to \(4, 3, 96, 192\).*\(1, 3, 224, 64\)"
    ) as e:
        backend.trunk(np.zeros((1, 3, 224, 64), np.float32))
    assert "--target sm86 --precision float32" in str(e.value)


def test_parts_are_no_smaller_than_the_profile_takes(backend, path):
    few = {"region_features": {"min": [3, 6, 3, 3], "opt": [4, 6, 3, 3], "max": [4, 6, 3, 3]}}
    package = trt_backend.open_package("tensorrt_rtx")
    entry = engine_entry("head", trt.__version__, profile=few)
    engine = trt_engines.Engine(package, open_bundle(path), entry, "a GPU")
    assert engine.parts([(9, 6, 3, 3)]) == [slice(0, 3), slice(3, 6), slice(6, 9)]
    with pytest.raises(ShapeError, match=r"has \(5, 6, 3, 3\)\. Build one for it with --regions"):
        engine.parts([(5, 6, 3, 3)])  # 4 and 1, or 3 and 2


def test_threads_have_streams_and_memory_of_their_own(backend, gpu):
    images = tiny.random(0).normal(size=(6, 1, 3, 32, 32)).astype(np.float32)
    expected = [backend.trunk(i)[0] for i in images]
    results, together = [None] * 6, threading.Barrier(6)

    def work(index):
        together.wait()
        for _ in range(5):
            results[index] = backend.trunk(images[index])[0]
        together.wait()  # one that ended early would leave its own to the next

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, exact in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours, exact)
    assert len(gpu.streams) == 7
    current = {ident for owner, name, ident in gpu.calls if name == "cuCtxSetCurrent"}
    assert {ident for _, name, ident in gpu.calls if name == "execute_async_v3"} <= current


def test_what_a_thread_had_goes_to_the_next_when_it_ends(backend, gpu):
    images = np.zeros((1, 3, 32, 32), np.float32)
    for _ in range(5):
        thread = threading.Thread(target=backend.trunk, args=(images,))
        thread.start()
        thread.join()
    assert len(gpu.streams) == 1
    current = [ident for _, name, ident in gpu.calls if name == "cuCtxSetCurrent"]
    ran = [ident for _, name, ident in gpu.calls if name == "execute_async_v3"]
    assert len(ran) == 5 and set(ran) <= set(current)


def test_its_gpu_is_current_again_whatever_the_thread_did_in_between(gpu, path):
    """A detector on another GPU, say, that the same thread uses in turn."""
    images, thread = np.zeros((1, 3, 32, 32), np.float32), threading.get_ident()
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    for use in (lambda: backend.trunk(images), lambda: backend.inspect("trunk"), backend.close):
        gpu.current[thread] = "another GPU"
        use()
        use()


def test_closing_frees_all(gpu, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    for size in (32, 64, 96):
        backend.trunk(np.zeros((2, 3, size, size), np.float32))
    backend.close()
    assert gpu.memory == {} and gpu.streams == {}
    assert gpu.calls[-1][1] == "cuDevicePrimaryCtxRelease"
    gpu.calls.clear()
    backend.close()
    assert gpu.calls == []  # a second release would take the GPU from others of the process
    with pytest.raises(DeviceError, match="closed; open the detector again"):
        backend.trunk(np.zeros((1, 3, 32, 32), np.float32))


def test_closing_engines_waits_for_the_calls_of_other_threads(gpu, path, monkeypatch):
    """Their memory and streams must stay until then; a call that begins later is refused."""
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    images = np.zeros((1, 3, 32, 32), np.float32)
    wanted = backend.trunk(images)
    run, inside, go_on = trt_backend._Lane.run, threading.Event(), threading.Event()
    results, order = [], []

    def slowly(*arguments):
        inside.set()
        assert go_on.wait(timeout=30)
        result = run(*arguments)
        order.append("ran")
        return result

    def close():
        backend.close()
        order.append("closed")

    monkeypatch.setattr(trt_backend._Lane, "run", slowly)
    searching = threading.Thread(target=lambda: results.append(backend.trunk(images)))
    searching.start()
    assert inside.wait(timeout=30)
    closing = threading.Thread(target=close)
    closing.start()
    closing.join(timeout=0.2)
    assert closing.is_alive() and gpu.streams
    with pytest.raises(DeviceError, match="networks are closed"):
        backend.trunk(images)
    go_on.set()
    closing.join(timeout=30)
    searching.join(timeout=30)
    assert order == ["ran", "closed"] and gpu.memory == {} and gpu.streams == {}
    for ours, exact in zip(results[0], wanted, strict=True):
        np.testing.assert_array_equal(ours, exact)
    with pytest.raises(DeviceError, match="networks are closed"):
        backend.inspect("trunk")


def test_a_detector_runs_on_it(gpu, path, photo):
    options = {"threads": 1, "score_threshold": 0.0}
    with Detector(path, backend="tensorrt_rtx", **options) as ours:
        assert "Double of a GPU (sm86), float32" in ours.description
        found = ours(photo)
    with Detector(path, backend="onnxruntime", **options) as plain:
        exact = plain(photo)
    assert len(found) == len(exact) > 0
    np.testing.assert_allclose(found.boxes, exact.boxes, rtol=1e-5)


@pytest.mark.parametrize(
    ("capability", "precision", "message"),
    [
        ((8, 9), "float32", r"tensorrt_rtx {v}, sm86, float32\. This machine: .*{v}, sm89"),
        ((8, 6), "int8", r"asked for int8.*--target sm86 --precision int8"),
    ],
)
def test_an_engine_for_elsewhere_is_an_error_naming_both_sides(
    gpu, path, capability, precision, message
):
    gpu.capability = capability
    with pytest.raises(DeviceError, match=message.replace("{v}", trt.__version__)):
        open_backend("tensorrt_rtx", open_bundle(path), precision=precision)


def test_an_engine_is_bound_to_the_gpu_that_its_entry_names(gpu, fresh_bundle_path):
    stages = ("trunk", "head")
    files = {f"engines/{stage}.plan": stage.encode() for stage in stages}
    for name in ("Orin", "Double of a GPU"):
        entries = [engine_entry(stage, trt.__version__, gpu=name) for stage in stages]
        amend_bundle(fresh_bundle_path, files, engines=entries)
        if name == "Orin":
            with pytest.raises(DeviceError, match=r"sm86 \(Orin\).*sm86 \(Double of a GPU\)"):
                open_backend("tensorrt_rtx", open_bundle(fresh_bundle_path))
            assert gpu.calls[-1][1] == "cuDevicePrimaryCtxRelease"  # nothing stays open
        else:
            open_backend("tensorrt_rtx", open_bundle(fresh_bundle_path)).close()


def test_a_gpu_that_the_package_cannot_build_for_is_sent_to_the_other(gpu, path):
    gpu.capability = (8, 7)
    with pytest.raises(DeviceError, match=r"no engines for sm87: take the backend 'tensorrt'"):
        open_backend("tensorrt_rtx", open_bundle(path))


def test_an_engine_of_another_version_is_an_error_naming_both_sides(gpu, fresh_bundle_path):
    files = {"engines/trunk.plan": b"trunk"}
    amend_bundle(fresh_bundle_path, files, engines=[engine_entry("trunk", "1.0.0.1")])
    with pytest.raises(DeviceError, match=r"tensorrt_rtx 1\.0\.0\.1, sm86.*python -m export\.eng"):
        open_backend("tensorrt_rtx", open_bundle(fresh_bundle_path))


def test_a_bundle_without_engines_says_how_to_build_them(gpu, bundle_path):
    with pytest.raises(DeviceError, match=r"Engines in the bundle: none.*python -m export\.engine"):
        open_backend("tensorrt_rtx", open_bundle(bundle_path))


def test_a_plan_that_tensorrt_refuses_carries_its_reason(gpu, path):
    gpu.networks.clear()
    with pytest.raises(BundleError, match=r"cannot load engines/trunk\.plan: magic tag"):
        open_backend("tensorrt_rtx", open_bundle(path))


def test_what_tensorrt_warns_of_when_it_loads_an_engine_is_shown(gpu, path):
    gpu.warns = ["built on another model of GPU"]
    with pytest.warns(UserWarning, match=r"engines/\w+\.plan: tensorrt_rtx .* another model"):
        open_backend("tensorrt_rtx", open_bundle(path)).close()


def test_a_context_that_was_refused_is_asked_for_again(backend, gpu):
    gpu.has_room = False
    with pytest.raises(DeviceError, match="cannot run the trunk engine"):
        backend.trunk(np.zeros((1, 3, 32, 32), np.float32))
    gpu.has_room = True
    assert len(backend.trunk(np.zeros((1, 3, 32, 32), np.float32))) == 3


def test_a_call_that_fails_leaves_nothing_on_its_stream(backend, gpu):
    images = np.zeros((1, 3, 32, 32), np.float32)
    backend.trunk(images)
    gpu.failing = "cuMemcpyDtoHAsync"
    with pytest.raises(DeviceError, match="cuMemcpyDtoHAsync failed"):
        backend.trunk(images)
    assert list(gpu.streams.values()) == [[]]  # else it would read memory that has gone


def test_the_inspector_is_told_the_shapes(backend, gpu):
    gpu.inspected = '{"Layers": [1]}'
    assert backend.inspect("trunk") == '{"Layers": [1]}'


def test_a_run_that_tensorrt_refuses_carries_its_reason(backend, gpu):
    gpu.accepts = 0
    gpu.logger.last = Message("ERROR", "no kernel image")
    with pytest.raises(DeviceError, match=r"cannot run the trunk engine.*no kernel image"):
        backend.trunk(np.zeros((1, 3, 32, 32), np.float32))


def test_a_failing_driver_call_is_named(backend, gpu):
    backend.trunk(np.zeros((1, 3, 32, 32), np.float32))
    gpu.failing = "cuMemFree"
    with pytest.raises(DeviceError, match="cuMemFree failed: CUDA_ERROR_OUT_OF_MEMORY"):
        backend.trunk(np.zeros((1, 3, 96, 192), np.float32))
    gpu.failing = None
