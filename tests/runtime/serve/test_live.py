"""Live sources, on a double of ``runtime.Stream``."""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from colour_detector import ColourDetector, picture

import runtime.serve.app
from runtime.serve.live import source_names
from zsd_core.errors import DeviceError, ImageError


def state(status, error=None):
    return SimpleNamespace(status=status, error=error)


class StreamDouble:
    """Yields what a test puts into it; ends when it is closed."""

    def __init__(self, detector, sources):
        self.detector, self.sources = detector, sources
        self.states = {name: state("opening") for name in sources}
        self._frames, self.closed = queue.Queue(), threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.closed.set()
        self._frames.put(None)

    def show(self, image, source=None, index=0):
        source = source or next(iter(self.sources))
        self.states[source] = state("running")
        self._frames.put(
            SimpleNamespace(
                source=source, index=index, seconds=index / 25, captured=time.time(), image=image
            )
        )

    def __iter__(self):
        while not self.closed.is_set():
            frame = self._frames.get()
            if frame is not None:
                (found,) = self.detector([frame.image], color="bgr")
                yield frame, found


@pytest.fixture
def live(serve, monkeypatch):
    """A service on doubles, and its stream."""
    made = queue.Queue()

    def opened(detector, sources, config):
        made.put(StreamDouble(detector, sources))
        return made.queue[0]

    monkeypatch.setattr(runtime.serve.app, "open_stream", opened)
    monkeypatch.setattr(runtime.serve.app, "source_of", lambda source: None)

    def make(*sources, **config):
        client = serve(ColourDetector(), sources=sources, **config)
        return client, made.get(timeout=5)

    return make


IMAGE = picture(red=(40, 40, 120, 100))


def parts(stream):
    """Records and pictures of an MJPEG."""
    held = b""
    for piece in stream.iter_raw():
        held += piece
        while b"\r\n\r\n" in held:
            head, _, rest = held.partition(b"\r\n\r\n")
            lines = dict(
                line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line
            )
            size = int(lines["Content-Length"])
            if len(rest) < size:
                break
            data, held = rest[:size], rest[size:]
            assert lines["Content-Type"] == "image/jpeg"
            yield json.loads(lines["X-Frame"]), cv2.imdecode(np.frombuffer(data, np.uint8), 1)


def later(action, seconds=0.3):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_short_names_hide_passwords_and_are_unique():
    sources = ["rtsp://me:secret@cam:554/front", "films/Door 1.mp4", "0", "x/door-1.avi", "/a/.b"]
    assert list(source_names(sources)) == [
        "cam-front",
        "door-1",
        "camera-0",
        "door-1-2",
        "b",
    ]


def test_no_password_becomes_part_of_a_name():
    sources = [
        "rtsp://cam/stream?user=admin&password=secret",
        "rtsp://cam/user=admin&password=secret&channel=1",
        "rtsp://admin:se/secret@cam:554/1",
        'rtspsrc location=rtsp://cam/1 user-pw="a/secret secret" ! decodebin ! appsink',
        "rtspsrc location=rtsp://cam/1 user-pw=secret ! " + "queue ! " * 30 + "appsink",
        "admin:secret@cam/x",
    ]
    names = list(source_names(sources))
    assert "secret" not in str(names) and "admin" not in str(names)
    assert names[:3] == ["cam-stream", "cam-user-password-channel-1", "cam-1"]
    assert names[3].startswith("rtspsrc-location-rtsp-cam-1-user-pw") and len(names[4]) <= 80


@pytest.mark.parametrize("draw", ["true", "false"])
def test_a_source_is_an_mjpeg_with_its_detections(live, draw):
    client, stream = live("door.mp4")
    stream.show(IMAGE, index=7)
    timer = later(client.app.state.service.stop)  # the test client reads a stream to its end
    with client.stream("GET", f"/live/door?draw={draw}") as answer:
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        record, image = next(parts(answer))
    timer.join()
    assert record["source"] == "door" and record["index"] == 7
    (item,) = record["detections"]
    assert item["class"] == "red" and item["box"] == [40, 40, 120, 100]
    corner = image[45:95, 40]
    plain = np.abs(corner.astype(int) - (30, 30, 220)).max() < 40
    assert plain == (draw == "false") or image.shape == IMAGE.shape


def events(text):
    """Pairs of name and value of server-sent events."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in lines:
            yield lines["event"], json.loads(lines["data"])


def test_events_tell_of_frames_classes_and_states(live):
    client, stream = live("door.mp4", "rtsp://me:secret@cam/1")
    stream.show(IMAGE)
    timer = later(lambda: client.post("/classes", json={"classes": ["blue"]}), 0.8)
    stopper = later(client.app.state.service.stop, 1.4)
    text = client.get("/events").text
    timer.join(), stopper.join()
    seen = list(events(text))
    assert [n for n, v in seen if n == "frame" and v["source"] == "door"]
    versions = [v["version"] for n, v in seen if n == "classes"]
    assert versions == [1, 2]
    assert (
        "sources",
        [
            {"name": "door", "state": "running", "error": None},
            {"name": "cam-1", "state": "opening", "error": None},
        ],
    ) in seen
    assert "secret" not in text


def test_events_may_leave_frames_out_or_be_of_one_source(live):
    client, stream = live("a.mp4", "b.mp4")
    stream.show(IMAGE, "a")
    stream.show(IMAGE, "b")
    time.sleep(0.3)
    timer = later(client.app.state.service.stop, 0.3)
    only = {v["source"] for n, v in events(client.get("/events?source=b").text) if n == "frame"}
    timer.join()
    assert only == {"b"}


def test_sources_are_listed_and_counted(live):
    client, stream = live("door.mp4")
    stream.show(IMAGE)
    for _ in range(100):
        listed = client.get("/sources").json()["sources"]
        if listed[0]["state"] == "running":
            break
        time.sleep(0.05)
    assert listed == [{"name": "door", "state": "running", "error": None}]
    text = client.get("/metrics").text
    assert 'contrastzsd_source_up{source="door"} 1.0' in text
    assert 'contrastzsd_pictures_total{source="door"} 1.0' in text
    assert client.get("/live/dor").status_code == 404


def test_viewers_are_bounded(live):
    client, _ = live("door.mp4", viewers=1)
    client.app.state.service.hub._viewers.add(object())
    answer = client.get("/live/door")
    client.app.state.service.hub._viewers.clear()
    assert answer.status_code == 503 and "retry-after" in answer.headers


def test_the_head_of_a_stream_ends_and_leaves_room(served, door):
    service = served(sources=[door], viewers=1)
    client = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=10)
    for path, status in [("/events", 200), ("/live/door", 200), ("/live/dor", 404)] * 2:
        client.request("HEAD", path)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
    assert service.service.hub.viewers == 0
    client.close()


def test_the_end_of_the_service_closes_the_stream(live):
    client, stream = live("door.mp4")
    assert client.app.state.service.close(timeout=5)
    assert stream.closed.is_set()


def until(true, seconds=20):
    """Wait until something is true; return whether it came to be."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def listed(client):
    return client.get("/sources").json()["sources"]


class FailingDetector(ColourDetector):
    """Fails while it is told to, as a kernel does on what it cannot hold."""

    fault = None

    def __call__(self, image, *, color="rgb"):
        if self.fault is not None:
            raise self.fault
        return super().__call__(image, color=color)


@pytest.mark.parametrize("fault", [TypeError("no kernel"), DeviceError("the device is gone.")])
def test_a_search_that_fails_is_said_and_sources_come_back(serve, video, caplog, fault):
    detector = FailingDetector()
    client = serve(detector, sources=[str(video)], loop=True, retry=(0.1, 0.2))
    hub = client.app.state.service.hub
    assert until(lambda: "frame door" in hub._newest)
    detector.fault = fault
    assert until(lambda: listed(client)[0]["state"] == "failed")
    said = str(fault) if isinstance(fault, DeviceError) else "TypeError: see its log"
    assert said in listed(client)[0]["error"] and "tried again" in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(fault, TypeError)
    assert 'contrastzsd_source_up{source="door"} 0.0' in client.get("/metrics").text
    detector.fault = None
    last = hub._newest["frame door"]
    assert until(lambda: hub._newest["frame door"] is not last)
    assert until(lambda: listed(client)[0]["state"] != "failed")
    assert client.app.state.service.close(timeout=10)


def test_a_video_that_is_gone_is_failed_until_it_is_there_again(serve, video):
    client = serve(ColourDetector(), sources=[str(video)], loop=True)
    hidden = video.with_name("hidden.avi")
    hub = client.app.state.service.hub
    assert until(lambda: "frame door" in hub._newest)
    video.rename(hidden)
    assert until(lambda: listed(client) and listed(client)[0]["state"] == "failed")
    assert "no such file" in listed(client)[0]["error"]
    hidden.rename(video)
    last = hub._newest["frame door"]
    assert until(lambda: hub._newest["frame door"] is not last)


def test_a_warm_up_that_fails_says_so(serve, caplog):
    detector = FailingDetector()
    detector.fault = TypeError("no kernel")
    client = serve(detector)
    assert until(lambda: "TypeError" in client.get("/ready").json()["error"])
    assert client.get("/ready").status_code == 503 and "no kernel" in caplog.text


@pytest.fixture
def video(tmp_path):
    """A video of half a second with a red square in it."""
    path = tmp_path / "door.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for _ in range(12):
        writer.write(IMAGE)
    writer.release()
    return path


def test_a_real_video_is_watched_and_begun_again(serve, video):
    client = serve(ColourDetector(), sources=[str(video)], loop=True)
    indices, end = [], time.monotonic() + 20
    hub = client.app.state.service.hub
    while time.monotonic() < end and sum(b < a for a, b in itertools.pairwise(indices)) < 2:
        shown = hub._newest.get("frame door")
        if shown is not None and (not indices or shown.record["index"] != indices[-1]):
            indices.append(shown.record["index"])
            assert [item["class"] for item in shown.record["detections"]] == ["red"]
            assert 0 <= shown.record["age_ms"] < 60_000
        time.sleep(0.01)
    assert sum(b < a for a, b in itertools.pairwise(indices)) >= 2, indices
    assert client.app.state.service.close(timeout=10)


def test_a_video_that_ends_says_so_and_its_last_frame_stays(serve, video):
    client = serve(ColourDetector(), sources=[str(video)])
    for _ in range(400):
        listed = client.get("/sources").json()["sources"]
        if listed[0]["state"] == "ended":
            break
        time.sleep(0.05)
    assert listed == [{"name": "door", "state": "ended", "error": None}]
    later(client.app.state.service.stop)
    with client.stream("GET", "/live/door") as answer:
        assert next(parts(answer))[0]["source"] == "door"


def test_the_picture_of_a_video_that_has_ended_ends_too(serve, video, monkeypatch):
    monkeypatch.setattr("runtime.serve.streams.HEARTBEAT", 0.2)
    client = serve(ColourDetector(), sources=[str(video)])
    with client.stream("GET", "/live/door") as answer:
        records = [record for record, _ in parts(answer)]  # comes to an end by itself
    assert records[-1]["index"] == 11
    with client.stream("GET", "/live/door") as answer:
        (again,) = [record for record, _ in parts(answer)]
    assert again["index"] == 11 and again["age_ms"] > records[-1]["age_ms"]
    assert client.app.state.service.hub.viewers == 0


def test_a_silent_source_is_told_from_a_dead_connection(live, monkeypatch):
    monkeypatch.setattr("runtime.serve.streams.HEARTBEAT", 0.1)
    client, stream = live("rtsp://cam/1")
    timer = later(lambda: stream.show(IMAGE, index=3), 0.5)
    stopper = later(client.app.state.service.stop, 1.5)
    with client.stream("GET", "/live/cam-1") as answer:
        text = b"".join(answer.iter_raw())
    timer.join(), stopper.join()
    head = text.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[:3] == [b"--frame", b"X-Source: waiting", b"X-Source: waiting"]
    assert head[-1].startswith(b'X-Frame: {"source": "cam-1", "index": 3')
    assert text.count(b'"index": 3') > 2  # the last frame again and again


def test_a_source_that_is_not_there_is_an_error_at_once(serve):
    with pytest.raises(ImageError, match=r"nowhere.mp4: no such file"):
        serve(sources=["nowhere.mp4"])
