"""The comparison with peers: pairs, verdicts, and none of them imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import tiny

from benchmarks import peers, peers_given, peers_models
from export import quantize
from export.checks.images import NamedImage
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError, DataError
from zsd_core.learning.data.dataset import Dataset, ImageRecord


def row(model, ms, precision="float32", task="detect", backend="torch"):
    return peers.Row(
        model=model,
        backend=backend,
        precision=precision,
        task=task,
        p50_ms=ms,
        p90_ms=ms,
        p99_ms=ms,
        calls=3,
    )


BAR = peers.Bar(ours="ours", precision="int8", task="detect", theirs=("a", "b"), factor=5)


def test_bars_compare_the_fastest_of_each():
    rows = [
        row("ours", 10, "int8"),
        row("ours", 20, "int8"),
        row("ours", 1, "float32"),
        row("a", 70),
        row("a", 50, backend="onnxruntime"),
        row("b", 49),
        row("b", 1, task="x"),
    ]
    met, missed = peers.judge(rows, [BAR])
    assert "5.00 times as fast (bar 5): met" in met and "onnxruntime" in met
    assert "4.90 times as fast (bar 5): MISSED" in missed


def test_what_was_not_measured_is_no_verdict():
    for rows, missing in (([row("a", 1)], "ours in int8"), ([row("ours", 1, "int8")], "a is not")):
        line = peers.judge(rows, [BAR])[0]
        assert "not measured" in line and missing in line and "met" not in line


def test_every_bar_is_about_models_that_are_made():
    names = ("SHIPPED", "PAPER", "EAGER", "YOLO_WORLD", "OWL", "DINO")
    made = {getattr(peers_models, name) for name in names} | {peers_given.FEMTO}
    assert {bar.ours for bar in peers.BARS} | {m for b in peers.BARS for m in b.theirs} == made
    assert [bar.factor for bar in peers.BARS] == [5, 8, 100, 0.8, 2.2, 5, 500]


def test_entries_are_called_as_often_as_they_share():
    calls = {"fast": 0, "slow": 0}

    def entry(model, share):
        def call():
            calls[model] += 1

        return peers_models.Entry(
            model=model, backend="b", precision="float32", task="detect", call=call, share=share
        )

    rows = peers.rows_of([entry("fast", 1), entry("slow", 0.01)], 10)
    assert calls == {"fast": 22, "slow": 8}  # one warms up, and all are made twice
    assert [r.calls for r in rows] == [10, 3]


def test_no_call_inherits_the_threads_of_the_one_before(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(peers, "REST", 0.0)
    seen, before = [], torch.get_num_threads()

    def call():
        seen.append(torch.get_num_threads())
        torch.set_num_threads(1)  # as ultralytics does

    entry = peers_models.Entry(
        model="m", backend="b", precision="float32", task="detect", call=call
    )
    try:
        peers.rows_of(
            [entry], 3, partial(peers.settle, torch, 2), partial(torch.set_num_threads, 2)
        )
    finally:
        torch.set_num_threads(before)
    assert seen == [2] * 8


def test_shipped_bundle_runs_as_its_manifest_says_and_in_int8(tmp_path, monkeypatch):
    quick = partial(quantize.add_int8, regions=8, sensitive=0, noise=0, crossing=0)
    monkeypatch.setattr(quantize, "add_int8", quick)
    grey = [NamedImage("grey", np.full((48, 64, 3), 128, np.uint8))]
    monkeypatch.setattr("export.checks.images.photographs", lambda: grey)
    images = [np.full((48, 64, 3), 128, np.uint8)]
    entries = list(peers_models.GROUPS["shipped"](images, 1, tmp_path))
    detect = next(e for e in entries if e.task == "detect" and e.backend == "onnxruntime")
    assert detect.call().class_set_version == 1  # the bundle's own classes
    assert any(e.precision == "int8" for e in entries if e.backend == "onnxruntime")
    setter = next(e for e in entries if e.task == "set_classes")
    setter.call()
    setter.call()


def test_the_command_writes_rows(tmp_path, monkeypatch, capsys):
    def two(images, threads, work):
        for precision in ("float32", "int8"):
            yield peers_models.Entry(
                model=peers_models.SHIPPED,
                backend="x",
                precision=precision,
                task="detect",
                call=lambda: images[0].sum(),
            )

    monkeypatch.setitem(peers_models.GROUPS, "shipped", two)
    path = tmp_path / "rows.json"
    words = ["--only", "shipped", "--calls", "3", "--allocator", "default"]
    assert peers.main([*words, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert {"model", "backend", "precision", "task", "p50_ms", "p99_ms"} <= set(rows[0])
    printed = capsys.readouterr().out
    assert "not measured" in printed and "differ in accuracy" in printed


def test_a_given_detector_is_timed_and_compared_on_the_same_photographs(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    import tiny_given

    path = tmp_path / "given.onnx"
    onnx.save(tiny_given.detector_model(), path)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    (entry,) = peers_given.femto_group(path)([image], 1, tmp_path)
    labels, boxes, scores = entry.call()
    assert len(labels) == len(boxes) == len(scores) == tiny_given.BEST
    assert boxes.shape == (tiny_given.BEST, 4)
    assert np.abs(boxes).max() > 2  # pixels of the photograph, not shares of it

    assert cv2.imwrite(str(tmp_path / "a.png"), image[:, :, ::-1])
    names = tiny.SEEN
    box = np.array([[2, 2, 40, 40]], np.float32)
    no = np.zeros(1, bool)
    record = ImageRecord(
        path=tmp_path / "a.png",
        id=1,
        width=64,
        height=48,
        boxes=box,
        labels=names[:1],
        scores=np.ones(1, np.float32),
        crowd=no,
        difficult=no,
        ignore=no,
    )
    bundle = open_bundle(tiny_given.given_bundle(tmp_path / "bundle"))
    found = peers_given.accuracies(path, Dataset(images=(record,), categories=names), 1, bundle)
    assert set(found) == {peers_models.SHIPPED, peers_given.FEMTO}
    assert all(0 <= value <= 100 for value in found.values())
    strangers = Dataset(images=(record,), categories=("unicorn",))
    with pytest.raises(DataError, match="'unicorn' is no class"):
        peers_given.accuracies(path, strangers, 1, bundle)


def test_what_is_no_such_detector_is_said(bundle_path, tmp_path):
    with pytest.raises(BundleError, match="it is no DEIMv2 detector"):
        peers_given.Femto(bundle_path / "head.onnx", 1)
    (tmp_path / "x.onnx").write_text("no")
    with pytest.raises(BundleError, match="cannot load it"):
        peers_given.Femto(tmp_path / "x.onnx", 1)


def test_nothing_else_imports_a_peer():
    code = (
        "import sys, benchmarks.peers as p; print({'ultralytics', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_errors_are_sentences(tmp_path, capsys):
    assert peers.main(["--only", "shipped", "--json", str(tmp_path)]) == 1
    assert "it is a folder; name another file" in capsys.readouterr().err
    assert peers.parse(["--only", "yolo", "shipped", "yolo"]).only == ["yolo", "shipped"]
    with pytest.raises(SystemExit):
        peers.main(["--calls", "2"])
    assert "at least 3" in capsys.readouterr().err
