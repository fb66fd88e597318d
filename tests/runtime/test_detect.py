"""The command line: what it writes, what it prints where, and what it says when it cannot."""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime.detect
from runtime.annotate import COLORS
from runtime.arguments import parse_classes, parse_threshold
from runtime.detect import main
from runtime.detect_inputs import Outcome, Search
from runtime.recording import VideoWriter
from runtime.results import StageTimes, keep_inputs
from runtime.sources import Source
from zsd_core.errors import ImageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photo_path(tmp_path, photo):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo)
    return path


@pytest.fixture
def command(bundle_path, tmp_path, capfd):
    """Run the command; return its status, output and progress."""

    def run(*arguments, threshold="0", output=tmp_path / "out"):
        argv = [
            "--bundle",
            bundle_path,
            "--output",
            output,
            "--threads",
            1,
            "--backend",
            "onnxruntime",
            *(["--score-threshold", threshold] if threshold else []),
            *arguments,
        ]
        status = main([str(a) for a in argv])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_an_image_gives_a_picture_and_json(command, photo_path, tmp_path, detector, photo):
    status, out, err = command(photo_path)
    assert status == 0
    objects = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert objects == detector(photo, color="bgr").to_list()
    assert list(objects[0]) == ["box", "score", "class", "role"]
    picture = cv2.imread(str(tmp_path / "out" / "photo.jpg"))
    assert picture.shape[0] // photo.shape[0] == picture.shape[1] // photo.shape[1] >= 1
    assert "photo.jpg: " in out
    assert "ms per image (median of 1): preprocess" in out
    assert "[1/2] open the bundle" in err
    assert "[1/2]" not in out


def test_classes_and_mode_reach_the_detector(command, photo_path, tmp_path):
    status, *_ = command(photo_path, "--classes", "truck, Zebra,teapot", "--mode", "zsd")
    objects = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert status == 0
    assert {o["class"] for o in objects} == {"Zebra", "teapot"}
    assert {o["role"] for o in objects} == {"unseen"}


@pytest.mark.parametrize("arguments", [[], ["--scoring-precision", "int8"]])
def test_the_scoring_precision_reaches_the_detector(
    command, photo_path, monkeypatch, bundle_path, arguments
):
    used = []

    def run(search, _):
        used.append(search._detector._scorer.precision)
        return Outcome()

    monkeypatch.setattr(Search, "run", run)
    assert command(photo_path, *arguments)[0] == 0
    assert used == (arguments[1:] or ["float32"])


def test_seen_is_red_and_unseen_green(command, photo_path, tmp_path):
    for mode, role in (("seen", "seen"), ("zsd", "unseen")):
        command(photo_path, "--mode", mode)
        picture = cv2.imread(str(tmp_path / "out" / "photo.jpg")).astype(int)
        near = (np.abs(picture - COLORS[role]).max(axis=2) < 30).sum()
        other = COLORS["unseen" if role == "seen" else "seen"]
        far = (np.abs(picture - other).max(axis=2) < 30).sum()
        assert near > 10 * far


def test_an_empty_result_is_explained(command, photo_path, tmp_path):
    status, out, _ = command(photo_path, threshold="0.9")
    assert status == 0
    assert re.search(r"the best region scores 0\.\d+, for '", out)
    assert "Lower the score threshold" in out
    assert json.loads((tmp_path / "out" / "photo.json").read_text()) == []


def test_a_corrupt_image_is_reported_and_the_others_are_searched(command, photo_path, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 no more")
    status, out, err = command(bad, photo_path)
    assert status == 1
    assert "bad.jpg: the JPEG ends early" in err
    assert "photo.jpg: " in out


def test_a_picture_never_replaces_its_original(command, tmp_path, photo):
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), photo)
    before = path.read_bytes()
    status, out, err = command(path, output=tmp_path)
    assert status == 1
    assert "is an input itself" in err
    assert out == ""
    assert path.read_bytes() == before


def test_a_picture_never_replaces_another_input(command, tmp_path, photo):
    """photo.png would be written to photo.jpg, which is to be read after it."""
    (tmp_path / "other").mkdir()
    first, second = tmp_path / "other" / "photo.png", tmp_path / "photo.jpg"
    for path in (first, second):
        cv2.imwrite(str(path), photo)
    before = second.read_bytes()
    status, _, err = command(first, second, output=tmp_path)
    assert status == 1
    assert "photo.jpg is an input itself" in err
    assert second.read_bytes() == before


@pytest.mark.parametrize("suffix", [".jpg", ".json"])
def test_what_cannot_be_written_is_said_and_the_rest_is_searched(
    command, photo_path, photo, tmp_path, suffix
):
    cv2.imwrite(str(tmp_path / "next.png"), photo)
    (tmp_path / "out" / f"photo{suffix}").mkdir(parents=True)
    status, out, err = command(photo_path, tmp_path / "next.png")
    assert status == 1
    assert f"photo{suffix}: cannot be written: Is a directory." in err
    assert "next.jpg: " in out


def test_a_picture_too_wide_for_a_jpeg_still_gives_json(command, tmp_path, capfd):
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((2, 65_501, 3), 128, np.uint8))
    status, _, err = command(path)
    assert status == 1
    assert "wide.jpg: cannot be written: OpenCV cannot encode it." in err
    assert isinstance(json.loads((tmp_path / "out" / "wide.json").read_text()), list)


def test_an_output_that_cannot_be_there_replaces_nothing(photo_path):
    keep_inputs([photo_path.with_name(300 * "x")], [photo_path])
    with pytest.raises(ImageError, match="is an input itself"):
        keep_inputs([photo_path.parent / "." / photo_path.name], [photo_path])


def test_where_all_failed_nothing_is_said_to_be_written(command, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    status, out, _ = command(bad)
    assert status == 1
    assert out == ""


@pytest.fixture
def video_path(tmp_path, photo):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, photo.shape[1::-1])
    for shift in range(4):
        writer.write(np.roll(photo, 5 * shift, axis=1))
    writer.release()
    return path


def read_video(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        frames.append(frame[1])
    return frames


@pytest.mark.parametrize(("limit", "frames"), [((), 4), (("--max-frames", 2), 2)])
def test_a_video_gives_a_video_and_json(command, video_path, tmp_path, limit, frames):
    status, out, err = command(video_path, *limit)
    assert status == 0
    records = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert [r["frame"] for r in records] == list(range(frames))
    assert records[1]["seconds"] == 0.1
    assert records[0]["detections"]
    assert len(read_video(tmp_path / "out" / "clip.mp4")) == frames
    assert f"objects in {frames} frames" in out
    assert f"frame {frames}/{frames}" in err


@pytest.mark.parametrize("limit", [(), ("--max-frames", 100)])
def test_a_live_source_says_what_it_dropped(command, video_path, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(
        runtime.detect, "find_sources", lambda _: ([Source("live", str(video_path), "camera0")], [])
    )
    status, out, err = command("0", "--no-retry", *limit)
    assert status == 1  # its end is a loss, for it is no file
    assert "clip.mp4: sends no more frames" in err
    records = json.loads((tmp_path / "out" / "camera0.json").read_text())
    assert 1 <= len(records) <= 4
    assert f"in {len(records)} frame" in out
    assert "not readable" not in out


@pytest.mark.parametrize(("count", "note"), [(2, ""), (9, ", though 5 frames were not readable")])
def test_the_count_of_a_file_may_be_wrong(command, video_path, monkeypatch, count, note):
    """Every frame that can be read counts, and those that are missing are missed."""

    class Capture:  # beside OpenCV's, for one derived from it corrupts memory
        def __init__(self, *arguments):
            self._real = real(*arguments)

        def __getattr__(self, name):
            return getattr(self._real, name)

        def get(self, key):
            return count if key == cv2.CAP_PROP_FRAME_COUNT else self._real.get(key)

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr("runtime.capture.presented_seconds", lambda _: None)
    status, out, _ = command(video_path)
    assert status == (3 if note else 0)
    assert f"objects in 4 frames{note}" in out
    assert ("not readable" in out) == bool(note)


def test_a_video_whose_json_cannot_be_written_is_an_error(command, video_path, tmp_path):
    (tmp_path / "out" / "clip.json").mkdir(parents=True)
    status, _, err = command(video_path)
    assert status == 1
    assert "clip.json: cannot be written: Is a directory." in err


def test_frames_that_change_their_size_are_all_written(tmp_path, detector, photo):
    frames = [photo, photo[:100, :90].copy(), photo]
    writer = VideoWriter(tmp_path, "clip", 10)
    for index, frame in enumerate(frames):
        writer.add(index, index / 10, frame, detector(frame, color="bgr"))
    writer.close()
    assert len(json.loads((tmp_path / "clip.json").read_text())) == 3
    assert len(read_video(writer.path)) == 3


def test_times_of_an_endless_stream_take_no_endless_memory(three_times):
    times = StageTimes()
    for found in three_times:
        times.add(found)
    assert str(times).startswith("3.0 ms per image (median of 3): trunk 3.0")
    for _ in range(StageTimes.LAST):
        times.add(three_times[0])
    assert "2.0 ms per image (median of the last 10000)" in str(times)
    assert len(times._samples) == StageTimes.LAST


@pytest.fixture
def three_times(detector, photo):
    found = detector(photo)
    return [dataclasses.replace(found, times_ms={"trunk": float(ms)}) for ms in (2, 3, 4)]


def test_a_video_never_replaces_its_original(command, video_path, tmp_path):
    before = video_path.read_bytes()
    status, _, err = command(video_path, output=tmp_path)
    assert status == 1
    assert "is an input itself" in err
    assert video_path.read_bytes() == before


def test_search_prints_names_and_needs_no_image(bundle_path, capsys):
    assert main(["--search", "truk", "--bundle", str(bundle_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == ["truck  (seen in training)", "trunk", "fire truck"]
    assert main(["--search", "qqqq", "--bundle", str(bundle_path)]) == 1
    assert "try another word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jpg"], "no such file"),
        (["{photo}", "--classes", "zebr"], "did you mean 'zebra'.*--search"),
        (["{photo}", "--score-threshold", "7"], r"must be a number in \[0, 1\]"),
        (["{photo}", "--bundle", "nowhere"], "no such bundle"),
        (["{photo}", "--providers", "Moon"], "has no Moon"),
        (["{photo}", "--device", "GPU"], "no option 'device'"),
        (["{photo}", "--scoring-precision", "int4"], "'int4', must be 'float32' or 'int8'"),
        (["{photo}", "--output", "{photo}"], "cannot be made"),
    ],
)
def test_errors_are_one_sentence_and_status_1(command, photo_path, arguments, message):
    status, out, err = command(*[str(a).format(photo=photo_path) for a in arguments])
    assert status == 1
    assert out == ""
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.jpg", "--classes", ", ,"],
        ["x.jpg", "--classes", "@none.txt"],
        ["x.jpg", "--score-threshold", "high"],
        ["x.jpg", "--mode", "all"],
        ["0", "--max-frames", "0"],
    ],
)
def test_a_wrong_command_line_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error" in capsys.readouterr().err


def test_classes_come_from_text_or_file(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("cat\n\n fire truck \n")
    assert parse_classes(f"@{file}") == ["cat", "fire truck"]
    file.write_text("cat\ncup\n", encoding="utf-8-sig")  # as Windows' Notepad may write it
    assert parse_classes(f"@{file}") == ["cat", "cup"]
    assert parse_classes("cat, fire truck,") == ["cat", "fire truck"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("seen=0.1,unseen=0.05", {"seen": 0.1, "unseen": 0.05}),
        ("0.1,0.05", None),
        ("0,1", None),
        ("cat=0.1, unseen=.5", {"cat": 0.1, "unseen": 0.5}),
        ("0.1,0.2,0.3", None),
        ("cat=much", None),
        ("cat=0.1,0.2", None),
        ("", None),
    ],
)
def test_thresholds_have_three_forms(text, value):
    if value is not None:
        assert parse_threshold(text) == value
        return
    with pytest.raises(argparse.ArgumentTypeError):
        parse_threshold(text)


def test_help_teaches_with_examples():
    result = subprocess.run(
        [sys.executable, "-m", "runtime.detect", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.count("python -m runtime.detect") >= 5
    assert "rtsp://" in result.stdout
    assert "--scoring-precision P" in result.stdout


def test_stopping_by_hand_is_quiet(command, photo_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "run", interrupted)
    status, _, err = command(photo_path)
    assert status == 130
    assert "stopped" in err


def test_a_reader_that_has_seen_enough_ends_it_quietly(bundle_path):
    command = [sys.executable, "-m", "runtime.detect", "--search", "t", "--bundle", bundle_path]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
