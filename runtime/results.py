"""What a command writes: annotated pictures and videos, JSON, and a summary of times."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.detections import Detections
from runtime.images import read_image
from zsd_core.errors import ImageError

__all__ = ["StageTimes", "VideoWriter", "explain", "keep_inputs", "write_json", "write_picture"]

Image = NDArray[np.uint8]


def keep_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write where something is read, before anything is read.

    Raises:
        ImageError: an output would replace an input.
    """
    # pathlib's exists raises where a name is too long or a folder closed.
    read = {_identity(path) for path in inputs if os.path.exists(path)}
    for path in outputs:
        if os.path.exists(path) and _identity(path) in read:
            raise ImageError(f"{path} is an input itself; write to another folder with --output.")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def write_picture(folder: Path, name: str, original: Path, detections: Detections) -> Path:
    """Write ``name.jpg`` and ``name.json`` into ``folder``; return the picture's path.

    Raises:
        ImageError: the original cannot be read, or a file cannot be written.
    """
    import cv2

    target = folder / f"{name}.jpg"
    write_json(target.with_suffix(".json"), detections.to_list())  # it has no widest
    picture = annotate(read_image(original, "bgr"), detections)
    with _writing(target):
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise OSError("OpenCV cannot encode it")
        target.write_bytes(data.tobytes())
    return target


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON.

    Raises:
        ImageError: the file cannot be written.
    """
    with _writing(path):
        text = json.dumps(value, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says into an error of ours."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}.") from error


class VideoWriter:
    """Writes ``name.mp4`` and ``name.json`` frame by frame: complete whenever it is closed.

    Args:
        folder: where to.
        name: of both files.
        rate: frames per second.

    Raises:
        ImageError: the JSON cannot be written.
    """

    def __init__(self, folder: Path, name: str, rate: float) -> None:
        self.path, self._rate = folder / f"{name}.mp4", rate
        self._video: Any = None
        self._size = (0, 0)
        self._json_path = self.path.with_suffix(".json")
        with _writing(self._json_path):
            self._json: IO[str] = self._json_path.open("w", encoding="utf-8")
        self._json.write("[")
        self.frames = 0

    def add(self, seconds: float, frame: Image, detections: Detections) -> None:
        """Write one frame; one of another size than the first is resized to it.

        Raises:
            ImageError: the video or the JSON cannot be written.
        """
        import cv2

        picture: Any = annotate(frame, detections)
        if self._video is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._video = self._open()
        if picture.shape[1::-1] != self._size:  # OpenCV would leave it out and say nothing
            picture = cv2.resize(picture, self._size)
        self._video.write(picture)
        record = {
            "frame": self.frames,
            "seconds": round(seconds, 3),
            "detections": detections.to_list(),
        }
        text = json.dumps(record, ensure_ascii=False)
        with _writing(self._json_path):
            self._json.write((",\n" if self.frames else "\n") + text)
        self.frames += 1

    def close(self) -> None:
        """Finish both files.

        Raises:
            ImageError: the JSON cannot be written.
        """
        if self._video is not None:
            self._video.release()
        with _writing(self._json_path), self._json:
            self._json.write("\n]\n")

    def _open(self) -> Any:
        import cv2

        code = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(self.path), code, self._rate, self._size)
        if not video.isOpened():
            raise ImageError(
                f"{self.path}: OpenCV cannot write this video; is the folder writable, and was "
                "OpenCV built with a video codec (the wheels of opencv-python-headless are)?"
            )
        return video


class StageTimes:
    """Collects the stage times of images, the last ``LAST`` of a long stream; prints medians."""

    LAST = 10_000

    def __init__(self) -> None:
        self._samples = deque[Mapping[str, float]](maxlen=self.LAST)
        self._count = 0

    def add(self, detections: Detections) -> None:
        """Count one image."""
        self._samples.append(detections.times_ms)
        self._count += 1

    def __str__(self) -> str:
        if not self._samples:
            return "no image was searched"
        stages = {stage: median(s[stage] for s in self._samples) for stage in self._samples[0]}
        total = median(sum(s.values()) for s in self._samples)
        parts = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
        those = f"{'the last ' * (self._count > self.LAST)}{len(self._samples)}"
        return f"{total:.1f} ms per image (median of {those}): {parts}"


def explain(detections: Detections) -> str:
    """What was found, or why nothing was."""
    if detections:
        return str(detections)
    if detections.near_miss is None:
        return "nothing found: no region of the image looks like an object"
    name, score = detections.near_miss
    return (
        f"nothing found above the threshold; the best region scores {score:.2g}, for {name!r}. "
        "Lower the score threshold below that to see it"
    )
