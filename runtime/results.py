"""Output of a command: annotated pictures, JSON, and a summary of times."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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

__all__ = [
    "Lines",
    "StageTimes",
    "explain",
    "keep_inputs",
    "write_json",
    "write_picture",
    "writing",
]

Image = NDArray[np.uint8]


def keep_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write where something is read, or written twice, before anything is read.

    Raises:
        ImageError: an output would replace an input or another output.
    """
    folder = functools.cache(os.path.realpath)
    read, written = {_identity(path, folder) for path in inputs}, set()
    for path in outputs:
        identity = _identity(path, folder)
        if identity in read:
            raise ImageError(f"{path} is an input itself; write to another folder with --output.")
        if identity in written:
            raise ImageError(
                f"{path} would be written twice, as two results; name another file or folder."
            )
        written.add(identity)


def _identity(path: Path, folder: Callable[[Path], str]) -> tuple[object, object]:
    """Identity of a file, by whatever name; of one that is not there, its name in its folder."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: no file can have this name
        return folder(path.parent), os.path.normcase(path.name)
    return found.st_dev, found.st_ino


def write_picture(folder: Path, name: str, original: Path | Image, detections: Detections) -> Path:
    """Write ``name.jpg`` and ``name.json`` into ``folder``; return the picture's path.

    Args:
        folder: where to.
        name: of both files.
        original: path of the image, or its pixels, ``(H, W, 3)`` uint8 BGR.
        detections: in pixels of the original.

    Raises:
        ImageError: the original cannot be read, or a file cannot be written.
    """
    import cv2

    target = folder / f"{name}.jpg"
    write_json(target.with_suffix(".json"), detections.to_list())  # it has no widest
    image = read_image(original, "bgr") if isinstance(original, Path) else original
    picture = annotate(image, detections)
    with writing(target):
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
    with writing(path):
        text = json.dumps(value, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says into an error of ours."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}.") from error


class Lines:
    """Writes one JSON object a line, each at once: whoever follows the file never waits.

    Args:
        target: path of a file, which is replaced, or "-" for standard output.

    Raises:
        ImageError: the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        self._path = Path(target)
        self.on_output = target == "-"
        self._file: IO[str] = sys.stdout
        if not self.on_output:
            with writing(self._path):
                self._file = self._path.open("w", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one object.

        Raises:
            ImageError: the file cannot be written.
            BrokenPipeError: nobody reads standard output any more.
        """
        # What the terminal cannot show must be escaped as JSON does it.
        text = json.dumps(record, ensure_ascii=self.on_output)
        if self.on_output:
            print(text, flush=True)
            return
        with writing(self._path):
            self._file.write(text + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if not self.on_output:
            self._file.close()


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
    """Say what was found, or why nothing was."""
    if detections:
        return str(detections)
    if detections.near_miss is None:
        return "nothing found: no region of the image looks like an object"
    name, score = detections.near_miss
    return (
        f"nothing found above the threshold; the best region scores {score:.2g}, for {name!r}. "
        "Lower the score threshold below that to see it"
    )
