"""Where pictures come from: image files and folders, videos, cameras, network streams."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ImageError

__all__ = ["LatestFrame", "Source", "Video", "find_sources"]

Image = NDArray[np.uint8]
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv"}


@dataclass(frozen=True, slots=True)
class Source:
    """One input of the command line.

    Attributes:
        kind: "image", "video" (every frame counts) or "live" (only the newest frame counts).
        place: path, camera number as text, or address.
        name: for output files, unique among the sources.
    """

    kind: Literal["image", "video", "live"]
    place: str
    name: str


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Sort out what the command line names; a folder stands for the images in it, hidden ones not.

    Raises:
        ImageError: something is not there, or is neither image nor video.
    """
    sources: list[Source] = []
    taken: set[str] = set()

    def add(kind: Literal["image", "video", "live"], place: str, name: str) -> None:
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        sources.append(Source(kind, place, unique))

    for argument in arguments:
        path = Path(argument)
        if "://" in argument:  # asked first: an address may be too long for the name of a file
            add("live", argument, "stream")
        elif os.path.isdir(path):  # pathlib's raises where a name is too long or a folder closed
            try:
                files = sorted(
                    p for p in path.iterdir()
                    if p.suffix.lower() in IMAGES and p.name[0] != "." and p.is_file()
                )  # fmt: skip
            except OSError as error:
                raise ImageError(f"{argument}: cannot be listed: {error.strerror}.") from error
            if not files:
                raise ImageError(
                    f"{argument}: the folder holds no image ({', '.join(sorted(IMAGES))})."
                )
            for file in files:
                add("image", str(file), file.stem)
        elif os.path.isfile(path):
            suffix = path.suffix.lower()
            if suffix not in IMAGES | VIDEOS:
                raise ImageError(
                    f"{argument}: {suffix or 'no suffix'} is neither an image "
                    f"({', '.join(sorted(IMAGES))}) nor a video ({', '.join(sorted(VIDEOS))})."
                )
            add("image" if suffix in IMAGES else "video", argument, path.stem)
        elif argument.isdecimal():
            add("live", argument, f"camera{argument}")
        else:
            raise ImageError(
                f"{argument}: no such file or folder; a camera is a number, a stream an address "
                "such as rtsp://host/path."
            )
    return sources


class LatestFrame:
    """Reads a capture in a thread and keeps the newest frame only: a slow reader drops frames.

    Args:
        read: returns (True, frame) or (False, None) at the end, as ``cv2.VideoCapture.read``.
        release: frees the capture; the thread calls it after its last read, since a capture must
            not be freed while it is being read.
    """

    def __init__(self, read: Callable[[], tuple[bool, Any]], release: Callable[[], object]) -> None:
        self._read, self._release, self._new = read, release, threading.Condition()
        self._frame: Image | None = None
        self._ended = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="latest-frame", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Image]:
        while (frame := self._take()) is not None:
            yield frame

    def close(self) -> None:
        """Stop reading, and end the iteration of a reader that waits in another thread.

        A camera that answers no more is released when its read returns.
        """
        self._end()
        self._thread.join(timeout=5)

    def _end(self) -> None:
        with self._new:
            self._ended = True
            self._new.notify_all()

    def _take(self) -> Image | None:
        with self._new:
            self._new.wait_for(lambda: self._frame is not None or self._ended)
            frame, self._frame = self._frame, None
        if frame is None and self._error is not None:
            raise ImageError(f"reading the stream failed: {self._error}") from self._error
        return frame

    def _run(self) -> None:
        try:
            while not self._ended:
                there, frame = self._read()
                if not there:
                    break
                with self._new:
                    self.dropped += self._frame is not None
                    self._frame = frame
                    self._new.notify()
        except Exception as error:  # handed to the reader, who would wait for ever otherwise
            self._error = error
        finally:
            self._end()
            self._release()


class Video:
    """Frames of a video file, in order and all of them, or of a live source, the newest only.

    Iterate over ``(seconds, frame)``; frames are ``(H, W, 3)`` uint8 BGR.
    """

    def __init__(self, source: Source) -> None:
        import cv2

        self.source = source
        place = int(source.place) if source.place.isdecimal() else source.place
        try:
            self._capture = cv2.VideoCapture(place)
            there = self._capture.isOpened()
        except cv2.error:  # no number a camera could have
            there = False
        if not there:
            fix = {
                "video": "is it whole, and of a codec OpenCV reads? Try: ffmpeg -i FILE new.mp4",
                "live": "is it connected, and free of other programs?",
            }
            raise ImageError(f"{source.place}: cannot be opened; {fix[source.kind]}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = float(rate) if 1 <= rate <= 240 else 25.0
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if source.kind == "video" and count > 0 else None
        self._latest: LatestFrame | None = None

    @property
    def dropped(self) -> int:
        """Frames of a live source that were never looked at."""
        return self._latest.dropped if self._latest else 0

    def __iter__(self) -> Iterator[tuple[float, Image]]:
        if self.source.kind == "live":
            start = time.perf_counter()
            self._latest = LatestFrame(self._capture.read, self._capture.release)
            for frame in self._latest:
                yield time.perf_counter() - start, frame
            return
        index = 0
        while True:
            there, picture = self._capture.read()
            if not there:
                break
            yield index / self.rate, np.asarray(picture, np.uint8)
            index += 1
        if index == 0:
            raise ImageError(f"{self.source.place}: holds no frame that can be decoded.")

    def close(self) -> None:
        """Free the file or the camera."""
        if self._latest:
            self._latest.close()  # and its thread releases the capture
        else:
            self._capture.release()
