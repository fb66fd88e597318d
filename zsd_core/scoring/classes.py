"""What every scoring method holds of the classes, and how it grows.

A user's classes never enter a network: a class is one row of the prototypes and one column of S, so
adding one computes that row and nothing of the others.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.errors import (
    BundleError,
    ClassError,
    ConfigError,
    DataError,
    did_you_mean,
    expect_shapes,
)
from zsd_core.semantics import unit_rows

__all__ = ["ClassRows", "ClassSet", "Needed", "Scorer", "VectorScorer"]

Floats = NDArray[np.float32]
Positions = Sequence[int] | NDArray[np.intp]


class _GrowingRows:
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

    def extended(self, count: int, rows: Floats) -> _GrowingRows:
        """Storage of the first ``count`` rows and ``rows``: this one if their place is free."""
        with self._lock:
            end = count + len(rows)
            if count == self._used and end <= len(self._buffer):
                self._buffer[count:end] = rows
                self._used = end
                return self
        return _GrowingRows([self._buffer[:count], rows], self._order)


@dataclass(frozen=True, slots=True, eq=False)
class ClassRows:
    """What vectors of unseen classes become: all a class set needs of them, row by row.

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
    """Which scores matter: those above their threshold, so that a method can leave out others.

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


class Scorer(Protocol):
    """A scoring method: class vectors once, region embeddings every frame."""

    def class_set(
        self,
        seen_names: Sequence[str],
        seen_vectors: NDArray[Any],
        unseen_names: Sequence[str],
        unseen_vectors: NDArray[Any],
        version: int = 0,
    ) -> ClassSet:
        """Build a class set from vectors ``(Ks, E)`` and ``(U, E)``."""

    def extend(
        self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any], version: int
    ) -> ClassSet:
        """Add unseen classes at the end; equal to building the larger set, bit for bit."""

    def rows(self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any]) -> ClassRows:
        """What ``extend`` computes of vectors ``(n, E)``; the seen classes are those of a set."""

    def append(
        self, classes: ClassSet, names: Sequence[str], rows: ClassRows, version: int
    ) -> ClassSet:
        """``extend`` with rows that were computed before."""

    def keep(self, classes: ClassSet, unseen: Positions, version: int) -> ClassSet:
        """Keep the unseen classes of these positions (0 is the first unseen), in this order."""

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)`` of embeddings ``(R, D)`` with objectness ``(R,)`` in [0, 1].

        With ``needed``, a score that is not may come out lower than it is.
        """

    def least_objectness(self, threshold: float) -> float:
        """Regions with less objectness than this have no score above ``threshold``; or 0."""


@dataclass(frozen=True, slots=True)
class _Storage:
    seen_cosines: Callable[[Floats], Floats]  # of unit vectors (n, E), (n, Ks)
    prototypes: _GrowingRows  # (1 + Ks + U, P)
    cosines: _GrowingRows  # (U, Ks); a column together, for S is normalised along it


class VectorScorer(ABC):
    """A scoring method whose classes are vectors: all of a ``Scorer`` but the method itself.

    A method says which tensors it reads (``shapes``), what a class vector becomes
    (``prototypes_of``), what S is (``similarity_of``), and how regions are scored.

    Args:
        tensors: the arrays of ``scorer.safetensors``.
        config: the options the model was trained with.
        kernels: the module of operators; ``zsd_core.kernels.reference`` for the numpy twins.
        precision: of the scoring, one of ``PRECISIONS``.

    Raises:
        BundleError: a tensor is missing.
        ConfigError: the method does not have that precision.
        ShapeError: two tensors do not fit each other.
    """

    PRECISIONS: tuple[str, ...] = ("float32",)

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
        precision: str = "float32",
    ) -> None:
        if precision not in self.PRECISIONS:
            raise ConfigError(
                f"{type(self).__name__}: scoring precision is {precision!r}, must be "
                f"{' or '.join(map(repr, self.PRECISIONS))} for this method."
            )
        self.config, self.kernels, self.precision = config, kernels, precision
        shapes, where = self.shapes(), type(self).__name__
        if config.center:
            shapes["center"] = "E"
        for name in shapes:
            if name not in tensors:
                raise BundleError(
                    f"{where}: tensor {name!r} is missing; export the checkpoint again"
                    f"{did_you_mean(name, tensors) or '.'}"
                )
        expect_shapes(
            where,
            "E, D and M must agree with the model's configuration; export the checkpoint again.",
            **{name: (tensors[name], shape) for name, shape in shapes.items()},
        )
        self.tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in shapes}

    @staticmethod
    @abstractmethod
    def shapes() -> dict[str, str]:
        """The tensors of the method, each with its shape as ``expect_shapes`` reads it."""

    @abstractmethod
    def background(self) -> Floats:
        """The vector ``(E,)`` that stands for the background among the class vectors."""

    @abstractmethod
    def prototypes_of(self, vectors: Floats) -> Floats:
        """Rows ``(K, P)`` of class vectors ``(K, E)``; no row may depend on another, to the bit."""

    @abstractmethod
    def similarity_of(self, cosines: Floats) -> Floats:
        """``ClassSet.seen_similarity`` from the cosines ``(Ks, U)`` of seen and unseen vectors."""

    @abstractmethod
    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""

    def least_objectness(self, threshold: float) -> float:
        """See ``Scorer``; a method whose scores objectness bounds says by how much."""
        return 0.0

    def class_set(
        self,
        seen_names: Sequence[str],
        seen_vectors: NDArray[Any],
        unseen_names: Sequence[str],
        unseen_vectors: NDArray[Any],
        version: int = 0,
    ) -> ClassSet:
        """Build a class set; see ``Scorer``."""
        seen = self._unit(seen_names, seen_vectors)
        known = np.concatenate([self.background()[None], seen])
        spare = len(unseen_names) + 64
        empty = ClassSet(
            names=tuple(seen_names),
            roles=("seen",) * len(seen),
            prototypes=np.empty((0, 0), np.float32),
            seen_similarity=np.empty((len(seen), 0), np.float32),
            storage=_Storage(
                self.kernels.PackedLinear(seen),
                _GrowingRows([self.prototypes_of(known)], "C", spare),
                _GrowingRows([np.empty((0, len(seen)), np.float32)], "F", spare),
            ),
        )
        return self.extend(empty, unseen_names, unseen_vectors, version)

    def extend(
        self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any], version: int
    ) -> ClassSet:
        """Add unseen classes at the end; see ``Scorer``."""
        return self.append(classes, names, self.rows(classes, names, vectors), version)

    def rows(self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any]) -> ClassRows:
        """What unseen classes become; see ``Scorer``."""
        unit = self._unit(names, vectors)
        return ClassRows(self.prototypes_of(unit), classes.storage.seen_cosines(unit))

    def append(
        self, classes: ClassSet, names: Sequence[str], rows: ClassRows, version: int
    ) -> ClassSet:
        """Add unseen classes whose rows are known; see ``Scorer``."""
        old, before = classes.storage, len(classes.names)
        storage = _Storage(
            old.seen_cosines,
            old.prototypes.extended(1 + before, rows.prototypes),
            old.cosines.extended(classes.unseen_count, rows.cosines),
        )
        return self._sealed(
            classes.names + tuple(names), storage, classes.unseen_count + len(names), version
        )

    def keep(self, classes: ClassSet, unseen: Positions, version: int) -> ClassSet:
        """Keep some unseen classes; see ``Scorer``."""
        old, known = classes.storage, classes.seen_count
        own, cosines = classes.prototypes[1 + known :], old.cosines.view(classes.unseen_count)
        runs = _runs(unseen)
        storage = _Storage(
            old.seen_cosines,
            _GrowingRows([classes.prototypes[: 1 + known], *(own[run] for run in runs)], "C"),
            _GrowingRows([cosines[:0], *(cosines[run] for run in runs)], "F"),
        )
        unseen_names = classes.names[known:]
        names = sum((unseen_names[run] for run in runs), classes.names[:known])
        return self._sealed(names, storage, len(unseen), version)

    def _unit(self, names: Sequence[str], vectors: NDArray[Any]) -> Floats:
        width = self.background().size
        if not len(names):
            return np.empty((0, width), np.float32)
        vectors = np.ascontiguousarray(vectors, np.float32)
        expect_shapes(
            "class vectors",
            f"This model reads one vector of width {width} per class, from the encoder its bundle "
            "names.",
            vectors=(vectors, f"{len(names)} {width}"),
        )
        try:
            rows = unit_rows(vectors)
        except DataError as error:
            lengths = np.linalg.norm(vectors, axis=1).tolist()
            name, length = next(
                pair for pair in zip(names, lengths, strict=True) if not 0 < pair[1] < math.inf
            )
            raise ClassError(
                f"the vector of class {name!r} has length {length}; it must be finite and not zero."
            ) from error
        return unit_rows(rows - self.tensors["center"]) if self.config.center else rows

    def _sealed(
        self, names: tuple[str, ...], storage: _Storage, unseen: int, version: int
    ) -> ClassSet:
        seen = len(names) - unseen
        return ClassSet(
            names=names,
            roles=("seen",) * seen + ("unseen",) * unseen,
            prototypes=storage.prototypes.view(1 + len(names)),
            seen_similarity=np.ascontiguousarray(
                self.similarity_of(storage.cosines.view(unseen).T), np.float32
            ),
            version=version,
            storage=storage,
        )


def _runs(positions: Positions) -> list[slice]:
    """The slices that hold these positions in this order, as few as there can be."""
    array = np.asarray(positions, np.intp)
    parts = np.split(array, np.flatnonzero(np.diff(array) != 1) + 1)
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
