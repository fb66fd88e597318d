"""The report's comparison of systems, from what the bench measured."""

import json

import pytest

from benchmarks.paper.causes_table import leaks
from benchmarks.paper.systems_table import COLUMNS, systems_section
from zsd_core.errors import DataError


def row(name, title, mean, against, note=""):
    keys = ["|".join(parts) for parts in COLUMNS.values()]
    distance = {"difference": -1.0, "interval": against or [0, 0], "above": 0.1}
    return {
        "name": name,
        "title": title,
        "note": note,
        "options": {"model.scoring.method": name, "loss.sb_margin": 0.3},
        "losses": {"margin": 0.125} if name == "sb" else {},
        "classes": {"zsd": {"cat": [1, 2, 3]}, "gzsd": {}},
        "values": {k: {"mean": mean, "deviation": 0, "interval": [mean - 1, mean]} for k in keys},
        "against": dict.fromkeys(keys, distance) if against else {},
    }


def comparison():
    judges = {n: {"mAP": 3.456, "recall": 7} for n in ("ours", "pycocotools")}
    judges["torchmetrics"] = {"mAP": 3.456}
    return {
        "split": "coco_48_17",
        "conditions": {"seeds": [0, 1], "steps": 9, "samples": 30},
        "tests": {"zsd": {"images": 11, "boxes": 12}},
        "chosen": {
            "sb": [{"options": {}, "zsd": 1}, {"options": {"loss.sb_margin": 0.3}, "zsd": 2}]
        },
        "systems": [
            row("sb", "SB", 4.25, [-2.0, -0.1], "other proposals"),
            row("san", "SAN", 2.25, [-2.0, 0.1]),
            row("contrastzsd", "ContrastZSD", 6, None),
        ],
        "outside": {"conditions": {"system": "sb", "seed": 0}, "tasks": {"zsd": judges}},
    }


def test_numbers_stand_beside_the_papers_and_clear_differences_are_bold(tmp_path):
    (tmp_path / "systems.json").write_text(json.dumps(comparison()))
    text = systems_section([tmp_path / "systems.json"])
    assert "| SB | 0.3 | 4.2 [3.2, 4.2] | **-1.0 [-2.0, -0.1]** | 4.2" in text
    assert "| SAN | - | 2.2 [1.2, 2.2] | -1.0 [-2.0, +0.1] | 2.2" in text
    assert "| ContrastZSD | 12.5 | 6.0 [5.0, 6.0] |  | 6.0" in text
    assert "- SB: other proposals; last losses margin 0.12; `loss.sb_margin=0.3` (tried: " in text
    assert "(tried: default 1.0, loss.sb_margin=0.3 2.0)" in text
    assert "its 11 test photographs" in text and "2 seeds and 9 steps" in text
    assert "| pycocotools | 3.46 | 7.00 |" in text and "| torchmetrics | 3.46 | - |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| S")}
    assert len(widths) == 1


def test_what_another_split_leaks_is_said(tmp_path):
    assert leaks("coco_48_17", "voc_16_4") == ("car", "train")
    nine = leaks("coco_48_17", "coco_65_15")
    assert len(nine) == 9 and {"train", "toaster"} <= set(nine) and "cat" not in nine
    assert leaks("coco_48_17", "coco_48_17") == ()
    (tmp_path / "systems.json").write_text(json.dumps(comparison()))
    text = systems_section([tmp_path / "systems.json"])
    assert "of `voc_16_4`, car, train" in text and "What separates" not in text


def test_another_split_has_a_section_of_its_own_and_leaks_nothing_then(tmp_path):
    other = comparison() | {"split": "coco_65_15", "training": {"photographs": 7, "passes": 6}}
    for name, values in (("systems", comparison()), ("other", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    text = systems_section([tmp_path / "systems.json", tmp_path / "other.json"])
    first, second = text.split("## Every system of the paper on one detector: ")[1:]
    assert first.startswith("coco_48_17") and "of `voc_16_4`, car, train" in first
    assert second.startswith("coco_65_15") and "small: 7 photographs in 6 passes;" in second
    assert "`coco_65_15`" not in first


def test_causes_and_detectors_beside_the_comparison_come_with_it(tmp_path):
    draw = {
        "losses": {"seen": 0.125},
        "regions": {"mAP": 1.0, "recall": 10.0},
        "human boxes": {"mAP": 3.0, "recall": 30.0},
    }
    other = draw | {"regions": {"mAP": 2.0, "recall": 20.0}}
    row = {"name": "own", "title": "ContrastZSD", "steps": 9, "draws": [draw, other]}
    causes = {"photographs": "5 photographs", "what": "few steps", "rows": [row]}
    (tmp_path / "causes.json").write_text(json.dumps(causes))
    (tmp_path / "causes.txt").write_text("Nothing yet.\n")
    found = {"matched": 7, "largest": 2e-8}
    row = {"title": "SB", "detections": 8, "PyTorch": found, "detector.onnx": found, "added": 3}
    result = comparison() | {"bundles": {"images": 2, "rows": [row, row]}}
    (tmp_path / "systems.json").write_text(json.dumps(result))
    text = systems_section([tmp_path / "systems.json"])
    assert (
        "| ContrastZSD | 9 | seen 0.12 | 1.0 / 2.0 | 10.0 / 20.0 | 3.0 / 3.0 | 30.0 / 30.0 |"
        in text
    )
    assert "Nothing yet." in text and "on 5 photographs; few steps" in text
    assert "| SB | 8 | 7 (± 2e-08) | 7 (± 2e-08) | 3 |" in text and "On 2 photographs" in text
    (tmp_path / "other.json").write_text(json.dumps(result | {"split": "coco_65_15"}))
    text = systems_section([tmp_path / "systems.json", tmp_path / "other.json"])
    second = text.split("## Every system of the paper on one detector: ")[2]
    assert "of 16 detections of `Detector` in 2 bundles, 14 in PyTorch and 14 in" in second
    assert "by at most 2e-08" in second and "| SB | 8" not in second
    (tmp_path / "causes.json").write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"causes\.json is no table"):
        systems_section([tmp_path / "systems.json"])


def test_another_choice_of_photographs_than_the_published_one_is_said(tmp_path):
    voc = comparison() | {"split": "voc_16_4"}
    for rule, said in (("any_unseen", True), ("only_unseen", False)):
        (tmp_path / "voc.json").write_text(json.dumps(voc | {"zsd_images": rule}))
        text = systems_section([tmp_path / "voc.json"])
        assert ("Not the split's protocol in one thing" in text) == said
    assert "| ContrastZSD | 65.7 |" in text


def test_another_file_is_refused(tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bench --json writes"):
            systems_section([tmp_path / "bad.json"])
