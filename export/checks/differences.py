"""Stage by stage, how far two implementations of one detector are apart, against stated limits."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks.traces import Trace
from zsd_core import kernels
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError

__all__ = [
    "IMAGE_STAGES",
    "MAPS",
    "OFFERED",
    "Comparison",
    "Limits",
    "conditions",
    "finite",
    "table",
]

# Outputs that belong to an image, to a region and to a detection.
MAPS = ("features", "reduced", "shortcut")  # the first, or the others: ``export.graphs.split``
OFFERED = ("offered_boxes", "offered_logits")
IMAGE_STAGES = dict.fromkeys((*MAPS, "objectness", "anchor_deltas", *OFFERED), "trunk")
REGION_STAGES = {"embeddings": "head", "box_deltas": "head", "class_scores": "scores"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on a difference is a failure.

    Attributes:
        relative: largest difference of a tensor, as a share of its largest magnitude.
        pixels: largest difference of a box edge, pixels of the network input.
        matched: smallest share of boxes that must have a partner or be undecided: the score that
            kept them is, within ``relative``, that of a box they compete with. The rest is also the
            largest share in whose place stands a neighbour of the same score.
        overlap: IoU from which two boxes are partners.
    """

    relative: float = 1e-4
    pixels: float = 0.05
    matched: float = 0.99
    overlap: float = 0.9

    def __post_init__(self) -> None:
        for name in ("relative", "pixels", "matched", "overlap"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"Limits.{name} is {getattr(self, name)}, must be above 0.")


@dataclass(slots=True)
class _Differences:
    """Running largest and mean difference of one quantity."""

    count: int = 0
    largest: float = 0.0
    total: float = 0.0
    scale: float = 0.0

    def add(self, expected: NDArray[Any], got: NDArray[Any]) -> None:
        if expected.shape != got.shape:
            self.largest = math.inf
            return
        if not expected.size:
            return
        a, b = expected.astype(np.float64), got.astype(np.float64)
        with np.errstate(invalid="ignore"):  # equal infinities are equal
            apart = np.where(a == b, 0, np.abs(a - b))
        worst = float(apart.max())
        self.largest = math.inf if math.isnan(worst) else max(self.largest, worst)
        self.count += a.size
        self.total += float(apart.sum())
        self.scale = max(self.scale, float(np.abs(a).max()))

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(slots=True)
class _Boxes:
    """Running result of matching boxes with boxes."""

    expected: int = 0
    got: int = 0
    matched: int = 0
    swapped: int = 0
    undecided: int = 0
    class_flips: int = 0
    edges: _Differences = field(default_factory=_Differences)
    scores: _Differences = field(default_factory=_Differences)


@dataclass(frozen=True, slots=True)
class _Contest:
    """Competition of boxes: ``capacity`` places of an image, and who suppresses whom."""

    capacity: int
    overlap: float


class Comparison:
    """Collects differences over images; ``rows`` judges them.

    Args:
        artifact: what is examined.
        against: what it must agree with.
        limits: where agreement ends.
        config: of the model: how many boxes an image may have, and when one suppresses another.
    """

    def __init__(self, artifact: str, against: str, limits: Limits, config: ModelConfig) -> None:
        self.artifact, self.against, self.limits = artifact, against, limits
        proposals, detection = config.proposals, config.detection
        self._regions = _Contest(proposals.post_nms_top, proposals.nms_threshold)
        self._detections = _Contest(detection.max_detections, detection.nms_threshold)
        self._tensors: dict[str, _Differences] = {}
        self._boxes: dict[str, _Boxes] = {}

    def add(self, expected: Trace, got: Trace) -> None:
        """Compare every stage that both traces hold.

        Regions are paired first; what belongs to a region is compared over the pairs, so that one
        region more or less does not shift everything behind it.
        """
        for name, stage in IMAGE_STAGES.items():
            if name in expected and name in got:
                self.add_tensor(f"{stage}: {name}", expected[name], got[name])
        if "rois" in expected and "rois" in got:
            pairs = self._add_boxes(
                "regions: rois",
                expected,
                got,
                ("rois", "roi_scores", None, "roi_batch_indices"),
                self._regions,
            )
            for name, stage in REGION_STAGES.items():
                if name in expected and name in got:
                    ours, theirs = expected[name][pairs[:, 0]], got[name][pairs[:, 1]]
                    self.add_tensor(f"{stage}: {name}", ours, theirs)
        self.add_detections(expected, got)

    def add_tensor(self, row: str, expected: NDArray[Any], got: NDArray[Any]) -> None:
        """Compare two arrays under a row of this name."""
        self._tensors.setdefault(row, _Differences()).add(expected, got)

    def add_detections(self, expected: Trace, got: Trace, row: str = "detections") -> None:
        """Compare final detections: ``boxes``, ``scores``, ``columns`` and ``batch_indices``."""
        names = ("boxes", "scores", "columns", "batch_indices")
        self._add_boxes(row, expected, got, names, self._detections)

    def _add_boxes(
        self,
        row: str,
        expected: Trace,
        got: Trace,
        names: tuple[str, str, str | None, str],
        contest: _Contest,
    ) -> NDArray[np.int64]:
        boxes, scores, columns, owners = names
        entry = self._boxes.setdefault(row, _Boxes())
        overlap = _overlaps(expected[boxes], got[boxes])
        overlap[expected[owners][:, None] != got[owners][None]] = 0
        anything = overlap.copy()
        if columns is not None:
            overlap[expected[columns][:, None] != got[columns][None]] = 0
        near = overlap >= contest.overlap
        pairs = _pair(overlap, self.limits.overlap)
        margin = self.limits.relative * float(np.abs(expected[scores]).max(initial=0.0))
        if scores in got:
            # A neighbour of the same score took the place: another box, not the same one moved.
            ours, theirs = pairs.T
            apart = np.abs(expected[boxes][ours] - got[boxes][theirs]).max(axis=1, initial=0)
            tied = np.abs(expected[scores][ours] - got[scores][theirs]) <= margin
            swapped = (apart > self.limits.pixels) & tied
            entry.swapped += int(swapped.sum())
            pairs = pairs[~swapped]
        anything[pairs[:, 0]], anything[:, pairs[:, 1]] = 0, 0
        entry.class_flips += len(_pair(anything, self.limits.overlap)) if columns else 0
        entry.expected += len(expected[boxes])
        entry.got += len(got[boxes])
        entry.matched += len(pairs)
        entry.edges.add(expected[boxes][pairs[:, 0]], got[boxes][pairs[:, 1]])
        if scores in got:
            entry.scores.add(expected[scores][pairs[:, 0]], got[scores][pairs[:, 1]])
            for side, (mine, other) in enumerate(((expected, got), (got, expected))):
                entry.undecided += _undecided(
                    mine[scores],
                    other[scores],
                    mine[owners],
                    other[owners],
                    near if side == 0 else near.T,
                    pairs[:, side],
                    margin,
                    contest.capacity,
                )
        return pairs

    def rows(self) -> list[dict[str, Any]]:
        """One judged row per stage, in the order of the pipeline; JSON values."""
        rows: dict[str, dict[str, Any]] = {}
        for name, boxes in self._boxes.items():
            share = (2 * boxes.matched + boxes.undecided) / max(boxes.expected + boxes.got, 1)
            limit = self.limits.relative * boxes.scores.scale
            rows[name] = {
                "stage": name,
                "expected": boxes.expected,
                "got": boxes.got,
                "matched": boxes.matched,
                "undecided": boxes.undecided,
                "class_flips": boxes.class_flips,
                "box_largest": finite(boxes.edges.largest),
                "box_mean": finite(boxes.edges.mean),
                "score_values": boxes.scores.count,
                "score_largest": finite(boxes.scores.largest),
                "score_mean": finite(boxes.scores.mean),
                "limit": {
                    "box": self.limits.pixels,
                    "score": limit,
                    "matched": self.limits.matched,
                },
                "passed": boxes.edges.largest <= self.limits.pixels
                and boxes.scores.largest <= limit
                and boxes.swapped <= (1 - self.limits.matched) * boxes.expected
                and 4 * boxes.matched >= boxes.expected + boxes.got  # not all may be undecided
                and (share >= self.limits.matched or boxes.expected == boxes.got == 0),
            }
        for name, found in self._tensors.items():
            limit = self.limits.relative * found.scale
            rows[name] = {
                "stage": name,
                "values": found.count,
                "largest": finite(found.largest),
                "mean": finite(found.mean),
                "scale": found.scale,
                "limit": limit,
                "passed": found.largest <= limit,
            }
        order = ("trunk", "regions", "head", "scores", "detections")
        return sorted(rows.values(), key=lambda row: order.index(row["stage"].split(":")[0]))

    @property
    def passed(self) -> bool:
        """Whether every row is within its limit; nothing compared is not agreement."""
        found = self._boxes.get("detections")
        return all(row["passed"] for row in self.rows()) and bool(found and found.expected)

    def report(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "artifact": self.artifact,
            "against": self.against,
            "passed": self.passed,
            "stages": self.rows(),
        }


def conditions(
    images: Iterable[tuple[str, tuple[int, ...]]],
    limits: Limits,
    packages: Sequence[str],
    **details: Any,
) -> dict[str, Any]:
    """Under what a report was made: versions, machine, images, limits."""
    build = kernels.build_info()
    return {
        "packages": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "kernels": {key: build[key] for key in sorted(build) if key != "path"},
        "images": [{"name": name, "height": shape[0], "width": shape[1]} for name, shape in images],
        "limits": asdict(limits),
        **details,
    }


def table(report: Mapping[str, Any]) -> str:
    """A report for people: one line per stage."""
    lines = []
    for part in report["comparisons"]:
        verdict = "agrees" if part["passed"] else "DIFFERS"
        lines.append(f"{part['artifact']} against {part['against']}: {verdict}")
        lines.append(f"  {'stage':<24} {'largest':>9} {'mean':>9} {'limit':>9}  boxes")
        for row in part["stages"]:
            mark = " " if row["passed"] else "!"
            if "values" in row:
                numbers = (row["largest"], row["mean"], row["limit"])
                lines.append(f"{mark} {row['stage']:<24} {_cells(numbers)}")
                continue
            boxes = (
                f"{row['matched']} of {row['expected']} and {row['got']} matched, "
                f"{row['undecided']} undecided, {row['class_flips']} class flips"
            )
            edges = (row["box_largest"], row["box_mean"], row["limit"]["box"])
            scores = (row["score_largest"], row["score_mean"], row["limit"]["score"])
            lines.append(f"{mark} {row['stage'] + ', px':<24} {_cells(edges)}  {boxes}")
            if row["score_values"]:
                lines.append(f"{mark} {row['stage'] + ', score':<24} {_cells(scores)}")
    return "\n".join(lines)


def _cells(numbers: Sequence[float | None]) -> str:
    return " ".join(f"{'inf' if n is None else format(n, '.2e'):>9}" for n in numbers)


def finite(value: float) -> float | None:
    """A number as JSON knows it: infinity and NaN are None."""
    return value if math.isfinite(value) else None


def _overlaps(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """IoU ``(n, m)``; equal boxes overlap fully even where they have no area."""
    from zsd_core.learning.matching import box_iou

    overlap = np.array(box_iou(boxes, others), np.float64).reshape(len(boxes), len(others))
    overlap[(boxes[:, None] == others[None]).all(axis=2)] = 1
    return overlap


def _undecided(
    scores: NDArray[Any],
    others: NDArray[Any],
    owners: NDArray[Any],
    other_owners: NDArray[Any],
    near: NDArray[np.bool_],
    paired: NDArray[np.int64],
    margin: float,
    capacity: int,
) -> int:
    """Number of boxes without partner that only lost, or won, a tie.

    Either the other side's image is full and its last box scores the same, so the cap cut between
    them, or an overlapping box of the other side does, so either could have suppressed the other.
    """
    alone = np.setdiff1d(np.arange(len(scores)), paired)
    count = 0
    for box in alone:
        same_image = others[other_owners == owners[box]]
        full = same_image.size >= capacity
        at_the_cut = full and scores[box] <= same_image.min() + margin
        rivals = np.abs(others[near[box]] - scores[box]) <= margin
        count += bool(at_the_cut or rivals.any())
    return count


def _pair(overlap: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """Pairs ``(p, 2)`` by falling overlap, each row and column once."""
    rows, columns = np.nonzero(overlap >= least)
    pairs, used_rows, used_columns = [], set[int](), set[int]()
    for i in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = int(rows[i]), int(columns[i])
        if row not in used_rows and column not in used_columns:
            pairs.append((row, column))
            used_rows.add(row)
            used_columns.add(column)
    return np.asarray(pairs, np.int64).reshape(-1, 2)
