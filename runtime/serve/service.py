"""One detector that many clients share: its classes, examples and thresholds as plain values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import COLORS
from runtime.classes import MODES
from runtime.detections import Detections
from runtime.serve.changes import Change
from runtime.serve.examples import Box, Taught, example_of
from runtime.serve.given import (
    check_name,
    check_names,
    vectors_by_name,
    vectors_of,
)
from runtime.serve.records import css_color
from zsd_core.errors import ClassError, ConfigError, did_you_mean, join_sentences
from zsd_core.files import shown
from zsd_core.semantics import fold_name

__all__ = ["Service"]

Image = NDArray[np.uint8]
MOST_EXAMPLES = 10  # a class; more add little
MOST_TOGETHER = 60  # examples that are kept of all classes
MOST_PHRASES = 1000  # of one request, that no list holds: each takes the encoder milliseconds
TOGETHER = 32  # phrases that are encoded before a change is asked whether it is still wanted
LISTED = 10  # names that are said in a refusal


class Service:
    """A detector behind names, numbers and lists, as JSON has them. May be shared by threads.

    All changes of classes and thresholds go through here, one at a time. What takes long, the
    vectors of phrases, is made before a change has its turn; and who asks for the classes gets what
    the last change left, without waiting for the next.

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
        # By folded name; no class is in both.
        self._taught: dict[str, Taught] = {}
        self._given: dict[str, Any] = {}  # vectors of clients
        self._search = lru_cache(maxsize=1024)(self._search_names)
        self._now = self._described()

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
        return self._now

    def replace(
        self,
        classes: Sequence[str] | Mapping[str, Any] | None,
        mode: Any = None,
        exact: bool = False,
        change: Change | None = None,
    ) -> dict[str, Any]:
        """Replace all classes. Names without a vector keep what they were taught.

        Args:
            classes: names, or names and vectors; None takes the bundle's table as it is.
            mode: None keeps the mode.
            exact: take names as they are, also those that look misspelt.
            change: None makes one that nobody gives up.

        Raises:
            ClassError: a class is unknown, repeated, or none is left; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
            GivenUpError: nobody waits for the change any more; nothing has changed then.
        """
        change = change or Change()
        _check_mode(mode)
        check_names(classes, 0)
        given = self._encoded(vectors_of(classes), exact, change)
        with self._turn(change):
            own = vectors_by_name(given)
            self.detector.set_classes(self._with_taught(given), mode=mode)
            kept = {} if given is None else self._taught
            self._taught = {name: taught for name, taught in kept.items() if name not in own}
            self._given = own
            return self._done()

    def set_mode(self, mode: Any, change: Change | None = None) -> dict[str, Any]:
        """Choose which roles are reported; the classes stay.

        Raises:
            ClassError: no class of this role is active; nothing has changed then.
            ConfigError: there is no such mode; nothing has changed then.
        """
        _check_mode(mode)
        with self._turn(change or Change()):
            self.detector.set_classes(self._as_they_are(), mode=mode)
            return self._done()

    def add(
        self,
        classes: Sequence[str] | Mapping[str, Any],
        exact: bool = False,
        change: Change | None = None,
    ) -> dict[str, Any]:
        """Add classes at the end; ``exact`` and ``change`` as in ``replace``.

        Raises:
            ClassError: a class is unknown or already there; nothing has changed then.
            GivenUpError: nobody waits for the change any more; nothing has changed then.
        """
        change = change or Change()
        check_names(classes, len(self.detector.classes))
        given = self._encoded(vectors_of(classes), exact, change)
        with self._turn(change):
            check_names(classes, len(self.detector.classes))  # others may have added some
            self.detector.add_classes(given)
            self._given |= vectors_by_name(given)
            return self._done()

    def remove(self, names: Sequence[str], change: Change | None = None) -> dict[str, Any]:
        """Remove classes, and forget their examples.

        Raises:
            ClassError: a class is not there, or none would be left; nothing has changed then.
        """
        check_names(names, 0)
        with self._turn(change or Change()):
            self.detector.remove_classes(names)
            return self._done()

    def teach(
        self, name: str, image: Image, box: Box | None, change: Change | None = None
    ) -> dict[str, Any]:
        """Make a class from an example, or make it better with one more.

        Args:
            name: of the class, new or taught before.
            image: ``(H, W, 3)`` uint8 BGR.
            box: ``x1 y1 x2 y2`` in pixels of the image; None takes the whole image.
            change: None makes one that nobody gives up.

        Raises:
            ClassError: the bundle cannot learn from examples, or the class cannot be changed.
            GivenUpError: nobody waits for the change any more; nothing has changed then.
            ImageError: the box lies outside the image, or is too small.
        """
        if not self.can_learn:
            raise ClassError(
                f"bundle {self.detector.bundle.name!r} cannot learn from examples; "
                "name the class instead, or open a bundle that can."
            )
        check_name(name)
        folded, example = fold_name(name), example_of(image, box)
        with self._turn(change or Change()):
            if folded not in map(fold_name, self.detector.classes):
                check_names([name], len(self.detector.classes))
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
            self._given.pop(folded, None)  # the examples have replaced it
            return self._done()

    def thresholds(self) -> dict[str, Any]:
        """The limits in force; ``score_threshold`` by role, and by class where one differs."""
        limits = self.detector.limits
        return {
            "score_threshold": {**limits.by_role, **limits.by_class},
            "nms_threshold": limits.nms_threshold,
            "max_detections": limits.max_detections,
        }

    def set_thresholds(
        self, limits: Mapping[str, Any], change: Change | None = None
    ) -> dict[str, Any]:
        """Change some limits and keep the others.

        Args:
            limits: ``score_threshold`` (a number for all, a pair (seen, unseen), or numbers by role
                or class name, null to take a class's away), ``nms_threshold``, ``max_detections``.
            change: None makes one that nobody gives up.

        Raises:
            ClassError: a threshold is for a class that is not active; nothing has changed then.
            ConfigError: a key or number is not valid; nothing has changed then.
        """
        known = ("score_threshold", "nms_threshold", "max_detections")
        unknown = [key for key in limits if key not in known]
        if unknown:
            raise ConfigError(
                join_sentences(
                    f"there is no threshold {key!r}{did_you_mean(key, known)}" for key in unknown
                )
            )
        check_names(limits.get("score_threshold"), 0)
        with self._turn(change or Change()):
            self.detector.set_thresholds(**limits)
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
        """The active classes, to be set again; phrases, examples and vectors stay as they are."""
        names, own = self.detector.classes, self.detector.class_vectors()
        vectors = {fold_name(name): own[name] for name in self._strange(names)}
        vectors |= self._given
        vectors |= {folded: taught.vector for folded, taught in self._taught.items()}
        return {name: vectors.get(fold_name(name)) for name in names}

    def _examples(self, name: str) -> list[Any]:
        taught = self._taught.get(fold_name(name))
        return taught.examples if taught else []

    def _with_taught(self, given: Any) -> Any:
        """Classes with the vectors of those among them that were taught."""
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

    def _strange(self, names: Iterable[Any]) -> list[str]:
        """Names that are in no list."""
        bundle = self.detector.bundle
        table = {fold_name(name) for name in (*bundle.seen, *bundle.unseen)}
        return [
            name
            for name in names
            if isinstance(name, str)
            and fold_name(name)
            and fold_name(name) not in table
            and name not in bundle.vocabulary
        ]

    def _encoded(self, classes: Any, exact: bool, change: Change) -> Any:
        """Classes whose phrases the encoder has seen, so that the change itself takes no time.

        Where names are meant exactly, they come with their vectors.
        """
        if not isinstance(classes, (list, tuple, Mapping)):
            return classes
        by_name = classes if isinstance(classes, Mapping) else {}
        strange = [n for n in self._strange(classes) if by_name.get(n) is None]
        strange = [n for n in strange if fold_name(n) not in self._taught]
        if len(strange) > (MOST_PHRASES if self.knows_phrases else LISTED):
            raise ClassError(
                f"{len(strange)} of {len(classes)} names are not in the vocabulary, such as "
                f"{', '.join(map(shown, strange[:LISTED]))}; "
                + (
                    f"send at most {MOST_PHRASES} phrases at a time."
                    if self.knows_phrases
                    else "search for names that are, or give vectors."
                )
            )
        if not self.knows_phrases:
            return classes
        vectors: list[Any] = []
        for start in range(0, len(strange), TOGETHER):
            change.go_on()
            phrases = strange[start : start + TOGETHER]
            vectors.extend(self.detector.encode(phrases))
            self.detector.spelling_hints(phrases)
        change.go_on()
        texts = [name for name in classes if isinstance(name, str)]
        if not (exact and strange) or len(set(texts)) < len(classes):
            return classes  # repeated, or no text: the detector says so
        given = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(classes)
        given.update(zip(strange, vectors, strict=True))
        return given

    @contextmanager
    def _turn(self, change: Change) -> Iterator[None]:
        """The only change that is made now."""
        with self._change:
            change.begin()
            yield

    def _done(self) -> dict[str, Any]:
        """After a change: forget examples of classes that are gone, tell, and answer."""
        active = {fold_name(name) for name in self.detector.classes}
        self._taught = {name: taught for name, taught in self._taught.items() if name in active}
        self._given = {name: vector for name, vector in self._given.items() if name in active}
        self._now = self._described()
        self.changed("classes", self._now)
        return self._now

    def _described(self) -> dict[str, Any]:
        """What ``classes`` answers, of the detector as it is."""
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


def _check_mode(mode: Any) -> None:
    if mode is not None and mode not in MODES:
        raise ConfigError(
            f"mode is {shown(mode)}, must be 'zsd' (unseen), 'gzsd' (all) or 'seen'"
            f"{did_you_mean(mode, MODES) if isinstance(mode, str) else ''}"
        )
