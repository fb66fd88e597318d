"""Variants of a bundle's networks against one truth, and where their numbers are written."""

from __future__ import annotations

import json

import pytest
import tiny
from made_up import images

from export import verify
from export.checks.agreement import as_truth
from export.checks.images import sample_images
from export.checks.variants import (
    TOLERANCES,
    Tolerance,
    Truth,
    compare_variants,
    markdown,
    variants_of,
    variants_table,
)
from export.fp16 import add_fp16
from export.quantize import add_int8
from export.writing.bundle_writer import amend_bundle
from runtime.bundle import open_bundle
from zsd_core.errors import ConfigError, DeviceError, MissingPackageError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tiny.tiny_bundle(tmp_path_factory.mktemp("variants") / "tiny")
    add_fp16(path)
    add_int8(path, images(), sensitive=0, noise=0, crossing=0)
    return open_bundle(path)


def compared(bundle, variants, **options):
    truth = Truth.of(bundle, None, 1)
    photographs = [i for i in sample_images() if i.name in ("chelsea", "rocket")]
    return compare_variants(bundle, photographs, truth, variants, threads=1, **options)


def test_every_precision_on_every_backend_is_within_its_tolerance(bundle):
    pytest.importorskip("openvino")
    variants = [*variants_of(bundle, ["onnxruntime", "openvino"])]
    assert len(variants) == 6
    report = compared(bundle, variants)
    assert report["passed"], variants_table(report)
    assert json.loads(json.dumps(report)) == report
    noise = {
        (row["backend"], row["precision"]): row["stages"]["features"]["noise"]
        for row in report["variants"]
    }
    assert noise["onnxruntime", "float32"] == 0
    assert 0 < noise["onnxruntime", "fp16"] < noise["onnxruntime", "int8"]
    assert all(row["end_to_end"]["expected"] >= 10 for row in report["variants"])


def test_what_is_beyond_its_tolerance_is_named(bundle, monkeypatch):
    strict = Tolerance(noise=1e-9, matched=1.01, loss=1.0)
    monkeypatch.setitem(TOLERANCES, "int8", strict)
    report = compared(bundle, [("onnxruntime", "int8")])
    assert not report["passed"]
    failures = " ".join(report["variants"][0]["failures"])
    assert "noise of features" in failures and "best detections matched, < 101%" in failures
    assert "DIFFERS" in variants_table(report) and "! noise of" in variants_table(report)


def test_an_engine_that_cannot_run_is_listed_unless_it_is_required(bundle):
    entry = {"package": "tensorrt", "precision": "fp16", "stage": "trunk", "file": "engines/x"}
    amend_bundle(bundle.path, {entry["file"]: b"a plan"}, engines=[entry])
    variants = [*variants_of(open_bundle(bundle.path), ["tensorrt"])]
    assert variants == [("tensorrt", "fp16")]
    report = compared(bundle, variants)
    assert "tensorrt fp16: not run: " in variants_table(report)
    assert "| tensorrt | fp16 | not run |" in markdown(report)
    with pytest.raises((MissingPackageError, DeviceError)):
        compared(bundle, variants, required=["tensorrt"])


def test_what_one_backend_holds_is_not_asked_of_the_next(bundle):
    entry = {"package": "tensorrt", "precision": "fp16", "stage": "trunk", "file": "engines/x"}
    amend_bundle(bundle.path, {entry["file"]: b"a plan"}, engines=[entry])
    asked = [*variants_of(open_bundle(bundle.path), ["tensorrt", "tensorrt_rtx", "onnxruntime"])]
    assert asked == [
        ("tensorrt", "fp16"),
        ("tensorrt_rtx", "float32"),
        ("onnxruntime", "float32"),
        ("onnxruntime", "fp16"),
        ("onnxruntime", "int8"),
    ]


def test_what_cannot_be_read_or_written_is_said_before_the_work(
    bundle, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(verify, "verify", lambda *_, **__: pytest.fail("worked first"))
    page = tmp_path / "page.md"
    page.write_text("<!-- numbers: other -->\n<!-- /numbers -->\n")
    labels = ["--annotations", "none.json", "--images", "none", "--split", "voc_16_4"]
    for options, message in (
        (["--json", str(tmp_path)], "it is a folder"),
        (["--markdown", str(tmp_path / "none.md")], "none.md cannot be filled with numbers"),
        (["--markdown", str(page)], "has no line '<!-- numbers: parity -->'"),
        (["--checkpoint", "none.pt"], "cannot read checkpoint none.pt"),
        (labels, "error: "),
    ):
        assert verify.main([str(bundle.path), *options]) == 1
        assert message in capsys.readouterr().err
    for wrong in (["--images", "photographs"], ["--samples", "0"]):
        with pytest.raises(SystemExit):
            verify.parse(wrong)


def test_a_table_row_has_a_cell_per_column(bundle):
    report = compared(bundle, [("onnxruntime", "fp16")])
    accuracy = {"difference": -0.25, "interval": [-1.0, 0.5]}
    report["variants"][0]["accuracy"] = {
        "zsd": {"unseen": accuracy},
        "gzsd": {"seen": accuracy},
    }
    header, _, row = markdown(report).splitlines()[:3]
    assert header.count("|") == row.count("|") == 11
    assert "-0.25 [-1.00, +0.50]" in row


def test_numbers_fill_their_slot_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    text = "a\n<!-- numbers: parity -->\nold\n<!-- /numbers -->\nb\n<!-- numbers: x -->\nkept\n<!-- /numbers -->\n"  # noqa: E501
    page.write_text(text)
    verify.fill_slot(page, "parity", "new")
    assert page.read_text() == text.replace("old", "new")
    with pytest.raises(ConfigError, match="numbers: absent"):
        verify.fill_slot(page, "absent", "new")


def test_the_command_records_into_the_bundle(tmp_path, capsys):
    from tiny_detector import detector_bundle

    path = detector_bundle(tmp_path / "tiny")
    add_fp16(path)
    page = tmp_path / "page.md"
    page.write_text("<!-- numbers: parity -->\n<!-- /numbers -->\n")
    arguments = ["--backend", "onnxruntime", "--record", "--threads", "1", "--markdown", str(page)]
    assert verify.main([str(path), *arguments]) == 0, capsys.readouterr()
    written = json.loads(open_bundle(path).file("verify.json").read_text())
    assert [v["precision"] for v in written["networks"]["variants"]] == ["float32", "fp16"]
    assert "| onnxruntime | fp16 |" in page.read_text()
    assert "best detections" in capsys.readouterr().out


def test_mAP_is_compared_on_human_labels(bundle, tmp_path, monkeypatch):
    """The truth itself loses nothing; a detector that finds nothing loses what there was."""
    from export.checks import variants as module
    from export.checks.labels import Labels
    from zsd_core.learning.data.dataset import Dataset
    from zsd_core.learning.data.splits import Split
    from zsd_core.learning.matching import match

    photographs = [i for i in sample_images() if i.name == "chelsea"]
    truth = Truth.of(bundle, None, 1)
    exact = module.traces(bundle, truth.networks, photographs)
    names = (*bundle.seen, *bundle.unseen)
    record = as_truth(photographs[0], exact[0], names)
    found = exact[0]["boxes"], exact[0]["scores"], exact[0]["columns"]
    nothing = tuple(array[:0] for array in found)
    answers = iter([found, found, nothing])

    def matches(self, predict, names):
        one = match([record], [next(answers)], names, bundle.seen)
        return {"zsd": one, "gzsd": one}

    monkeypatch.setattr(Labels, "matches", matches)
    monkeypatch.setattr(module, "bundle_predictor", lambda *a, **k: (None, names, {}))
    split = Split(name="tiny", seen=bundle.seen, unseen=bundle.unseen)
    labels = Labels(dataset=Dataset(images=(record,)), split=split, samples=20)
    report = compare_variants(
        bundle,
        photographs,
        truth,
        [("onnxruntime", "float32"), ("onnxruntime", "fp16")],
        labels=labels,
        threads=1,
    )
    same, lost = report["variants"]
    assert same["accuracy"]["zsd"]["unseen"]["difference"] == 0 and not same["failures"]
    assert any("unseen mAP@0.5 lost" in failure for failure in lost["failures"])
