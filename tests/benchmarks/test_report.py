"""The report, from what the bench measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.paper import published
from benchmarks.paper.report import PARTS, main, read_conclusions, read_results, report
from benchmarks.paper.report_parts import leaks
from benchmarks.paper.systems_table import GZSD, GZSD_RECALL, IOUS, ZSD
from zsd_core.errors import DataError

ROOT = Path(__file__).parents[2]
KEYS = [ZSD, *GZSD.values(), *GZSD_RECALL.values(), ("zsd", "mAP@0.5 area", "unseen")]
KEYS += [("zsd", f"Recall@100 IoU {t}", "unseen") for t in IOUS]
CONCLUSIONS = dict.fromkeys(PARTS, "A person said so.")


def row(name, title, mean, against, note="", classes=("cat",)):
    keys = ["|".join(parts) for parts in KEYS]
    distance = {"difference": -1.0, "interval": against or [0, 0], "above": 0.1}
    found = {name: {"boxes": 5, "AP": [2.0, 0.25], "recall": [40.0, None]} for name in classes}
    return {
        "name": name,
        "title": title,
        "note": note,
        "options": {"model.scoring.method": name, "loss.sb_margin": 0.3},
        "losses": {"margin": 0.125} if name == "sb" else {},
        "classes": {"zsd": found, "gzsd": found},
        "values": {k: {"mean": mean, "deviation": 0, "interval": [mean - 1, mean]} for k in keys},
        "against": dict.fromkeys(keys, distance) if against else {},
    }


def comparison(split="coco_48_17", **other):
    classes = ("car", "dog", "sofa", "train") if split == "voc_16_4" else ("cat",)
    judges = {n: {"mAP": 3.456, "recall": 7} for n in ("ours", "pycocotools")}
    judges["torchmetrics"] = {"mAP": 3.456}
    tasks = {"zsd": judges, "gzsd": judges}
    return {
        "split": split,
        "conditions": {"seeds": [0, 1], "steps": 9, "samples": 30},
        "training": {"photographs": 7, "passes": 6, "trunk_passes": 1},
        "tests": {"zsd": {"images": 11, "boxes": 12}, "gzsd": {"images": 11, "boxes": 34}},
        "chosen": {
            "sb": [{"options": {}, "zsd": 1}, {"options": {"loss.sb_margin": 0.3}, "zsd": 2}]
        },
        "systems": [
            row("sb", "SB", 4.25, [-2.0, -0.1], "other proposals", classes),
            row("san", "SAN", 2.25, [-2.0, 0.1], "", classes),
            row("contrastzsd", "ContrastZSD", 6, None, "", classes),
        ],
        "outside": {"conditions": {"system": "sb", "seed": 0}, "tasks": tasks},
        "bundles": None,
        **other,
    }


def page(*comparisons, causes=None):
    return report({one["split"]: one for one in comparisons}, causes, CONCLUSIONS)


def test_all_systems_stand_in_short_and_clear_differences_are_bold():
    text = page(comparison(), comparison("coco_65_15"))
    assert "| ZSD mAP | COCO 48/17 | minus ContrastZSD | COCO 65/15 | minus ContrastZSD |" in text
    clear, unclear = "4.2 [3.2, 4.2] | **-1.0 [-2.0, -0.1]**", "2.2 [1.2, 2.2] | -1.0 [-2.0, +0.1]"
    assert f"| SB | {clear} | {clear} |" in text and f"| SAN | {unclear} | {unclear} |" in text
    assert "| ContrastZSD | 6.0 [5.0, 6.0] |  | 6.0 [5.0, 6.0] |  |" in text
    assert "2 seeds and 9 steps" in text and "(30\nsamples)" in text
    assert text.count("A person said so.") == 2
    without = comparison("coco_65_15")
    del without["systems"][1]
    assert f"| SAN | {unclear} | - |  |" in page(comparison(), without)


def test_tables_have_the_papers_layout_and_numbers():
    text = page(comparison(), comparison("coco_65_15"), comparison("voc_16_4"))
    titles = [line[4:].partition(":")[0] for line in text.splitlines() if "### Table" in line]
    assert titles == [f"Table {n}" for n in (1, 2, 3, 3, 4, 4, 5, 5, 6)]
    assert "| SAN | 2.2 [1.2, 2.2] | 2.2 [1.2, 2.2] |" in text
    assert "59.1 / 48.0 / 37.0 / 41.8 |" in text  # table 1
    assert "| SAN | 2.0 ± 0.2 | 2.0 ± 0.2 | 2.0 ± 0.2 | 2.0 ± 0.2 | 2.2 [1.2, 2.2] | 56.2 /" in text
    assert "34.5 / 22.1 / 11.3 / 0.3 |" in text and "65.7 / 52.4 / 58.3 / 45.1" in text
    assert "| cat | 79.9 | 83.8 | 40.0 | 5 |" in text and "| bus | 77.4 | 82.8 | - | 0 |" in text
    assert "| ContrastZSD | VOC 16/4 | 6.0 [5.0, 6.0]" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block


def test_options_evaluators_and_tests_are_named():
    text = page(comparison())
    assert "- SB: other proposals\n" in text
    assert "- SB: last losses margin 0.12; `loss.sb_margin=0.3` (tried: default 1.0, " in text
    assert "| COCO 48/17, sb, seed 0 | pycocotools | 3.46 | 7.00 | 3.46 | 7.00 |" in text
    assert "| torchmetrics | 3.46 | - | 3.46 | - |" in text
    assert "| 7 photographs | 6 + 1 with the backbone | 11 | 12 | 34 |" in text
    assert "## Other evaluators" not in page(comparison(outside=None))


def test_what_another_split_leaks_is_said():
    assert leaks("coco_48_17", "voc_16_4") == ("car", "train")
    nine = leaks("coco_48_17", "coco_65_15")
    assert len(nine) == 9 and {"train", "toaster"} <= set(nine) and "cat" not in nine
    assert leaks("coco_48_17", "coco_48_17") == ()
    assert "of VOC 16/4 car, train." in page(comparison(), comparison("voc_16_4"))
    assert "detector of its own" not in page(comparison())


def test_another_choice_of_photographs_than_the_published_one_is_said():
    for rule, said in (("any_unseen", True), ("only_unseen", False)):
        text = page(comparison("voc_16_4", zsd_images=rule))
        assert ("is tested on other photographs" in text) == said


def test_detectors_of_all_systems_are_one_row():
    found = {"matched": 7, "largest": 2e-8}
    made = {"detections": 8, "PyTorch": found, "detector.onnx": found, "added": 3}
    bundles = {"images": 2, "rows": [made, made | {"added": 5}]}
    text = page(comparison(bundles=bundles))
    assert "| COCO 48/17 | 2 | 2 | 16 | 14 | 14 | 2e-08 | 3 to 5 |" in text
    assert "as a detector" not in page(comparison())


def test_causes_come_with_their_draws(tmp_path):
    draw = {
        "losses": {"seen": 0.125},
        "regions": {"mAP": 1.0, "recall": 10.0},
        "human boxes": {"mAP": 3.0, "recall": 30.0},
    }
    other = draw | {"regions": {"mAP": 2.0, "recall": 20.0}}
    rows = [{"name": "own", "title": "ContrastZSD", "steps": 9, "draws": [draw, other]}]
    path = tmp_path / "causes.json"
    path.write_text(json.dumps({"photographs": "5 photographs", "what": "few steps", "rows": rows}))
    text = page(comparison(), causes=path)
    assert (
        "| ContrastZSD | 9 | seen 0.12 | 1.0 / 2.0 | 10.0 / 20.0 | 3.0 / 3.0 | 30.0 / 30.0 |"
        in text
    )
    assert "on 5 photographs; few steps" in text
    path.write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"causes\.json is no table"):
        page(comparison(), causes=path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "bad.json"
    old = comparison()
    old["systems"][0]["classes"]["zsd"]["cat"] = [5, 2.0, 40.0]
    for text in ("{", "[]", "{}", json.dumps(old)):
        path.write_text(text)
        with pytest.raises(DataError, match=r"bench --json writes"):
            read_results([path])
    path.write_text(json.dumps(comparison()))
    with pytest.raises(DataError, match="second comparison of coco_48_17"):
        read_results([path, path])
    other = tmp_path / "other.json"
    other.write_text(json.dumps(comparison("coco_65_15") | {"conditions": {}}))
    with pytest.raises(DataError, match="is no comparison"):
        read_results([path, other])
    changed = comparison("coco_65_15")
    changed["conditions"]["steps"] = 10
    other.write_text(json.dumps(changed))
    with pytest.raises(DataError, match="differ in seeds, steps"):
        read_results([path, other])


def test_a_split_of_ones_own_has_a_report():
    text = page(comparison("mine"))
    assert "| mine | 7 photographs |" in text and "detector of its own" not in text


def test_conclusions_have_their_two_parts(tmp_path):
    path = tmp_path / "said.md"
    path.write_text("## In short\n\nGood.\n\n## What separates\n\n**Much.** Or little.\n")
    assert read_conclusions(path) == {"In short": "Good.", "What separates": "**Much.** Or little."}
    assert read_conclusions(None) == dict.fromkeys(PARTS, "")
    whole = path.read_text()
    for text in ("## In short\n\nGood.\n", f"Before.\n{whole}", f"{whole}## In short\n"):
        path.write_text(text)
        with pytest.raises(DataError, match="must have the parts ## In short and ## What sep"):
            read_conclusions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_conclusions(tmp_path / "none.md")


def test_the_papers_numbers_agree_with_each_other():
    for split, numbers in published.COCO_ZSD.items():
        for name, values in published.COCO_GZSD[split].items():
            assert len(values) == 6 and len(numbers[name]) == 4


def test_the_report_of_the_documents_is_that_of_its_measurements(tmp_path):
    folder = ROOT / "docs/measurements"
    found = [str(folder / f"systems{end}.json") for end in ("", "_65_15", "_voc")]
    options = ["--causes", str(folder / "causes.json")]
    options += ["--conclusions", str(folder / "conclusions.txt")]
    assert main([*found, *options, "--output", str(tmp_path / "report.md")]) == 0
    assert (tmp_path / "report.md").read_text() == (ROOT / "docs/report.md").read_text()
