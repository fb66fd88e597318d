"""The report's comparison of systems, from what the bench measured."""

import json

import pytest

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
    text = systems_section(tmp_path / "systems.json")
    assert "| SB | 0.3 | 4.2 [3.2, 4.2] | **-1.0 [-2.0, -0.1]** | 4.2" in text
    assert "| SAN | - | 2.2 [1.2, 2.2] | -1.0 [-2.0, +0.1] | 2.2" in text
    assert "| ContrastZSD | 12.5 | 6.0 [5.0, 6.0] |  | 6.0" in text
    assert "- SB: other proposals; last losses margin 0.12; `loss.sb_margin=0.3` (tried: " in text
    assert "(tried: default 1.0, loss.sb_margin=0.3 2.0)" in text
    assert "its 11 test photographs" in text and "2 seeds and 9 steps" in text
    assert "| pycocotools | 3.46 | 7.00 |" in text and "| torchmetrics | 3.46 | - |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| S")}
    assert len(widths) == 1


def test_another_file_is_refused(tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bench --json writes"):
            systems_section(tmp_path / "bad.json")
