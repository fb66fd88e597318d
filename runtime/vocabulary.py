"""The words a bundle knows: names, their vectors stored small, and a search for misspelt ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ClassError
from zsd_core.semantics import fold_name, plain_name, unit_rows

__all__ = ["Vocabulary", "rank_names"]


def rank_names(text: str, names: Iterable[str], count: int) -> list[str]:
    """The ``count`` names most like ``text``, by the pairs of letters they share (Dice).

    A name that holds ``text`` as a part comes before all that do not; equals keep their order.
    """
    return _Index(names).rank(text, count)


class _Index:
    """Names by the pairs of letters in them, so that many texts can be ranked."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._folded = [fold_name(name) for name in self.names]
        rows = defaultdict[str, list[int]](list)
        self._counts = np.zeros(len(self.names), np.int64)
        for row, folded in enumerate(self._folded):
            pairs = _pairs(folded)
            self._counts[row] = len(pairs)
            for pair in pairs:
                rows[pair].append(row)
        self._rows = {pair: np.array(found, np.intp) for pair, found in rows.items()}

    def rank(self, text: str, count: int, least: float = 0.3) -> list[str]:
        """Names, best first, whose likeness is above ``least``."""
        wanted = fold_name(text)
        pairs = _pairs(wanted)
        shared = np.zeros(len(self.names))
        for pair in pairs:
            if pair in self._rows:
                shared[self._rows[pair]] += 1
        likeness = 2 * shared / (len(pairs) + self._counts)
        likeness += [wanted in folded for folded in self._folded]
        best = np.argsort(-likeness, kind="stable")[: max(count, 0)]
        return [self.names[row] for row in best if likeness[row] > least]


def _pairs(folded: str) -> set[str]:
    padded = f"^{folded}$"
    return {padded[i : i + 2] for i in range(len(padded) - 1)}


class Vocabulary:
    """Names and unit vectors; nothing is unpacked before the first question.

    Args:
        packed_names: UTF-8, one name per line.
        vectors: ``(V, E)`` int8.
        scales: ``(V,)`` float32; a row is ``vectors * scales``, then brought to unit length.
        packed_ordinary: UTF-8, one per line: words of the language that are no names.
    """

    def __init__(
        self,
        packed_names: bytes,
        vectors: NDArray[np.int8],
        scales: NDArray[np.float32],
        packed_ordinary: bytes = b"",
    ) -> None:
        self._packed, self._vectors, self._scales = packed_names, vectors, scales
        self._packed_ordinary = packed_ordinary

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, name: str) -> bool:
        return self.row(name) >= 0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in stored order."""
        return tuple(self._packed.decode().split("\n")) if self._packed else ()

    @cached_property
    def ordinary(self) -> frozenset[str]:
        """Words of the language that are no names: right as they are in a phrase."""
        return frozenset(self._packed_ordinary.decode().split())

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of every name, by folded name."""
        folded = [fold_name(name) for name in self.names]
        return {name: row for row, name in reversed(list(enumerate(folded)))}  # the first wins

    def row(self, name: str) -> int:
        """The row of a name, -1: it is not there.

        A name that is not there as it is written stands for one with other accents, quotes or
        hyphens: "café" for "cafe".
        """
        found = self.rows.get(fold_name(name))
        return self._plain_rows.get(plain_name(name), -1) if found is None else found

    @cached_property
    def _plain_rows(self) -> dict[str, int]:
        """The row of every name, by plain name; one that is written so comes first."""
        return {plain_name(name): row for name, row in self.rows.items()} | self.rows

    def lookup(self, name: str, hint: str = "") -> NDArray[np.float32]:
        """The unit vector ``(E,)`` of a name; case, underscores, blanks, accents do not matter.

        Args:
            name: a word or phrase.
            hint: what else would help, a sentence for the end of the message.

        Raises:
            ClassError: the name is not there; the message lists the nearest.
        """
        vector: NDArray[np.float32] = self.lookup_all([name], hint)[0]
        return vector

    def lookup_all(self, names: Sequence[str], hint: str = "") -> NDArray[np.float32]:
        """The unit vectors ``(n, E)`` of names; see ``lookup``."""
        rows = np.array([self.row(name) for name in names], np.intp)
        if (rows < 0).any():
            raise self.unknown([names[place] for place in np.flatnonzero(rows < 0).tolist()], hint)
        return self.unit_vectors(rows)

    def unknown(self, names: Sequence[str], hint: str = "") -> ClassError:
        """The error for names that are not there: every one of them, with those nearest to it."""
        if len(names) == 1:
            what = f"{names[0]!r} is not in the vocabulary"
        else:
            what = f"{len(names)} names are not in the vocabulary"
        if not len(self):
            listed = "" if len(names) == 1 else f" ({', '.join(map(repr, names))})"
            return ClassError(
                f"{what}{listed}: this bundle has none. Give the class a vector: "
                f"{{name: vector}}.{hint}"
            )
        near = [self._guess(name) for name in names]
        if len(names) == 1:
            listed = f"; {near[0]}?" if near[0] else "."
        else:
            listed = (
                ": "
                + ", ".join(
                    f"{name!r} ({guess}?)" if guess else repr(name)
                    for name, guess in zip(names, near, strict=True)
                )
                + "."
            )
        return ClassError(
            f"{what} of {len(self)} names{listed} Or give the class a vector: {{name: vector}}."
            f"{hint}"
        )

    def unit_vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The unit vectors ``(n, E)`` of rows.

        Raises:
            DataError: one is zero or not finite.
        """
        with np.errstate(over="ignore"):  # an infinite row is refused
            vectors = self._vectors[rows] * self._scales[rows, None]
        return np.asarray(unit_rows(vectors), np.float32)

    def search(self, text: str, count: int = 10, also: Sequence[str] = ()) -> list[str]:
        """The nearest names by spelling, ``also`` (a class table) counted in, best first."""
        known = {fold_name(name) for name in also}
        if not known:
            return self._index.rank(text, count)
        rest = (name for name in self.names if fold_name(name) not in known)
        return rank_names(text, (*also, *rest), count)

    @cached_property
    def _index(self) -> _Index:
        return _Index(self.names)

    def _guess(self, name: str) -> str:
        near = self._index.rank(name, 3)
        return f"did you mean {' or '.join(map(repr, near))}" if near else ""
