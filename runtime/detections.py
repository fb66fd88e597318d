"""Detections of one image: the one result type of every path."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import MissingPackageError, ShapeError, expect_shapes

__all__ = ["Detection", "Detections"]


class Detection(NamedTuple):
    """One found object; ``box`` is ``x1 y1 x2 y2`` in pixels of the original image."""

    box: tuple[float, float, float, float]
    score: float
    class_id: int
    class_name: str
    role: str
    track_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects of one image, best first; true when there are any, indexed as a list or by mask.

    Attributes:
        boxes: ``(n, 4)`` float32 ``x1 y1 x2 y2`` in pixels of the original image.
        scores: ``(n,)`` float32, falling.
        class_ids: ``(n,)`` int64, positions in ``Detector.classes``, the active list in the order
            it was given, as it was at ``class_set_version``. Ids move when classes do; names do
            not.
        class_names: n names.
        roles: n times "seen" or "unseen".
        class_set_version: of the class set this image was scored with.
        times_ms: milliseconds per stage; images of one batch share a stage's time equally.
        near_miss: where nothing was found, the reported class with the highest score, and that
            score: what a lower ``score_threshold`` would let through, perhaps with better ones,
            since regions that cannot hold a detection are not looked at, but for the most
            promising one. None otherwise.
        track_ids: ``(n,)`` int64 where a stream has a tracker: equal numbers in frames of one
            source are one object, -1 belongs to no track yet. None without a tracker.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    roles: tuple[str, ...]
    class_set_version: int = 0
    times_ms: Mapping[str, float] = field(default_factory=dict)
    near_miss: tuple[str, float] | None = None
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        names, roles = np.asarray(self.class_names, object), np.asarray(self.roles, object)
        expect_shapes(
            "Detections",
            "All fields describe the same n objects.",
            boxes=(self.boxes, "n 4"),
            scores=(self.scores, "n"),
            class_ids=(self.class_ids, "n"),
            class_names=(names, "n"),
            roles=(roles, "n"),
        )
        for name, array, kind in (
            ("boxes", self.boxes, np.float32),
            ("scores", self.scores, np.float32),
            ("class_ids", self.class_ids, np.int64),
        ):
            if array.dtype != kind:
                raise ShapeError(f"Detections: {name} is {array.dtype}, must be {kind.__name__}.")
        if self.track_ids is not None:
            expect_shapes(
                "Detections",
                "All fields describe the same n objects.",
                scores=(self.scores, "n"),
                track_ids=(self.track_ids, "n"),
            )
        if (np.diff(self.scores) > 0).any():
            raise ShapeError("Detections: scores must fall; sort by score, best first.")
        if set(self.roles) - {"seen", "unseen"}:
            raise ShapeError(f"Detections: roles are {set(self.roles)}, must be seen or unseen.")

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.class_ids.tolist(), strict=True)
        tracks = [None] * len(self) if self.track_ids is None else self.track_ids.tolist()
        for (box, score, class_id), name, role, track in zip(
            rows, self.class_names, self.roles, tracks, strict=True
        ):
            yield Detection(tuple(box), score, class_id, name, role, track)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same objects; times and versions do not count."""
        if not isinstance(other, Detections):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # its arrays can change, as a list can

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | NDArray[np.bool_] | Sequence[bool]) -> Detections: ...

    def __getitem__(self, index: Any) -> Detection | Detections:
        """The object at a place, which may count from the end, or those of a slice or a mask.

        Raises:
            IndexError: there is no such place.
            ShapeError: the index is none of these, or would bring lower scores to the front.
        """
        chosen: Any = index
        if isinstance(index, SupportsIndex) and not isinstance(index, np.ndarray):
            place = operator.index(index)
            if not -len(self) <= place < len(self):
                raise IndexError(f"Detections: there is no object {place}, only {len(self)}.")
            return next(iter(self._rows(np.arange(len(self))[[place]])))
        if not isinstance(index, slice):
            chosen = np.asarray(index) if len(self) else np.asarray(index, bool)  # [] is a mask too
            if chosen.dtype != bool or chosen.shape != (len(self),):
                raise ShapeError(
                    f"Detections: the mask has dtype {chosen.dtype} and shape {chosen.shape}, must "
                    f"be bool ({len(self)},), a slice or a place, as in "
                    "detections[detections.scores > 0.5]."
                )
        return self._rows(np.arange(len(self))[chosen])

    def _rows(self, rows: NDArray[np.intp]) -> Detections:
        return Detections(
            self.boxes[rows],
            self.scores[rows],
            self.class_ids[rows],
            tuple(self.class_names[i] for i in rows),
            tuple(self.roles[i] for i in rows),
            self.class_set_version,
            self.times_ms,
            self.near_miss,
            None if self.track_ids is None else self.track_ids[rows],
        )

    def __str__(self) -> str:
        if not self:
            return "nothing found"
        return ", ".join(f"{d.class_name} {d.score:.2g}" for d in self)

    def to_list(self) -> list[dict[str, Any]]:
        """One ``{"box", "score", "class", "role"}`` per object, of plain Python values.

        With a tracker, ``"track"`` too: its number, or None where there is no track yet.
        """
        return [
            {
                "box": [round(x, 2) for x in d.box],
                "score": round(d.score, 6),
                "class": d.class_name,
                "role": d.role,
                **(
                    {} if d.track_id is None else {"track": d.track_id if d.track_id >= 0 else None}
                ),
            }
            for d in self
        ]

    def to_json(self, indent: int | None = None) -> str:
        """``to_list`` as JSON text."""
        return json.dumps(self.to_list(), indent=indent, ensure_ascii=False)

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with ``data["class_name"]`` and ``data["role"]``.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError(
                f"to_supervision needs a package that cannot be imported ({error}). "
                "Install it: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.class_ids,
            tracker_id=self.track_ids,
            data={
                "class_name": np.array(self.class_names, dtype=str),
                "role": np.array(self.roles, dtype=str),
            },
        )
