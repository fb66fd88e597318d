"""Inputs: files, folders, videos, cameras; the newest frame wins where time runs."""

import threading

import cv2
import numpy as np
import pytest

from runtime.sources import LatestFrame, Source, Video, find_sources
from zsd_core.errors import ImageError


@pytest.fixture
def video_path(tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for index in range(6):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def test_what_the_command_line_names_is_sorted_out(tmp_path, video_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (folder / name).touch()
    found = find_sources([str(folder), str(folder / "a.jpg"), str(video_path), "0", "rtsp://x/y"])
    assert [(s.kind, s.name) for s in found] == [
        ("image", "a"), ("image", "b"), ("image", "a-2"), ("video", "clip"), ("live", "camera0"),
        ("live", "stream"),
    ]  # fmt: skip


def test_equal_names_get_a_number(tmp_path):
    for name in ("a.jpg", "a.png", "a-2.jpg"):
        (tmp_path / name).touch()
    names = [s.name for s in find_sources([str(tmp_path)])]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", "no such file or folder; a camera is a number"),
        ("file.pdf", r"\.pdf is neither an image"),
        ("plain", "no suffix is neither"),
        ("empty", "holds no image"),
    ],
)
def test_what_is_not_there_or_of_no_use_is_said(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pdf").touch()
    (tmp_path / "plain").touch()
    with pytest.raises(ImageError, match=message):
        find_sources([str(tmp_path / name)])


def test_neither_a_folder_called_like_an_image_nor_a_hidden_file_is_one(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").touch()
    (tmp_path / "._b.jpg").touch()  # what macOS leaves on cards
    assert [s.name for s in find_sources([str(tmp_path)])] == ["b"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)  # tests may run as root, who may
    with pytest.raises(ImageError, match=r"cannot be listed: Permission denied\."):
        find_sources([str(tmp_path)])


def test_an_address_may_be_longer_than_the_name_of_a_file():
    address = "https://camera/stream?token=" + 300 * "x"
    assert [(s.kind, s.place) for s in find_sources([address])] == [("live", address)]
    with pytest.raises(ImageError, match="no such file"):
        find_sources([300 * "x"])


def test_a_number_no_camera_can_have_cannot_be_opened():
    with pytest.raises(ImageError, match="is it connected"):
        Video(Source("live", 20 * "9", "camera"))


def test_every_frame_of_a_video_file_comes_in_order(video_path):
    video = Video(Source("video", str(video_path), "clip"))
    assert video.count == 6
    assert video.rate == 10
    frames = list(video)
    video.close()
    assert [round(seconds, 3) for seconds, _ in frames] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    means = [frame.mean() for _, frame in frames]
    assert means == sorted(means)
    assert frames[0][1].shape == (48, 64, 3)
    assert video.dropped == 0


def test_a_live_source_ends_when_the_stream_does(video_path):
    video = Video(Source("live", str(video_path), "stream"))
    seen = [frame for _, frame in video]
    video.close()
    assert 1 <= len(seen) <= 6
    assert len(seen) + video.dropped == 6


@pytest.mark.parametrize(("kind", "fix"), [("video", "ffmpeg"), ("live", "connected")])
def test_what_cannot_be_opened_says_what_to_try(tmp_path, kind, fix, capfd):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ImageError, match=fix):
        Video(Source(kind, str(path), "x"))


class Camera:
    """Frames that are released one by one, so that no test waits for a clock."""

    def __init__(self, count):
        self.count, self.given = count, 0
        self.step = threading.Semaphore(0)
        self.released = threading.Event()

    def read(self):
        self.step.acquire()
        if self.given == self.count:
            return False, None
        self.given += 1
        return True, np.full((2, 2, 3), self.given, np.uint8)

    def show(self, frames):
        for _ in range(frames):
            self.step.release()


def wait_for(condition):
    for _ in range(60_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not happen within a minute")


def test_a_slow_reader_gets_the_newest_frame_and_the_rest_is_dropped():
    camera = Camera(count=5)
    latest = LatestFrame(camera.read, camera.released.set)
    frames = iter(latest)
    camera.show(1)
    assert next(frames)[0, 0, 0] == 1
    camera.show(3)
    wait_for(lambda: latest.dropped == 2)
    assert next(frames)[0, 0, 0] == 4
    camera.show(2)
    assert [frame[0, 0, 0] for frame in frames] == [5]
    assert latest.dropped == 2
    latest.close()


def test_an_error_of_the_camera_reaches_the_reader():
    released = threading.Event()

    def read():
        raise RuntimeError("cable pulled")

    with pytest.raises(ImageError, match="cable pulled"):
        list(LatestFrame(read, released.set))
    assert released.wait(60)


def test_closing_wakes_the_reader_and_the_thread_releases_after_its_last_read():
    camera = Camera(count=100)
    latest = LatestFrame(camera.read, camera.released.set)
    found = []
    reader = threading.Thread(target=lambda: found.extend(latest), daemon=True)
    reader.start()
    camera.show(1)
    wait_for(lambda: len(found) == 1)
    closer = threading.Thread(target=latest.close)
    closer.start()
    reader.join(60)  # though the camera shows no further frame
    assert not reader.is_alive() and not camera.released.is_set()
    camera.show(1)
    closer.join()
    wait_for(camera.released.is_set)
    assert camera.given == 2 and len(found) == 1
    assert not latest._thread.is_alive()


@pytest.mark.parametrize("frames", [0, 1])
def test_a_live_capture_is_released_once_and_never_while_it_is_read(
    video_path, monkeypatch, frames
):
    calls = []

    class Capture:
        def __init__(self, place):
            self._real = real(place)

        def __getattr__(self, name):
            return getattr(self._real, name)

        def release(self):
            calls.append(threading.current_thread().name)

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    video = Video(Source("live", str(video_path), "stream"))
    if frames:
        next(iter(video))
    video.close()
    assert calls == (["latest-frame"] if frames else [threading.current_thread().name])
