"""Evaluating a bundle through the runtime, and recording the result in it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny

from export import evaluate as export_evaluate
from export.checks.evaluation import everything_in, taught_by
from export.checks.labels import Labels, bundle_predictor
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError, ClassError, DataError
from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.splits import Split
from zsd_core.learning.scorecard import SIZES, scorecard

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
        str(bundle),
        "--annotations",
        str(data / "truth.json"),
        "--images",
        str(data),
        "--split",
        str(data / "split.json"),
        "--samples",
        "20",
        "--threads",
        "1",
        *more,
    ]


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
        bundle_predictor(open_bundle(bundle_path), split)


def split_file(data, seen, unseen):
    path = data / "own_split.json"
    path.write_text(json.dumps({"name": "own", "seen": list(seen), "unseen": list(unseen)}))
    return path


def test_unseen_names_that_the_class_table_lacks_come_from_the_vocabulary(
    bundle_path, data, tmp_path
):
    truth = json.loads((data / "truth.json").read_text())
    cat = truth["categories"][len(tiny.SEEN)]
    assert cat["name"] == "cat"
    with Detector(
        bundle_path,
        backend="onnxruntime",
        classes=[*tiny.SEEN, "Zebra", "teapot"],
        mode="zsd",
        score_threshold=0.0,
        max_detections=100,
        threads=1,
    ) as detector:
        best = next(one for one in detector(str(data / "0.png")) if one.class_name == "Zebra")
    x1, y1, x2, y2 = best.box
    cat["name"] = "zebra"  # spelt in another way than above
    truth["categories"].append({"id": 99, "name": "teapot"})
    notes = [n for n in truth["annotations"] if n["category_id"] < len(tiny.SEEN)]
    box = {"image_id": 0, "category_id": cat["id"], "bbox": [x1, y1, x2 - x1, y2 - y1]}
    truth["annotations"] = [*notes, box | {"id": 1000}]
    (data / "truth.json").write_text(json.dumps(truth))
    path, report = split_file(data, tiny.SEEN, ("zebra", "teapot")), tmp_path / "own.json"
    more = ("--split", str(path), "--json", str(report))
    assert export_evaluate.main([*without_split(bundle_path, data), *more]) == 0
    result = json.loads(report.read_text())
    assert result["conditions"]["unseen names that the class table lacks"] == 2
    assert result["tasks"]["zsd"]["images"] == 1
    for task in ("zsd", "gzsd"):
        values = result["tasks"][task]["values"]
        assert values["Recall@100 IoU 0.5"]["unseen"] == pytest.approx(100)
    assert result["tasks"]["zsd"]["values"]["mAP@0.5 area"]["unseen"] == pytest.approx(100)


def test_names_that_no_one_knows_or_trained_are_refused(bundle_path, data):
    bundle = open_bundle(bundle_path)
    with pytest.raises(ClassError, match=r"'quux'.*'wibble'"):
        bundle_predictor(bundle, Split(name="own", seen=tiny.SEEN, unseen=("quux", "wibble")))
    split = Split(name="own", seen=(*tiny.SEEN, "teapot"), unseen=("zebra",))
    with pytest.raises(DataError, match="'teapot' is seen in split own but was not trained on"):
        bundle_predictor(bundle, split)


def test_the_mode_reaches_the_detector(bundle_path, photo):
    split = Split(name="tiny", seen=tiny.SEEN, unseen=tiny.UNSEEN)
    predict, classes, _ = bundle_predictor(
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
    labels = Labels.read(bundle, *where, str(data / "split.json"), samples=7)
    assert len(labels.dataset) == 2 and labels.split.unseen == tiny.UNSEEN and labels.samples == 7
    other = data / "other.json"
    other.write_text(json.dumps(SPLIT | {"seen": SPLIT["unseen"], "unseen": SPLIT["seen"]}))
    with pytest.raises(DataError, match="was trained"):
        Labels.read(bundle, *where, str(other))


def test_errors_are_sentences(bundle_path, data, capsys):
    assert export_evaluate.main(arguments(bundle_path, data, "--json", str(data))) == 1
    assert "it is a folder; name another file" in capsys.readouterr().err
    assert export_evaluate.main(arguments(bundle_path / "nowhere", data)) == 1
    assert "no such bundle" in capsys.readouterr().err
    assert export_evaluate.main(arguments(bundle_path, data, "--format", "voc")) == 1
    assert "error: " in capsys.readouterr().err


def without_split(bundle, folder, *more):
    words = arguments(bundle, folder, *more)
    place = words.index("--split")
    return words[:place] + words[place + 2 :]


def test_every_name_of_the_annotations_in_every_photograph(bundle_path, data, tmp_path, capsys):
    page, report = tmp_path / "page.md", tmp_path / "result.json"
    page.write_text("before\n<!-- numbers: mine -->\nstale\n<!-- /numbers -->\nafter\n")
    more = ("--json", str(report), "--markdown", str(page), "--slot", "mine", "--also", "zebra")
    assert export_evaluate.main(without_split(bundle_path, data, *more)) == 0
    result = json.loads(report.read_text())
    assert list(result["tasks"]) == ["all"] and "split" not in result
    test = result["tasks"]["all"]
    assert test["images"] == 2 and test["counts"]["images"] == 2
    assert result["conditions"]["asked for besides"] == 1
    group = test["groups"]["all"]
    assert group["classes"] <= 5  # the zebra has no truth
    assert group["Recall@100"]["value"] == pytest.approx(100)
    assert group["Recall@100"]["interval"] == [pytest.approx(100)] * 2
    assert {"all", "boxes", "nothing"} == set(test["groups"])
    assert sum(test["groups"][g]["boxes"] for g in ("boxes", "nothing")) == group["boxes"]
    assert sum(part["boxes"] for part in test["sizes"].values()) == group["boxes"]
    assert test["values"]["mAP@0.5 area"]["all"] == pytest.approx(group["mAP@0.5"]["value"])
    text, out = page.read_text(), capsys.readouterr().out
    assert "stale" not in text and text.startswith("before") and text.endswith("after\n")
    assert "| ALL, 2 photographs | mAP@0.5 (all" in text and "20 equal bins" in text
    assert "expected calibration error" in out and "== ALL ==" in out
    assert "role" not in out  # the table of classes is for those who ask
    assert export_evaluate.main(without_split(bundle_path, data, "--per-class")) == 0
    assert "role" in capsys.readouterr().out


def test_groups_are_what_the_manifest_says_taught_a_name(fresh_bundle_path):
    entries = open_bundle(fresh_bundle_path).manifest["classes"]
    entries[-1]["taught"] = "pictures"
    amend_bundle(fresh_bundle_path, classes=entries)
    with pytest.raises(BundleError, match="taught by 'photos', must be one of 'boxes'"):
        amend_bundle(fresh_bundle_path, classes=[{**entries[0], "taught": "photos"}, *entries[1:]])
    groups = taught_by(open_bundle(fresh_bundle_path), ["zebra", *tiny.SEEN, *tiny.UNSEEN])
    assert groups == {
        "nothing": ["zebra", tiny.UNSEEN[0]],
        "boxes": list(tiny.SEEN),
        "pictures": [tiny.UNSEEN[1]],
    }


def test_a_split_adds_the_protocol(bundle_path, data, tmp_path):
    report = tmp_path / "result.json"
    more = ("--tasks", "all", "gzsd", "--json", str(report))
    assert export_evaluate.main(arguments(bundle_path, data, *more)) == 0
    result = json.loads(report.read_text())
    assert list(result["tasks"]) == ["all", "gzsd"]
    assert {"seen", "unseen", "hm", "all"} == set(result["tasks"]["gzsd"]["values"]["mAP@0.5 area"])
    assert result["tasks"]["gzsd"]["scores"]["F1"]["value"] is not None


def test_a_list_of_names_may_have_comments(tmp_path):
    (tmp_path / "names.txt").write_text("# held out\ncat\n\nfire truck\n")
    names = export_evaluate.names_of(["cup", str(tmp_path / "names.txt")])
    assert names == ["cup", "cat", "fire truck"]


def test_what_cannot_be_evaluated_is_a_sentence(bundle_path, data, tmp_path, capsys):
    assert export_evaluate.main(without_split(bundle_path, data, "--tasks", "gzsd")) == 1
    assert "need --split" in capsys.readouterr().err
    assert export_evaluate.main(without_split(bundle_path, data, "--also", "Cat")) == 1
    assert "'Cat' of --also is a category" in capsys.readouterr().err
    assert export_evaluate.main(without_split(bundle_path, data, "--also", "no.txt")) == 1
    assert "cannot read names no.txt: No such file" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("no place")
    assert export_evaluate.main(without_split(bundle_path, data, "--markdown", str(page))) == 1
    assert "has no line" in capsys.readouterr().err
    with pytest.raises(DataError, match="is a category"):
        everything_in(read_coco(data / "truth.json", data), ["cat"])


def test_a_scorecard_by_hand(data):
    """A small and a large box, one found, one not; a wrong detection, and F1 above 0.5."""
    records = read_coco(data / "truth.json", data).images[:2]
    names = [*tiny.SEEN, *tiny.UNSEEN]
    blank = [record.select(np.zeros(len(record.labels), bool)) for record in records]
    boxes = np.float32([[0, 0, 20, 20], [0, 0, 110, 100]])
    first = type(blank[0])(
        path=blank[0].path,
        id=0,
        width=180,
        height=120,
        boxes=boxes,
        labels=("person", "cat"),
        scores=np.ones(2, np.float32),
        crowd=np.zeros(2, bool),
        difficult=np.zeros(2, bool),
        ignore=np.zeros(2, bool),
    )
    predictions = [
        ([[0, 0, 20, 20], [100, 50, 130, 80]], [0.9, 0.6], [0, 0]),
        (np.zeros((0, 4)), [], []),
    ]
    result = scorecard(
        [first, blank[1]],
        predictions,
        names,
        tiny.SEEN,
        threshold=0.5,
        samples=30,
        groups={"half": ["cat"]},
    )
    assert result["groups"]["all"]["mAP@0.5"]["value"] == pytest.approx(50)
    assert result["groups"]["half"]["mAP@0.5"]["value"] == 0
    assert list(SIZES) == list(result["sizes"])
    assert result["sizes"]["small"]["Recall@100"]["value"] == 100
    assert result["sizes"]["medium"]["Recall@100"]["value"] is None
    assert result["sizes"]["large"]["Recall@100"]["value"] == 0
    scores = result["scores"]
    assert scores["precision"]["value"] == scores["recall"]["value"] == scores["F1"]["value"] == 50
    assert scores["expected calibration error"]["value"] == pytest.approx(35)  # (.1 + .6) / 2
    assert scores["counted"] == 2
    low, high = scores["F1"]["interval"]
    assert low <= 50 <= high
