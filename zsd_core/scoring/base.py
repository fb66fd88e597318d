"""The protocol of a scoring method, and what every method has whose classes are vectors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.errors import (
    BundleError,
    ClassError,
    ConfigError,
    did_you_mean,
    expect_shapes,
    join_sentences,
)
from zsd_core.scoring.classes import (
    ClassRows,
    ClassSet,
    Floats,
    GrowingRows,
    Needed,
    Positions,
    Storage,
)
from zsd_core.semantics import row_lengths, unit_rows

__all__ = ["Scorer", "VectorScorer", "check_lengths", "softmax"]


class Scorer(Protocol):
    """The part of a scoring method that a frame needs; its classes are made by ``VectorScorer``."""

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)`` of embeddings ``(R, D)`` with objectness ``(R,)`` in [0, 1].

        With ``needed``, scores that cannot pass their threshold may be underestimated.
        """

    def least_objectness(self, threshold: float) -> float:
        """Objectness below which no score of a region is above ``threshold``; 0 if unknown."""


class VectorScorer(ABC):
    """A scoring method whose classes are vectors, all but the method itself.

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
        ShapeError: a tensor does not fit the configuration, or another one.
    """

    PRECISIONS: tuple[str, ...] = ("float32",)
    PREPARED = True  # a row costs enough to be computed before a class is asked for

    @property
    def example_width(self) -> int | None:
        """Width of a class vector that comes from examples; None: the method has none."""
        return None

    def example_rows(self, classes: ClassSet, names: Sequence[str], vectors: Floats) -> ClassRows:
        """Compute what ``append`` needs of classes from examples, ``(n, example_width)``.

        Raises:
            ConfigError: the method cannot learn from examples.
        """
        raise ConfigError(f"{type(self).__name__} cannot learn a class from examples.")

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
            {"E": config.vector_dim, "D": config.joint_dim, "M": config.hidden_dim},
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

    def similarity_of(self, cosines: Floats) -> Floats:
        """``ClassSet.seen_similarity`` from the cosines ``(Ks, U)`` of seen and unseen vectors.

        The cosines as they are, unless a method means something else by S.
        """
        return cosines

    @abstractmethod
    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""

    def weighed(self, scores: Floats, objectness: Floats, classes: ClassSet) -> Floats:
        """Scores ``(R, Ks + U)``, changed in place, times ``seen_scale`` and objectness."""
        scores[:, : classes.seen_count] *= np.float32(self.config.seen_scale)
        if self.config.objectness_power > 0:
            scores *= (objectness**self.config.objectness_power)[:, None]
        return np.asarray(scores, np.float32)

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
        """Build a class set from vectors ``(Ks, E)`` and ``(U, E)``."""
        seen = self._unit(seen_names, seen_vectors)
        known = np.concatenate([self.background()[None], seen])
        spare = len(unseen_names) + 64
        empty = ClassSet(
            names=tuple(seen_names),
            roles=("seen",) * len(seen),
            prototypes=np.empty((0, 0), np.float32),
            seen_similarity=np.empty((len(seen), 0), np.float32),
            storage=Storage(
                self.kernels.PackedLinear(seen),
                GrowingRows([self._finite_prototypes(known)], "C", spare),
                GrowingRows([np.empty((0, len(seen)), np.float32)], "F", spare),
            ),
        )
        return self.extend(empty, unseen_names, unseen_vectors, version)

    def extend(
        self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any], version: int
    ) -> ClassSet:
        """Add unseen classes at the end; equal to building the larger set, bit for bit."""
        return self.append(classes, names, self.rows(classes, names, vectors), version)

    def rows(self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any]) -> ClassRows:
        """Compute what ``append`` needs of vectors ``(n, E)``; the seen classes come from a set."""
        unit = self._unit(names, vectors)
        return ClassRows(self._finite_prototypes(unit), classes.storage.seen_cosines(unit))

    def _finite_prototypes(self, vectors: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            rows = self.prototypes_of(vectors)
        if not np.isfinite(rows).all():
            raise BundleError(
                f"{type(self).__name__}: a class becomes numbers that are not finite; the weights "
                "of this bundle are too large. Do not use it."
            )
        return rows

    def append(
        self, classes: ClassSet, names: Sequence[str], rows: ClassRows, version: int
    ) -> ClassSet:
        """Add unseen classes at the end whose rows were computed before."""
        old, before = classes.storage, len(classes.names)
        storage = Storage(
            old.seen_cosines,
            old.prototypes.extended(1 + before, rows.prototypes),
            old.cosines.extended(classes.unseen_count, rows.cosines),
        )
        return self._sealed(
            classes.names + tuple(names), storage, classes.unseen_count + len(names), version
        )

    def keep(self, classes: ClassSet, unseen: Positions, version: int) -> ClassSet:
        """Keep the unseen classes of these positions (0 is the first unseen), in this order."""
        old, known = classes.storage, classes.seen_count
        own, cosines = classes.prototypes[1 + known :], old.cosines.view(classes.unseen_count)
        runs = _runs(unseen)
        storage = Storage(
            old.seen_cosines,
            GrowingRows([classes.prototypes[: 1 + known], *(own[run] for run in runs)], "C"),
            GrowingRows([cosines[:0], *(cosines[run] for run in runs)], "F"),
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
        check_lengths(names, vectors)
        rows = unit_rows(vectors)
        return unit_rows(rows - self.tensors["center"]) if self.config.center else rows

    def _sealed(
        self, names: tuple[str, ...], storage: Storage, unseen: int, version: int
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


def check_lengths(names: Sequence[str], vectors: NDArray[Any]) -> None:
    """Refuse vectors without a direction.

    Args:
        names: of the classes.
        vectors: ``(n, E)``, one per name.

    Raises:
        ClassError: a vector is zero or not finite; the message names all of them.
    """
    lengths = row_lengths(vectors)[:, 0].tolist()
    wrong = [
        f"the vector of class {name!r} has length {length}; it must be finite and not zero."
        for name, length in zip(names, lengths, strict=True)
        if not 0 < length < math.inf
    ]
    if wrong:
        raise ClassError(join_sentences(wrong))


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis, without overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
