"""The detector: images in, ``Detections`` out, and classes that change while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from runtime.backends import open_backend
from runtime.bundle import Bundle, open_bundle
from runtime.classes import ActiveClasses, ClassTable, Mode
from runtime.detections import Detections
from runtime.images import PillowImage, as_image
from runtime.thresholds import Limits, ScoreThreshold
from zsd_core import kernels, pipeline
from zsd_core.errors import ConfigError
from zsd_core.kernels.preprocess import Color
from zsd_core.scoring import scorer_for

__all__ = ["Detector"]

Classes = Sequence[str] | Mapping[str, Any]


class Detector:
    """Find any classes in images.

        detector = Detector(classes=["cat", "cup"])
        detections = detector("photo.jpg")
        detector.add_classes(["zebra", "fire truck"])  # the next image is searched for these too

    A detector may be shared by threads. Classes and thresholds change atomically: an image that is
    being searched keeps those it started with.

    Args:
        bundle: directory or zip; None opens the one that ships.
        backend: "auto" (the first installed; ``detector.backend`` says which), or its name.
        classes: names, or {name: vector}; None takes the bundle's table. A name of the table keeps
            its role; any other is unseen, and its vector is looked up in the bundle's vocabulary
            unless it is given (a vector of None means: look it up).
        mode: which of the classes are reported: "gzsd" all, "zsd" the unseen, "seen" the seen.
        score_threshold: what a detection's score must exceed: one number, a pair (seen, unseen),
            {"seen": a, "unseen": b}, or {class name: number} with the two roles as optional further
            keys. None, and what a mapping leaves out: the bundle's.
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image.
        phrases: encode names that the vocabulary lacks with the bundle's text encoder; needs
            ``contrastzsd[text]``, and torch with it, once such a name comes.
        precision: of the networks: "float32", or "fp16" or "int8" where the bundle holds them
            (``python -m export.precision`` and ``export.quantize`` make them).
        scoring_precision: "float32", or "int8", which is faster where classes are many and moves
            scores a little.
        threads: CPU threads of the backend, and of the kernels in this process.
        backend_options: of the backend, such as {"providers": ["CUDAExecutionProvider"]}.

    Raises:
        BundleError: the bundle cannot be used.
        ClassError: a class is unknown, repeated, or none is left to report.
        ConfigError: an argument is not valid, or not for this backend, bundle or scoring method.
        DeviceError: the backend cannot run the networks on its device.
        MissingPackageError: the backend is not installed.
    """

    # None but these: what looks like a setting and is none, such as score_threshold, is refused.
    __slots__ = (
        "__weakref__", "_backend", "_config", "_frames", "_scorer", "_state", "_table", "_write",
        "bundle",
    )  # fmt: skip

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        backend: str = "auto",
        classes: Classes | None = None,
        mode: Mode = "gzsd",
        score_threshold: ScoreThreshold | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        phrases: bool = False,
        precision: str = "float32",
        scoring_precision: str = "float32",
        threads: int | None = None,
        backend_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle = open_bundle(bundle)
        self._config = self.bundle.model_config
        self._scorer = scorer_for(
            self._config.scoring, self.bundle.scorer_tensors(), precision=scoring_precision
        )
        self._table = ClassTable(self.bundle, self._scorer, phrases)
        self._write = threading.Lock()
        active = self._table.activate(classes, mode, version=1)
        limits = Limits.of(self._config.detection, score_threshold, nms_threshold, max_detections)
        limits.check_names(active.names)
        self._state = _State(active, limits)
        self._backend = open_backend(backend, self.bundle, threads, backend_options, precision)
        try:
            self._frames = self._backend.frames(self._config, self._scorer)
            if threads is not None:
                kernels.set_threads(threads)
        except BaseException:
            self._backend.close()
            raise

    @property
    def classes(self) -> tuple[str, ...]:
        """The active classes in the order they were given; ``class_ids`` are positions in it."""
        return self._state.active.names

    @property
    def roles(self) -> tuple[str, ...]:
        """Either "seen" or "unseen" per active class."""
        return self._state.active.roles

    @property
    def mode(self) -> str:
        """Which of the active classes are reported."""
        return self._state.active.mode

    @property
    def class_set_version(self) -> int:
        """Rises with every change of the classes; every ``Detections`` carries its own."""
        return self._state.active.class_set.version

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def description(self) -> str:
        """Bundle, backend, its version and device, on one line."""
        return f"{self.bundle.name} on {self._backend.description}"

    @overload
    def __call__(
        self,
        image: str | os.PathLike[str] | NDArray[np.uint8] | PillowImage,
        *,
        color: Color = ...,
        max_batch: int = ...,
    ) -> Detections: ...

    @overload
    def __call__(
        self, image: Sequence[Any], *, color: Color = ..., max_batch: int = ...
    ) -> list[Detections]: ...

    def __call__(
        self, image: Any, *, color: Color = "rgb", max_batch: int = 8
    ) -> Detections | list[Detections]:
        """Detect in an image, or in every image of a list.

        Args:
            image: a path, or an array ``(H, W, 3)`` uint8 of any size; grey ``(H, W)`` and
                ``(H, W, 4)`` (alpha is ignored) too, and PIL images of 8 bits a channel. A list is
                a batch of these, sizes mixed, all of them read before the first is searched.
            color: channel order of arrays; OpenCV's are "bgr".
            max_batch: most images of a batch that go through the networks together.

        Returns:
            Detections in pixels of the original image; a list of them for a list.

        Raises:
            ConfigError: ``color`` is neither "rgb" nor "bgr", or ``max_batch`` is below 1.
            DeviceError: the detector is closed.
            ImageError: an image cannot be read, or is none.
        """
        state = self._state  # one read: later changes of classes are for the next call
        batch = isinstance(image, (list, tuple))
        items = image if batch else [image]
        images = [
            as_image(item, color, f"image {index}" if batch else "image")
            for index, item in enumerate(items)
        ]
        classes = state.active.class_set
        limits: dict[str, Any] = {
            "nms_threshold": state.limits.nms_threshold,
            "max_detections": state.limits.max_detections,
        }
        if self._frames is not None:
            results = self._frames.run(classes, images, state.thresholds, color=color, **limits)
        else:
            results = pipeline.run(
                self._backend, self._scorer, classes, self._config, images, state.thresholds,
                color=color, max_batch=max_batch, **limits,
            )  # fmt: skip
        found = [state.active.detections(result) for result in results]
        return found if batch else found[0]

    def set_classes(self, classes: Classes | None, *, mode: Mode | None = None) -> None:
        """Replace the classes (None: the bundle's table), and the mode if it is given.

        Raises:
            ClassError: a class is unknown, repeated, or none is left; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
        """
        with self._write:
            old = self._state
            active = self._table.activate(
                classes, mode or old.active.mode, old.active.class_set.version + 1
            )
            self._state = _State(active, old.limits)

    def add_classes(self, classes: Classes) -> None:
        """Add classes at the end; those before keep their ids, and no more than a row is computed.

        Raises:
            ClassError: a class is unknown or already there; nothing has changed then.
        """
        with self._write:
            old = self._state
            self._state = _State(self._table.added(old.active, classes), old.limits)

    def remove_classes(self, names: Sequence[str]) -> None:
        """Remove classes; the ids of those behind move up.

        Raises:
            ClassError: a class is not there, or none would be left; nothing has changed then.
        """
        with self._write:
            old = self._state
            self._state = _State(self._table.removed(old.active, names), old.limits)

    def set_thresholds(
        self,
        *,
        score_threshold: ScoreThreshold | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> None:
        """Replace all three limits from the next call on; None is the bundle's value.

        Raises:
            ClassError: a threshold is for a class that is not active; nothing has changed then.
            ConfigError: a number is out of range; nothing has changed then.
        """
        limits = Limits.of(self._config.detection, score_threshold, nms_threshold, max_detections)
        with self._write:
            limits.check_names(self._state.active.names)
            self._state = _State(self._state.active, limits)

    def search(self, text: str, count: int = 10) -> list[str]:
        """The nearest names by spelling that ``classes`` accepts without a vector."""
        table = self.bundle.seen + self.bundle.unseen
        return self.bundle.vocabulary.search(text, count, also=table)

    def prepare_vocabulary(self) -> None:
        """Compute now what every word of the vocabulary becomes as a class.

        From then on setting or adding such words, whichever they are, copies rows and runs no
        layer. The rows stay in memory: 4 bytes a word for every entry of a prototype and every seen
        class.
        """
        self._table.prepare()

    def warmup(self, height: int = 480, width: int = 640, count: int = 2) -> None:
        """Run everything once before it matters: networks, kernels, and ``prepare_vocabulary``.

        Args:
            height: of the images to come; other sizes of network input may cost once more.
            width: likewise.
            count: images.

        Raises:
            ConfigError: an argument is below 1.
        """
        if min(height, width, count) < 1:
            raise ConfigError(f"warmup: {height} x {width}, {count} times; all must be at least 1.")
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        for _ in range(count):
            self(noise)
        self.prepare_vocabulary()

    def close(self) -> None:
        """Free the networks; the detector finds nothing more, and closing it again is harmless."""
        self._backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({self.description}; {len(self.classes)} classes, mode {self.mode!r})"


class _State:
    """Classes and limits that belong together; replaced whole, never changed."""

    __slots__ = ("active", "limits", "thresholds")

    def __init__(self, active: ActiveClasses, limits: Limits) -> None:
        self.active, self.limits = active, limits
        self.thresholds = limits.per_column(active)
