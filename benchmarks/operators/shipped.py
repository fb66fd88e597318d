"""Scoring with the model that ships: its layers, its words, regions of real photographs.

What int8 and a shortlist cost in quality depends on weights and classes, so it is measured where
they are not random: regions that the bundle's own networks propose in scikit-image's photographs,
the bundle's classes, and 1,202 classes drawn from its vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.operators.scoring import SHORTLIST, accuracy, eager
from benchmarks.operators.table import SHIPPED, Row
from benchmarks.operators.timing import Bench, extra_mb
from runtime.backends import open_backend
from runtime.bundle import Bundle, open_bundle
from runtime.demo import PHOTOGRAPHS, photograph
from runtime.images import as_image
from zsd_core import kernels
from zsd_core.calibration import IDENTITY, floor_of
from zsd_core.config import ModelConfig
from zsd_core.kernels.reference import iou
from zsd_core.scoring import ClassSet, scorer_for
from zsd_core.semantics import fold_name
from zsd_core.stages import Described, decide, describe

__all__ = ["Found", "Shipped", "lost", "shipped_rows"]

Floats = NDArray[np.float32]
LARGE = 1202  # classes beside the background
# The bundle's own threshold leaves a handful of detections in these photographs, too few to count
# losses by: the exact ones are taken above a share of it, and looked for above half of that, so
# that a score a little lower counts as a difference of scores and not as a loss.
SHARE = 0.01
Found = tuple[Floats, Floats, NDArray[np.int32]]  # boxes (n, 4), scores (n,), columns (n,)


@dataclass(frozen=True, slots=True)
class Shipped:
    """The bundle, and what its networks say of the photographs and their mirror images."""

    bundle: Bundle
    images: list[Described]

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model."""
        return self.bundle.model_config

    @property
    def least(self) -> float:
        """A share of the bundle's score threshold, in scores before their calibration."""
        curve = self.config.calibration.seen or IDENTITY
        return floor_of(curve, SHARE * self.config.detection.score_threshold)

    @classmethod
    def open(cls) -> Shipped:
        """Run the networks once on every photograph."""
        bundle = open_bundle()
        backend = open_backend("auto", bundle)
        try:
            pictures = [as_image(photograph(name), "rgb", name) for name in PHOTOGRAPHS]
            pictures += [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
            images = [describe(backend, bundle.model_config, [picture]) for picture in pictures]
        finally:
            backend.close()
        return cls(bundle, images)

    def classes(self, count: int | None = None) -> ClassSet:
        """The bundle's own, or ``count`` with words spread over its vocabulary added."""
        bundle, vectors = self.bundle, self.bundle.class_vectors
        seen, unseen = list(bundle.seen), list(bundle.unseen)
        scorer = scorer_for(self.config.scoring, bundle.scorer_tensors())
        rest = vectors[len(seen) :]
        if count is not None:
            known = {fold_name(name) for name in seen + unseen}
            words = [name for name in bundle.vocabulary.names if fold_name(name) not in known]
            missing = count - len(seen) - len(unseen)
            added = [words[i] for i in np.linspace(0, len(words) - 1, missing).astype(int)]
            rest = np.concatenate([rest, bundle.vocabulary.lookup_all(added)])
            unseen += added
        return scorer.class_set(seen, vectors[: len(seen)], unseen, rest)

    def layers(self, name: str) -> list[Floats]:
        """The four arrays of a scorer, "score_seen" or "score_unseen"."""
        tensors = self.bundle.scorer_tensors()
        return [tensors[f"{name}.{layer}"] for layer in ("weight1", "bias1", "weight2", "bias2")]

    def detections(
        self,
        classes: ClassSet,
        threshold: float,
        precision: str = "float32",
        shortlist: int | None = None,
        most: int | None = None,
    ) -> list[Found]:
        """Detections of every photograph above ``threshold``, by the pipeline's own end."""
        module = ModuleType("kernels with a shortlist")
        vars(module).update(vars(kernels))
        vars(module)["product_mlps"] = partial(kernels.product_mlps, shortlist=shortlist)
        scorer = scorer_for(
            self.config.scoring, self.bundle.scorer_tensors(), module, precision=precision
        )
        thresholds = np.full(len(classes.names), threshold, np.float32)
        return [
            decide(
                scorer.score(image.embeddings, image.objectness, classes),
                image,
                self.config,
                thresholds,
                max_detections=most,
            )[0]
            for image in self.images
        ]


def lost(exact: Sequence[Found], other: Sequence[Found]) -> tuple[int, int, float]:
    """Detections, how many of them have no counterpart, and the counterparts' largest difference.

    A counterpart is of the same class and overlaps by an IoU of at least a half; the nearest score
    counts.
    """
    total, missing, worst = 0, 0, 0.0
    for (boxes, scores, columns), (theirs, their_scores, their_columns) in zip(
        exact, other, strict=True
    ):
        total += len(boxes)
        for box, score, column in zip(boxes, scores, columns, strict=True):
            near = (their_columns == column) & (iou(box, theirs) >= 0.5)
            if not near.any():
                missing += 1
                continue
            worst = max(worst, float(np.abs(their_scores[near] - score).min()))
    return total, missing, worst


def shipped_rows(bench: Bench, model: Shipped) -> list[Row]:
    """Every precision at the bundle's own classes and at 1,203, and the shortlist at those."""
    rows = []
    for count in (None, LARGE):
        classes = model.classes(count)
        exact = model.detections(classes, model.least)
        rows += [
            _row(bench, model, classes, exact, "float32", None),
            _row(bench, model, classes, exact, "int8", None),
        ]
        if count:
            rows.append(_row(bench, model, classes, exact, "float32", SHORTLIST))
    return rows


def _row(
    bench: Bench,
    model: Shipped,
    classes: ClassSet,
    exact_found: list[Found],
    precision: Any,
    shortlist: int | None,
) -> Row:
    regions = model.images[0].embeddings
    prototypes, first = classes.prototypes, 1 + classes.seen_count
    seen, unseen = model.layers("score_seen"), model.layers("score_unseen")
    packed: list[tuple[kernels.PackedMlp, int]] = []

    def score(rows: Floats = regions, table: Floats = prototypes) -> list[Floats]:
        if not packed:
            packed.extend(
                (kernels.PackedMlp(*layers, precision=precision), at)
                for layers, at in ((seen, 0), (unseen, first))
            )
        return kernels.product_mlps(rows, table, packed, shortlist=shortlist)

    def pairs(count: int) -> int:  # multiplications per region
        return count * seen[0].size + (count - first) * unseen[0].size

    memory, scale = extra_mb(score), 1.0
    reference: Callable[[], Any]
    if shortlist:
        name = "ours, 80 classes exact"
        reference = partial(kernels.product_mlps, regions, prototypes[:80], packed)
    else:
        name = "PyTorch eager float32"  # of at most 96 classes, scaled: it needs their products
        few = prototypes[:96]
        both = eager([regions, few, *seen]), eager([regions, few[first:], *unseen])
        reference = lambda: [run() for run in both]  # noqa: E731
        scale = pairs(len(prototypes)) / pairs(len(few))
    ms, other = bench.pair(score, reference)
    every = np.concatenate([image.embeddings for image in model.images])
    exact = kernels.product_mlp(every, prototypes, *seen)
    threshold = model.least / 2
    found = model.detections(classes, threshold, precision, shortlist, most=1000)
    total, missing, worst = lost(exact_found, found)
    kind = f"shortlist {shortlist}" if shortlist else "dense" if precision == "int8" else ""
    return Row(
        operator=SHIPPED,
        variant=f"{precision} {kind}".strip(),
        classes=len(prototypes),
        ms=ms,
        reference=name,
        reference_ms=other * scale,
        extra_mb=memory,
        gflops=2e-6 * pairs(len(prototypes)) * len(regions) / ms,
        zeros=float((prototypes == 0).mean()),
        detections=total,
        detections_lost=missing / total if total else None,
        score_difference=worst,
        **accuracy(score(every)[0], exact),
    )
