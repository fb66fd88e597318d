"""From class vectors to class scores: the scoring methods a bundle may name (section 3.2, eq. 14).

numpy and the kernels only. A user's classes never enter a network: a class is one row of
``p_s(A)`` and one column of S, so adding one computes that row and nothing of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.errors import BundleError, ClassError, ConfigError, did_you_mean, expect_shapes
from zsd_core.semantics import similarity_of_cosines, unit_rows

__all__ = ["SCORERS", "ClassSet", "ContrastScorer", "Scorer", "scorer_for"]

Floats = NDArray[np.float32]


class _GrowingRows:
    """A ``(n, width)`` array that grows at its end without moving what views already show."""

    def __init__(self, rows: Floats, spare: int = 64) -> None:
        capacity = len(rows) + max(spare, len(rows) // 2)
        self._buffer = np.empty((capacity, rows.shape[1]), np.float32)
        self._buffer[: len(rows)] = rows
        self._used = len(rows)
        self._lock = threading.Lock()

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
        return _GrowingRows(np.concatenate([self._buffer[:count], rows]))


@dataclass(frozen=True, slots=True, eq=False)
class ClassSet:
    """Everything scoring needs of the classes; never changed once made.

    Attributes:
        names: of the columns of every score: all seen classes of the bundle in stored order, then
            the current unseen classes.
        roles: "seen" or "unseen" per name.
        prototypes: ``(1 + Ks + U, D)``, p_s of background, seen and unseen vectors.
        seen_similarity: ``(Ks, U)``, the stored block of S.
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

    def keep(self, classes: ClassSet, unseen: Sequence[int], version: int) -> ClassSet:
        """Keep the unseen classes of these positions (0 is the first unseen), in this order."""

    def score(self, embeddings: Floats, objectness: Floats, classes: ClassSet) -> Floats:
        """Scores ``(R, Ks + U)`` of embeddings ``(R, D)`` with objectness ``(R,)`` in [0, 1]."""


@dataclass(frozen=True, slots=True)
class _Storage:
    seen_vectors: Floats  # (Ks, E) unit rows
    prototypes: _GrowingRows  # (1 + Ks + U, D)
    cosines: _GrowingRows  # (U, Ks)


class ContrastScorer:
    """ContrastZSD: p_s, then g_s and g_u on element-wise products, fused by eq. 14.

    Args:
        tensors: ``background`` (E,); ``project_semantic.``, ``score_seen.`` and ``score_unseen.``
            each with ``weight1``, ``bias1``, ``weight2``, ``bias2``.
        config: the options the model was trained with.
        kernels: the module of operators; ``zsd_core.kernels.reference`` for the numpy twins.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
    ) -> None:
        self.config, self._kernels = config, kernels
        shapes = {"background": "E"} | ({"center": "E"} if config.center else {})
        shapes |= {f"project_semantic.{k}": v for k, v in _layers("D E", "D", "D D", "D").items()}
        for path in ("score_seen", "score_unseen"):
            shapes |= {f"{path}.{k}": v for k, v in _layers("M D", "M", "M", "1").items()}
        for name in shapes:
            if name not in tensors:
                raise BundleError(
                    f"ContrastScorer: tensor {name!r} is missing{did_you_mean(name, tensors)} "
                    "Export the checkpoint again."
                )
        expect_shapes(
            "ContrastScorer",
            "E, D and M must agree with the model's configuration; export the checkpoint again.",
            **{name: (tensors[name], shape) for name, shape in shapes.items()},
        )
        self._tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in shapes}
        self._seen_mlp = kernels.PackedMlp(*self._mlp("score_seen"))
        self._unseen_mlp = kernels.PackedMlp(*self._mlp("score_unseen"))

    def class_set(
        self,
        seen_names: Sequence[str],
        seen_vectors: NDArray[Any],
        unseen_names: Sequence[str],
        unseen_vectors: NDArray[Any],
        version: int = 0,
    ) -> ClassSet:
        """Build a class set; see ``Scorer``."""
        background = self._tensors["background"]
        seen = self._unit(seen_names, seen_vectors)
        known = np.concatenate([background[None], seen])
        empty = ClassSet(
            names=tuple(seen_names),
            roles=("seen",) * len(seen),
            prototypes=np.empty((0, 0), np.float32),
            seen_similarity=np.empty((len(seen), 0), np.float32),
            storage=_Storage(
                seen,
                _GrowingRows(self._project(known), spare=len(unseen_names) + 64),
                _GrowingRows(np.empty((0, len(seen)), np.float32), spare=len(unseen_names) + 64),
            ),
        )
        return self.extend(empty, unseen_names, unseen_vectors, version)

    def extend(
        self, classes: ClassSet, names: Sequence[str], vectors: NDArray[Any], version: int
    ) -> ClassSet:
        """Add unseen classes at the end; see ``Scorer``."""
        rows = self._unit(names, vectors)
        old, before = classes.storage, len(classes.names)
        # One matrix-vector product per class: its bits do not depend on its companions.
        cosines = np.matmul(old.seen_vectors, rows[:, :, None])[:, :, 0]  # (new, Ks)
        storage = _Storage(
            old.seen_vectors,
            old.prototypes.extended(1 + before, self._project(rows)),
            old.cosines.extended(classes.unseen_count, cosines),
        )
        return self._sealed(
            classes.names + tuple(names), storage, classes.unseen_count + len(rows), version
        )

    def keep(self, classes: ClassSet, unseen: Sequence[int], version: int) -> ClassSet:
        """Keep some unseen classes; see ``Scorer``."""
        old, known, chosen = classes.storage, classes.seen_count, np.asarray(unseen, np.intp)
        rows = np.concatenate([np.arange(1 + known), 1 + known + chosen])
        storage = _Storage(
            old.seen_vectors,
            _GrowingRows(classes.prototypes[rows]),
            _GrowingRows(old.cosines.view(classes.unseen_count)[chosen]),
        )
        names = classes.names[:known] + tuple(classes.names[known + i] for i in unseen)
        return self._sealed(names, storage, len(chosen), version)

    def score(self, embeddings: Floats, objectness: Floats, classes: ClassSet) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``.

        References:
            Paper eq. 6 and 14. g_s sees background, seen and unseen prototypes; g_u the unseen.
        """
        config = self.config
        logits, unseen = self._kernels.product_mlps(
            embeddings,
            classes.prototypes,
            [(self._seen_mlp, 0), (self._unseen_mlp, 1 + classes.seen_count)],
        )
        if config.seen_activation == "relu":
            logits = np.maximum(logits, 0)
        scores: Floats = self._kernels.fuse(
            logits,
            _sigmoid(unseen),
            classes.seen_similarity,
            fusion=config.fusion,
            seen_scale=config.seen_scale,
            objectness=objectness,
            objectness_power=config.objectness_power,
        )
        return scores

    def _mlp(self, path: str) -> tuple[Floats, ...]:
        return tuple(self._tensors[f"{path}.{layer}"] for layer in _layers())

    def _unit(self, names: Sequence[str], vectors: NDArray[Any]) -> Floats:
        width = self._tensors["background"].size
        if not len(names):
            return np.empty((0, width), np.float32)
        vectors = np.ascontiguousarray(vectors, np.float32)
        expect_shapes(
            "class vectors",
            f"This model reads one vector of width {width} per class, from the encoder its bundle "
            "names.",
            vectors=(vectors, f"{len(names)} {width}"),
        )
        lengths = np.linalg.norm(vectors, axis=1)
        for name, length in zip(names, lengths.tolist(), strict=True):
            if not (np.isfinite(length) and length > 0):
                raise ClassError(
                    f"the vector of class {name!r} has length {length}; "
                    "it must be finite and not zero."
                )
        rows = unit_rows(vectors)
        return unit_rows(rows - self._tensors["center"]) if self.config.center else rows

    def _project(self, vectors: Floats) -> Floats:
        """p_s, one matrix-vector product per class and layer (eq. 3)."""
        weight1, bias1, weight2, bias2 = self._mlp("project_semantic")
        hidden = np.maximum(np.matmul(weight1, vectors[:, :, None])[:, :, 0] + bias1, 0)
        output = np.matmul(weight2, hidden[:, :, None])[:, :, 0]
        output += bias2
        np.maximum(output, 0, out=output)
        rows: Floats = output
        return rows

    def _sealed(
        self, names: tuple[str, ...], storage: _Storage, unseen: int, version: int
    ) -> ClassSet:
        seen = len(names) - unseen
        return ClassSet(
            names=names,
            roles=("seen",) * seen + ("unseen",) * unseen,
            prototypes=storage.prototypes.view(1 + len(names)),
            seen_similarity=np.ascontiguousarray(
                similarity_of_cosines(
                    storage.cosines.view(unseen).T, self.config.similarity_temperature
                ),
                np.float32,
            ),
            version=version,
            storage=storage,
        )


SCORERS: dict[str, Callable[..., Scorer]] = {"contrastzsd": ContrastScorer}


def scorer_for(
    config: ScoringConfig,
    tensors: Mapping[str, NDArray[Any]],
    kernels: ModuleType = compiled_kernels,
) -> Scorer:
    """The scorer that ``config.method`` names.

    Raises:
        ConfigError: no such method.
        BundleError: a tensor of the method is missing.
    """
    try:
        make = SCORERS[config.method]
    except KeyError:
        raise ConfigError(
            f"ScoringConfig.method is {config.method!r}, this version knows "
            f"{', '.join(map(repr, SCORERS))}{did_you_mean(config.method, SCORERS)}"
        ) from None
    return make(tensors, config, kernels)


def _layers(
    weight1: str = "", bias1: str = "", weight2: str = "", bias2: str = ""
) -> dict[str, str]:
    return {"weight1": weight1, "bias1": bias1, "weight2": weight2, "bias2": bias2}


def _sigmoid(logits: Floats) -> Floats:
    small = np.exp(-np.abs(logits))  # in (0, 1]: never overflows, keeps tiny probabilities
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), np.float32)
