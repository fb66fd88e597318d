"""What a detector found in one image: the one result type of every path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects of one image, best first; true when there are any, sliced by mask.

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
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    roles: tuple[str, ...]
    class_set_version: int = 0
    times_ms: Mapping[str, float] = field(default_factory=dict)
    near_miss: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        names, roles = np.asarray(self.class_names, object), np.asarray(self.roles, object)
        expect_shapes(
            "Detections", "All fields describe the same n objects.", boxes=(self.boxes, "n 4"),
            scores=(self.scores, "n"), class_ids=(self.class_ids, "n"), class_names=(names, "n"),
            roles=(roles, "n"),
        )  # fmt: skip
        for name, array, kind in (
            ("boxes", self.boxes, np.float32),
            ("scores", self.scores, np.float32),
            ("class_ids", self.class_ids, np.int64),
        ):
            if array.dtype != kind:
                raise ShapeError(f"Detections: {name} is {array.dtype}, must be {kind.__name__}.")
        if (np.diff(self.scores) > 0).any():
            raise ShapeError("Detections: scores must fall; sort by score, best first.")
        if set(self.roles) - {"seen", "unseen"}:
            raise ShapeError(f"Detections: roles are {set(self.roles)}, must be seen or unseen.")

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.class_ids.tolist(), strict=True)
        for (box, score, class_id), name, role in zip(
            rows, self.class_names, self.roles, strict=True
        ):
            yield Detection(tuple(box), score, class_id, name, role)

    def __getitem__(self, mask: slice | NDArray[np.bool_] | list[bool]) -> Detections:
        """The objects a slice or a boolean mask keeps, in the same order."""
        chosen: Any = mask
        if not isinstance(mask, slice):
            chosen = np.asarray(mask) if len(self) else np.asarray(mask, bool)  # [] is a mask too
            if chosen.dtype != bool or chosen.shape != (len(self),):
                raise ShapeError(
                    f"Detections: the mask has dtype {chosen.dtype} and shape {chosen.shape}, must "
                    f"be bool ({len(self)},) or a slice, as in detections[detections.scores > 0.5]."
                )
        rows = np.arange(len(self))[chosen]
        return Detections(
            self.boxes[rows], self.scores[rows], self.class_ids[rows],
            tuple(self.class_names[i] for i in rows), tuple(self.roles[i] for i in rows),
            self.class_set_version, self.times_ms, self.near_miss,
        )  # fmt: skip

    def __str__(self) -> str:
        if not self:
            return "nothing found"
        return ", ".join(f"{d.class_name} {d.score:.2g}" for d in self)

    def to_list(self) -> list[dict[str, Any]]:
        """One ``{"box", "score", "class", "role"}`` per object, of plain Python values."""
        return [
            {
                "box": [round(x, 2) for x in d.box],
                "score": round(d.score, 6),
                "class": d.class_name,
                "role": d.role,
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
            data={
                "class_name": np.array(self.class_names, dtype=str),
                "role": np.array(self.roles, dtype=str),
            },
        )
