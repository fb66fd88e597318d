"""One detector that many clients share: its classes, examples and thresholds as plain values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import COLORS
from runtime.detections import Detections
from runtime.serve.examples import Box, Taught, example_of
from runtime.serve.records import css_color
from zsd_core.errors import ClassError, ConfigError, did_you_mean, join_sentences
from zsd_core.semantics import fold_name

__all__ = ["Service"]

Image = NDArray[np.uint8]
MOST_EXAMPLES = 10  # a class; more add little
MOST_TOGETHER = 60  # examples that are kept of all classes
MOST_CLASSES = 5000
LONGEST_NAME = 200  # characters


class Service:
    """A detector behind names, numbers and lists, as JSON has them. May be shared by threads.

    All changes of classes and thresholds go through here, one at a time, so that version, names and
    roles of an answer belong together.

    Args:
        detector: a ``runtime.Detector``.
        changed: called with ("classes" or "thresholds", their new value) after every change, in the
            thread that made it.
    """

    def __init__(
        self, detector: Any, changed: Callable[[str, dict[str, Any]], None] = lambda what, now: None
    ) -> None:
        self.detector, self.changed = detector, changed
        self._change = threading.RLock()
        self._taught: dict[str, Taught] = {}  # by folded name
        self._given: dict[str, Any] = {}  # vectors of clients, by folded name
        self._search = lru_cache(maxsize=1024)(self._search_names)

    @property
    def can_learn(self) -> bool:
        """Whether classes can be made from examples."""
        return bool(self.detector.learns_from_examples)

    @property
    def knows_phrases(self) -> bool:
        """Whether a class may be any phrase, in the vocabulary or not."""
        return bool(self.detector.bundle.text_info)

    def about(self) -> dict[str, Any]:
        """Describe what this service runs and can do."""
        return {
            "bundle": self.detector.bundle.name,
            "description": self.detector.description,
            "vocabulary": len(self.detector.bundle.vocabulary),
            "phrases": self.knows_phrases,
            "examples": self.can_learn,
            "colors": {role: css_color(role) for role in COLORS},
        }

    def detect(self, image: Image) -> Detections:
        """Detect in ``(H, W, 3)`` uint8 BGR."""
        found: Detections = self.detector(image, color="bgr")
        return found

    def classes(self) -> dict[str, Any]:
        """The class list: ``version``, ``mode``, ``classes`` with name, role, color, examples.

        A class whose name is a phrase with a word that nobody knows also has a ``hint``: the
        likelier spelling. Names that were meant exactly, taught or given a vector have none.
        """
        with self._change:
            detector = self.detector
            certain = {**self._given, **self._taught}
            names = [name for name in detector.classes if fold_name(name) not in certain]
            hints = detector.spelling_hints(names)
            return {
                "version": detector.class_set_version,
                "mode": detector.mode,
                "classes": [
                    {
                        "name": name,
                        "role": role,
                        "color": css_color(role),
                        "examples": len(self._examples(name)),
                        "hint": hints.get(name),
                    }
                    for name, role in zip(detector.classes, detector.roles, strict=True)
                ],
            }

    def replace(
        self,
        classes: Sequence[str] | Mapping[str, Any] | None,
        mode: Any = None,
        exact: bool = False,
    ) -> dict[str, Any]:
        """Replace all classes; None is the bundle's table. Names keep what they were taught.

        Args:
            classes: names, or names and vectors.
            mode: None keeps the mode.
            exact: take names as they are, also those that look misspelt.

        Raises:
            ClassError: a class is unknown, repeated, or none is left; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
        """
        with self._change:
            _check_size(classes or (), 0)
            given = self._encoded(self._with_taught(classes), exact)
            self.detector.set_classes(given, mode=mode)
            self._given = _given(given)
            return self._done()

    def set_mode(self, mode: Any) -> dict[str, Any]:
        """Choose which roles are reported; the classes stay.

        Raises:
            ClassError: no class of this role is active; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
        """
        with self._change:
            self.detector.set_classes(self._as_they_are(), mode=mode)
            return self._done()

    def add(
        self, classes: Sequence[str] | Mapping[str, Any], exact: bool = False
    ) -> dict[str, Any]:
        """Add classes at the end; ``exact`` as in ``replace``.

        Raises:
            ClassError: a class is unknown or already there; nothing has changed then.
        """
        with self._change:
            _check_size(classes, len(self.detector.classes))
            given = self._encoded(_vectors(classes), exact)
            self.detector.add_classes(given)
            self._given |= _given(given)
            return self._done()

    def remove(self, names: Sequence[str]) -> dict[str, Any]:
        """Remove classes, and forget their examples.

        Raises:
            ClassError: a class is not there, or none would be left; nothing has changed then.
        """
        with self._change:
            self.detector.remove_classes(names)
            return self._done()

    def teach(self, name: str, image: Image, box: Box | None) -> dict[str, Any]:
        """Make a class from an example, or make it better with one more.

        Args:
            name: of the class, new or taught before.
            image: ``(H, W, 3)`` uint8 BGR.
            box: ``x1 y1 x2 y2`` in pixels of the image; None takes the whole image.

        Raises:
            ClassError: the bundle cannot learn from examples, or the class cannot be changed.
            ImageError: the box lies outside the image, or is too small.
        """
        if not self.can_learn:
            raise ClassError(
                f"bundle {self.detector.bundle.name!r} cannot learn from examples; "
                "name the class instead, or open a bundle that can."
            )
        folded = fold_name(name)
        if not folded:
            raise ClassError(f"class name {name!r} must be a text that is not blank.")
        _check_size([name], len(self.detector.classes))
        example = example_of(image, box)
        with self._change:
            old = self._taught.get(folded)
            taught = Taught(" ".join(name.split()), [*(old.examples if old else ()), example])
            if sum(len(other.examples) for other in self._taught.values()) >= MOST_TOGETHER:
                raise ClassError(
                    f"{MOST_TOGETHER} examples are kept already, the most of all classes; remove a "
                    "class that was taught."
                )
            if len(taught.examples) > MOST_EXAMPLES:
                raise ClassError(
                    f"class {name!r} has {MOST_EXAMPLES} examples, the most that are kept; "
                    "remove the class to begin again."
                )
            taught.vector = self._learn(taught)
            self._taught[folded] = taught
            return self._done()

    def thresholds(self) -> dict[str, Any]:
        """The limits in force; ``score_threshold`` by role, and by class where one differs."""
        limits = self.detector.limits
        return {
            "score_threshold": {**limits.by_role, **limits.by_class},
            "nms_threshold": limits.nms_threshold,
            "max_detections": limits.max_detections,
        }

    def set_thresholds(self, change: Mapping[str, Any]) -> dict[str, Any]:
        """Change some limits and keep the others.

        Args:
            change: ``score_threshold`` (a number for all, a pair (seen, unseen), or numbers by role
                or class name, null to take a class's away), ``nms_threshold``, ``max_detections``.

        Raises:
            ClassError: a threshold is for a class that is not active; nothing has changed then.
            ConfigError: a key or number is not valid; nothing has changed then.
        """
        known = ("score_threshold", "nms_threshold", "max_detections")
        unknown = [key for key in change if key not in known]
        if unknown:
            raise ConfigError(
                join_sentences(
                    f"there is no threshold {key!r}{did_you_mean(key, known)}" for key in unknown
                )
            )
        with self._change:
            self.detector.set_thresholds(**change)
            now = self.thresholds()
            self.changed("thresholds", now)
            return now

    def search(self, text: str, count: int = 8) -> dict[str, Any]:
        """Names like ``text``, best first, and whether ``text`` itself is known."""
        names = self._search(" ".join(text.split()), count)
        folded = fold_name(text)
        return {"text": text, "known": folded in map(fold_name, names), "names": list(names)}

    def _search_names(self, text: str, count: int) -> tuple[str, ...]:
        return tuple(self.detector.search(text, count)) if text else ()

    def _learn(self, taught: Taught) -> Any:
        """Make the class, or replace it where it stands so that ids stay; return its vector."""
        detector, folded = self.detector, fold_name(taught.name)
        active = {fold_name(name): name for name in detector.classes}
        name = active.get(folded, taught.name)
        if folded in active:
            detector.set_classes({**self._as_they_are(), name: taught.examples})
        else:
            detector.add_classes({name: taught.examples})
        return detector.class_vectors()[name]

    def _as_they_are(self) -> dict[str, Any]:
        """The active classes, to be set again; examples and vectors are kept."""
        taught = {folded: taught.vector for folded, taught in self._taught.items()}
        vectors = {**self._given, **taught}
        return {name: vectors.get(fold_name(name)) for name in self.detector.classes}

    def _examples(self, name: str) -> list[Any]:
        taught = self._taught.get(fold_name(name))
        return taught.examples if taught else []

    def _with_taught(self, classes: Any) -> Any:
        """Classes with the vectors of those among them that were taught."""
        given = _vectors(classes)
        if isinstance(given, (list, tuple)) and self._taught:
            names = {name for name in given if isinstance(name, str)}
            if len(names) < len(given):
                return given  # repeated, or no text: the detector says so
            given = dict.fromkeys(given)
        if isinstance(given, Mapping):
            taught = self._taught
            return {
                name: taught[fold_name(name)].vector
                if vector is None and fold_name(name) in taught
                else vector
                for name, vector in given.items()
            }
        return given

    def _encoded(self, classes: Any, exact: bool) -> Any:
        """Classes with the vectors of names that are in no list, where they are meant exactly."""
        if not (exact and self.knows_phrases and isinstance(classes, (list, tuple, Mapping))):
            return classes
        bundle = self.detector.bundle
        table = {fold_name(name) for name in (*bundle.seen, *bundle.unseen)}
        strange = [
            name
            for name in classes
            if isinstance(name, str)
            and fold_name(name)
            and fold_name(name) not in table
            and name not in bundle.vocabulary
            and not (isinstance(classes, Mapping) and classes[name] is not None)
        ]
        if not strange or len(set(classes)) < len(classes):
            return classes
        given = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(classes)
        given.update(zip(strange, self.detector.encode(strange), strict=True))
        return given

    def _done(self) -> dict[str, Any]:
        """After a change: forget examples of classes that are gone, tell, and answer."""
        active = {fold_name(name) for name in self.detector.classes}
        self._taught = {name: taught for name, taught in self._taught.items() if name in active}
        self._given = {name: vector for name, vector in self._given.items() if name in active}
        classes = self.classes()
        self.changed("classes", classes)
        return classes


def _given(classes: Any) -> dict[str, Any]:
    """The vectors among classes, by folded name."""
    if not isinstance(classes, Mapping):
        return {}
    return {fold_name(name): vector for name, vector in classes.items() if vector is not None}


def _check_size(classes: Any, active: int) -> None:
    """Refuse what would keep the service busy for long; what is no list is the detector's."""
    if not isinstance(classes, (list, tuple, Mapping)):
        return
    if len(classes) + active > MOST_CLASSES:
        raise ClassError(
            f"{len(classes)} classes beside {active} are more than {MOST_CLASSES}, the most that "
            "this service looks for."
        )
    long = [n for n in classes if isinstance(n, str) and len(n) > LONGEST_NAME]
    if long:
        raise ClassError(
            join_sentences(
                f"class {name[:40]!r}… is longer than {LONGEST_NAME} characters." for name in long
            )
        )


def _vectors(classes: Any) -> Any:
    """Numbers of JSON as arrays; anything else is the detector's to refuse."""
    if not isinstance(classes, Mapping):
        return classes
    arrays: dict[str, Any] = {}
    for name, vector in classes.items():
        try:
            arrays[name] = vector if vector is None else np.asarray(vector, np.float32)
        except (TypeError, ValueError) as error:
            raise ClassError(
                f"the vector of class {name!r} must be a list of numbers, or null."
            ) from error
    return arrays
