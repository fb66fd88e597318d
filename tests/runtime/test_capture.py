"""Opened sources: the file's own times, frames that cannot be read, images behind addresses."""

import base64
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import write_video

from runtime.capture import open_capture
from runtime.sources import Source, source_of
from zsd_core.errors import ImageError


def read(path, kind="video"):
    capture = open_capture(Source(kind, str(path), "clip"), 5)
    try:
        frames = []
        while (got := capture.read()) is not None:
            frames.append(got)
        return capture, frames
    finally:
        capture.close()


@pytest.mark.parametrize("rate", [0.5, 10, 29.97, 480])
def test_times_are_the_files_own(tmp_path, rate):
    capture, frames = read(write_video(tmp_path / "clip.mp4", rate=rate))
    assert capture.rate == pytest.approx(rate, rel=1e-3)
    assert capture.count == 6 and capture.skipped == 0
    assert [s for s, _ in frames] == pytest.approx([i / rate for i in range(6)], abs=2e-3)


def test_times_of_a_variable_rate_are_the_files_own(tmp_path):
    av = pytest.importorskip("av", reason="needs contrastzsd[video]")
    from fractions import Fraction

    times = [0, 0.04, 0.08, 0.5, 0.52, 2.0]
    with av.open(str(tmp_path / "clip.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for seconds in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    capture, frames = read(tmp_path / "clip.mkv")
    assert [round(s, 3) for s, _ in frames] == times
    assert capture.skipped == 0


def damage(path: Path, start: float, end: float | None = None) -> Path:
    """Overwrite a part of a file with zeros, or cut its end off."""
    data = bytearray(path.read_bytes())
    first = int(len(data) * start)
    if end is None:
        del data[first:]
    else:
        last = int(len(data) * end)
        data[first:last] = bytes(last - first)
    path.write_bytes(data)
    return path


def noisy(path, frames=40):
    """A video whose frames are large, so that damage hits frames and not headers."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_bad_frames_are_skipped_and_counted(tmp_path, suffix):
    capture, frames = read(damage(noisy(tmp_path / f"clip{suffix}"), 0.4, 0.6))
    assert 25 <= len(frames) <= 35
    assert capture.skipped == 40 - len(frames)


def test_a_file_that_was_cut_off_says_how_much_is_missing(tmp_path):
    capture, frames = read(damage(noisy(tmp_path / "clip.avi"), 0.5))
    assert 15 <= len(frames) <= 25
    assert capture.skipped == 40 - len(frames)


def test_what_an_edit_list_leaves_out_is_not_missing(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", frames=20)
    assert read(path)[0].skipped == 0
    real = cv2.VideoCapture

    class Longer:  # a trimmed file: the header counts frames that are not shown
        def __init__(self, *arguments):
            self._real = real(*arguments)

        def __getattr__(self, name):
            return getattr(self._real, name)

        def get(self, key):
            return 90 if key == cv2.CAP_PROP_FRAME_COUNT else self._real.get(key)

    monkeypatch.setattr(cv2, "VideoCapture", Longer)
    assert read(path)[0].skipped == 0  # OpenCV's writer adds an edit list of 2 s
    monkeypatch.setattr("runtime.capture.presented_seconds", lambda _: None)
    assert read(path)[0].skipped == 70


def test_a_network_file_that_hangs_is_not_tried_to_its_announced_end(monkeypatch):
    reads = []

    class Hanging:
        def __init__(self, *_):
            pass

        def isOpened(self):
            return True

        def get(self, key):
            return 1000.0 if key == cv2.CAP_PROP_FRAME_COUNT else 25.0

        def read(self):
            reads.append(1)
            threading.Event().wait(0.05)
            return False, None

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Hanging)
    capture = open_capture(Source("video", "http://host/clip.mp4", "clip"), 0.1)
    assert capture.read() is None
    assert len(reads) < 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("live", "9" * 20, "camera"), "camera: cannot be opened; is it connected"),
        (Source("live", "/dev/null", "camera"), "is it connected"),
        (Source("live", "videotestsrc ! appsink", "pipe"), "is this OpenCV built with GStreamer"),
        (Source("live", "rtsp://u:p@127.0.0.1:1/x", "door"), "door: .*port 1 cannot be reached"),
        (Source("live", "rtsp://u:p@no-host.invalid/x", "door"), "its host is not known"),
        (Source("live", "udx://127.0.0.1/x", "door"), "is the address right"),
        (Source("live", "rtsp://[::1/x", "door"), "is malformed"),
        (Source("live", "rtsp://u:12/34@127.0.0.1:1/x", "door"), "port 1 cannot be reached"),
        (Source("live", "rtsp://u:se/34@127.0.0.1:1/x", "door"), "port 1 cannot be reached"),
    ],
)
def test_what_cannot_be_opened_says_what_to_try(source, message):
    with pytest.raises(ImageError, match=message):
        open_capture(source, 0.5)


@pytest.fixture
def web(tmp_path, photo):
    """A server of one image and one video, the image for a password."""
    clip = write_video(tmp_path / "clip.avi").read_bytes()
    image = cv2.imencode(".png", photo)[1].tobytes()
    login = "Basic " + base64.b64encode(b"admin:p@ss").decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/snapshot.png" and self.headers.get("Authorization") != login:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            data = {"/snapshot.png": image, "/clip.avi": clip}.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_address_of_an_image_is_an_image(web, photo):
    source = source_of(f"http://admin:p%40ss@{web}/snapshot.png")
    assert source.kind == "image" and source.name == f"http://***@{web}/snapshot.png"
    capture = open_capture(source, 5)
    seconds, image = capture.read()
    assert seconds == 0 and np.array_equal(image, photo)
    assert capture.read() is None


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 1e7])
def test_a_time_out_may_be_as_long_as_one_likes(web, tmp_path, timeout):
    clip = source_of(write_video(tmp_path / "clip.mp4"))
    picture = source_of(f"http://admin:p%40ss@{web}/snapshot.png")
    for source in (clip, picture):
        capture = open_capture(source, timeout)
        assert capture.read() is not None
        capture.close()


@pytest.mark.parametrize(
    ("path", "message"), [("snapshot.png", "Unauthorized"), ("x.jpg", "Not Found")]
)
def test_an_image_that_cannot_be_fetched_says_why(web, path, message):
    source = source_of(f"http://admin:wrong@{web}/{path}")
    with pytest.raises(ImageError, match=f"cannot be fetched: {message}") as error:
        open_capture(source, 5)
    assert "wrong" not in str(error.value)


@pytest.mark.parametrize("address", ["http://u:wr/ong@{}/x.jpg", "http://{}/a x.jpg?p=wr ong"])
def test_a_malformed_address_is_not_repeated(web, address):
    source = source_of(address.format(web))
    assert source.kind == "image"
    with pytest.raises(ImageError, match="the address is malformed; write a blank as %20") as error:
        open_capture(source, 5)
    assert "wr" not in str(error.value).partition("malformed")[0] and "ong" not in str(error.value)


def test_the_address_of_a_video_is_a_file_with_an_end(web):
    source = source_of(f"http://{web}/clip.avi")
    assert source.kind == "video"
    capture, frames = read(source.place)
    assert len(frames) == 6 and capture.skipped == 0
