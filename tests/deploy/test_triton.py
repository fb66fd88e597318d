"""The model repository for Triton: its configuration against the real graph, and its client."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from runtime import Detector
from runtime.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[2]
ONNX_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


@pytest.fixture
def modules(monkeypatch):
    """``prepare`` and ``client`` of deploy/triton."""
    monkeypatch.syspath_prepend(ROOT / "deploy" / "triton")
    for name in ("prepare", "client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import client
    import prepare

    yield prepare, client
    for name in ("prepare", "client"):
        sys.modules.pop(name, None)


@pytest.fixture(params=["shipped", "tiny"])
def bundle(request, tmp_path):
    if request.param == "shipped":
        return open_bundle()
    pytest.importorskip("onnxscript")
    import tiny_detector

    plain = tiny_detector.detector_bundle(tmp_path / "plain")
    graph = onnxruntime.InferenceSession(plain / "detector.onnx")
    stage = {
        "file": "detector.onnx",
        **{
            kind: [
                {
                    "name": v.name,
                    "dtype": {"tensor(float)": "float32"}.get(v.type, "int64"),
                    "shape": list(v.shape),
                }
                for v in values
            ]
            for kind, values in (("inputs", graph.get_inputs()), ("outputs", graph.get_outputs()))
        },
    }
    opened = open_bundle(plain)
    opened.manifest["stages"]["detector"] = stage
    return opened


def described(values):
    """(name, type, sizes) of a graph's values, -1 where the graph leaves a size open."""
    return [
        (v.name, ONNX_TYPES[v.type], [d if isinstance(d, int) else -1 for d in v.shape])
        for v in values
    ]


def test_the_configuration_is_that_of_the_graph(modules, bundle, tmp_path):
    prepare, _ = modules
    folder = prepare.write(bundle, tmp_path / "models")
    graph = onnxruntime.InferenceSession(folder / "1" / "detector.onnx")  # with its weights there
    text = (folder / "config.pbtxt").read_text()
    for kind, values in (("input", graph.get_inputs()), ("output", graph.get_outputs())):
        (block,) = re.findall(rf"^{kind} \[\n(.*?)\n\]", text, re.DOTALL | re.MULTILINE)
        entries = re.findall(r'name: "(\w+)", data_type: (\w+), dims: \[ (.*?) \]', block)
        found = [(name, kind, [int(n) for n in sizes.split(",")]) for name, kind, sizes in entries]
        assert found == described(values)
    assert {"prototypes", "similarity"} <= {value.name for value in graph.get_inputs()}


def test_tritons_own_definition_reads_the_configuration(modules, bundle):
    pytest.importorskip("tritonclient.grpc", reason="pip install 'contrastzsd[triton]'")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    parsed = text_format.Parse(modules[0].config(bundle), model_config_pb2.ModelConfig())
    assert parsed.backend == "onnxruntime" and parsed.max_batch_size == 0
    assert parsed.default_model_filename == "detector.onnx"
    assert list(parsed.input[0].dims) == [-1, 3, -1, -1]


def test_the_client_finds_what_a_detector_finds(modules, tmp_path):
    """ONNX Runtime stands in for the server, with the files and arrays that the server gets."""
    image = pytest.importorskip("skimage.data").chelsea()
    prepare, client = modules
    folder = prepare.write(open_bundle(), tmp_path / "models")
    session = onnxruntime.InferenceSession(folder / "1" / "detector.onnx")
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(client.NAMES)
    asked = []

    def ask(arrays):
        asked.append({name: array.shape for name, array in arrays.items()})
        assert all(array.dtype == np.float32 for array in arrays.values())
        return dict(zip(names, session.run(names, dict(arrays)), strict=True))

    classes = ["cat", "giraffe", "elephant", "kitten"]
    low = {"score_threshold": 1e-4}
    with Detector(classes=classes, backend="onnxruntime", **low) as detector:
        expected = detector(image)
    found = client.Client(open_bundle(), classes, ask, **low)(image)
    assert len(found) == len(expected) > 0
    for (name, score, box), other in zip(found, expected, strict=True):
        assert name == other.class_name
        assert score == pytest.approx(other.score, rel=1e-3, abs=1e-5)
        np.testing.assert_allclose(box, other.box, atol=0.1)
    assert asked[0]["prototypes"][0] == asked[0]["similarity"][0]


def test_a_bundle_without_the_graph_is_refused(modules, bundle_path, tmp_path, capsys):
    assert modules[0].main([str(bundle_path), str(tmp_path)]) == 1
    assert "holds no detector.onnx; export the bundle again." in capsys.readouterr().err


def test_what_goes_wrong_is_a_sentence(modules, tmp_path, capsys):
    pytest.importorskip("tritonclient.http", reason="pip install 'contrastzsd[triton]'")
    cv2 = pytest.importorskip("cv2")
    prepare, client = modules
    photo, file = tmp_path / "photo.png", tmp_path / "file"
    cv2.imwrite(str(photo), np.zeros((40, 60, 3), np.uint8))
    file.touch()
    for main, arguments, sentence in (
        (prepare.main, [str(file / "models")], "Not a directory"),
        (client.main, [str(tmp_path / "no.jpg"), "cat"], "cannot be read: No such file"),
        (client.main, [str(photo), "cat", "http://127.0.0.1:1"], "no Triton server answers: "),
    ):
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and sentence in err and err.count("\n") == 1
