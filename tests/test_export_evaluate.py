"""Evaluating a bundle through the runtime, and recording the result in it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny

from export import evaluate as export_evaluate
from runtime import Detector
from runtime.bundle import amend_bundle, open_bundle
from zsd_core.data.splits import Split
from zsd_core.errors import BundleError, DataError

SPLIT = {"name": "tiny", "seen": list(tiny.SEEN), "unseen": list(tiny.UNSEEN)}


@pytest.fixture
def data(bundle_path, photo, tmp_path):
    """Two photographs whose truth is what the detector finds: its best box of every class."""
    names, notes = [*tiny.SEEN, *tiny.UNSEEN], []
    with Detector(
        bundle_path, backend="onnxruntime", score_threshold=0.0, max_detections=100, threads=1
    ) as detector:
        for index, image in enumerate((photo, np.ascontiguousarray(photo[:, ::-1]))):
            cv2.imwrite(str(tmp_path / f"{index}.png"), image[:, :, ::-1])
            best = {found.class_name: found.box for found in reversed(list(detector(image)))}
            assert set(best) & set(tiny.UNSEEN)
            for name, (x1, y1, x2, y2) in best.items():
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": index,
                        "category_id": names.index(name),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                    }
                )
    height, width = photo.shape[:2]
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": width, "height": height} for i in range(2)
        ],
        "annotations": notes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(values))
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    return tmp_path


def arguments(bundle, data, *more):
    return [
        str(bundle), "--annotations", str(data / "truth.json"), "--images", str(data), "--split",
        str(data / "split.json"), "--samples", "20", "--threads", "1", *more,
    ]  # fmt: skip


def test_a_detector_finds_its_own_boxes_again_and_the_bundle_says_so(
    fresh_bundle_path, data, tmp_path, capsys
):
    report = tmp_path / "out.json"
    more = ("--write-metrics", "two photographs", "--json", str(report))
    assert export_evaluate.main(arguments(fresh_bundle_path, data, *more)) == 0
    result = json.loads(report.read_text())
    for task, groups in (("zsd", ["unseen"]), ("gzsd", ["seen", "unseen", "hm"])):
        values = result["tasks"][task]["values"]
        for group in groups:
            assert values["Recall@100 IoU 0.5"][group] == pytest.approx(100)
    assert result["tasks"]["zsd"]["values"]["mAP@0.5 area"]["unseen"] == pytest.approx(100)
    assert result["conditions"]["score threshold"] == 0.0
    assert "onnxruntime" in result["conditions"]["detector"]
    assert "== GZSD ==" in capsys.readouterr().out

    bundle = open_bundle(fresh_bundle_path)
    assert bundle.manifest["metrics"] == {"two photographs": result}
    assert result["tasks"]["zsd"]["intervals"]["mAP@0.5 area"]["unseen"] == [100.0, 100.0]
    card = bundle.file("MODEL_CARD.md").read_text()
    assert "### two photographs" in card and "| mAP@0.5 area | 100.0 [100.0, 100.0] |" in card


def test_a_second_result_stands_beside_the_first_in_a_zip(tmp_path):
    path = tiny.tiny_bundle(tmp_path / "tiny.zip")
    amend_bundle(path, metrics={"first": {"tasks": {}}})
    export_evaluate.write_metrics(path, "second", {"tasks": {}})
    bundle = open_bundle(path)
    assert list(bundle.manifest["metrics"]) == ["first", "second"]
    assert bundle.vocabulary.names == tiny.WORDS  # everything else is as it was


def test_a_failed_change_leaves_the_bundle_as_it_was(fresh_bundle_path):
    before = (fresh_bundle_path / "manifest.json").read_text()
    with pytest.raises(BundleError, match="'stages' is missing or not a dict"):
        amend_bundle(fresh_bundle_path, {"extra.txt": b"new"}, stages=[])
    assert (fresh_bundle_path / "manifest.json").read_text() == before
    assert not (fresh_bundle_path / "extra.txt").exists()
    amend_bundle(fresh_bundle_path, {"extra.txt": b"new"})
    assert open_bundle(fresh_bundle_path).file("extra.txt").read_bytes() == b"new"


def test_a_class_that_was_trained_on_cannot_be_tested_as_unseen(bundle_path):
    split = Split(name="other", seen=("cat",), unseen=("Dining_Table",))
    with pytest.raises(DataError, match=r"'Dining_Table' is unseen in split other but was trained"):
        export_evaluate.bundle_predictor(open_bundle(bundle_path), split)


def test_the_mode_reaches_the_detector(bundle_path, photo):
    split = Split(name="tiny", seen=tiny.SEEN, unseen=tiny.UNSEEN)
    predict, classes, _ = export_evaluate.bundle_predictor(
        open_bundle(bundle_path), split, backend="onnxruntime", threads=1
    )
    for mode, allowed in (("zsd", tiny.UNSEEN), ("seen", tiny.SEEN), ("gzsd", classes)):
        columns = predict(photo, mode)[2]
        assert len(columns) and {classes[column] for column in columns} <= set(allowed)


def test_the_bundle_that_ships_is_not_changed(data, capsys):
    words = arguments("", data, "--write-metrics", "mine")[1:]
    with pytest.raises(SystemExit):
        export_evaluate.main(words)
    assert "the one that ships is not changed" in capsys.readouterr().err


def test_labels_are_read_for_the_bundle(bundle_path, data):
    bundle = open_bundle(bundle_path)
    where = [str(data / "truth.json")], [str(data)]
    labels = export_evaluate.Labels.read(bundle, *where, str(data / "split.json"), samples=7)
    assert len(labels.dataset) == 2 and labels.split.unseen == tiny.UNSEEN and labels.samples == 7
    other = data / "other.json"
    other.write_text(json.dumps(SPLIT | {"seen": SPLIT["unseen"], "unseen": SPLIT["seen"]}))
    with pytest.raises(DataError, match="was trained"):
        export_evaluate.Labels.read(bundle, *where, str(other))


def test_errors_are_sentences(bundle_path, data, capsys):
    assert export_evaluate.main(arguments(bundle_path, data, "--json", str(data))) == 1
    assert "it is a folder; name another file" in capsys.readouterr().err
    assert export_evaluate.main(arguments(bundle_path / "nowhere", data)) == 1
    assert "no such bundle" in capsys.readouterr().err
    assert export_evaluate.main(arguments(bundle_path, data, "--format", "voc")) == 1
    assert "error: " in capsys.readouterr().err
