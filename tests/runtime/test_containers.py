"""Videos whose announced duration is not that of their pictures, and those that were cut."""

import http.server
import threading
from fractions import Fraction
from functools import partial

import cv2
import numpy as np
import pytest

from runtime.capture import open_capture
from runtime.containers import is_whole
from runtime.sources import Source

av = pytest.importorskip("av", reason="needs contrastzsd[video]")

absolute = pytest.mark.skipif(
    not hasattr(cv2, "CAP_PROP_PTS"), reason="this OpenCV does not tell the times of the file"
)
RATE, FRAMES = 10, 30
NOISE = np.random.default_rng(0).integers(0, 256, (FRAMES, 24, 32, 3), np.uint8)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def write(path, start=0.0, other=0, **options):
    """Noise of 3 seconds from ``start`` on, and a second track of ``other`` frames."""
    codec = "libvpx" if path.suffix == ".webm" else "mpeg4"
    with av.open(str(path), "w", options=options) as file:
        tracks = [file.add_stream(codec, rate=RATE) for _ in range(1 + bool(other))]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 32, 24, "yuv420p"
            track.time_base = track.codec_context.time_base = Fraction(1, 1000)
        for index in range(max(FRAMES, other)):
            for track, frames in zip(tracks, (FRAMES, other), strict=False):
                if index < frames:
                    frame = av.VideoFrame.from_ndarray(NOISE[index % FRAMES], format="bgr24")
                    frame.time_base = Fraction(1, 1000)
                    frame.pts = round(1000 * (start + index / RATE))
                    file.mux(track.encode(frame))
        for track in tracks:
            file.mux(track.encode(None))
    return path


def read(place):
    """Frames of a video, and how many are said to be missing."""
    capture, frames = open_capture(Source("video", str(place), "clip"), 5), 0
    while capture.read() is not None:
        frames += 1
    capture.close()
    return frames, capture.skipped


def damaged(path, first, last=1.0, zeros=False):
    """The file without a part of it, or with zeros there."""
    data = path.read_bytes()
    begin, end = int(first * len(data)), int(last * len(data))
    path.write_bytes(data[:begin] + bytes(zeros * (end - begin)) + data[end:])
    return path


KINDS = [(".mkv", {}), (".webm", {}), (".mp4", FRAGMENTS), (".mp4", {})]
kinds = pytest.mark.parametrize(
    ("suffix", "options"), KINDS, ids=["mkv", "webm", "fragments", "mp4"]
)


@kinds
@pytest.mark.parametrize(("start", "other"), [(6, 0), (0, 60)])
def test_a_whole_file_misses_nothing(tmp_path, suffix, options, start, other):
    path = write(tmp_path / f"clip{suffix}", start, other, **options)
    assert read(path) == (FRAMES, 0) or read(path) == (other, 0)  # OpenCV takes the longer track
    assert is_whole(str(path)) == (None if (suffix, options) == KINDS[-1] else True)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
@pytest.mark.parametrize("start", [0, pytest.param(6, marks=absolute)])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_file_that_was_cut_says_so(tmp_path, suffix, start, zeros):
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}  # its table comes first
    path = damaged(write(tmp_path / f"clip{suffix}", start, **options), 0.6, zeros=zeros)
    frames, skipped = read(path)
    assert 10 <= frames < FRAMES
    assert FRAMES - 2 <= frames + skipped <= FRAMES
    assert is_whole(str(path)) is (None if options else False)


def test_a_part_of_a_stream_is_whole(tmp_path):
    """The beginning of a fragmented file and its second fragment, as DASH and HLS hand them out."""
    path = write(tmp_path / "clip.mp4", **FRAGMENTS)
    data = path.read_bytes()
    first = data.index(b"moof") - 4
    second = data.index(b"moof", first + 8) - 4
    path.write_bytes(data[:first] + data[second:])
    frames, skipped = read(path)
    assert 10 < frames < FRAMES and skipped == 0
    path.write_bytes(path.read_bytes()[:-500])
    assert is_whole(str(path)) is False


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_zeros_before_the_end_are_damage(tmp_path, suffix):
    path = damaged(write(tmp_path / f"clip{suffix}"), 0.5, 0.9, zeros=True)
    frames, skipped = read(path)
    assert is_whole(str(path)) is False
    assert frames < FRAMES and skipped > 0


@absolute
def test_the_times_behind_an_address_may_begin_late(tmp_path):
    write(tmp_path / "clip.mkv", 6)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert read(f"http://127.0.0.1:{server.server_port}/clip.mkv") == (FRAMES, 0)
        finally:
            server.shutdown()


@pytest.mark.parametrize("data", [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x80" * 9, b"no"])
def test_a_file_of_another_kind_is_not_whole(tmp_path, data):
    path = tmp_path / "clip"
    path.write_bytes(data)
    assert not is_whole(str(path)) or data.endswith(b"\x80")
    assert is_whole("http://host/clip.mkv") is None
