"""Cost of a precision: nothing for float32 itself, something for a network with noise."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import tiny_given
from made_up import images

from export.checks import agreement
from export.checks.agreement import agreement_lines, stage_errors
from export.checks.labels import Labels
from export.checks.variants import TOLERANCES, failures
from export.fp16 import add_fp16
from export.tradeoff import main, networks_size, tradeoff, tradeoff_table
from runtime.bundle import bundled, open_bundle

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def path(bundle_path, tmp_path_factory):
    copy = tmp_path_factory.mktemp("tradeoff") / "tiny"
    shutil.copytree(bundle_path, copy)
    add_fp16(copy)
    return copy


@pytest.fixture
def given_labels(tmp_path):
    """A given detector in fp16, photographs with boxes of two of its classes, and a page."""
    cv2 = pytest.importorskip("cv2")
    path = tiny_given.given_bundle(tmp_path / "given")
    add_fp16(path)
    folder = tmp_path / "photographs"
    folder.mkdir()
    boxes, pictures = [], []
    for number, image in enumerate(images(3)):
        height, width = image.pixels.shape[:2]
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), image.pixels)
        pictures.append({"id": number, "file_name": name, "height": height, "width": width})
        for category in (1, 2):
            box = [2 * category, 4, width // 2, height // 2]
            entry = {"id": len(boxes) + 1, "image_id": number, "category_id": category}
            boxes.append(entry | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": 1, "name": "truck"}, {"id": 2, "name": "person"}]
    annotations = tmp_path / "boxes.json"
    annotations.write_text(
        json.dumps({"images": pictures, "annotations": boxes, "categories": categories})
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- numbers: precisions -->\n<!-- /numbers -->\n")
    asked = ["--annotations", str(annotations), "--images", str(folder)]
    return path, asked, page


def test_a_model_with_a_second_look_is_measured_by_names_alone_too(given_labels, capsys):
    """Every category is asked for as the detector knows it, and through the look."""
    path, asked, page = given_labels
    options = ["--precision", "fp16", "--samples", "20", "--markdown", str(page)]
    assert main([str(path), *asked, *options]) == 0
    out = capsys.readouterr().out
    assert "  all seen: " in out and "  by name unseen: " in out
    lines = page.read_text().splitlines()
    assert lines[1].startswith("| precision | backend | networks, MB | noise of the worst output |")
    assert "mAP@0.5, all seen" in lines[1] and "mAP@0.5, by name unseen" in lines[1]
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[:2] == ["fp16", f"onnxruntime {onnxruntime.__version__}"]
    assert float(cells[2]) < 1  # megabytes
    assert all(re.fullmatch(r"[+-][0-9.]+ \[[+-][0-9.]+, [+-][0-9.]+\]", c) for c in cells[5:])


def test_float32_is_run_once_for_all_precisions(given_labels, monkeypatch):
    path, asked, _ = given_labels
    measured, whole_tests = [], agreement.whole_tests

    def counted(bundle, dataset, *, precision, **options):
        measured.append(precision)
        return whole_tests(bundle, dataset, precision=precision, **options)

    monkeypatch.setattr(agreement, "whole_tests", counted)
    assert main([str(path), "--precision", "fp16", "float32", *asked, "--samples", "5"]) == 0
    assert sorted(measured) == ["float32", "fp16"]


def test_the_size_of_networks_counts_weights_beside_them():
    bundle = open_bundle(bundled("open"))
    files = [bundle.network(stage) for stage in ("trunk", "head")]
    beside = [bundle.path / name for name in ("weights.bin", "scorer.safetensors")]  # taught names
    size = networks_size(bundle.path, "float32", "onnxruntime")
    assert sum(file.stat().st_size for file in files) < size
    assert size <= sum(file.stat().st_size for file in (*files, *beside))


def test_the_report_names_stages_detections_and_conditions(path):
    report = tradeoff(path, "fp16", images=images(2), calls=3)
    (part,) = report["backends"]
    assert "fp16" in part["backend"]
    assert all(0 < row["noise"] < 0.01 for row in part["stages"].values())
    whole = part["end_to_end"]
    assert whole["matched"] >= 0.8 * whole["expected"] > 0
    assert set(whole["map_of_float32"]) == {"seen", "unseen", "hm", "all"}
    assert set(part["median_ms"]) == {"trunk", "head"}
    assert json.loads(json.dumps(report)) == report
    assert "times as fast" in tradeoff_table(report)


class Shifted:
    """A head that is wrong by one everywhere."""

    def head(self, patches):
        return np.ones((len(patches), 3)) * 2, np.ones((len(patches), 4)) * 2


def test_errors_are_shares_of_the_signal_with_equal_inputs():
    patches = np.zeros((5, 1, 2, 2), np.float32)
    maps = {
        name: np.full((1, 2, 3, 3), 4.0) for name in ("features", "objectness", "anchor_deltas")
    }
    exact = {
        **maps,
        "region_features": patches,
        "embeddings": np.ones((5, 3)),
        "box_deltas": np.ones((5, 4)),
    }
    got = {**maps, "features": np.full((1, 2, 3, 3), 4.4)}
    errors = stage_errors(Shifted(), [(exact, got)])
    assert errors["features"] == pytest.approx({"largest": 0.4, "mean": 0.4, "noise": 0.1})
    assert errors["objectness"] == {"largest": 0.0, "mean": 0.0, "noise": 0.0}
    assert errors["embeddings"] == {"largest": 1.0, "mean": 1.0, "noise": 1.0}


def test_a_network_that_overflows_is_seen():
    values = {name: np.ones((1, 1, 2, 2)) for name in ("features", "objectness", "anchor_deltas")}
    for wrong in (np.nan, np.inf, -np.inf):
        got = {**values, "features": np.full((1, 1, 2, 2), wrong)}
        errors = stage_errors(Shifted(), [(values, got), (values, values)])
        assert errors["features"] == {"largest": None, "mean": None, "noise": None}
        assert errors["objectness"]["noise"] == 0
        json.dumps(errors, allow_nan=False)  # what a manifest holds must be JSON
        whole = {"matched": 9, "expected": 9, "class_flips": 0}
        row = {"stages": errors, "end_to_end": whole}
        assert failures(row, TOLERANCES["fp16"]) == ["noise of features inf% > 2.00%"]
        assert agreement_lines(row)[1].split() == ["features", "inf", "inf", "inf", "%"]


def test_the_command_writes_json_and_a_missing_precision_says_what_to_do(path, tmp_path, capsys):
    pytest.importorskip("cv2")
    import cv2

    (tmp_path / "images").mkdir()
    assert cv2.imwrite(str(tmp_path / "images" / "a.png"), images(1)[0].pixels)
    arguments = [str(path), "--compare-on", str(tmp_path / "images"), "--precision"]
    target = tmp_path / "report.json"
    assert main([*arguments, "fp16", "--json", str(target)]) == 0
    assert json.loads(target.read_text())["precision"] == "fp16"
    assert main([*arguments, "int8"]) == 1
    assert "python -m export.quantize" in capsys.readouterr().err
    assert open_bundle(path).manifest["precisions"].keys() == {"fp16"}


def test_labels_are_asked_of_every_backend(path, tmp_path, capsys, monkeypatch):
    """The loss of one must not stand under another."""
    pytest.importorskip("openvino")
    losses = {"openvino": -2.0, "onnxruntime": -1.0}

    def accuracy(path, precision, labels, *, backend, threads):
        assert labels == "labels of ['a.json']"
        row = {"unseen": {"difference": losses[backend], "interval": [-3.0, 0.0]}}
        return {"zsd": {"mAP@0.5 area": row}}

    monkeypatch.setattr("export.tradeoff.accuracy", accuracy)
    monkeypatch.setattr(Labels, "read", lambda bundle, annotations, *_: f"labels of {annotations}")
    asked = [
        "--precision",
        "fp16",
        "--backend",
        "openvino",
        "onnxruntime",
        "--annotations",
        "a.json",
        "--images",
        "folder",
        "--split",
        "coco_48_17",
    ]
    assert main([str(path), *asked]) == 0
    first, second = capsys.readouterr().out.split("onnxruntime", 1)
    assert "zsd unseen: -2.00" in first and "zsd unseen: -1.00" not in first
    assert "zsd unseen: -1.00" in second and "zsd unseen: -2.00" not in second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calls", "-1"], "--calls must not be negative"),
        (["--samples", "0"], "--samples at least 1"),
        (["--images", "photographs"], "--annotations and --images are given together"),
        (["--annotations", "a.json", "--split", "coco_48_17"], "are given together"),
        (["--split", "coco_48_17"], "--split and --subset need --annotations and --images"),
        (["--subset", "test"], "--split and --subset need --annotations and --images"),
    ],
)
def test_options_that_mean_nothing_are_refused(path, capsys, options, message):
    with pytest.raises(SystemExit):
        main([str(path), "--precision", "fp16", *options])
    assert message in capsys.readouterr().err


def test_what_cannot_be_read_or_written_is_said_before_the_work(
    path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("export.tradeoff.tradeoff", lambda *_, **__: pytest.fail("worked first"))
    (tmp_path / "file").write_text("")
    asked = [str(path), "--precision", "fp16"]
    labels = ["--annotations", "none.json", "--images", "none", "--split", "voc_16_4"]
    for more, message in (
        (["--json", str(tmp_path)], "it is a folder; name another file"),
        (["--json", str(tmp_path / "file/report.json")], "its folder cannot be made"),
        (labels, "error: "),
    ):
        assert main([*asked, *more]) == 1
        assert message in capsys.readouterr().err
