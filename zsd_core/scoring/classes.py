"""The classes as every scoring method holds them, in storage that grows.

A user's classes never enter a network: a class is one row of the prototypes and one column of S, so
adding one computes that row and nothing of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassRows", "ClassSet", "GrowingRows", "Needed", "Storage"]

Floats = NDArray[np.float32]
Positions = Sequence[int] | NDArray[np.intp]


class GrowingRows:
    """A ``(n, width)`` array that grows at its end without moving what views already show.

    Args:
        parts: ``(n_i, width)`` each, one below the other.
        order: "C" keeps rows together in memory, "F" columns.
        spare: room for so many more rows, or for half as many again if that is more.
    """

    def __init__(self, parts: Sequence[Floats], order: Literal["C", "F"], spare: int = 64) -> None:
        self._used, self._order, self._lock = sum(map(len, parts)), order, threading.Lock()
        capacity = self._used + max(spare, self._used // 2)
        self._buffer = np.empty((capacity, parts[0].shape[1]), np.float32, order)
        start = 0
        for part in parts:
            self._buffer[start : start + len(part)] = part
            start += len(part)

    def view(self, count: int) -> Floats:
        """The first ``count`` rows, read-only."""
        view = self._buffer[:count]
        view.flags.writeable = False
        return view

    def extended(self, count: int, rows: Floats) -> GrowingRows:
        """Storage of the first ``count`` rows and ``rows``: this one if their place is free."""
        with self._lock:
            end = count + len(rows)
            if count == self._used and end <= len(self._buffer):
                self._buffer[count:end] = rows
                self._used = end
                return self
        return GrowingRows([self._buffer[:count], rows], self._order)


@dataclass(frozen=True, slots=True, eq=False)
class ClassRows:
    """Rows of unseen classes: all that a class set needs of them, row by row.

    Attributes:
        prototypes: ``(n, P)``.
        cosines: ``(n, Ks)``, with every seen class.
    """

    prototypes: Floats
    cosines: Floats

    def take(self, positions: Positions) -> ClassRows:
        """Copies of some rows."""
        return ClassRows(
            self.prototypes.take(positions, axis=0), self.cosines.take(positions, axis=0)
        )


@dataclass(frozen=True, slots=True, eq=False)
class ClassSet:
    """Everything scoring needs of the classes; never changed once made.

    Attributes:
        names: of the columns of every score: all seen classes of the bundle in stored order, then
            the current unseen classes.
        roles: "seen" or "unseen" per name.
        prototypes: ``(1 + Ks + U, P)``, what the method compares regions with: rows of background,
            seen and unseen classes.
        seen_similarity: ``(Ks, U)``, what each seen class says of each unseen one.
        version: rises with every change of a detector's classes.
        storage: where prototypes and cosines live, so that a larger set can share their rows.
    """

    names: tuple[str, ...]
    roles: tuple[str, ...]
    prototypes: Floats
    seen_similarity: Floats
    version: int = 0
    storage: Any = None

    @property
    def unseen_count(self) -> int:
        """U."""
        return int(self.seen_similarity.shape[1])

    @property
    def seen_count(self) -> int:
        """Ks."""
        return int(self.seen_similarity.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Needed:
    """Scores that matter: those above their threshold, so that a method can leave out others.

    Attributes:
        thresholds: ``(C,)``, infinity for a class that was not asked for.
        batch_indices: ``(R,)``, the image of each region.
    """

    thresholds: Floats
    batch_indices: NDArray[np.int32]

    @property
    def lowest(self) -> float:
        """The lowest threshold."""
        return float(self.thresholds.min(initial=np.inf))

    def regions(self, most: Floats) -> NDArray[np.intp]:
        """Regions that upper bounds ``(R, C)`` do not rule out, and the likeliest of each image.

        That one says how close an image came in which nothing is found.
        """
        possible: NDArray[np.bool_] = np.any(most > self.thresholds, axis=1)
        highest = most.max(axis=1, where=self.thresholds < np.inf, initial=-np.inf)
        for image in np.unique(self.batch_indices):
            own = np.flatnonzero(self.batch_indices == image)
            possible[own[highest[own].argmax()]] = True
        return np.flatnonzero(possible)


@dataclass(frozen=True, slots=True)
class Storage:
    """The rows of a class set, shared with the larger sets that grow out of it."""

    seen_cosines: Callable[[Floats], Floats]  # of unit vectors (n, E), (n, Ks)
    prototypes: GrowingRows  # (1 + Ks + U, P)
    cosines: GrowingRows  # (U, Ks); a column together, for S is normalised along it
