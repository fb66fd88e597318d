"""Annotated videos with the times of their source, and the JSON beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.detections import Detections
from runtime.plain_path import plain_path
from runtime.redact import printable
from runtime.results import writing
from zsd_core.errors import ImageError

__all__ = ["VideoWriter", "has_h264"]

Image = NDArray[np.uint8]
TICKS = 90_000  # of H.264's clock, a second
REPEATS = 100_000  # of one frame, at most, where a video has a fixed rate


class VideoWriter:
    """Writes ``name.mp4`` and ``name.json`` frame by frame: complete whenever it is closed.

    The video is H.264, each frame at its own time, where PyAV is installed
    (``contrastzsd[video]``). Elsewhere OpenCV writes MPEG-4 Part 2 at a fixed rate, and a frame is
    repeated where the next one comes late.

    Args:
        folder: where to.
        name: of both files.
        rate: frames per second of the source.
        live: of a live source without PyAV no frame is repeated: the video is a time lapse.

    Raises:
        ImageError: the JSON cannot be written.
    """

    def __init__(self, folder: Path, name: str, rate: float, *, live: bool = False) -> None:
        self.path, self._rate, self._live = folder / f"{name}.mp4", rate, live
        self._video: _Encoder | None = None
        self._size = (0, 0)
        self._json_path = self.path.with_name(f"{name}.json")
        with writing(self._json_path):
            self._json: IO[str] = self._json_path.open("w", encoding="utf-8")
        self._json.write("[")
        self.frames = 0

    def add(self, index: int, seconds: float, image: Image, detections: Detections) -> None:
        """Write one frame; one of another size than the first is resized to it.

        Args:
            index: number of the frame in its source.
            seconds: its time.
            image: ``(H, W, 3)`` uint8 BGR.
            detections: in pixels of ``image``.

        Raises:
            ImageError: the video or the JSON cannot be written.
        """
        import cv2

        picture: Any = annotate(image, detections)
        if self._video is None:
            # H.264 halves the colours' resolution, so that both sides are even.
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            self._size = (max(self._size[0], 2), max(self._size[1], 2))
            encoder = _H264 if has_h264() else _Mpeg4
            self._video = encoder(self.path, self._rate, self._size, not self._live)
        if picture.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size)
        self._video.write(seconds, picture)
        record = {
            "frame": index,
            "seconds": round(seconds, 3),
            "detections": detections.to_list(),
        }
        text = json.dumps(record, ensure_ascii=False)
        with writing(self._json_path):
            self._json.write((",\n" if self.frames else "\n") + text)
        self.frames += 1

    def close(self) -> None:
        """Finish both files.

        Raises:
            ImageError: a file cannot be written.
        """
        try:
            if self._video is not None:
                self._video.close()
        finally:
            with writing(self._json_path), self._json:
                self._json.write("\n]\n")


def has_h264() -> bool:
    """Whether videos are written as H.264, which every browser plays."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


class _Encoder(Protocol):
    def write(self, seconds: float, picture: Image) -> None: ...

    def close(self) -> None: ...


class _H264:
    """H.264 by PyAV: every frame has its own time."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int], repeat: bool) -> None:
        import av

        self._path, self._last, self._written = path, -1, 0
        self._length = max(1, round(TICKS / rate))
        with self._writing(), plain_path(path) as plain:
            self._file = av.open(plain, "w", format="mp4")
            self._stream: Any = self._file.add_stream(
                "libx264",
                rate=Fraction(rate).limit_denominator(1001),
                # No frame refers to a later one: else the last one's duration is lost.
                options={"preset": "veryfast", "crf": "23", "bf": "0"},
            )
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
            self._file.start_encoding()

    def write(self, seconds: float, picture: Image) -> None:
        import av

        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.time_base = Fraction(1, TICKS)
        frame.pts = self._last = max(self._last + 1, round(seconds * TICKS))
        frame.duration = self._length
        with self._writing():
            self._file.mux(self._stream.encode(frame))
        self._written += 1

    def close(self) -> None:
        import av

        with self._writing():
            try:
                self._file.mux(self._stream.encode(None))
            finally:
                self._file.close()
            with plain_path(self._path) as plain, av.open(plain) as file:
                kept = file.streams.video[0].frames
        _check_whole(self._path, kept, self._written)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors into a sentence; PyAV's own are of no common kind but its base."""
        import av

        try:
            yield
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise ImageError(
                f"{printable(str(self._path))}: cannot be written: {_reason(error)}."
            ) from error


class _Mpeg4:
    """MPEG-4 Part 2 by OpenCV, at a fixed rate."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int], repeat: bool) -> None:
        import cv2

        self._path, self._rate, self._repeat, self._written = path, rate, repeat, 0
        self._last: Image | None = None
        code = cv2.VideoWriter.fourcc(*"mp4v")
        with plain_path(path) as plain:
            self._video = cv2.VideoWriter(plain, code, rate, size)
        if not self._video.isOpened():
            raise ImageError(
                f"{printable(str(path))}: OpenCV cannot write this video; is the folder writable, "
                "and has OpenCV a video codec, as the wheels of opencv-python-headless have?"
            )

    def write(self, seconds: float, picture: Image) -> None:
        missing = round(seconds * self._rate) - self._written
        if self._repeat and self._last is not None:
            for _ in range(min(missing, REPEATS)):
                self._put(self._last)
        self._put(picture)
        self._last = picture

    def close(self) -> None:
        """OpenCV does not say that writing failed: the file is read again."""
        import cv2

        self._video.release()
        with plain_path(self._path) as plain:
            video = cv2.VideoCapture(plain)
        kept = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        _check_whole(self._path, kept, self._written)

    def _put(self, picture: Image) -> None:
        self._video.write(picture)
        self._written += 1


def _check_whole(path: Path, kept: int, written: int) -> None:
    if kept != written:
        raise ImageError(
            f"{printable(str(path))}: cannot be written: {kept} of its {written} frames are in the "
            "file; is the disk full?"
        )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
