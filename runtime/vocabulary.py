"""The words a bundle knows: names, their vectors stored small, and a search for misspelt ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ClassError
from zsd_core.semantics import fold_name, unit_rows

__all__ = ["Vocabulary", "rank_names"]


def rank_names(text: str, names: Iterable[str], count: int) -> list[str]:
    """The ``count`` names most like ``text``, by the pairs of letters they share (Dice).

    A name that holds ``text`` as a part comes before all that do not; equals keep their order.
    """
    wanted = fold_name(text)
    pairs, scored = _pairs(wanted), []
    for position, name in enumerate(names):
        folded = fold_name(name)
        own = _pairs(folded)
        likeness = 2 * len(pairs & own) / (len(pairs) + len(own)) + (wanted in folded)
        scored.append((-likeness, position, name))
    return [name for likeness, _, name in sorted(scored)[: max(count, 0)] if likeness < -0.3]


def _pairs(folded: str) -> set[str]:
    padded = f"^{folded}$"
    return {padded[i : i + 2] for i in range(len(padded) - 1)}


class Vocabulary:
    """Names and unit vectors; nothing is unpacked before the first question.

    Args:
        packed_names: UTF-8, one name per line.
        vectors: ``(V, E)`` int8.
        scales: ``(V,)`` float32; a row is ``vectors * scales``, then brought to unit length.
    """

    def __init__(
        self,
        packed_names: bytes,
        vectors: NDArray[np.int8],
        scales: NDArray[np.float32],
    ) -> None:
        self._packed, self._vectors, self._scales = packed_names, vectors, scales

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, name: str) -> bool:
        return fold_name(name) in self.rows

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in stored order."""
        return tuple(self._packed.decode().split("\n")) if self._packed else ()

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of every name, by folded name."""
        folded = [fold_name(name) for name in self.names]
        return {name: row for row, name in reversed(list(enumerate(folded)))}  # the first wins

    def lookup(self, name: str, hint: str = "") -> NDArray[np.float32]:
        """The unit vector ``(E,)`` of a name; case, underscores and blanks do not matter.

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
        rows = np.array([self.rows.get(fold_name(name), -1) for name in names], np.intp)
        if (rows < 0).any():
            name = names[int(np.argmin(rows))]
            raise ClassError(f"{name!r} is not in the vocabulary{self._hint(name)}{hint}")
        return self.unit_vectors(rows)

    def unit_vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The unit vectors ``(n, E)`` of rows.

        Raises:
            DataError: one is zero.
        """
        return np.asarray(unit_rows(self._vectors[rows] * self._scales[rows, None]), np.float32)

    def search(self, text: str, count: int = 10, also: Sequence[str] = ()) -> list[str]:
        """The nearest names by spelling, ``also`` (a class table) counted in, best first."""
        known = {fold_name(name) for name in also}
        rest = (name for name in self.names if fold_name(name) not in known)
        return rank_names(text, (*also, *rest), count)

    def _hint(self, name: str) -> str:
        if not len(self):
            return ": this bundle has none. Give the class a vector: {name: vector}."
        near = self.search(name, 3)
        guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        return f" of {len(self)} names{guess} Or give the class a vector: {{name: vector}}."
