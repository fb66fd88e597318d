"""A batch: what it lists, what it writes, what it refuses, and what its exit status says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.batch.__main__ import main
from runtime.batch.folder import Shard, written_aside
from runtime.batch.formats import CocoIds
from runtime.batch.inputs import list_images
from runtime.batch.progress import Countdown
from runtime.batch.shards import search_shard
from zsd_core.errors import ClassError, ConfigError, ImageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def batch(bundle_path, tmp_path, capfd):
    """Run the command; return its status, output and progress."""

    def run(*arguments, output=tmp_path / "run", threshold="0"):
        argv = [
            "--output",
            output,
            "--bundle",
            bundle_path,
            "--threads",
            1,
            "--backend",
            "onnxruntime",
            "--shard-size",
            4,
            "--batch",
            3,
            "--score-threshold",
            threshold,
            *arguments,
        ]
        status = main([str(a) for a in argv])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def rows(folder):
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


# rows


def test_every_image_is_a_row_and_the_damaged_one_says_why(batch, photos, tmp_path, detector):
    status, out, err = batch(photos)
    found = rows(tmp_path / "run")
    assert status == 3
    assert [row["index"] for row in found] == list(range(9))
    assert [row["path"] for row in found] == list(list_images([str(photos)]).paths)
    broken = found.pop(4)
    assert "broken.jpg: the JPEG ends early" in broken["error"]
    assert broken["detections"] == [] and broken["width"] is broken["height"] is None
    for row in found:
        assert row["error"] is None
        assert (row["height"], row["width"]) == cv2.imread(row["path"]).shape[:2]
        assert row["detections"] == detector(row["path"]).to_list() != []
    assert "objects in 9 images, 1 damaged" in out
    assert "1 file left out" in err and "9/9 images, 1 damaged" in err and "0:00:00 left" in err


def test_whole_images_are_exit_status_0(batch, photos):
    (photos / "broken.jpg").unlink()
    assert batch(photos)[0] == 0


def test_a_name_that_is_no_utf8_is_a_row_like_any_other(batch, tmp_path, photo):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write(cv2.imencode(".png", photo)[1].tobytes())
    status, *_ = batch(tmp_path)
    (row,) = rows(tmp_path / "run")
    assert status == 0
    assert row["path"].endswith("caf\\xe9.png") and row["detections"]


def test_a_picture_that_is_too_large_is_a_row_with_its_reason(batch, photos, tmp_path):
    batch(photos, "--max-pixels", 120 * 180 * 0.6 / 1e6)
    said = [row["error"] or "" for row in rows(tmp_path / "run")]
    assert sum("180 x 80 pixels, more than 12,960" in text for text in said) > 0
    assert said.count("") > 0


def test_an_image_that_the_detector_refuses_spoils_no_other(detector, photos, tmp_path):
    def picky(images, **options):
        if any(image.shape[0] == 70 for image in images):
            raise ImageError("too odd")
        return detector(images, **options)

    picky.max_pixels = detector.max_pixels
    (tmp_path / "shards").mkdir()
    paths = tuple(str(photos / f"{n}.png") for n in (0, 4, 6))  # 60, 70 and 60 rows
    search_shard(picky, Shard(0, 0, paths), tmp_path)
    found = [json.loads(x) for x in (tmp_path / "shards" / "00000.jsonl").read_text().splitlines()]
    assert [row["error"] for row in found] == [None, "too odd", None]


def test_pictures_are_written_only_if_asked(batch, photos, tmp_path):
    batch(photos)
    assert not (tmp_path / "run" / "pictures").exists()
    batch(photos, "--pictures", output=tmp_path / "two")
    pictures = sorted(p.name for p in (tmp_path / "two" / "pictures").rglob("*.jpg"))
    assert len(pictures) == 8 and pictures[0] == "00000000-0.jpg"
    assert cv2.imread(str(tmp_path / "two" / "pictures" / "00000" / pictures[0])) is not None


def test_a_long_name_is_cut_to_bytes_that_a_picture_may_have(batch, tmp_path, photo):
    name = "猫" * 83
    (tmp_path / f"{name}.png").write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    assert batch(tmp_path / f"{name}.png", "--pictures")[0] == 0
    (picture,) = (tmp_path / "run" / "pictures" / "00000").iterdir()
    assert picture.name == f"00000000-{'猫' * 33}.jpg"


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(batch, photos, number):
    status, _, err = batch(photos, "--max-pixels", number)
    assert status == 1
    assert f"error: --max-pixels is {number}, must be a number above 0." in err


@pytest.mark.parametrize("output", ["run", "."])
def test_a_run_within_its_input_goes_on_without_its_own_pictures(batch, photos, output):
    for inputs in (photos, photos / "**" / "*"):
        for _ in range(2):
            status, out, err = batch(inputs, "--pictures", output=photos / output / "x" / "..")
            assert (status, "in 9 images" in out) == (3, True), err
    assert "8 pictures of the run itself left out" in err


def test_a_pipe_among_the_images_is_a_row(batch, photos, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    (tmp_path / "list.txt").write_text(f"{photos / 'pipe.jpg'}\n/dev/zero\n{photos / '0.png'}\n")
    assert batch(photos)[0] == batch(photos / "*", output=tmp_path / "glob")[0] == 3
    assert batch(tmp_path / "list.txt", output=tmp_path / "list")[0] == 3
    said = [row["error"] for row in rows(tmp_path / "list")]
    assert ["it is a pipe, a device" in (text or "") for text in said] == [True, True, False]
    assert rows(tmp_path / "run")[5]["error"] == said[0]
    assert len(rows(tmp_path / "glob")) == 6


def test_a_terminal_that_cannot_show_a_name_ends_no_run(bundle_path, tmp_path, photo):
    output, image = tmp_path / "Läufe", tmp_path / "café.png"
    image.write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    result = subprocess.run(
        [sys.executable, "-m", "runtime.batch", image, "--output", output, "--bundle", bundle_path],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0, result.stderr
    assert rb"L\xe4ufe/detections.jsonl" in result.stdout


# formats


def test_parquet_holds_the_same_rows(batch, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    batch(photos, "--format", "jsonl", "parquet")
    found = parquet.read_table(tmp_path / "run" / "detections.parquet").to_pylist()
    for row, expected in zip(found, rows(tmp_path / "run"), strict=True):
        assert {k: v for k, v in row.items() if k != "detections"} == {
            k: v for k, v in expected.items() if k != "detections"
        }
        for one, other in zip(row["detections"], expected["detections"], strict=True):
            assert (one["class"], one["role"]) == (other["class"], other["role"])
            np.testing.assert_allclose(one["box"], other["box"], rtol=1e-6)
            np.testing.assert_allclose(one["score"], other["score"], rtol=1e-6)


def test_coco_results_load_in_pycocotools(batch, photos, tmp_path, capfd):
    coco = pytest.importorskip("pycocotools.coco")
    batch(photos, "--format", "jsonl", "coco")
    truth = coco.COCO(str(tmp_path / "run" / "coco_images.json"))
    results = truth.loadRes(str(tmp_path / "run" / "coco_results.json"))
    expected = rows(tmp_path / "run")
    assert len(results.anns) == sum(len(row["detections"]) for row in expected) > 0
    for number, row in enumerate(expected, 1):
        found = results.loadAnns(results.getAnnIds(imgIds=[number]))
        assert truth.loadImgs([number])[0]["file_name"] == row["path"]
        for one, other in zip(found, row["detections"], strict=True):
            x1, y1, x2, y2 = other["box"]
            np.testing.assert_allclose(one["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=0.011)
            assert truth.loadCats([one["category_id"]])[0]["name"] == other["class"]


def test_coco_results_take_the_numbers_of_an_annotation_file_and_are_judged_by_it(
    batch, photos, tmp_path, capfd
):
    coco, judge = (pytest.importorskip(f"pycocotools.{n}") for n in ("coco", "cocoeval"))
    names = [os.path.relpath(path, photos) for path in list_images([str(photos)]).paths]
    annotations = {
        "info": {},
        "images": [
            {"id": 500 + n, "file_name": name, "width": 180, "height": 60}
            for n, name in enumerate(names)
        ],
        "categories": [{"id": 90, "name": "Cat"}, {"id": 7, "name": "truck"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 500,
                "category_id": 90,
                "bbox": [1, 1, 9, 9],
                "area": 81,
                "iscrowd": 0,
            }
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotations))
    classes = ("--classes", "truck, cat")
    status, *_ = batch(photos, *classes, "--format", "coco", "--coco-ids", path)
    assert status == 3
    truth = coco.COCO(str(path))
    results = truth.loadRes(str(tmp_path / "run" / "coco_results.json"))
    assert {a["category_id"] for a in results.anns.values()} == {7, 90}
    evaluation = judge.COCOeval(truth, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval["precision"].max() >= 0


def test_the_python_of_the_page_runs(batch, photos, tmp_path, monkeypatch, capfd):
    """Word for word, on a run and annotations of the names it opens."""
    for package in ("pyarrow", "pycocotools"):
        pytest.importorskip(package)
    batch(photos, "--format", "jsonl", "parquet", "coco")
    shutil.copy(tmp_path / "run" / "coco_images.json", tmp_path / "instances_val2017.json")
    (tmp_path / "coco-run").symlink_to("run")  # the page has a run of its own for each question
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "batch.md", "exec"), scope)
    assert scope["damaged"].num_rows == 1
    assert len(scope["evaluation"].params.imgIds) == 9


def test_numbers_that_an_annotation_file_lacks_are_said_before_the_work(tmp_path):
    path = tmp_path / "truth.json"
    truth = {"categories": [{"id": 1, "name": "cat"}], "images": [{"id": 5, "file_name": "a.png"}]}
    path.write_text(json.dumps(truth))
    with pytest.raises(ClassError, match="has no category 'zebra'; choose --classes among"):
        CocoIds.of(["cat", "zebra"], path, ["a.png"])
    with pytest.raises(ImageError, match=r"b\.png: --coco-ids has no image with this file name"):
        CocoIds.of(["cat"], path, ["photos/a.png", "photos/b.png"])
    truth["images"] += [{"id": 6, "file_name": "images\\b.png"}]  # as Windows writes it
    path.write_text(json.dumps(truth))
    assert CocoIds.of(["cat"], path, ["x/a.png"]).image(1, "x/images/b.png") == 6
    path.write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read as COCO annotations"):
        CocoIds.of(["cat"], path, ["a.png"])


def test_a_missing_package_is_said_before_the_work(batch, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    status, _, err = batch(photos, "--format", "parquet")
    assert status == 1
    assert "pip install 'contrastzsd[batch]'" in err
    assert not (tmp_path / "run").exists()


# going on


def test_a_finished_run_searches_nothing_and_takes_another_format(batch, photos, tmp_path):
    batch(photos)
    shards = sorted((tmp_path / "run" / "shards").iterdir())
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in shards]
    status, out, err = batch(photos, "--format", "coco")
    assert status == 3
    assert "(9 are done)" in err
    assert "coco_results.json" in out
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in shards] == before


def test_what_was_asked_otherwise_is_refused_with_both_sides_and_the_cure(batch, photos):
    batch(photos)
    status, _, err = batch(photos, "--classes", "truck, zebra", threshold="0.5")
    assert status == 1
    assert "only the run has 'person', 'dining table', 'cat', 'cup'" in err
    assert "only the command has 'zebra'" in err
    assert "score_threshold: the run has 0.0, the command 0.5" in err
    assert "Give the same command to go on with it, or another --output for a new run." in err


def test_another_bundle_is_refused(batch, photos, tmp_path):
    import tiny

    batch(photos)
    other = tiny.tiny_bundle(tmp_path / "other", licence="MIT")
    status, _, err = batch(photos, "--bundle", other)
    assert status == 1
    assert 'bundle: the run has {"name": "tiny", "sha256": ' in err


def test_other_inputs_are_refused_with_the_first_that_differs(batch, photos, photo):
    batch(photos)
    cv2.imwrite(str(photos / "1.png"), photo)
    status, _, err = batch(photos)
    assert status == 1
    assert "inputs: the run has 9 images, the command names 10; image 1 was " in err
    assert f"{str(photos / '2.png')!r} and is {str(photos / '1.png')!r}" in err


def test_one_folder_is_for_one_run_at_a_time(batch, photos, tmp_path):
    import fcntl

    batch(photos)
    with (tmp_path / "run" / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, _, err = batch(photos)
    assert status == 1
    assert "is in use by another run; wait for it, or take another --output." in err


def test_a_damaged_shard_is_named(batch, photos, tmp_path):
    batch(photos)
    shard = tmp_path / "run" / "shards" / "00001.jsonl"
    shard.write_text(shard.read_text()[:30])
    status, _, err = batch(photos)
    assert status == 1
    assert f"{shard} cannot be read" in err and "remove it and run again" in err
    shard.unlink()
    assert batch(photos)[0] == 3


def test_what_a_killed_run_left_behind_is_cleared(batch, photos, tmp_path):
    batch(photos)
    part = tmp_path / "run" / "shards" / ".00001.jsonl.123.part"
    part.write_text("half a r")
    batch(photos)
    assert not part.exists()


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt), written_aside(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with written_aside(path) as file:
        file.write("whole")
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_a_sentence(batch, photos, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = batch(photos, output=tmp_path / "file" / "run")
    assert status == 1
    assert "cannot be made: Not a directory." in err


# progress


def test_a_log_gets_a_line_at_the_start_and_at_the_end(capfd, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Countdown(1000, 200)
    for _ in range(8):
        now[0] += 2
        progress.add(100, 1)
    progress.close()
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "300/1000 images, 1 damaged, 50.0 images/s, 0:00:14 left"
    assert lines[-1] == "1000/1000 images, 8 damaged, 50.0 images/s, 0:00:00 left"
    assert len(lines) == 2


def test_progress_that_cannot_be_printed_ends_no_run(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        progress = Countdown(1)
        progress.add(1, 0)
        progress.close()
