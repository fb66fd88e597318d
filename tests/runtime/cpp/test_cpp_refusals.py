"""Inputs that the C++ library refuses, and that it says so in a sentence."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save

from runtime import Detector
from zsd_core.errors import ConfigError

pytestmark = pytest.mark.slow  # for the build


VECTOR = [1.0] + [0.0] * 7
CLASS_ERRORS = {
    "unknown": (["zebbra"], r"'zebbra' is not in the vocabulary of 8 names; did you mean 'zebra'"),
    "blank": ([" "], r"must be a text that is not blank"),
    "control": ([["a\0b", VECTOR]], r"'a<U\+0000>b' holds U\+0000, a control character; leave it"),
    "reordering": ([["a\u202eb", VECTOR]], r"'a<U\+202E>b' holds U\+202E"),
    "twice": (["zebra", "Zebra"], r"'Zebra' is given twice"),
    "active": (["cat"], r"'cat' is already active"),
    "width": (
        [["x", [1.0, 2.0]]],
        r"holds 2 numbers, must hold 8 from the bundle's encoder, random",
    ),
    "zero": ([["x", [0.0] * 8]], r"the vector of class 'x' has length 0"),
    "none": ([], r"no classes are given"),
}


@pytest.mark.parametrize("case", CLASS_ERRORS)
def test_a_class_that_cannot_be_is_refused_and_nothing_changes(probe, bundle_path, case):
    classes, message = CLASS_ERRORS[case]
    probe("open", bundle=str(bundle_path))
    before = probe("state")
    with pytest.raises(probe.Refused, match=message) as refused:
        probe("add", classes=classes)
    assert refused.value.args[0] == "ClassError"
    assert probe("state") == before


@pytest.mark.parametrize("name", ["cafe\u0301", "नमी\u200cक्\u200dष", "fire\ttruck", "👩\u200d🚒"])
def test_ordinary_names_of_any_script_are_classes(probe, bundle_path, name):
    probe("open", bundle=str(bundle_path))
    probe("add", classes=[[name, VECTOR]])
    assert probe("state")["classes"][-1] == " ".join(name.split())


def test_other_refusals_are_sentences(probe, bundle_path):
    path = str(bundle_path)
    cases = [
        ("ClassError", "mode", {"mode": "zsd"}, "at least one unseen class"),
        ("ClassError", "remove", {"names": ["person"]}, "holds? none"),
        ("ClassError", "remove", {"names": ["cup"]}, "'cup' is not active"),
        ("ClassError", "thresholds", {"thresholds": {"by_class": {"persn": 0.1}}}, "'person'"),
        ("ConfigError", "thresholds", {"thresholds": {"seen": 50}}, r"is 50, must be a number in"),
        ("ConfigError", "thresholds", {"thresholds": {"max_detections": 0}}, "from 1 to 1048576"),
        (
            "ConfigError",
            "thresholds",
            {"thresholds": {"max_detections": 2**20 + 1}},
            "max_detections is 1048577, must be a whole number from 1 to 1048576",
        ),
        ("ImageError", "no image", {}, r"3 x 4 with 0 bytes a row and no pixels"),
        (
            "DeviceError",
            "open",
            {"bundle": path, "backend": "tflite"},
            "'tflite', and this library",
        ),
        ("DeviceError", "open", {"bundle": path, "device": "TPU"}, "'TPU'"),
        ("BundleError", "open", {"bundle": path, "precision": "int8"}, "only 'float32'"),
    ]
    for kind, do, arguments, message in cases:
        probe("open", bundle=path, classes=["person"])
        with pytest.raises(probe.Refused, match=message) as refused:
            probe(do, **arguments)
        assert refused.value.args[0] == kind


@pytest.mark.parametrize("share", [1.0000001, 1.5, 50.0, -0.25, 12345.5])
def test_a_threshold_is_shown_as_it_is_and_as_in_python(probe, bundle_path, share):
    given = np.float32(share)
    message = f"is {float(str(given)):.9g}, must be a number in [0, 1]; it is no percentage."
    limits = {"seen": float(given)}
    with Detector(bundle_path, threads=1) as detector, pytest.raises(ConfigError) as expected:
        detector.set_thresholds(score_threshold={"seen": float(str(given))})
    probe("open", bundle=str(bundle_path))
    with pytest.raises(probe.Refused) as refused:
        probe("thresholds", thresholds=limits)
    assert refused.value.args == ("ConfigError", f"the threshold of seen classes {message}")
    assert str(expected.value).partition(" is ")[2].replace(".0,", ",") == message[3:]


@pytest.mark.parametrize("own", [False, True], ids=["built-in", "own networks"])
@pytest.mark.parametrize("threads", [-1, 1025, 2**31 - 1])
def test_threads_have_a_range(probe, bundle_path, threads, own):
    message = rf"threads is {threads}, must be a whole number from 1 to 1024, or 0 for all"
    with pytest.raises(probe.Refused, match=message) as refused:
        probe("open", bundle=str(bundle_path), threads=threads, own=own)
    assert refused.value.args[0] == "ConfigError"
    probe("open", bundle=str(bundle_path), threads=1, own=own)


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 1, "width": 6148914691236517206},
        {"height": 1, "width": 2**62},
        {"height": 4_000_000_000, "width": 4_000_000_000},
        {"height": 2**40, "width": 1, "row_bytes": 2**40},
        {"height": 1, "width": 1, "row_bytes": 2**63 - 1},
        {"height": 1, "width": 1, "row_bytes": -(2**63)},
    ],
    ids=str,
)
def test_sizes_whose_bytes_no_memory_holds_are_no_image(probe, bundle_path, sizes):
    probe("open", bundle=str(bundle_path))
    with pytest.raises(probe.Refused, match="and no more than memory holds") as refused:
        probe("sizes", **sizes)
    assert refused.value.args[0] == "ImageError"


@pytest.mark.parametrize(
    "header, message",
    [
        (b"P6 6148914691236517206 1 255\nab", "6148914691236517206 x 1 pixels; a side may have"),
        (b"P6 4000000000 4000000000 255\nab", "a side may have 32768. Make the image smaller"),
        (b"P6 30000 30000 255\nab", "the file ends early"),
        (b"P6 2 1 255\nabcde", "the file ends early"),
        (b"P6 99999999999999999999 1 255\nab", "no binary PPM"),
    ],
)
def test_the_example_refuses_a_header_that_its_file_does_not_fill(
    built, bundle_path, tmp_path, header, message
):
    (tmp_path / "a.ppm").write_bytes(header)
    command = [built / "example" / "detect", bundle_path, tmp_path / "a.ppm"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and message in result.stderr


def manifest_changed(path: Path, change) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def text_changed(path: Path, change) -> None:
    file = path / "manifest.json"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


def replaced(path: Path, name: str, data: bytes) -> None:
    """Put other bytes into a file, and their hash into the manifest: an attacker writes both."""
    (path / name).write_bytes(data)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest_changed(path, lambda m: m["files"].update({name: record}))


def scorer_changed(path: Path, change) -> None:
    """Change the arrays of the scorer; its file fits its hash."""
    arrays = {k: np.array(v) for k, v in load_file(path / "scorer.safetensors").items()}
    change(arrays)
    replaced(path, "scorer.safetensors", save(arrays))


def shared_bytes(path: Path, copies: int = 50) -> None:
    """Give many tensors the same bytes: copies of them would fill the memory."""
    data = b"\0" * 4000
    entry = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    header = json.dumps({f"t{i}": entry for i in range(copies)}).encode()
    replaced(path, "scorer.safetensors", len(header).to_bytes(8, "little") + header + data)


BUNDLE_ERRORS = {
    "deep": (
        lambda p: text_changed(p, lambda t: t.replace("[", "[" + "[" * 200_000, 1)),
        r"nested too deeply",
    ),
    "twice": (
        lambda p: text_changed(p, lambda t: t.replace('"name":', '"name": "x", "name":', 1)),
        r"the key 'name' stands there twice",
    ),
    "a factor of scores": (
        lambda p: manifest_changed(p, lambda m: m["model"]["scoring"].update(seen_scale=2000)),
        r"seen_scale .*1000",
    ),
    "format below 1": (lambda p: manifest_changed(p, lambda m: m.update(format=0)), r"at least 1"),
    "format of 64 bits": (
        lambda p: manifest_changed(p, lambda m: m.update(format=2**64 - 1)),
        r"has format 18446744073709551615",
    ),
    "endless": (
        lambda p: ((p / "manifest.json").unlink(), (p / "manifest.json").symlink_to("/dev/zero")),
        r"it is not a file",
    ),
    "huge": (
        lambda p: (p / "manifest.json").write_bytes(b" " * (1 << 25)),
        r"has 33554432 bytes, more than 16777216",
    ),
    "look-alike": (
        lambda p: manifest_changed(p, lambda m: m["files"].update({"trunk\u200b.onnx": {}})),
        r"not a plain path inside the bundle",
    ),
    "device": (
        lambda p: manifest_changed(p, lambda m: m["files"].update({"a/Com1.txt": {}})),
        r"'a/Com1.txt', which is not a plain path",
    ),
    "one file on Windows": (
        lambda p: manifest_changed(
            p, lambda m: m["files"].update({"Trunk.onnx": m["files"]["trunk.onnx"]})
        ),
        r"one file on many systems",
    ),
    "blank class": (
        lambda p: manifest_changed(p, lambda m: m["classes"][0].update(name=" _")),
        r"the name of classes\[0\] is blank",
    ),
    "control in a class": (
        lambda p: manifest_changed(p, lambda m: m["classes"][0].update(name="a\u202eb")),
        r"the name of classes\[0\], 'a<U\+202E>b', holds U\+202E, a control character",
    ),
    "control in the bundle's name": (
        lambda p: manifest_changed(p, lambda m: m.update(name="a\x1bb")),
        r"the name of the bundle, 'a<U\+001B>b', holds U\+001B, a control character",
    ),
    "half a character in a class": (
        lambda p: manifest_changed(p, lambda m: m["classes"][0].update(name="\ud800")),
        r"surrogate",
    ),
    "all memory": (
        lambda p: manifest_changed(
            p, lambda m: m["model"]["regions"].update(output_size=[2**40, 2**40])
        ),
        r"output_size is .*between 1 and 4096",
    ),
    "all pixels": (
        lambda p: manifest_changed(p, lambda m: m["model"]["preprocess"].update(square=10**6)),
        r"square is 1000000, must be a whole number of at least 0 and at most 16384",
    ),
    "not finite": (
        lambda p: scorer_changed(p, lambda a: a["background"].put(1, np.nan)),
        r"tensor 'background' has a number that is not finite",
    ),
    "shared bytes": (shared_bytes, r"its tensors share their bytes"),
    "flipped": (lambda p: flipped(p / "head.onnx"), r"head.onnx is damaged: its SHA-256 is"),
    "short": (lambda p: (p / "trunk.onnx").write_bytes(b"x"), r"trunk.onnx is damaged: 1 bytes"),
    "missing": (lambda p: (p / "scorer.safetensors").unlink(), r"scorer.safetensors is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), r"manifest.json cannot be read"),
    "no json": (lambda p: (p / "manifest.json").write_text("{"), r"is not JSON"),
    "newer": (
        lambda p: manifest_changed(p, lambda m: m.update(format=99)),
        r"has format 99, this version reads up to 1",
    ),
    "unknown option": (
        lambda p: manifest_changed(p, lambda m: m["model"]["proposals"].update(moons=2)),
        r"model.proposals has a field 'moons' that this version does not know",
    ),
    "other method": (
        lambda p: manifest_changed(p, lambda m: m["model"]["scoring"].update(method="oracle")),
        r"method is 'oracle', and this version runs only",
    ),
    "wrong number": (
        lambda p: manifest_changed(p, lambda m: m["model"]["preprocess"].update(pad_multiple=0)),
        r"preprocess.pad_multiple is 0, must be a whole number of at least 1",
    ),
    "0 as float32": (
        lambda p: manifest_changed(
            p, lambda m: m["model"]["scoring"].update(similarity_temperature=1e-46)
        ),
        r"similarity_temperature is 1e-46, must be a number between 1.1754944e-38 and",
    ),
    "infinite as float32": (
        lambda p: manifest_changed(p, lambda m: m["model"]["preprocess"].update(mean=[1e39, 0, 0])),
        r"preprocess.mean is \[1e\+39,0,0\], must be 0 or a float32 number, from 1.1754944e-38",
    ),
    "an infinite anchor": (
        lambda p: manifest_changed(
            p, lambda m: m["model"]["proposals"].update(anchor_sizes=[65537])
        ),
        r"proposals.anchor_sizes is \[65537\], must hold numbers above 0, at most 65536",
    ),
    "outside": (
        lambda p: manifest_changed(p, lambda m: m["files"].update({"../x": {}})),
        r"'../x', which is not a plain path inside the bundle",
    ),
    "falling curve": (
        lambda p: manifest_changed(
            p, lambda m: m["model"].update(calibration={"seen": [-1.0, 1, 0], "unseen": None})
        ),
        r"calibration.seen is \[-1.0,1,0\], its first number must be above 0",
    ),
    "look without prototypes": (
        lambda p: manifest_changed(p, lambda m: m["model"]["regions"].update(look=3)),
        r"regions.look is 3 and .scoring.method 'contrastzsd'",
    ),
    "other width": (
        lambda p: manifest_changed(p, lambda m: m["model"]["scoring"].update(joint_dim=5)),
        r"tensor 'project_semantic.\w+' has shape \(16.*the model means \(5",
    ),
}


@pytest.mark.parametrize("case", BUNDLE_ERRORS)
def test_a_bundle_that_cannot_be_run_is_refused(probe, fresh_bundle_path, case):
    damage, message = BUNDLE_ERRORS[case]
    damage(fresh_bundle_path)
    with pytest.raises(probe.Refused, match=message) as refused:
        probe("open", bundle=str(fresh_bundle_path))
    assert refused.value.args[0] == "BundleError"


def test_a_zip_and_nothing_at_all_are_refused(probe, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(b"PK")
    with pytest.raises(probe.Refused, match="unzip"):
        probe("open", bundle=str(tmp_path / "bundle.zip"))
    with pytest.raises(probe.Refused, match="no such bundle"):
        probe("open", bundle=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "option, message",
    [
        ("-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON", "apt-get install nlohmann-json3-dev"),
        ("-DZSD_CUDA=ON", "ZSD_CUDA=ON builds a Python module; leave it out"),
    ],
)
def test_the_build_says_what_it_cannot_do(cmake, tmp_path, option, message):
    root = Path(__file__).resolve().parents[3]
    command = [cmake, "-S", root, "-B", tmp_path, "-DZSD_PYTHON=OFF", option]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode and message in " ".join(result.stderr.split())


@pytest.mark.parametrize("kind", ["BOOL", "INT8", "FLOAT16", "DOUBLE", "INT64"])
@pytest.mark.parametrize("stage", ["trunk", "head"])
def test_an_output_of_another_type_is_refused_and_not_read(
    probe, backend, fresh_bundle_path, photo_path, stage, kind
):
    file = f"{stage}.onnx"
    model = onnx.load_from_string((fresh_bundle_path / file).read_bytes())
    output = model.graph.output[-1]
    wanted = getattr(onnx.TensorProto, kind)
    for node in model.graph.node:
        node.output[:] = ["float" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Cast", ["float"], [output.name], to=wanted))
    output.type.tensor_type.elem_type = wanted
    replaced(fresh_bundle_path, file, model.SerializeToString())
    probe("open", bundle=str(fresh_bundle_path), backend=backend)
    message = f"the {stage}'s output 'deltas' is of type .*, must be float32. Export the bundle"
    with pytest.raises(probe.Refused, match=message) as refused:
        probe("detect", images=[str(photo_path)])
    assert refused.value.args[0] == "BundleError"


def test_images_that_the_memory_does_not_hold_are_refused(
    probe, built, fresh_bundle_path, photo_path
):
    manifest_changed(fresh_bundle_path, lambda m: m["model"]["preprocess"].update(square=16384))
    own = type(probe)(built / "probe" / "probe")  # its limit stays
    try:
        own("open", bundle=str(fresh_bundle_path))
        pages = int(Path(f"/proc/{own.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (1 << 30)  # the network input alone takes 3 GiB
        resource.prlimit(own.pid, resource.RLIMIT_AS, (limit, limit))
        with pytest.raises(probe.Refused, match="not enough memory for 1 images of 16384 x 16384"):
            own("detect", images=[str(photo_path)])
    finally:
        own.close()
