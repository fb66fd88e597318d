"""Tracks: numbers of the same object, with detector doubles that find what a test has drawn."""

import dataclasses
import gc
import time

import numpy as np
import pytest
from videos import find_bright, objects

from runtime import Stream
from runtime.reader import Frame
from runtime.sources import Source
from runtime.tracking import Tracks, byte_tracker
from zsd_core.errors import ConfigError, MissingPackageError

supervision = pytest.importorskip("supervision", reason="needs contrastzsd[track]")


class Numbers:
    """A tracker double: it numbers the boxes of each frame anew, highest first."""

    def __init__(self):
        self.count = 0

    def update(self, detections):
        self.count += len(detections)
        detections.tracker_id = np.arange(self.count - len(detections), self.count)
        return detections[::-1]


def frame(connection=0, seconds=0.0):
    return Frame("camera", 0, seconds, 0.0, np.zeros((4, 4, 3), np.uint8), connection)


def test_numbers_return_to_their_boxes_whatever_the_order():
    found = Tracks(Numbers()).follow(frame(), objects((0, 0, 1, 1), (2, 2, 3, 3)))
    assert found.track_ids.tolist() == [0, 1]
    assert found.boxes[0].tolist() == [0, 0, 1, 1]
    assert [d.track_id for d in found] == [0, 1]
    assert found[1:].track_ids.tolist() == [1]
    assert [o["track"] for o in found.to_list()] == [0, 1]
    assert found.to_supervision().tracker_id.tolist() == [0, 1]


def test_boxes_that_the_tracker_leaves_out_have_no_track():
    class Half:
        def update(self, detections):
            detections.tracker_id = np.full(len(detections), 7)
            return detections[:1]

    found = Tracks(Half()).follow(frame(), objects((0, 0, 1, 1), (2, 2, 3, 3)))
    assert found.track_ids.tolist() == [7, -1]
    assert [o["track"] for o in found.to_list()] == [7, None]
    assert "track" not in objects((0, 0, 1, 1)).to_list()[0]


def test_after_a_loss_all_numbers_are_new():
    tracks, box = Tracks(Numbers), objects((0, 0, 1, 1))
    numbers = [tracks.follow(frame(c), box).track_ids[0] for c in (0, 0, 1, 1, 2)]
    assert numbers == [0, 1, 2, 3, 4]


def test_every_source_has_a_tracker_of_its_own_and_the_given_one_is_not_touched(tmp_path):
    import cv2

    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), 255, np.uint8))
    tracker = Numbers()
    with Stream(find_bright, list(tmp_path.iterdir()), tracker=tracker) as stream:
        assert [found.track_ids.tolist() for _, found in stream] == [[0], [0]]
    assert tracker.count == 0


def test_the_time_of_a_frame_reaches_a_tracker_that_takes_one():
    times = []

    class Timed(Numbers):
        def update(self, detections, timestamp=None):
            times.append(timestamp)
            return super().update(detections)

    Tracks(Timed()).follow(frame(seconds=1.5), objects((0, 0, 1, 1)))
    assert times == [1.5]


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("byte", r"tracker is a str, must have update\(detections\)"),
        (type("Old", (), {"update_with_detections": None})(), "moved to the package 'trackers'"),
        (
            type("Lock", (), {"update": None, "__deepcopy__": lambda *_: 1 / 0})(),
            "cannot be copied",
        ),
    ],
)
def test_what_is_no_tracker_is_refused(tracker, message):
    with pytest.raises(ConfigError, match=message):
        Tracks(tracker)


def test_a_tracker_that_makes_up_detections_is_refused():
    class Empty:
        def update(self, detections):
            return supervision.Detections(xyxy=detections.xyxy)

    with pytest.raises(ConfigError, match="without tracker_id"):
        Tracks(Empty()).follow(frame(), objects((0, 0, 1, 1)))


def test_thresholds_of_a_tracker_are_the_detectors(detector):
    pytest.importorskip("trackers")
    detector.set_thresholds(score_threshold={"seen": 0.02, "unseen": 0.004})
    tracker = byte_tracker(detector, frame_rate=10)
    assert tracker.track_activation_threshold == tracker.high_conf_det_threshold == 0.004
    assert byte_tracker(detector, track_activation_threshold=0.3).track_activation_threshold == 0.3


def test_without_the_package_the_way_to_it_is_said(detector, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[track\]'"):
        byte_tracker(detector)


def write_pictures(path, pictures, rate=25):
    import cv2

    size = pictures[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def faint(images, *, color):
    """The double with the scores of a model whose threshold is 0.003."""
    scores = np.full(1, 0.004, np.float32)
    return [
        dataclasses.replace(found, scores=scores[: len(found)])
        for found in find_bright(images, color=color)
    ]


def test_a_pan_over_one_object_is_one_track(tmp_path, detector):
    """A window moves over a wide picture with one square in it."""
    trackers = pytest.importorskip("trackers")
    scene = np.random.default_rng(3).integers(0, 120, (120, 400, 3), np.uint8)
    scene[40:80, 180:220] = 255
    pan = [scene[:, left : left + 160].copy() for left in range(60, 180, 2)]
    path = write_pictures(tmp_path / "pan.mp4", pan)
    detector.set_thresholds(score_threshold=0.003)
    with Stream(faint, [path], tracker=byte_tracker(detector)) as stream:
        ids = [found.track_ids.tolist() for _, found in stream]
    assert len(ids) == 60
    numbers = [row[0] for row in ids if row]
    most = max(set(numbers), key=numbers.count)
    assert most >= 0
    assert numbers.count(most) >= 0.9 * len(numbers)
    with Stream(faint, [path], tracker=trackers.ByteTrackTracker()) as stream:
        assert all((found.track_ids == -1).all() for _, found in stream)  # its own thresholds


def test_a_square_that_crosses_a_line_is_counted_once(tmp_path, detector):
    """With supervision's LineZone, as docs/streams.md shows it."""
    pytest.importorskip("trackers")
    pictures = []
    for step in range(50):
        picture = np.full((120, 200, 3), 30, np.uint8)
        picture[50:70, 3 * step : 3 * step + 24] = 255
        pictures.append(picture)
    path = write_pictures(tmp_path / "crossing.mp4", pictures)
    detector.set_thresholds(score_threshold=0.003)
    line = supervision.LineZone(supervision.Point(100, 120), supervision.Point(100, 0))
    with Stream(faint, [path], tracker=byte_tracker(detector)) as stream:
        for _, found in stream:
            tracked = found.to_supervision()
            line.trigger(tracked[tracked.tracker_id >= 0])
    assert line.in_count + line.out_count == 1


def test_a_camera_that_skips_frames_keeps_its_track(tmp_path, detector):
    """The tracker gets the frames' own times, so that what a slow detector skips is no loss."""
    pytest.importorskip("trackers")
    scene = [np.full((120, 200, 3), 30, np.uint8) for _ in range(60)]
    for step, picture in enumerate(scene):
        picture[40:90, step : step + 50] = 255
    path = write_pictures(tmp_path / "live.mp4", scene)
    with Stream(
        faint, [Source("video", str(path), "live")], policy="newest", tracker=byte_tracker(detector)
    ) as stream:
        ids = [int(found.track_ids[0]) for _, found in stream]
    assert len(set(ids) - {-1}) == 1


def test_the_tracks_of_a_source_that_is_gone_are_gone_too(tmp_path):
    path = write_pictures(tmp_path / "a.mp4", [np.full((40, 60, 3), 255, np.uint8)] * 3)
    with Stream(faint, tracker=Numbers, endless=True) as stream:
        frames, ids = iter(stream), []
        for name in ("a", "b", "a", "c"):
            stream.add(path, name=name)
            ids.append(next(frames)[1].track_ids.tolist())
            stream.remove(name)
        assert ids == [[0]] * 4
        end = time.monotonic() + 10
        while len(stream._tracks) > 1 and time.monotonic() < end:  # threads may still be ending
            time.sleep(0.01)
            gc.collect()
        assert len(stream._tracks) <= 1  # of the frame in hand
