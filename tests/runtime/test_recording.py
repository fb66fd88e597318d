"""Annotated videos: their times, their codec, and what happens where they cannot be written."""

import json
import resource
import sys

import cv2
import numpy as np
import pytest
from videos import objects

from runtime.frames import Frames
from runtime.recording import VideoWriter, has_h264
from zsd_core.errors import ImageError

BOX = objects((8, 8, 30, 30))


@pytest.fixture(params=["h264", "mpeg4"])
def codec(request, monkeypatch):
    if request.param == "mpeg4":
        monkeypatch.setitem(sys.modules, "av", None)
    elif not has_h264():
        pytest.skip("needs contrastzsd[video]")
    assert has_h264() == (request.param == "h264")
    return request.param


def write(folder, times, rate, size=(64, 48), **options):
    writer = VideoWriter(folder, "clip", rate, **options)
    for index, seconds in enumerate(times):
        picture = np.full((size[1], size[0], 3), 3 * index % 250, np.uint8)
        writer.add(index, seconds, picture, BOX)
    writer.close()
    return writer


def read(path):
    with Frames([path]) as frames:
        found = list(frames)
        return [frame.seconds for frame in found], frames.states[str(path)]


@pytest.mark.parametrize("rate", [0.5, 25, 29.97, 480])
def test_a_video_keeps_its_duration_and_its_frames(tmp_path, codec, rate):
    times = [index / rate for index in range(12)]
    seconds, state = read(write(tmp_path, times, rate).path)
    assert seconds == pytest.approx(times, abs=2e-3)
    assert state.rate == pytest.approx(rate, rel=2e-3)
    records = json.loads((tmp_path / "clip.json").read_text())
    assert [r["frame"] for r in records] == list(range(12))
    assert records[3] == {
        "frame": 3,
        "seconds": round(3 / rate, 3),
        "detections": BOX.to_list(),
    }


def test_frames_at_odd_times_keep_them(tmp_path, codec):
    times = [0, 0.04, 0.08, 1.0, 1.04, 3.0]
    seconds, _ = read(write(tmp_path, times, 25).path)
    if codec == "h264":
        assert seconds == pytest.approx(times, abs=2e-3)
    else:  # a fixed rate: frames are repeated instead
        assert len(seconds) == 76
        assert seconds[-1] == pytest.approx(3.0, abs=2e-3)


def test_without_h264_a_camera_gives_a_time_lapse(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    seconds, _ = read(write(tmp_path, [0, 5, 10], 10, live=True).path)
    assert seconds == pytest.approx([0, 0.1, 0.2], abs=1e-3)


@pytest.mark.parametrize("size", [(65, 49), (1, 1), (3, 500)])
def test_any_size_can_be_written(tmp_path, codec, size):
    seconds, _ = read(write(tmp_path, [0, 0.1], 10, size=size).path)
    assert len(seconds) == 2


def test_h264_is_what_it_is_called(tmp_path):
    if not has_h264():
        pytest.skip("needs contrastzsd[video]")
    capture = cv2.VideoCapture(str(write(tmp_path, [0, 0.1], 10).path))
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    capture.release()
    assert code in (b"h264", b"avc1")


@pytest.mark.parametrize("largest", [0, 3000, 30_000])
def test_a_video_on_a_full_disk_says_so(tmp_path, codec, largest):
    """Whether a frame or only the end of the file finds no room."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = VideoWriter(tmp_path, "clip", 25)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        said = r"clip\.mp4: .*cannot (be written: |write this video)"
        with pytest.raises(ImageError, match=said):
            try:
                for index in range(8):
                    writer.add(index, index / 25, noise, objects())
            finally:
                if writer._video:  # closed before the JSON, which finds room again
                    writer._video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        writer._video = None
        writer.close()


def test_a_video_whose_end_is_lost_says_so(tmp_path, codec, monkeypatch):
    """Nothing said that writing failed, but the file lacks frames."""
    times = [index / 25 for index in range(4)]
    recording = VideoWriter(tmp_path, "clip", 25)
    for index, seconds in enumerate(times):
        recording.add(index, seconds, np.zeros((48, 64, 3), np.uint8), BOX)
    recording._video._written += 1
    with pytest.raises(ImageError, match=r"clip\.mp4: cannot be written: 4 of its 5 frames"):
        recording.close()
    assert len(json.loads((tmp_path / "clip.json").read_text())) == 4


def test_whatever_ends_an_h264_file_is_our_error_and_closes_it(tmp_path):
    if not has_h264():
        pytest.skip("needs contrastzsd[video]")
    import av

    writer = VideoWriter(tmp_path, "clip", 25)
    writer.add(0, 0.0, np.zeros((48, 64, 3), np.uint8), BOX)
    closed = []

    class File:
        def mux(self, packets):
            raise av.error.ExternalError(-542398533, "a codec's own")

        def close(self):
            closed.append(True)

    real, writer._video._file = writer._video._file, File()
    with pytest.raises(ImageError, match=r"clip\.mp4: cannot be written: "):
        writer.close()
    assert closed
    real.close()


def test_a_video_that_cannot_be_written_says_so(tmp_path, codec):
    (tmp_path / "clip.mp4").mkdir()
    writer = VideoWriter(tmp_path, "clip", 10)
    with pytest.raises(ImageError, match=r"clip\.mp4: .*cannot (be written: |write this video)"):
        writer.add(0, 0.0, np.zeros((8, 8, 3), np.uint8), BOX)
    writer.close()
    assert json.loads((tmp_path / "clip.json").read_text()) == []
