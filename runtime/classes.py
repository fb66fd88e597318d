"""The classes of a detector: names to roles, vectors, columns and ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.detections import Detections
from zsd_core.errors import ClassError, ConfigError, did_you_mean
from zsd_core.pipeline import ImageResult
from zsd_core.scoring import ClassSet, Scorer
from zsd_core.semantics import fold_name

__all__ = ["ActiveClasses", "ClassTable", "Mode"]

Mode = Literal["zsd", "gzsd", "seen"]
ENCODER = "MiniLM"
MODES = ("zsd", "gzsd", "seen")
Classes = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class ActiveClasses:
    """What a detector looks for; never changed once made.

    Attributes:
        names: in the caller's order and spelling; a class id is a position here.
        ids: ``(C,)`` class id of every column of the class set, -1 where it was not asked for.
        reported: ``(C,)`` columns that were asked for and that the mode lets through.
        columns: column of every folded name.
        class_set: what scoring reads; holds all seen classes of the bundle, asked for or not,
            because the softmax of eq. 14 runs over them.
        mode: "zsd", "gzsd" or "seen".
    """

    names: tuple[str, ...]
    ids: NDArray[np.int64]
    reported: NDArray[np.bool_]
    columns: Mapping[str, int]
    class_set: ClassSet
    mode: Mode

    @property
    def roles(self) -> tuple[str, ...]:
        """Either "seen" or "unseen" per name."""
        roles = np.asarray(self.class_set.roles, object)[np.flatnonzero(self.ids >= 0)]
        order = np.argsort(self.ids[self.ids >= 0])
        return tuple(roles[order])

    def detections(self, result: ImageResult) -> Detections:
        """Name what the pipeline found."""
        ids = self.ids[result.columns]
        roles = self.class_set.roles
        near = result.best and (self.names[self.ids[result.best[1]]], result.best[0])
        return Detections(
            boxes=result.boxes,
            scores=result.scores,
            class_ids=ids,
            class_names=tuple(self.names[i] for i in ids),
            roles=tuple(roles[column] for column in result.columns),
            class_set_version=self.class_set.version,
            times_ms=result.times_ms,
            near_miss=near,
        )


class ClassTable:
    """Makes active classes from names, with the bundle's table and vocabulary behind it."""

    def __init__(self, bundle: Bundle, scorer: Scorer, phrases: bool = False) -> None:
        self._bundle, self._scorer, self._phrases = bundle, scorer, phrases
        self._encoder = str(bundle.vocabulary_info.get("encoder", ""))
        if phrases and ENCODER not in self._encoder:
            raise ConfigError(
                f"phrases: bundle {bundle.name!r} was made with {self._encoder or 'no encoder'}, "
                f"and only {ENCODER} can be run here; give classes vectors: {{name: vector}}."
            )
        self._seen = {fold_name(name): column for column, name in enumerate(bundle.seen)}
        self._unseen = {fold_name(name): row for row, name in enumerate(bundle.unseen)}
        # What every set begins with: computed once, and shared by all.
        self._known = scorer.class_set(
            bundle.seen, bundle.class_vectors[: len(bundle.seen)], (), np.empty((0, 0), np.float32)
        )

    def activate(self, classes: Classes | None, mode: Mode, version: int) -> ActiveClasses:
        """Active classes from scratch.

        Raises:
            ClassError: a class is unknown, repeated, or none is left to report.
            ConfigError: the mode is unknown.
        """
        if mode not in MODES:
            raise ConfigError(
                f"mode is {mode!r}, must be 'zsd' (unseen), 'gzsd' (all) or 'seen'"
                f"{did_you_mean(str(mode), MODES)}"
            )
        bundle = self._bundle
        wanted = _named(bundle.seen + bundle.unseen if classes is None else classes)
        unseen, vectors = self._resolve(wanted, {})
        class_set = self._scorer.extend(self._known, unseen, vectors, version)
        columns = self._seen | {fold_name(n): len(self._seen) + i for i, n in enumerate(unseen)}
        ids = np.full(len(class_set.names), -1, np.int64)
        ids[[columns[fold_name(name)] for name in wanted]] = np.arange(len(wanted))
        return _sealed(tuple(wanted), ids, columns, class_set, mode)

    def added(self, old: ActiveClasses, classes: Classes) -> ActiveClasses:
        """Active classes with more at the end; costs what the new ones cost."""
        wanted = _named(classes)
        unseen, vectors = self._resolve(wanted, old.columns, old.ids)
        version = old.class_set.version + 1
        class_set = self._scorer.extend(old.class_set, unseen, vectors, version)
        first = len(old.class_set.names)
        columns = {**old.columns, **{fold_name(n): first + i for i, n in enumerate(unseen)}}
        ids = np.concatenate([old.ids, np.full(len(unseen), -1, np.int64)])
        ids[[columns[fold_name(name)] for name in wanted]] = len(old.names) + np.arange(len(wanted))
        return _sealed(old.names + tuple(wanted), ids, columns, class_set, old.mode)

    def removed(self, old: ActiveClasses, names: Sequence[str]) -> ActiveClasses:
        """Active classes without some."""
        gone = []  # columns
        for name in _named(names):
            column = old.columns.get(fold_name(name), -1)
            if column < 0 or old.ids[column] < 0:
                raise ClassError(
                    f"class {name!r} is not active, so it cannot be removed"
                    f"{did_you_mean(name, old.names)}"
                )
            gone.append(column)
        gone_ids = np.sort(old.ids[gone])
        ids = old.ids - np.searchsorted(gone_ids, old.ids)  # those behind move up
        ids[gone] = -1
        # Seen classes keep their columns, because the softmax of eq. 14 runs over them.
        seen, stay = old.class_set.seen_count, np.ones(len(ids), bool)
        stay[[column for column in gone if column >= seen]] = False
        left = np.flatnonzero(stay[seen:])
        class_set = self._scorer.keep(old.class_set, left, old.class_set.version + 1)
        folded = tuple(compress(old.columns, stay.tolist()))  # they are in the order of columns
        columns = dict(zip(folded, range(len(folded)), strict=True))
        kept = np.ones(len(old.names), bool)
        kept[gone_ids] = False
        names = tuple(compress(old.names, kept.tolist()))
        return _sealed(names, ids[stay], columns, class_set, old.mode)

    def _resolve(
        self,
        wanted: Mapping[str, Any],
        taken: Mapping[str, int],
        ids: NDArray[np.int64] | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Names and vectors of the classes that are unseen; refuses those already active."""
        names: list[str] = []
        rows: list[NDArray[np.float32] | None] = []  # None: a word of the vocabulary
        for name, vector in wanted.items():
            folded = fold_name(name)
            column = taken.get(folded, -1)
            if ids is not None and column >= 0 and ids[column] >= 0:
                raise ClassError(f"class {name!r} is already active; remove it first.")
            if folded in self._seen:
                if vector is not None:
                    raise ClassError(
                        f"class {name!r} is a seen class of this bundle, whose vector training "
                        "fixed; give your own vector another name."
                    )
                continue
            names.append(name)
            rows.append(self._vector(name, folded, vector))
        vectors = np.empty((len(names), self._bundle.model_config.scoring.vector_dim), np.float32)
        words = [index for index, row in enumerate(rows) if row is None]
        if words:
            vectors[words] = self._words([names[index] for index in words])
        for index, row in enumerate(rows):
            if row is not None:
                vectors[index] = row
        return names, vectors

    def _vector(self, name: str, folded: str, vector: Any) -> NDArray[np.float32] | None:
        if vector is None:
            row = self._unseen.get(folded)
            if row is None:
                return None
            known: NDArray[np.float32] = self._bundle.class_vectors[len(self._seen) + row]
            return known
        width = self._bundle.model_config.scoring.vector_dim
        array = np.asarray(vector)
        if array.shape != (width,) or array.dtype.kind not in "fiu":
            raise ClassError(
                f"the vector of class {name!r} has shape {array.shape} and dtype {array.dtype}, "
                f"must be ({width},) numbers from the bundle's encoder"
                f"{f', {self._encoder}' if self._encoder else ''}."
            )
        return array.astype(np.float32)

    def _words(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of names by the vocabulary, or by the text encoder where it has none of them."""
        vocabulary = self._bundle.vocabulary
        if not self._phrases or all(name in vocabulary for name in names):
            hint = " Any phrase works with phrases=True (pip install 'contrastzsd[text]')."
            return vocabulary.lookup_all(names, hint if ENCODER in self._encoder else "")
        from zsd_core.text import TEMPLATE, encode_names  # imports torch once it is called

        template = str(self._bundle.vocabulary_info.get("template") or TEMPLATE)
        rows = [
            vocabulary.lookup(name) if name in vocabulary
            else encode_names([name], template=template)[0]
            for name in names
        ]  # fmt: skip
        return np.stack(rows)


def _named(classes: Classes) -> dict[str, Any]:
    """Names with their vectors or None; blanks trimmed, repetitions refused."""
    if isinstance(classes, str):
        raise ClassError(
            f"classes is the text {classes!r}, must be a list: {classes.split(',')!r}."
        )
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, None) for name in classes)
    result: dict[str, Any] = {}
    folded: set[str] = set()
    for name, vector in pairs:
        if not isinstance(name, str) or not fold_name(name):
            raise ClassError(f"class name {name!r} must be a text that is not blank.")
        if fold_name(name) in folded:
            raise ClassError(f"class {name!r} is given twice (case and blanks do not count).")
        folded.add(fold_name(name))
        result[" ".join(name.split())] = vector
    if not result:
        raise ClassError("no classes are given; name at least one, or pass None for the bundle's.")
    return result


def _sealed(
    names: tuple[str, ...],
    ids: NDArray[np.int64],
    columns: Mapping[str, int],
    class_set: ClassSet,
    mode: Mode,
) -> ActiveClasses:
    reported = ids >= 0
    if mode == "zsd":
        reported[: class_set.seen_count] = False
    elif mode == "seen":
        reported[class_set.seen_count :] = False
    if not reported.any():
        role = {"zsd": "unseen class", "seen": "seen class", "gzsd": "class"}[mode]
        raise ClassError(
            f"mode {mode!r} needs at least one {role}, and the {len(names)} active classes hold "
            "none; name one, or use mode 'gzsd'."
        )
    return ActiveClasses(names, ids, reported, columns, class_set, mode)
