"""Balance seen and unseen scores: seen classes that play unseen ones show by how much.

The factor of seen scores and the temperature of S are chosen; ``zsd_core.calibrate`` says how.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zsd_core.errors import DataError
from zsd_core.learning import metrics
from zsd_core.learning.calibration import balanced_f1, best_balance
from zsd_core.learning.checkpoint import Checkpoint
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.protocol import check_leakage, test_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.training.kept import (
    Kept,
    class_set_of,
    describe_photographs,
    matches_of,
    score_photographs,
    train_scoring,
)
from zsd_core.options import check_option

__all__ = [
    "SCALES",
    "TEMPERATURES",
    "PseudoTask",
    "calibrated",
    "curve",
    "fit",
    "pseudo_regions",
    "pseudo_split",
    "pseudo_task",
    "with_scoring",
]

Floats = NDArray[np.float64]
SCALES = tuple(float(s) for s in 2.0 ** np.arange(-8, 2.5))
TEMPERATURES = (0.03, 0.05, 0.1, 0.3, 1.0)
NUMBER = "mAP@0.5 area"
LEAST, MOST = 10, 0.1  # photographs with a class that may play unseen: at least, at most a share


def pseudo_split(training: Dataset, split: Split, seed: int) -> Split:
    """Draw seen classes to play the unseen ones, in the proportion of the split.

    Only classes that are neither rare nor everywhere are drawn: without photographs there is
    nothing to measure, and without the photographs that show them something must remain.

    Raises:
        DataError: too few classes qualify.
    """
    shown = Counter(
        name
        for image in training.images
        for name in {n for n, i in zip(image.labels, image.ignore, strict=True) if not i}
    )
    able = [name for name in split.seen if LEAST <= shown[name] <= MOST * len(training)]
    wanted = max(2, round(len(split.seen) * len(split.unseen) / len(split.classes)))
    if len(able) < wanted:
        raise DataError(
            f"calibration of split {split.name} needs {wanted} seen classes to play unseen, but "
            f"only {len(able)} are in at least {LEAST} and at most {MOST:.0%} of its "
            f"{len(training)} photographs; train on more of them."
        )
    chosen = set(np.random.default_rng(seed).choice(able, wanted, replace=False).tolist())
    return Split(
        name=f"{split.name}, pseudo-unseen {seed}",
        seen=tuple(name for name in split.seen if name not in chosen),
        unseen=tuple(name for name in split.seen if name in chosen),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PseudoTask:
    """Training and test of a detector for which some seen classes are unseen.

    Attributes:
        split: the seen classes that stay, and those that play unseen.
        test: photographs that show one of the latter, with the boxes of all.
        rows: of the kept regions that train; none is of such a photograph.
        labels: of those, ``(len(rows),)``, numbered as the split has them.
        vectors: of the split's classes, seen then unseen.
    """

    split: Split
    test: Dataset
    rows: torch.Tensor
    labels: torch.Tensor
    vectors: NDArray[np.float32]


def pseudo_task(
    checkpoint: Checkpoint,
    kept: Kept,
    training: Dataset,
    split: Split,
    pseudo: Split,
    photographs: int,
    seed: int,
) -> PseudoTask:
    """Hold out up to ``photographs`` that show a pseudo-unseen class, and their regions."""
    shows = np.array([not set(image.labels).isdisjoint(pseudo.unseen) for image in training.images])
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(shows))[:photographs]
    held = Dataset(images=tuple(training.images[i] for i in sorted(chosen)))
    test = test_set(dataclasses.replace(held, categories=split.seen), pseudo, "gzsd")
    rows, labels, vectors = pseudo_regions(checkpoint, kept, training, split, pseudo)
    return PseudoTask(pseudo, test, rows, labels, vectors)


def pseudo_regions(
    checkpoint: Checkpoint, kept: Kept, training: Dataset, split: Split, pseudo: Split
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.float32]]:
    """``rows``, ``labels`` and ``vectors`` of a ``PseudoTask``.

    No photograph that shows a pseudo-unseen class trains: that is the protocol for unseen ones.
    """
    shows = np.array([not set(image.labels).isdisjoint(pseudo.unseen) for image in training.images])
    owner = kept.photographs(training.images, checkpoint.config)
    rows = torch.from_numpy(np.flatnonzero(~shows[owner.numpy()]))
    place = torch.tensor(
        [0, *(1 + pseudo.seen.index(n) if n in pseudo.seen else -1 for n in split.seen)]
    )
    labels = place[kept.labels[rows]]
    assert int(labels.min()) >= 0
    order = [split.seen.index(name) for name in pseudo.classes]
    return rows, labels, checkpoint.vectors[: len(split.seen)][order]


def fit(
    checkpoint: Checkpoint,
    kept: Kept,
    training: Dataset,
    split: Split,
    *,
    photographs: int = 120,
    steps: int = 200,
    draws: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit the two numbers; see the module.

    Args:
        checkpoint: what to calibrate; only its seen vectors are read.
        kept: regions of ``training``.
        training: photographs and boxes of the training protocol.
        split: of the training.
        photographs: held out of each draw.
        steps: of each training without the pseudo-unseen classes; 0 where
            ``training.warm_start`` alone makes the heads.
        draws: of pseudo-unseen classes; the harmonic means are averaged over them.
        seed: of everything drawn by chance.

    Returns:
        JSON values: ``seen_scale``, ``similarity_temperature``, ``score_threshold``, the numbers
        ``before`` and ``after`` (see ``curve``), the seen-unseen ``curve`` at that temperature, and
        the ``draws``.

    Raises:
        ConfigError: fewer than one photograph, step or draw, or a negative seed.
        DataError: the data hold a class that is not seen: it must not take part.
    """
    for name, number in (("photographs", photographs), ("draws", draws)):
        check_option(number >= 1, name, number, "must be at least 1")
    least = 0 if checkpoint.config.training.warm_start else 1  # a warm start needs no step
    check_option(steps >= least, "steps", steps, f"must be at least {least}")
    check_option(seed >= 0, "seed", seed, "must not be negative")
    check_leakage(training, split)
    if int(kept.labels.max()) > len(split.seen) or checkpoint.seen != split.seen:
        raise DataError(
            f"calibrate: regions or checkpoint do not have the {len(split.seen)} seen classes of "
            f"split {split.name}; only those may take part."
        )
    scoring = checkpoint.config.model.scoring
    start = (scoring.similarity_temperature, 1.0)
    temperatures = (start[0], *(t for t in TEMPERATURES if t != start[0]))
    scales = (1.0, *(s for s in SCALES if s != 1.0))
    totals: dict[tuple[float, float], dict[str, float]] = {}
    sums: dict[tuple[float, float], Floats] = {}
    parts = []
    for draw in range(draws):
        pseudo = pseudo_split(training, split, seed + draw)
        found = _measure(
            checkpoint,
            kept,
            training,
            split,
            pseudo,
            temperatures,
            scales,
            photographs,
            steps,
            seed + draw,
        )
        for key, (values, f1) in found.pop("grid").items():
            total = totals.setdefault(key, dict.fromkeys(values, 0.0))
            for name, value in values.items():
                total[name] += value / draws
            sums[key] = sums.get(key, 0.0) + f1 / draws
        parts.append(found)
    for key, f1 in sums.items():
        totals[key] |= _peak(f1)
    # The start comes first and wins a tie.
    scale_of = {t: max(scales, key=lambda s: totals[t, s]["f1"]) for t in temperatures}
    temperature = max(temperatures, key=lambda t: totals[t, scale_of[t]]["hm"])
    best = (temperature, scale_of[temperature])
    return {
        "seen_scale": best[1],
        "similarity_temperature": best[0],
        "score_threshold": totals[best]["threshold"],
        "method": scoring.method,
        "number": NUMBER,
        "before": {"similarity_temperature": start[0], "seen_scale": 1.0, **totals[start]},
        "after": totals[best],
        "curve": [{"seen_scale": scale, **totals[best[0], scale]} for scale in sorted(scales)],
        "temperatures": {
            str(t): {"seen_scale": scale_of[t], **totals[t, scale_of[t]]}
            for t in sorted(temperatures)
        },
        "draws": parts,
        "options": {"photographs": photographs, "steps": steps, "seed": seed},
    }


def curve(
    scores: Sequence[np.ndarray[Any, np.dtype[np.float32]]],
    seen: int,
    scales: Sequence[float],
    measure: Any,
) -> dict[float, dict[str, float]]:
    """Numbers for each factor of the first ``seen`` columns of scores.

    They are the mAP of seen and unseen classes, their harmonic mean ``hm``, and the ``threshold``
    of :func:`zsd_core.learning.calibration.best_balance` with the ``f1`` it gives; in percent, but
    for it.

    ``measure`` turns scores into ``zsd_core.learning.matching.Matches``. A factor on final scores
    is what ``scoring.seen_scale`` is.
    """
    points = _points(scores, seen, scales, measure)
    return {scale: values | _peak(f1) for scale, (values, f1) in points.items()}


def _peak(f1: Floats) -> dict[str, float]:
    threshold, best = best_balance(f1)
    return {"threshold": threshold, "f1": 100 * best}


def _points(
    scores: Sequence[np.ndarray[Any, np.dtype[np.float32]]],
    seen: int,
    scales: Sequence[float],
    measure: Any,
) -> dict[float, tuple[dict[str, float], Floats]]:
    """The mAPs of ``curve``, and ``balanced_f1``, which several draws add up."""
    result = {}
    for scale in scales:
        factors = np.ones(scores[0].shape[1], np.float32)
        factors[:seen] = scale
        matches = measure([s * factors for s in scores])
        values = metrics.report(matches, samples=0)["values"][NUMBER]
        means = {name: values[name] or 0.0 for name in ("seen", "unseen", "hm")}
        result[scale] = means, balanced_f1(matches)
    return result


def _measure(
    checkpoint: Checkpoint,
    kept: Kept,
    training: Dataset,
    split: Split,
    pseudo: Split,
    temperatures: Sequence[float],
    scales: Sequence[float],
    photographs: int,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Train without the pseudo-unseen classes, and try every pair of numbers on held-out images."""
    config = dataclasses.replace(
        checkpoint.config, training=dataclasses.replace(checkpoint.config.training, seed=seed)
    )
    task = pseudo_task(checkpoint, kept, training, split, pseudo, photographs, seed)
    test, rows, vectors = task.test, task.rows, task.vectors
    model, _ = train_scoring(
        checkpoint,
        config,
        vectors,
        kept.features[rows],
        task.labels,
        seen=len(pseudo.seen),
        steps=steps,
    )
    found = describe_photographs(checkpoint.model, test)
    grid: dict[tuple[float, float], tuple[dict[str, float], Floats]] = {}
    for temperature in temperatures:
        scoring = dataclasses.replace(
            config.model.scoring, similarity_temperature=temperature, seen_scale=1.0
        )
        own = dataclasses.replace(config.model, scoring=scoring)
        scorer, classes = class_set_of(model, own, pseudo.classes, vectors, len(pseudo.seen))
        scores = score_photographs(model, scorer, classes, found)
        tried = _points(
            scores,
            len(pseudo.seen),
            scales,
            lambda s: matches_of(test, found, s, pseudo.classes, pseudo.seen, own),  # noqa: B023
        )
        grid |= {(temperature, scale): values for scale, values in tried.items()}
    return {
        "pseudo-unseen": list(pseudo.unseen),
        "held out": len(test),
        "regions": len(rows),
        "grid": grid,
    }


def calibrated(checkpoint: Checkpoint, result: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with the numbers in its configuration and their story in its training."""
    changed = with_scoring(
        checkpoint,
        seen_scale=result["seen_scale"],
        similarity_temperature=result["similarity_temperature"],
    )
    model = changed.config.model
    detection = dataclasses.replace(model.detection, score_threshold=result["score_threshold"])
    return dataclasses.replace(
        changed,
        config=dataclasses.replace(
            changed.config, model=dataclasses.replace(model, detection=detection)
        ),
        training={**checkpoint.training, "calibration": dict(result)},
    )


def with_scoring(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    """Return the checkpoint with other options of its scoring."""
    config = checkpoint.config
    scoring = dataclasses.replace(config.model.scoring, **changes)
    model = dataclasses.replace(config.model, scoring=scoring)
    return dataclasses.replace(checkpoint, config=dataclasses.replace(config, model=model))
