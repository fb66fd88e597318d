"""The command as a process: signals complete its files, and no terminal or pipe ends its work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import write_video

from runtime.capture import open_capture
from runtime.console import Stop
from runtime.detect import main
from runtime.detect_inputs import Search, Settings
from runtime.sources import Source
from zsd_core.errors import ImageError

ROOT = Path(__file__).parents[2]
SLOW_READER = """
import sys, time
from runtime import detect, stream
taken = stream.Frames.take
def slow(self, most):
    time.sleep(0.05)
    return taken(self, most)
stream.Frames.take = slow
sys.exit(detect.main())
"""


@contextmanager
def command(bundle, *arguments, slow=False, **options):
    start = ["-c", SLOW_READER] if slow else ["-m", "runtime.detect"]
    argv = [sys.executable, *start, "--bundle", str(bundle), "--threads", "1", *map(str, arguments)]
    environment = {**os.environ, **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def count_frames(path):
    """Frames of a video as ffprobe counts them, or OpenCV where there is no ffprobe."""
    if shutil.which("ffprobe"):
        entry = ["-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
        probe = ["ffprobe", "-v", "error", *entry, str(path)]
        result = subprocess.run(probe, capture_output=True, text=True, check=True)
        assert result.stderr == ""
        return int(result.stdout.strip().rstrip(","))
    capture, frames = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        frames += 1
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_in_mid_video_completes_every_file(bundle_path, tmp_path, name):
    number = getattr(signal, name)
    clip = write_video(tmp_path / "clip.mp4", frames=400)
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out"
    arguments = [clip, "--output", out, "--jsonl", lines]
    with command(bundle_path, *arguments, slow=True) as process:
        end = time.monotonic() + 60
        while not (lines.exists() and lines.read_text().count("\n") >= 5):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        sent = time.monotonic()
        printed, errors = process.communicate()
    assert time.monotonic() - sent < 3
    assert process.returncode == 128 + number, errors
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    written = json.loads((out / "clip.json").read_text())
    assert 5 <= len(records) < 400
    assert [r["frame"] for r in records] == [r["frame"] for r in written] == [*range(len(records))]
    assert count_frames(out / "clip.mp4") == len(records)
    assert f"in {len(records)} frames" in printed
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_live_source_is_ended_by_a_signal_with_status_0(bundle_path, tmp_path):
    from rtsp import RtspServer

    with RtspServer() as server:
        arguments = [server.url, "--output", tmp_path, "--jsonl", "-"]
        with command(bundle_path, *arguments) as process:
            first = json.loads(process.stdout.readline())
            process.terminate()
            rest, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    records = [first, *map(json.loads, rest.splitlines())]
    assert set(first) == {"source", "frame", "seconds", "captured", "detections"}
    assert abs(first["captured"] - time.time()) < 60
    assert count_frames(tmp_path / "stream.mp4") == len(records)
    assert "in 1 frame" in errors or f"in {len(records)} frames" in errors


@pytest.mark.slow
def test_names_that_no_terminal_shows_and_a_closed_pipe_end_nothing(bundle_path, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [os.fsdecode(b"caf\xe9.png"), "straße 10:30.png", "日本.png"]
    data = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
    for name in names:
        (folder / name).write_bytes(data)
    clip = write_video(tmp_path / "12:30.mp4", frames=3)
    odd = clip.rename(tmp_path / os.fsdecode(b"12:30 \xe9.mp4"))
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    out = tmp_path / "out"
    arguments = [folder, odd, "--output", out, "--jsonl", "-"]
    with command(bundle_path, *arguments, env=ascii_only) as process:
        printed, errors = process.communicate()
    assert process.returncode == 0, errors
    records = [json.loads(line) for line in printed.splitlines()]
    assert len(records) == 6  # three images, three frames
    assert records[0]["source"].endswith("caf\ufffd.png")
    assert {path.name for path in out.iterdir()} == {
        *(
            f"{stem}.{end}"
            for stem in ("caf\ufffd", "straße 10:30", "日本")
            for end in ("jpg", "json")
        ),
        "12:30 \ufffd.mp4",
        "12:30 \ufffd.json",
    }
    assert count_frames(out / "12:30 \ufffd.mp4") == 3
    with command(bundle_path, folder, "--output", tmp_path / "again") as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == 0, errors
    assert len(list((tmp_path / "again").iterdir())) == 6
    assert "Traceback" not in errors


class Sent(Stop):
    """A signal that comes at a moment of the test's choice."""

    def send(self):
        self._caught(signal.SIGTERM, None)


def searched(tmp_path, detector, stop, **settings):
    (tmp_path / "out").mkdir()
    clip = Source("video", str(write_video(tmp_path / "clip.mp4")), "clip")
    return Search(detector, Settings(folder=tmp_path / "out", **settings), stop).run([clip])


def test_a_signal_before_there_is_a_stream_is_not_lost(tmp_path, detector, monkeypatch):
    stop = Sent()
    monkeypatch.setattr("runtime.detect_inputs.byte_tracker", lambda _: stop.send())
    outcome = searched(tmp_path, detector, stop, track=True)
    assert outcome.done == 0
    assert outcome.status(stop.signal) == 128 + signal.SIGTERM


def test_a_signal_while_a_file_opens_leaves_it_unfinished(tmp_path, detector, monkeypatch):
    stop = Sent()

    def opening(*arguments):
        stop.send()
        return open_capture(*arguments)

    monkeypatch.setattr("runtime.reader.open_capture", opening)
    outcome = searched(tmp_path, detector, stop)
    assert outcome.done == 0
    assert outcome.status(stop.signal) == 128 + signal.SIGTERM


def test_a_camera_that_never_gave_a_frame_is_an_error(tmp_path, detector, monkeypatch, capsys):
    stop = Sent()

    def opening(*_):
        stop.send()  # somebody who waits has enough
        raise ImageError("camera 9: cannot be opened.")

    monkeypatch.setattr("runtime.reader.open_capture", opening)
    settings = Settings(folder=tmp_path)
    outcome = Search(detector, settings, stop).run([Source("live", "9", "camera9")])
    assert outcome.status(stop.signal) == 1
    assert "error: 9: gave no frame; the warnings" in capsys.readouterr().err


def test_a_signal_counts_once_the_search_is_announced(bundle_path, tmp_path, monkeypatch):
    def say(text, **_):
        if "search 1 input" in text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("zsd_core.commands.say", say)
    arguments = ["rtsp://127.0.0.1:9/1", "--bundle", str(bundle_path), "--output", str(tmp_path)]
    assert main([*arguments, "--backend", "onnxruntime"]) == 0  # as a live source ends


def test_a_relative_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    from runtime.frames import Frames

    write_video(tmp_path / "10:30.mp4", frames=3)
    monkeypatch.chdir(tmp_path)
    with Frames(["10:30.mp4"]) as frames:
        assert len(list(frames)) == 3
