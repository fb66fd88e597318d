"""The detector: images in, ``Detections`` out, and classes that change while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from runtime.backends import open_backend
from runtime.bundle import Bundle, open_bundle
from runtime.classes import ClassTable, Mode
from runtime.detections import Detections
from runtime.examples import can_learn, with_examples
from runtime.images import MAX_PIXELS, PillowImage, as_image, check_max_pixels
from runtime.processes import check_process
from runtime.reopening import reopening
from runtime.text import TextEncoder
from runtime.thresholds import Limits, ScoreChange, ScoreThreshold, State
from zsd_core import kernels
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
    being searched keeps those it started with. Pickled or copied, it opens its bundle again where
    it arrives, with its classes and limits; a forked child cannot use it.

    Args:
        bundle: directory or zip, to stay there meanwhile; None opens the one that ships.
        backend: "auto" (the first installed; ``detector.backend`` says which), or its name.
        classes: names, or {name: vector or examples}; None takes the bundle's table. Examples are
            images, or ``Example(image, box)``, one or a list. A name of the table keeps
            its role; any other is unseen. A vector that is not given, or is None, is looked up in
            the bundle's vocabulary, or comes from its text encoder. Every phrase works, "dented red
            pallet"; a word that looks misspelt is an error, by the rule of ``runtime.spelling``.
        exact: take names as they stand, also those that look misspelt.
        mode: which of the classes are reported: "gzsd" all, "zsd" the unseen, "seen" the seen.
        score_threshold: what a detection's score must exceed: one number, a pair (seen, unseen),
            {"seen": a, "unseen": b}, or {class name: number} with the two roles as optional further
            keys. None, and what a mapping leaves out: the bundle's.
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image.
        precision: of the networks: "float32", or "fp16" or "int8" where the bundle holds them
            (``python -m export.fp16`` and ``export.quantize`` make them).
        scoring_precision: "float32", or "int8", which is faster where classes are many and moves
            scores a little.
        threads: CPU threads of the backend, and of the kernels in this process; None takes those
            that the process may use (``OMP_NUM_THREADS``, affinity, the quota of its cgroup).
        max_pixels: largest width times height of an image file or a PIL image, not of arrays.
        backend_options: of the backend, such as {"providers": ["CUDAExecutionProvider"]}.
        require_signature: public key (PEM) by which the bundle must be signed (``export.sign``).

    Raises:
        BundleError: the bundle cannot be used.
        ClassError: a class is unknown, repeated, or none is left to report.
        ConfigError: an argument is not valid, or not for this backend, bundle or scoring method.
        DeviceError: the backend cannot run the networks on its device.
        MissingPackageError: the backend is not installed.
    """

    # Only these: assigning to another name, such as score_threshold, is refused.
    __slots__ = (
        "__weakref__",
        "_backend",
        "_config",
        "_encoder",
        "_options",
        "_pipeline",
        "_process",
        "_scorer",
        "_state",
        "_table",
        "_write",
        "bundle",
        "max_pixels",
    )

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        backend: str = "auto",
        classes: Classes | None = None,
        exact: bool = False,
        mode: Mode = "gzsd",
        score_threshold: ScoreThreshold | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        precision: str = "float32",
        scoring_precision: str = "float32",
        threads: int | None = None,
        backend_options: Mapping[str, Any] | None = None,
        max_pixels: int = MAX_PIXELS,
        require_signature: str | os.PathLike[str] | None = None,
    ) -> None:
        self.bundle = open_bundle(bundle, require_signature=require_signature)
        self.max_pixels = check_max_pixels(max_pixels)
        self._config = self.bundle.model_config
        self._scorer = scorer_for(
            self._config.scoring, self.bundle.scorer_tensors(), precision=scoring_precision
        )
        self._encoder = TextEncoder(self.bundle, threads)
        self._table = ClassTable(self.bundle, self._scorer, self._encoder)
        self._write, self._process = threading.Lock(), os.getpid()
        limits = Limits.of(self._config.detection, score_threshold, nms_threshold, max_detections)
        self._backend = open_backend(backend, self.bundle, threads, backend_options, precision)
        self._options: dict[str, Any] = dict(backend=self._backend.name, precision=precision)
        self._options |= dict(scoring_precision=scoring_precision, max_pixels=max_pixels)
        self._options |= dict(threads=threads, backend_options=backend_options)
        key = None if require_signature is None else os.path.abspath(require_signature)
        self._options |= dict(require_signature=key)
        try:
            active = self._table.activate(self._seen_examples(classes), mode, 1, exact)
            limits.check_names(active.names)
            self._state = State(active, limits)
            self._pipeline = self._backend.pipeline(self._config, self._scorer)
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
        """Return "gzsd", "zsd" or "seen": the active classes that are reported."""
        return self._state.active.mode

    @property
    def limits(self) -> Limits:
        """The thresholds in force; they never change, ``set_thresholds`` makes others."""
        return self._state.limits

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

    @property
    def learns_from_examples(self) -> bool:
        """Whether classes can be made from examples: the bundle's model has a second look."""
        return can_learn(self._config, self._scorer)

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
                ``(H, W, 4)`` (alpha is ignored) too, and PIL images. Files and PIL images are
                turned as their EXIF says. A list is a batch of these, sizes mixed, all of them read
                before the first is searched.
            color: channel order of arrays; OpenCV's are "bgr".
            max_batch: most images of a batch that go through the networks together.

        Returns:
            Detections in pixels of the original image; a list of them for a list.

        Raises:
            ConfigError: ``color`` is neither "rgb" nor "bgr", or ``max_batch`` is below 1.
            DeviceError: the detector is closed, or was opened before this process was forked.
            ImageError: an image cannot be read, or its array is not an image.
        """
        check_process(self._process, "detector")
        state = self._state  # one read: later changes of classes are for the next call
        batch = isinstance(image, (list, tuple))
        items = image if batch else [image]
        images = [
            as_image(item, color, f"image {index}" if batch else "image", self.max_pixels)
            for index, item in enumerate(items)
        ]
        results = self._pipeline.run(
            state.active.class_set,
            images,
            state.thresholds,
            nms_threshold=state.limits.nms_threshold,
            max_detections=state.limits.max_detections,
            color=color,
            max_batch=max_batch,
        )
        found = [state.active.detections(result) for result in results]
        return found if batch else found[0]

    def set_classes(
        self, classes: Classes | None, *, mode: Mode | None = None, exact: bool = False
    ) -> None:
        """Replace the classes (None: the bundle's table), and the mode if it is given.

        Raises:
            ClassError: classes are unknown or misspelt (all of them are listed), repeated, or none
                is left; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
        """
        with self._changing() as old:
            given, version = self._seen_examples(classes), old.active.class_set.version + 1
            active = self._table.activate(given, mode or old.active.mode, version, exact)
            self._state = State(active, old.limits)

    def add_classes(self, classes: Classes, *, exact: bool = False) -> None:
        """Add classes at the end; those before keep their ids, and no more than a row is computed.

            detector.add_classes(["zebra", "dented red pallet"])  # words and phrases
            detector.add_classes({"bracket": [crop, crop]})  # one to ten examples
            detector.add_classes({"bracket": Example(photograph, box), "nut": vector})

        A name of the vocabulary is one lookup; another phrase takes the text encoder some
        milliseconds. A phrase one of whose words looks misspelt is refused with the spelling that
        is near; ``exact`` takes it as it stands.

        Raises:
            ClassError: classes are unknown or misspelt (all of them are listed), or one is already
                there; nothing has changed then.
        """
        with self._changing() as old:
            active = self._table.added(old.active, self._seen_examples(classes), exact)
            self._state = State(active, old.limits)

    def remove_classes(self, names: Sequence[str]) -> None:
        """Remove classes; the ids of those behind move up.

        Raises:
            ClassError: a class is not there, or none would be left; nothing has changed then.
        """
        with self._changing() as old:
            self._state = State(self._table.removed(old.active, names), old.limits)

    def set_thresholds(
        self,
        *,
        score_threshold: ScoreChange | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> None:
        """Change some limits from the next call on; those that are not given stay.

        A number or a pair is for all classes, and ends thresholds of single classes. A mapping
        changes what it names; {"cup": None} ends the threshold of a single class.

        Raises:
            ClassError: a threshold is for a class that is not active; nothing has changed then.
            ConfigError: a number is out of range; nothing has changed then.
        """
        with self._changing() as old:
            limits = old.limits.among(old.active.names).changed(
                score_threshold, nms_threshold, max_detections
            )
            limits.check_names(old.active.names)
            self._state = State(old.active, limits)

    def encode(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of words and phrases, by the bundle's text encoder.

        Args:
            phrases: any texts, known to the vocabulary or not.

        Returns:
            ``(len(phrases), E)`` float32 rows of unit length.

        Raises:
            BundleError: the bundle has no text encoder.
            ClassError: ``phrases`` is no list of texts, or one is blank.
            MissingPackageError: neither onnxruntime nor openvino is installed.
        """
        return self._encoder.encode(phrases)

    def spelling_hints(self, names: Sequence[str]) -> dict[str, str]:
        """Return likelier names for classes that are looked for as they stand.

        A word that the bundle does not know may be a name of your own, or a slip: for "dentd red
        pallet" the hint is "dented red pallet", and for "horses" it is the trained class "horse".

        Args:
            names: of classes, such as ``detector.classes``.

        Returns:
            The likelier phrase by the name given. Names without a hint are left out.
        """
        return self._encoder.spelling_hints(names)

    def class_vectors(self) -> dict[str, NDArray[np.float32] | None]:
        """Return the source of each active class, to be saved and given to a detector again.

            detector.set_classes(vectors)  # on this or another device, with the same bundle

        Returns:
            The vector of every class by its name: ``(E,)`` of a name or phrase, ``(V,)`` of
            examples, None for a seen class.
        """
        return self._table.vectors_of(self._state.active)

    @contextmanager
    def _changing(self) -> Iterator[State]:
        check_process(self._process, "detector")
        with self._write:
            yield self._state

    def _seen_examples(self, classes: Any) -> Any:
        return with_examples(classes, self._backend, self._config, self._scorer)

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
        """Run images of noise before it matters: trunk, kernels, and ``prepare_vocabulary``.

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
        if self._scorer.PREPARED:
            self.prepare_vocabulary()

    def close(self) -> None:
        """Free the networks, after the searches of other threads; a forked child leaves them."""
        if os.getpid() == self._process:
            self._backend.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopening(type(self), self.bundle, self._options, self._state)

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({self.description}; {len(self.classes)} classes, mode {self.mode!r})"
