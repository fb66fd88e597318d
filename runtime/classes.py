"""The classes of a detector: names to roles, vectors, columns and ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.detections import Detections
from runtime.text import TextEncoder
from zsd_core.errors import ClassError, ConfigError, DataError, did_you_mean, join_first
from zsd_core.files import shown
from zsd_core.pipeline import ImageResult
from zsd_core.scoring import ClassRows, ClassSet, VectorScorer
from zsd_core.semantics import as_numbers, float32, fold_name, name_fault, plain_name

__all__ = ["MODES", "ActiveClasses", "ClassTable", "Mode"]

Mode = Literal["zsd", "gzsd", "seen"]
MODES = ("zsd", "gzsd", "seen")
BLOCK = 256  # words prepared at a time
MARK = "\ufeff"  # before the first name of a Windows file that was read as UTF-8
Classes = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class ActiveClasses:
    """Classes that a detector looks for; never changed once made.

    Attributes:
        names: in the caller's order and spelling; a class id is a position here.
        ids: ``(C,)`` class id of every column of the class set, -1 where it was not asked for.
        reported: ``(C,)`` columns that were asked for and that the mode lets through.
        columns: column of every class, by the form of its name that ``ClassTable`` knows.
        class_set: what scoring reads; holds all seen classes of the bundle, asked for or not,
            because the softmax of eq. 14 runs over them.
        mode: "zsd", "gzsd" or "seen".
        own: vectors of classes that are the caller's, the text encoder's or from examples, by
            folded name; it may hold classes that were removed.
    """

    names: tuple[str, ...]
    ids: NDArray[np.int64]
    reported: NDArray[np.bool_]
    columns: Mapping[str, int]
    class_set: ClassSet
    mode: Mode
    own: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

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
    """Makes active classes from names.

    A name is looked up in the bundle's class table, then in its vocabulary; any other phrase is
    encoded by the bundle's text encoder. Where nobody knows a name as it is written, its accents do
    not count: "café" is "cafe", so no list may hold both.

    Args:
        bundle: of the detector.
        scorer: of the bundle.
        encoder: of the bundle; None makes one.
    """

    def __init__(
        self, bundle: Bundle, scorer: VectorScorer, encoder: TextEncoder | None = None
    ) -> None:
        self._bundle, self._scorer = bundle, scorer
        self._encoder = TextEncoder(bundle) if encoder is None else encoder
        self._seen = {fold_name(name): column for column, name in enumerate(bundle.seen)}
        self._unseen = {fold_name(name): row for row, name in enumerate(bundle.unseen)}
        self._plain = {plain_name(name): name for name in reversed((*self._seen, *self._unseen))}
        # What every set begins with: computed once, and shared by all.
        self._known = scorer.class_set(
            bundle.seen, bundle.class_vectors[: len(bundle.seen)], (), np.empty((0, 0), np.float32)
        )
        nothing = np.full(len(self._seen), -1, np.int64)
        self._none = ActiveClasses((), nothing, nothing >= 0, self._seen, self._known, "gzsd")
        self._prepared: _Prepared | None = None

    def prepare(self) -> None:
        """Compute what every known word becomes as a class; a change then copies rows of it."""
        if self._prepared is not None:
            return
        words = {
            name: len(self._unseen) + row for name, row in self._bundle.vocabulary.rows.items()
        }
        words |= self._unseen
        count, known = len(self._unseen) + len(self._bundle.vocabulary), self._known
        rows = ClassRows(
            np.empty((count, known.prototypes.shape[1]), np.float32),
            np.empty((count, known.seen_count), np.float32),
        )
        ready = np.zeros(count, bool)
        for start in range(0, count, BLOCK):
            places = np.arange(start, min(start + BLOCK, count))
            try:
                block = self._scorer.rows(known, [""] * len(places), self._vectors(places))
            except (ClassError, DataError):
                continue  # one has no direction: asking for it says so, the others are computed
            rows.prototypes[places], rows.cosines[places] = block.prototypes, block.cosines
            ready[places] = True
        words = {name: place for name, place in words.items() if ready[place]}
        self._prepared = _Prepared(words, rows)

    def activate(
        self, classes: Classes | None, mode: Mode, version: int, exact: bool = False
    ) -> ActiveClasses:
        """Active classes from scratch; ``exact`` takes names that look misspelt as they stand.

        Raises:
            ClassError: a class is unknown, repeated, or none is left to report.
            ConfigError: the mode is unknown.
        """
        if mode not in MODES:
            raise ConfigError(
                f"mode is {mode!r}, must be 'zsd' (unseen), 'gzsd' (all) or 'seen'"
                f"{did_you_mean(str(mode), MODES)}"
            )
        if classes is None:
            classes = self._bundle.seen + self._bundle.unseen
        return self._grown(self._none, classes, mode, version, exact)

    def added(self, old: ActiveClasses, classes: Classes, exact: bool = False) -> ActiveClasses:
        """Active classes with more at the end; costs what the new ones cost."""
        return self._grown(old, classes, old.mode, old.class_set.version + 1, exact)

    def removed(self, old: ActiveClasses, names: Sequence[str]) -> ActiveClasses:
        """Active classes without some."""
        wanted = _named(names, lambda folded: self._known_as(folded, old))[0]
        gone = [old.columns.get(key, -1) for key in wanted]
        absent = [
            name
            for name, column in zip(wanted.values(), gone, strict=True)
            if column < 0 or old.ids[column] < 0
        ]
        if absent:
            sentences = (
                f"class {n!r} is not active, so it cannot be removed{did_you_mean(n, old.names)}"
                for n in absent
            )
            raise ClassError(join_first(sentences, len(absent)))
        gone_ids = np.sort(old.ids[gone])
        ids = old.ids - np.searchsorted(gone_ids, old.ids)  # those behind move up
        ids[gone] = -1
        # Seen classes keep their columns, because the softmax of eq. 14 runs over them.
        seen, stay = old.class_set.seen_count, np.ones(len(ids), bool)
        stay[[column for column in gone if column >= seen]] = False
        left = np.flatnonzero(stay[seen:])
        class_set = self._scorer.keep(old.class_set, left, old.class_set.version + 1)
        rest = tuple(compress(old.columns, stay.tolist()))  # they are in the order of columns
        columns = dict(zip(rest, range(len(rest)), strict=True))
        names = tuple(np.delete(np.array(old.names, object), gone_ids))
        return _sealed(names, ids[stay], columns, class_set, old.mode, old.own)

    def _grown(
        self, old: ActiveClasses, classes: Classes, mode: Mode, version: int, exact: bool
    ) -> ActiveClasses:
        wanted, vectors = _named(classes, lambda folded: self._known_as(folded, old))
        refused = []
        for key, name in wanted.items():
            place = old.columns.get(self._known_as(key, old) if key in vectors else key, -1)
            active = old.names[old.ids[place]] if place >= 0 <= old.ids[place] else ""
            if active and (key in old.columns or fold_name(active) == key):
                spelt = f", as {active!r}" * (active != name)
                refused.append(f"class {name!r} is already active{spelt}; remove it first.")
            elif key in vectors and key in old.columns:
                why = "whose vector training fixed; give your own vector another name."
                refused.append(f"class {name!r} is a seen class of this bundle, {why}")
        if refused:
            raise ClassError(join_first(refused, len(refused)))
        unseen = {key: name for key, name in wanted.items() if key not in old.columns}
        names, before, first = tuple(unseen.values()), len(old.names), len(old.columns)
        own = self._own(unseen, vectors, exact)
        rows = self._rows(unseen, own)
        class_set = self._scorer.append(old.class_set, names, rows, version)
        columns = dict(old.columns)
        columns.update(zip(unseen, range(first, first + len(names)), strict=True))
        ids = np.empty(len(columns), np.int64)
        ids[:first], ids[first:] = old.ids, -1
        ids[[columns[key] for key in wanted]] = np.arange(before, before + len(wanted))
        names = old.names + tuple(wanted.values())
        kept = {fold_name(wanted[key]): vector for key, vector in own.items()}
        return _sealed(names, ids, columns, class_set, mode, {**old.own, **kept})

    def _known_as(self, folded: str, active: ActiveClasses) -> str:
        """The form in which a folded name is known here; one that nobody knows has no accents."""
        vocabulary = self._bundle.vocabulary
        if folded in active.columns or folded in self._unseen or folded in vocabulary.rows:
            return folded
        plain = plain_name(folded)
        row = vocabulary.row(plain)
        return self._plain.get(plain) or (plain if row < 0 else fold_name(vocabulary.names[row]))

    def vectors_of(self, active: ActiveClasses) -> dict[str, NDArray[np.float32] | None]:
        """Origin of each active class: its vector, or None for a seen class."""
        vectors: dict[str, NDArray[np.float32] | None] = {}
        for name in active.names:
            folded = fold_name(name)
            key = self._known_as(folded, active)
            if folded in active.own:
                vectors[name] = active.own[folded].copy()
            elif key in self._seen:
                vectors[name] = None
            else:
                vectors[name] = self._vectors(np.array([self._place(key)]))[0]
        return vectors

    def _rows(self, unseen: Mapping[str, str], own: Mapping[str, Any]) -> ClassRows:
        """Rows of unseen classes; names and their own vectors are by ``_known_as``."""
        if self._prepared is not None and not own:
            found = [*map(self._prepared.words.get, unseen)]
            if None not in found:
                return self._prepared.rows.take(np.array(found, np.intp))
        width = self._bundle.model_config.scoring.vector_dim
        told = [name for name, vector in own.items() if len(vector) != width]  # from examples
        named = {folded: name for folded, name in unseen.items() if folded not in told}
        rows = self._vectors(np.array([-1 if f in own else self._place(f) for f in named], np.intp))
        for index, folded in enumerate(named):
            if folded in own:
                rows[index] = own[folded]
        by_name = self._scorer.rows(self._known, tuple(named.values()), rows)
        if not told:
            return by_name
        shown = self._scorer.example_rows(
            self._known, [unseen[name] for name in told], np.stack([own[name] for name in told])
        )
        order = {folded: index for index, folded in enumerate([*named, *told])}
        both = ClassRows(
            np.concatenate(
                [by_name.prototypes.reshape(-1, shown.prototypes.shape[1]), shown.prototypes]
            ),
            np.concatenate([by_name.cosines.reshape(-1, shown.cosines.shape[1]), shown.cosines]),
        )
        return both.take([order[folded] for folded in unseen])

    def _own(
        self, unseen: Mapping[str, str], vectors: Mapping[str, Any], exact: bool
    ) -> dict[str, NDArray[np.float32]]:
        """Vectors that are the caller's or the text encoder's, by ``_known_as``."""
        self._check_vectors({name: vectors[key] for key, name in unseen.items() if key in vectors})
        own = {key: float32(vectors[key]) for key in unseen if key in vectors}
        phrases = {
            key: name for key, name in unseen.items() if key not in own and self._place(key) < 0
        }
        if phrases:
            own.update(zip(phrases, self._encoded(tuple(phrases.values()), exact), strict=True))
        return own

    def _place(self, key: str) -> int:
        """Place of a word in the form of ``_known_as``: unseen classes first, then the vocabulary.

        -1: nowhere.
        """
        place = self._unseen.get(key, -1)
        if place < 0:
            row = self._bundle.vocabulary.rows.get(key, -1)
            place = row if row < 0 else len(self._unseen) + row
        return place

    def _encoded(self, names: Sequence[str], exact: bool) -> NDArray[np.float32]:
        """The text encoder's vectors of names that neither table nor vocabulary holds."""
        if not self._encoder:
            raise self._bundle.vocabulary.unknown(
                names,
                " Or give the bundle a text encoder, and any phrase works: "
                f"python -m export.text {self._bundle.path}",
            )
        if not exact:
            self._encoder.check_spelling(names)
        return self._encoder.encode(names)

    def _vectors(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """Vectors of known words; rows whose place is -1 are the caller's to fill."""
        bundle, count = self._bundle, len(self._unseen)
        vectors = np.empty((len(places), bundle.model_config.scoring.vector_dim), np.float32)
        words = places >= count
        table = (places >= 0) & ~words
        vectors[table] = bundle.class_vectors[len(self._seen) + places[table]]
        if words.any():
            vectors[words] = bundle.vocabulary.unit_vectors(places[words] - count)
        return vectors

    def _check_vectors(self, vectors: Mapping[str, Any]) -> None:
        """Refuse vectors of the caller's that cannot be a class of this bundle."""
        width, shown = self._bundle.model_config.scoring.vector_dim, self._scorer.example_width
        made = self._bundle.vocabulary_info.get("encoder", "")
        wrong = []
        for name, vector in vectors.items():
            array = as_numbers(vector)
            if array.shape not in ((width,), (shown,)) or array.dtype.kind not in "fiu":
                wrong.append(
                    f"the vector of class {name!r} has shape {array.shape} and dtype "
                    f"{array.dtype}, must be ({width},) numbers from the bundle's encoder"
                    f"{f', {made}' if made else ''}"
                    f"{f', or ({shown},) from examples' if shown else ''}."
                )
        if wrong:
            raise ClassError(join_first(wrong, len(wrong)))


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    words: Mapping[str, int]  # row of every word, by folded name
    rows: ClassRows


def _named(
    classes: Classes, known_as: Callable[[str], str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Names, blanks and a byte order mark trimmed, and the vectors given, by ``known_as``.

    Raises:
        ClassError: not a list of names; or the list is empty, or a name is blank, given twice or
            one that cannot be written or read (``name_fault``).
    """
    if isinstance(classes, str):
        raise ClassError(
            f"classes is the text {classes!r}, must be a list: {classes.split(',')!r}."
        )
    if isinstance(classes, (set, frozenset)) or not isinstance(classes, Iterable):
        raise ClassError(
            f"classes is of type {type(classes).__name__}, must be a list of names, whose order "
            "gives the class ids, or {name: vector}."
        )
    names: dict[str, str] = {}
    vectors: dict[str, Any] = {}
    wrong, known = [], set()
    given: Mapping[str, Any] = classes if isinstance(classes, Mapping) else {}
    for key in classes:
        name = key.strip(MARK) if isinstance(key, str) else ""
        folded = fold_name(name)
        if not folded:
            wrong.append(f"class name {shown(key)} must be a text that is not blank.")
            continue
        if fault := name_fault(name):
            wrong.append(f"class name {shown(name)} {fault}.")
            continue
        vector = given.get(key)
        form = known_as(folded) if vector is None else folded
        if form in names or folded in known:
            wrong.append(f"class {name!r} is given twice (case, blanks and accents do not count).")
            continue
        known.add(folded)
        names[form] = " ".join(name.split())
        if vector is not None:
            vectors[form] = vector
    if wrong:
        raise ClassError(join_first(wrong, len(wrong)))
    if not names:
        raise ClassError("no classes are given; name at least one, or pass None for the bundle's.")
    return names, vectors


def _sealed(
    names: tuple[str, ...],
    ids: NDArray[np.int64],
    columns: Mapping[str, int],
    class_set: ClassSet,
    mode: Mode,
    own: Mapping[str, NDArray[np.float32]],
) -> ActiveClasses:
    reported = ids >= 0
    if mode == "zsd":
        reported[: class_set.seen_count] = False
    elif mode == "seen":
        reported[class_set.seen_count :] = False
    if not np.count_nonzero(reported):
        role = {"zsd": "unseen class", "seen": "seen class", "gzsd": "class"}[mode]
        other = "." if mode == "gzsd" else ", or use mode 'gzsd'."
        few = f"{role}, and the {len(names)} active classes hold none; name one{other}"
        raise ClassError(f"mode {mode!r} needs at least one {few}")
    return ActiveClasses(names, ids, reported, columns, class_set, mode, own)
