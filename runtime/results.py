"""What a command writes: annotated pictures and videos, JSON, and a summary of times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.detections import Detections
from runtime.images import read_image
from zsd_core.errors import ImageError

__all__ = ["StageTimes", "VideoWriter", "explain", "write_picture"]

Image = NDArray[np.uint8]


def write_picture(folder: Path, name: str, original: Path, detections: Detections) -> Path:
    """Write ``name.jpg`` and ``name.json`` into ``folder``; return the picture's path.

    Raises:
        ImageError: the picture cannot be written, or would replace the original.
    """
    target = folder / f"{name}.jpg"
    _keep_original(target, original)
    _write_jpeg(target, annotate(read_image(original, "bgr"), detections))
    target.with_suffix(".json").write_text(detections.to_json(indent=1) + "\n", encoding="utf-8")
    return target


def _keep_original(target: Path, original: Path) -> None:
    if target.exists() and original.exists() and target.samefile(original):
        raise ImageError(f"{target} is the input itself; write to another folder with --output.")


def _write_jpeg(path: Path, image: Image) -> None:
    """Write a BGR image.

    Raises:
        ImageError: it cannot be written.
    """
    import cv2

    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    try:
        if not done:
            raise OSError("OpenCV cannot encode it")
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error}.") from error


class VideoWriter:
    """Writes ``name.mp4`` and ``name.json`` frame by frame: complete whenever it is closed.

    Args:
        folder: where to.
        name: of both files.
        rate: frames per second.
        original: what is read meanwhile, never to be replaced.

    Raises:
        ImageError: the video would replace the original.
    """

    def __init__(self, folder: Path, name: str, rate: float, original: Path) -> None:
        self.path, self._rate = folder / f"{name}.mp4", rate
        _keep_original(self.path, original)
        self._video: Any = None
        self._json: IO[str] = self.path.with_suffix(".json").open("w", encoding="utf-8")
        self._json.write("[")
        self.frames = 0

    def add(self, seconds: float, frame: Image, detections: Detections) -> None:
        """Write one frame.

        Raises:
            ImageError: the video cannot be written.
        """
        picture = annotate(frame, detections)
        if self._video is None:
            self._video = self._open(picture.shape[1], picture.shape[0])
        self._video.write(picture)
        record = {
            "frame": self.frames,
            "seconds": round(seconds, 3),
            "detections": detections.to_list(),
        }
        text = json.dumps(record, ensure_ascii=False)
        self._json.write((",\n" if self.frames else "\n") + text)
        self.frames += 1

    def close(self) -> None:
        """Finish both files."""
        if self._video is not None:
            self._video.release()
        self._json.write("\n]\n")
        self._json.close()

    def _open(self, width: int, height: int) -> Any:
        import cv2

        code = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(self.path), code, self._rate, (width, height))
        if not video.isOpened():
            raise ImageError(
                f"{self.path}: OpenCV cannot write this video; is the folder writable, and was "
                "OpenCV built with a video codec (the wheels of opencv-python-headless are)?"
            )
        return video


class StageTimes:
    """Collects the stage times of many images; prints their medians."""

    def __init__(self) -> None:
        self._samples: list[Mapping[str, float]] = []

    def add(self, detections: Detections) -> None:
        """Count one image."""
        self._samples.append(detections.times_ms)

    def __str__(self) -> str:
        if not self._samples:
            return "no image was searched"
        stages = {stage: median(s[stage] for s in self._samples) for stage in self._samples[0]}
        total = median(sum(s.values()) for s in self._samples)
        parts = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
        return f"{total:.1f} ms per image (median of {len(self._samples)}): {parts}"


def explain(detections: Detections) -> str:
    """What was found, or why nothing was."""
    if detections:
        return str(detections)
    if detections.near_miss is None:
        return "nothing found: no region of the image looks like an object"
    name, score = detections.near_miss
    return (
        f"nothing found above the threshold; the highest score is {score:.4f}, for {name!r}. "
        "Lower the score threshold below that to see it"
    )
