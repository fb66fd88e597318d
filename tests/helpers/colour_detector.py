"""A detector whose classes are colors: it really finds, takes names, and learns from examples.

It has what ``runtime.serve`` uses of a ``runtime.Detector``, raises the same errors, and makes
every ``Detections`` from one class set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import SimpleNamespace

import cv2
import numpy as np

from runtime.detections import Detections
from runtime.thresholds import Limits
from runtime.vocabulary import rank_names
from zsd_core.config import DetectionConfig
from zsd_core.errors import ClassError
from zsd_core.semantics import fold_name

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 40),
    "zebra": (250, 120, 10),  # any word may stand for a color
}
SEEN = ("red", "green")
NEAR = 60  # distance in RGB that still counts as the color


class ColourDetector:
    """Boxes of connected pixels of the classes' colors; the score is how much of its box one fills.

    Args:
        classes: names of COLOURS.
        seconds: time that a picture takes, for queues to form.
        learns: whether classes can be made from examples.
        phrases: whether a phrase is a class: that of the color in it.
    """

    backend = "double"
    description = "colors on a test double"

    def __init__(self, classes=SEEN, seconds=0.0, learns=True, phrases=False) -> None:
        self.bundle = SimpleNamespace(
            name="colors",
            vocabulary=COLOURS,
            seen=SEEN,
            unseen=(),
            text_info={"network": "text.onnx"} if phrases else {},
        )
        self.learns_from_examples, self.seconds = learns, seconds
        self.default = DetectionConfig(score_threshold=0.3)
        self.calls = 0
        self._write = threading.Lock()
        self._classes = (1, self._vectors(classes))
        self._mode = "gzsd"
        self.limits = Limits.of(self.default, None, None, None)

    classes = property(lambda self: tuple(self._classes[1]))
    mode = property(lambda self: self._mode)
    class_set_version = property(lambda self: self._classes[0])

    @property
    def roles(self):
        return tuple("seen" if name in SEEN else "unseen" for name in self.classes)

    def class_vectors(self):
        return dict(self._classes[1])

    def set_classes(self, classes, *, mode=None):
        with self._write:
            self._mode = mode or self._mode
            self._classes = (
                self._classes[0] + 1,
                self._vectors(SEEN if classes is None else classes),
            )

    def add_classes(self, classes):
        with self._write:
            version, old = self._classes
            new = self._vectors(classes)
            for name in set(new) & set(old):
                raise ClassError(f"class {name!r} is already active; remove it first.")
            self._classes = (version + 1, {**old, **new})

    def remove_classes(self, names):
        with self._write:
            version, old = self._classes
            gone = {fold_name(name) for name in names}
            for name in gone - {fold_name(n) for n in old}:
                raise ClassError(f"class {name!r} is not active, so it cannot be removed.")
            left = {n: v for n, v in old.items() if fold_name(n) not in gone}
            if not left:
                raise ClassError("no class would be left.")
            self._classes = (version + 1, left)

    def set_thresholds(self, *, score_threshold=None, nms_threshold=None, max_detections=None):
        limits = self.limits.among(self.classes)
        limits = limits.changed(score_threshold, nms_threshold, max_detections)
        limits.check_names(self.classes)
        self.limits = limits

    def search(self, text, count=10):
        return rank_names(text, COLOURS, count)

    def encode(self, phrases):
        return np.array([self._phrase(phrase) for phrase in phrases])

    def spelling_hints(self, names):
        return {name: name.replace("grene", "green") for name in names if "grene" in name}

    def _phrase(self, phrase):
        known = [COLOURS[word] for word in phrase.split() if word in COLOURS]
        return np.array(known[0] if known else (0, 0, 0), float)

    def warmup(self):
        self(np.zeros((8, 8, 3), np.uint8))

    def close(self):
        pass

    def __call__(self, image, *, color="rgb"):
        if isinstance(image, list):
            return [self(one, color=color) for one in image]
        (version, classes), limits = self._classes, self.limits
        time.sleep(self.seconds)
        self.calls += 1
        pixels = image[:, :, ::-1] if color == "bgr" else image
        rows, best = [], None
        for index, (name, vector) in enumerate(classes.items()):
            role = "seen" if name in SEEN else "unseen"
            for box, score in _patches(pixels, vector):
                threshold = limits.by_class.get(fold_name(name), limits.by_role[role])
                if score > threshold:
                    rows.append((score, index, name, role, box))
                best = max(best or (name, 0.0), (name, score), key=lambda pair: pair[1])
        rows = sorted(rows, key=lambda row: -row[0])[: limits.max_detections]
        scores, ids, names, roles, boxes = zip(*rows, strict=True) if rows else ((),) * 5
        return Detections(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.array(scores, np.float32),
            class_ids=np.array(ids, np.int64),
            class_names=tuple(names),
            roles=tuple(roles),
            class_set_version=version,
            times_ms={"preprocess": 1.5, "trunk": 12.0, "score": 3.0},
            near_miss=None if rows else best,
        )

    def _vectors(self, classes):
        given = classes if isinstance(classes, Mapping) else dict.fromkeys(classes)
        return {name: self._vector(name, value) for name, value in given.items()}

    def _vector(self, name, value):
        if isinstance(value, list):  # examples
            colours = [_mean(example) for example in value]
            return np.mean(colours, axis=0)
        if value is not None:
            return np.asarray(value)
        known = {fold_name(n): c for n, c in COLOURS.items()}
        if fold_name(name) not in known and self.bundle.text_info:
            for word in name.split():
                near = [c for c in COLOURS if sorted(c) == sorted(word) and c != word]
                if near:
                    right = name.replace(word, near[0])
                    raise ClassError(
                        f"1 class name looks misspelt: {name!r} (did you mean {right!r}?). If a "
                        "name is meant as it stands, give its vector.",
                        meant={name: right},
                    )
            return self._phrase(name)
        if fold_name(name) not in known:
            near = " or ".join(map(repr, self.search(name, 3)))
            raise ClassError(f"{name!r} is not in the vocabulary; did you mean {near}?")
        return np.array(known[fold_name(name)], float)


def _patches(pixels, colour):
    near = np.abs(pixels.astype(int) - np.asarray(colour)).sum(axis=2) < NEAR
    count, _, stats, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8))
    for x, y, width, height, area in stats[1:count]:
        if area >= 64:
            yield (x, y, x + width, y + height), min(1.0, area / (width * height))


def _mean(example):
    image, box = (example.image, example.box) if hasattr(example, "image") else (example, None)
    x1, y1, x2, y2 = (round(x) for x in box or (0, 0, image.shape[1], image.shape[0]))
    part = image[y1:y2, x1:x2]
    middle = part[len(part) // 4 : -(len(part) // 4) or None]
    return np.median(middle.reshape(-1, 3), axis=0)


def picture(width=320, height=240, **boxes):
    """A BGR picture, noisy grey with rectangles ``color=(x1, y1, x2, y2)``."""
    rng = np.random.default_rng(0)
    image = rng.integers(110, 140, (height, width, 3), np.uint8)
    for name, (x1, y1, x2, y2) in boxes.items():
        colour = COLOURS.get(name, (200, 60, 200))
        image[y1:y2, x1:x2] = colour[::-1]
    return image


def png(image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
