"""Streams without a network: order, fairness, batches, sources that come, go and fail."""

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import nothing, objects, write_video

from runtime import Detections, Stream
from runtime.sources import Source
from runtime.stream import _Pace
from zsd_core.errors import ConfigError, ImageError


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4")


def read_all(*sources, detector=nothing, **options):
    with Stream(detector, list(sources), **options) as stream:
        return [frame for frame, _ in stream], stream.states


def test_a_file_gives_every_frame_in_order_with_its_own_times(clip):
    frames, states = read_all(clip)
    assert [frame.index for frame in frames] == list(range(6))
    assert [round(frame.seconds, 3) for frame in frames] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    means = [frame.image.mean() for frame in frames]
    assert means == sorted(means)
    assert frames[0].image.shape == (48, 64, 3)
    assert {frame.source for frame in frames} == {str(clip)}
    assert abs(frames[-1].captured - time.time()) < 60
    state = states[str(clip)]
    assert (str(state), state.frames, state.count, state.rate) == ("ended", 6, 6, 10)
    assert state.dropped == state.skipped == state.losses == 0


def test_the_detector_gets_bgr_and_its_results_come_with_their_frames(tmp_path):
    path = tmp_path / "blue.png"
    cv2.imwrite(str(path), np.full((4, 6, 3), (255, 0, 0), np.uint8))
    seen = []

    def detector(images, *, color):
        seen.extend((image[0, 0].tolist(), color) for image in images)
        return [objects((0, 0, 2, 2))]

    with Stream(detector, [path]) as stream:
        ((frame, found),) = list(stream)
    assert seen == [([255, 0, 0], "bgr")]
    assert isinstance(found, Detections) and found.class_names == ("square",)
    assert frame.seconds == 0 and frame.index == 0


def test_an_image_keeps_to_the_limit_of_the_detector(tmp_path):
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((40, 50, 3), np.uint8))

    class Limited:
        max_pixels = 1999
        __call__ = staticmethod(nothing)

    with pytest.raises(ImageError, match=r"large\.png: has 50 x 40 pixels, more than 1,999"):
        read_all(path, detector=Limited())
    assert len(read_all(path)[0]) == 1


def test_sources_take_turns(tmp_path):
    paths = [write_video(tmp_path / f"{name}.mp4", frames=8) for name in "abc"]
    stream = Stream(lambda images, *, color: wait_for_all() or nothing(images, color=color), paths)
    readers = list(stream._frames._shared.readers.values())

    def wait_for_all():  # until every source has a frame to offer, or has ended
        while any(not r.waiting and r.status in ("opening", "running") for r in readers):
            time.sleep(0.001)

    with stream:
        wait_for_all()  # one that is alone at first may have two frames
        order = [frame.source for frame, _ in stream]
    assert len(order) == 24
    for start in range(22):
        assert len(set(order[start : start + 3])) == 3


def test_frames_of_different_sources_are_searched_together(tmp_path):
    paths = [write_video(tmp_path / f"{name}.mp4") for name in "abc"]
    sizes = []

    def detector(images, *, color):
        sizes.append(len(images))
        time.sleep(0.01)  # of a call, not of an image: together is cheaper
        return [objects() for _ in images]

    frames, _ = read_all(*paths, detector=detector, max_batch=2)
    assert len(frames) == 18
    assert max(sizes) == 2


class Changing:
    """A finder that finds its own version in every image, and counts what it searched."""

    def __init__(self):
        self.class_set_version, self.sizes = 1, []

    def __call__(self, images, *, color):
        self.sizes.append(len(images))
        return [self.class_set_version] * len(images)


def test_frames_of_one_file_are_searched_together_and_again_after_a_change(tmp_path):
    finder, seen = Changing(), []
    with Stream(finder, [write_video(tmp_path / "a.mp4", frames=12)], max_batch=2) as stream:
        (reader,) = stream._frames._shared.readers.values()
        for frame, version in stream:
            while len(reader.waiting) < 2 and reader.status in ("opening", "running"):
                time.sleep(0.001)
            assert version == finder.class_set_version  # of now, not of when it was searched
            finder.class_set_version += 1
            seen.append(frame.index)
    assert seen == list(range(12))
    assert 2 in finder.sizes


def test_frames_that_wait_are_handed_out_when_iterating_again(tmp_path):
    with Stream(Changing(), [write_video(tmp_path / "a.mp4", frames=8)], max_batch=2) as stream:
        seen = []
        while (pair := next(iter(stream), None)) is not None:
            seen.append(pair[0].index)
    assert seen == list(range(8))


def test_a_name_that_is_given_again_is_another_source(tmp_path):
    first = write_video(tmp_path / "first.mp4", frames=40)
    second = write_video(tmp_path / "second.mp4", frames=6)
    seen, swapped = [], False
    with Stream(Changing(), [], max_batch=2, endless=True) as stream:
        stream.add(first, name="cam")
        reader = stream._frames._shared.readers["cam"]
        for frame, _ in stream:
            if swapped:
                seen.append(frame.index)
            elif stream._found:  # a frame of the first waits, searched
                stream.remove("cam")
                stream.add(second, name="cam")
                swapped = True
            while not swapped and len(reader.waiting) < 2 and reader.status != "ended":
                time.sleep(0.001)
            if len(seen) == 6:
                break
    assert seen == list(range(6))


def test_an_error_of_the_detector_has_no_other_behind_it(tmp_path):
    def fail(images, *, color):
        raise ValueError("no")

    with Stream(fail, [write_video(tmp_path / "a.mp4")]) as stream:
        with pytest.raises(ValueError, match="no") as raised:
            next(iter(stream))
    assert raised.value.__context__ is None


@pytest.mark.parametrize("end", ["close", "stop"])
def test_no_frame_that_waits_comes_after_the_end(tmp_path, end):
    with Stream(Changing(), [write_video(tmp_path / "a.mp4", frames=8)], max_batch=2) as stream:
        (reader,) = stream._frames._shared.readers.values()
        while len(reader.waiting) < 2:
            time.sleep(0.001)
        count = 0
        for _ in stream:
            count += 1
            getattr(stream, end)()
    assert count == 1


@pytest.mark.parametrize(("per_call", "per_image", "pays"), [(10, 1, True), (0, 10, False)])
def test_whether_batches_pay_is_measured(per_call, per_image, pays):
    pace = _Pace(4)
    calls = 0
    while pace._decided is None:
        frames = pace.most
        pace.note(frames, per_call + per_image * frames)
        calls += 1
    assert calls == 2 * _Pace.SAMPLES
    assert pace.most == (4 if pays else 1)


def test_sources_come_and_go_while_it_runs(tmp_path, clip):
    other = write_video(tmp_path / "other.mp4")
    long = write_video(tmp_path / "long.mp4", frames=60)
    seen = []
    with Stream(nothing, [long]) as stream:
        for frame, _ in stream:
            seen.append(frame.source)
            if len(seen) == 3:
                assert stream.add(clip, name="door") == "door"
                assert stream.add(other) == str(other)
                while "opening" in map(str, stream.states.values()):  # on a busy machine
                    time.sleep(0.01)
            if seen.count("door") == 6 and str(long) in stream.states:
                stream.remove(long)
        assert set(stream.states) == {"door", str(other)}
    assert seen.count("door") == seen.count(str(other)) == 6
    assert seen.count(str(long)) < 60


def test_no_frame_of_a_removed_source_comes(tmp_path):
    paths = [write_video(tmp_path / f"{name}.mp4", frames=20) for name in "ab"]
    seen = []
    with Stream(nothing, paths, max_batch=2) as stream:
        for frame, _ in stream:
            seen.append(frame.source)
            if seen[-1] == str(paths[0]) and str(paths[1]) in stream.states:
                stream.remove(paths[1])
                before = len(seen)
    assert set(seen[before:]) == {str(paths[0])}


def test_names_are_given_or_the_addresses_without_credentials(clip):
    with Stream(nothing, {"door": clip}) as stream:
        assert list(stream.states) == ["door"]
        with pytest.raises(ConfigError, match=r"door: is one of the sources already"):
            stream.add(clip, name="door")
        name = stream.add("rtsp://admin:secret@127.0.0.1:9/1")
        assert name == "rtsp://***@127.0.0.1:9/1"
        other = "rtsp://admin:other@127.0.0.1:9/1"
        assert stream.add(other) == "rtsp://***@127.0.0.1:9/1-2"
        with pytest.raises(ConfigError, match="is one of the sources already"):
            stream.add(other)
        stream.remove(other)
        stream.remove("rtsp://admin:secret@127.0.0.1:9/1")  # as it was given, too
        with pytest.raises(ConfigError, match=r"rtsp://\*\*\*@x: is none of the sources \(door\)"):
            stream.remove("rtsp://admin:secret@x")


def test_a_file_is_removed_by_any_name_of_it(clip):
    with Stream(nothing, []) as stream:
        for name in (clip, str(clip), f"file://{clip}"):
            stream.add(f"file://{clip}")
            stream.remove(name)
            assert stream.states == {}


def test_frames_on_which_the_detector_fails_are_counted(tmp_path):
    path, sizes = write_video(tmp_path / "a.mp4", frames=20), []

    def fails(images, *, color):
        sizes.append(len(images))
        if len(sizes) in (2, 5):
            raise ValueError("no")
        return nothing(images, color=color)

    given = errors = 0
    with Stream(fails, [path], max_batch=2) as stream:
        while str(stream.states[str(path)]) != "ended" or given + errors < 20:
            try:
                for _ in stream:
                    given += 1
                    assert stream.states[str(path)].frames == given  # not those that wait
            except ValueError:
                errors += sizes[-1]
        state = stream.states[str(path)]
    assert (state.frames, state.dropped) == (given, errors) and errors >= 2


def test_a_file_that_fails_is_reported_when_the_others_have_ended(tmp_path, clip):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    seen = []
    with Stream(nothing, [bad, clip]) as stream:
        with pytest.raises(ImageError, match=r"bad\.mp4: cannot be opened; is it whole"):
            seen.extend(frame for frame, _ in stream)
        assert len(seen) == 6
        assert list(stream) == []  # it is reported once
        assert str(stream.states[str(bad)]).startswith("failed: ")


def test_what_is_not_there_is_said_at_once(tmp_path, clip):
    with pytest.raises(ImageError, match="no such file or folder"):
        Stream(nothing, [clip, tmp_path / "none.mp4"])
    with pytest.raises(ImageError, match="is a folder"):
        Stream(nothing, [tmp_path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": None}, "timeout is None, must be a number"),
        ({"retry": 5}, "retry is 5, must be"),
        ({"retry": ("a", "b")}, "retry is .*, must be"),
        ({"max_batch": 2.5}, "max_batch is 2.5, must be a whole number"),
        ({"max_batch": None}, "max_batch is None"),
        ({"retry": (5, 1)}, r"retry is \(5, 1\), must be \(shortest, longest\)"),
        ({"policy": "latest"}, "policy is 'latest'"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"tracker": 3}, "tracker is a int, must have update"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Stream(nothing, [], **options)
    for single in ("clip.mp4", Path("clip.mp4"), 0):
        with pytest.raises(ConfigError, match="sources is a single one, must be a list"):
            Stream(nothing, single)


def test_a_live_source_gives_the_newest_frame_and_counts_the_others(tmp_path):
    path = write_video(tmp_path / "fast.mp4", frames=40)
    indices = []

    def slow(images, *, color):
        time.sleep(0.02)
        return nothing(images, color=color)

    stream = Stream(slow, [Source("live", str(path), "camera")], retry=None)
    with stream, pytest.raises(ImageError, match="camera: sends no more frames"):
        for frame, _ in stream:
            indices.append(frame.index)
    assert indices == sorted(indices)
    assert indices[-1] == 39
    state = stream.states["camera"]
    assert state.frames == len(indices)
    assert state.frames + state.dropped == 40


def test_a_file_can_be_played_at_its_own_pace(clip):
    started = time.monotonic()
    frames, states = read_all(clip, policy="newest")
    assert time.monotonic() - started >= 0.4
    assert frames[-1].index == 5
    assert states[str(clip)].frames + states[str(clip)].dropped == 6


def test_an_endless_stream_waits_for_sources_until_it_is_closed(clip):
    stream = Stream(nothing, [], endless=True)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    stream.add(clip)
    while len(seen) < 6:
        time.sleep(0.01)
    assert reader.is_alive()
    stream.close()
    reader.join(5)
    assert not reader.is_alive()
    with pytest.raises(ConfigError, match="the stream is closed"):
        stream.add(clip, name="again")


def test_no_thread_outlives_a_stream_that_nobody_closed(clip):
    before = threading.active_count()
    stream = Stream(nothing, [clip])
    next(iter(stream))
    assert threading.active_count() > before
    del stream
    for _ in range(100):
        if threading.active_count() == before:
            return
        time.sleep(0.05)
    raise AssertionError("a reader is still there")


def test_an_error_of_the_detector_reaches_the_caller(clip):
    def broken(images, *, color):
        raise RuntimeError("no memory")

    with Stream(broken, [clip]) as stream, pytest.raises(RuntimeError, match="no memory"):
        list(stream)


def test_an_error_nobody_foresaw_ends_its_source_only(clip, tmp_path, monkeypatch):
    other = write_video(tmp_path / "other.mp4")
    opened = cv2.VideoCapture

    def fails(place, *rest):
        if "other" in place:
            raise RuntimeError(f"driver: rtsp://admin:secret@cam?p=secret {place}")
        return opened(place, *rest)

    monkeypatch.setattr(cv2, "VideoCapture", fails)
    seen = []
    with Stream(nothing, [other, clip]) as stream:
        with pytest.raises(ImageError, match=r"reading failed: RuntimeError: driver") as error:
            seen.extend(stream)
        assert "secret" not in str(error.value) + str(stream.states)
    assert len(seen) == 6
