"""A detector of somebody else's becomes a bundle: cut, composed, compared with what it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny
import tiny_given

pytest.importorskip("torch")

from export import given as given_module
from export.checks.images import sample_images
from export.given import export_given, main, parse, read_names
from export.graphs.errors import ExportError
from export.graphs.given import BOX_FORMATS, Cut, cut_detector, find_cut, given_trunk
from export.writing.words import Words
from runtime import Detector, Example
from runtime.bundle import open_bundle
from zsd_core import kernels
from zsd_core.errors import DataError

TENSOR = {"cxcywh": "centred", "xyxy": "corners"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module", params=BOX_FORMATS)
def given(request, folder):
    """A detector's file and its kind of boxes."""
    path = folder / f"{request.param}.onnx"
    return tiny_given.save_detector(path, request.param), request.param


def words():
    vectors = tiny.unit_vectors(len(tiny.WORDS), 6)
    return Words(names=tiny.WORDS, vectors=vectors, info={"encoder": "random"})


def exported(path, output, names=tiny.SEEN, **options):
    images = [i for i in sample_images() if i.name in ("chelsea", "rocket", "noise")]
    return export_given(
        path,
        names,
        tiny_given.taught(),
        output,
        images=images,
        vectors=tiny.unit_vectors(len(names), 5),
        look=3,
        **({"vocabulary": words()} | options),
    )


@pytest.fixture(scope="module")
def bundle(given, folder):
    path, kind = given
    report = exported(path, folder / f"bundle-{kind}")
    return open_bundle(folder / f"bundle-{kind}"), report, path


def test_boxes_logits_and_their_format_are_found(given):
    path, kind = given
    assert find_cut(path) == Cut("images", TENSOR[kind], "logits", kind)
    named = find_cut(path, boxes="shares", logits="logits", box_format="xyxy")
    assert named == Cut("images", "shares", "logits", "xyxy")  # what is named is taken as it is


def test_boxes_in_pixels_are_passed_over_and_refused_by_name(tmp_path):
    path = tiny_given.save_detector(tmp_path / "pixels.onnx", "xyxy", pixels=True)
    assert find_cut(path).boxes == "shares"  # further from the outputs, as shares of the input
    with pytest.raises(ExportError, match=r"as shares of the input's width .* found at corners"):
        find_cut(path, boxes="corners")


def test_a_detector_without_a_sigmoid_is_refused(tmp_path):
    path = tiny_given.save_detector(tmp_path / "softmax.onnx", sigmoid=False)
    model = onnx.load(path)
    for node in model.graph.node:  # nor one around its boxes
        node.op_type = "HardSigmoid" if node.op_type == "Sigmoid" else node.op_type
    onnx.save(model, path)
    with pytest.raises(ExportError, match=r"no sigmoid of a tensor .* Name the logits with"):
        find_cut(path)
    assert find_cut(path, logits="logits").boxes == "centred"


def test_a_name_that_is_not_there_is_refused_with_the_nearest(given):
    with pytest.raises(ExportError, match=r"'logit', which was named as the logits; did you mean"):
        find_cut(given[0], logits="logit")
    with pytest.raises(ExportError, match=r"'nowhere', which was named as the boxes"):
        find_cut(given[0], boxes="nowhere")


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ExportError, match="cannot be read as an ONNX model"):
        find_cut(tmp_path / "text.onnx")


def test_a_cut_behind_the_size_of_the_photograph_is_refused(given):
    path, kind = given
    behind = "placed" if kind == "xyxy" else "large"
    with pytest.raises(ExportError, match=r"also reads .*orig_target_sizes|cannot be cut"):
        cut_detector(path, Cut("images", behind, "logits", kind))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_trunk_gives_what_the_detector_gives(given, batch):
    path, kind = given
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in (TENSOR[kind], "logits"))
    whole = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    trunk = ir.to_proto(given_trunk(path, find_cut(path))).SerializeToString()
    images = np.random.default_rng(0).random((batch, 3, 64, 64), np.float32)
    sizes = np.full((batch, 2), 64, np.int64)
    part = ort.InferenceSession(trunk, providers=["CPUExecutionProvider"])
    boxes, logits = part.run(["boxes", "logits"], {"images": images})
    labels, placed, scores, raw, exact = whole.run(
        ["labels", "boxes", "scores", TENSOR[kind], "logits"],
        {"images": images, "orig_target_sizes": sizes},
    )
    if kind == "cxcywh":
        raw = np.concatenate([raw[..., :2] - raw[..., 2:] / 2, raw[..., :2] + raw[..., 2:] / 2], 2)
    np.testing.assert_array_equal(logits, exact)
    np.testing.assert_allclose(boxes, raw, atol=1e-6)
    # And what the detector itself reports follows from the two.
    likely = 1 / (1 + np.exp(-logits.reshape(batch, -1).astype(np.float64)))
    order = np.argsort(-likely, axis=1)[:, : tiny_given.BEST]
    np.testing.assert_allclose(np.take_along_axis(likely, order, 1), scores, atol=1e-6)
    np.testing.assert_array_equal(order % tiny_given.CLASSES, labels)
    expected = np.stack(
        [b[o // tiny_given.CLASSES] * 64 for b, o in zip(boxes, order, strict=True)]
    )
    np.testing.assert_allclose(expected, placed, atol=1e-4)


def test_the_bundle_is_the_detector_it_was_made_of(bundle, photo):
    opened, report, path = bundle
    assert report["passed"]
    assert {c["artifact"] for c in report["comparisons"]} >= {
        "trunk.onnx and head.onnx",
        "detector.onnx",
    }
    whole = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with Detector(opened, score_threshold=0.0, nms_threshold=1.0, threads=1) as detector:
        found = detector(photo)
    pixels = kernels.preprocess(
        photo, size=(64, 64), padded=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)
    )
    height, width = photo.shape[:2]
    labels, boxes, scores = whole.run(
        None,
        {"images": pixels[None], "orig_target_sizes": np.array([[width, height]], np.int64)},
    )
    count = tiny_given.BEST
    np.testing.assert_allclose(found.scores[:count], scores[0], atol=1e-6)
    assert found.class_ids[:count].tolist() == labels[0].tolist()
    inside = np.clip(boxes[0], 0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes[:count], inside, atol=1e-2)


def test_the_manifest_says_where_it_was_cut_and_what_taught_every_name(bundle):
    opened, _, path = bundle
    manifest = opened.manifest
    assert manifest["training"]["detector"] == path.name
    assert manifest["training"]["cut"] == dataclasses.asdict(find_cut(path))
    assert manifest["taught"] == {"boxes": list(tiny.SEEN), "pictures": list(tiny_given.NAMES)}
    assert opened.seen == tiny.SEEN


def test_the_bundle_learns_from_names_and_examples(bundle, photo):
    with Detector(bundle[0], score_threshold=0.0, threads=1) as detector:
        detector.add_classes({"zebra": None, "bracket": Example(photo, (10, 10, 90, 80))})
        assert {"zebra", "bracket"} <= set(detector(photo).class_names)


def test_a_bundle_without_a_vocabulary_is_compared_too(tmp_path):
    path = tiny_given.save_detector(tmp_path / "detector.onnx")
    assert exported(path, tmp_path / "bundle", vocabulary=None)["passed"]
    assert not len(open_bundle(tmp_path / "bundle").vocabulary)


@pytest.mark.parametrize("names", [tiny.SEEN[:2], (*tiny.SEEN, "cat")])
def test_a_wrong_number_of_names_is_refused_and_nothing_is_written(folder, tmp_path, names):
    path = tiny_given.save_detector(tmp_path / "detector.onnx")
    with pytest.raises(ExportError, match=rf"\(N, 16, 3\), and {len(names)} names were given"):
        exported(path, tmp_path / "bundle", names)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_disagrees_is_not_written(tmp_path, monkeypatch):
    path = tiny_given.save_detector(tmp_path / "detector.onnx")
    original = given_module._Given.trunk

    def other(self, images):
        boxes, logits = original(self, images)
        return boxes, logits[..., ::-1]

    monkeypatch.setattr(given_module._Given, "trunk", other)
    with pytest.raises(ExportError, match=r"the bundle disagrees with .*nothing was written"):
        exported(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_names_are_read_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("# a comment\nperson\n\n dining table \n")
    assert read_names(path) == ["person", "dining table"]
    path.write_text("cup\ncat\ncup\n")
    with pytest.raises(DataError, match="'cup' is there twice"):
        read_names(path)
    path.write_text("\ufeffperson\r\ncup\r\n", encoding="utf-8")  # as Windows saves it
    assert read_names(path) == ["person", "cup"]
    with pytest.raises(DataError, match=r"cannot read names \S+none\.txt"):
        read_names(tmp_path / "none.txt")


def test_a_missing_detector_is_one_sentence(tmp_path, capsys):
    args = ["--detector", str(tmp_path / "none.onnx"), "--names", "n.txt", "--look", "l"]
    assert parse([*args, "--output", "b"]).regions == 4
    assert main([*args, "--output", str(tmp_path / "b")]) == 1
    assert capsys.readouterr().err.count("error: ") == 1
