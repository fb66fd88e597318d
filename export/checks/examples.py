"""Names against examples: how well a class is found by its name alone and from k examples."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import Detector, Example
from runtime.backends import open_backend
from runtime.bundle import Bundle
from runtime.examples import with_examples
from zsd_core.commands import Progress
from zsd_core.errors import ConfigError, DataError
from zsd_core.files import shown
from zsd_core.learning.data.dataset import Dataset, ImageRecord
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.matching import Prediction, match
from zsd_core.learning.metrics import measure
from zsd_core.scoring import scorer_for
from zsd_core.semantics import fold_name

__all__ = ["Draw", "average_precision", "boxed", "draws", "embed", "pictures"]

LIMIT = 100  # detections of a photograph that count
SMALLEST = 48.0  # pixels of the shorter edge of an example: people point at what they can see


@dataclass(frozen=True, slots=True)
class Draw:
    """Examples of one class, drawn at random.

    Attributes:
        count: of examples.
        repeat: number of the draw.
        places: positions of the examples in the list that was drawn from.
    """

    count: int
    repeat: int
    places: tuple[int, ...]

    def label(self, name: str) -> str:
        """Name of the class in a detector."""
        return f"{name} from {self.count}, draw {self.repeat}"


def draws(available: int, counts: Sequence[int], repeats: int, seed: int) -> list[Draw]:
    """Draw every number of examples several times, without replacement within a draw.

    Raises:
        DataError: there are not more candidates than the largest count.
    """
    if max(counts) >= available:
        raise DataError(
            f"evaluate_examples: {available} candidates for {max(counts)} examples; at least one "
            "must be left to be found."
        )
    rng = np.random.default_rng(seed)
    return [
        Draw(count, repeat, tuple(map(int, rng.choice(available, count, replace=False))))
        for count in counts
        for repeat in range(repeats)
    ]


def average_precision(scores: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Mean of the precision at every right one, by falling score; of equal scores wrong ones first.

    Args:
        scores: ``(n,)``.
        right: ``(n,)``, at least one.
    """
    hits = right[np.lexsort((right, -np.asarray(scores)))]
    places = np.flatnonzero(hits) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def embed(
    bundle: Bundle, examples: Sequence[Example], backend: str = "auto", threads: int | None = None
) -> NDArray[np.float32]:
    """Embeddings ``(n, V)`` of examples, each once; the mean of several rows is a class of them.

    Raises:
        ConfigError: the bundle cannot learn from examples.
    """
    config = bundle.model_config
    scorer = scorer_for(config.scoring, bundle.scorer_tensors())
    with closing(open_backend(backend, bundle, threads)) as networks:
        rows = with_examples(
            {f"example {i}": example for i, example in enumerate(examples)},
            networks,
            config,
            scorer,
        )
    return np.stack(list(rows.values()))


def boxed(
    bundle: Bundle,
    dataset: Dataset,
    name: str,
    *,
    counts: Sequence[int] = (1, 3, 10),
    repeats: int = 5,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """AP at IoU 0.5 of a class among the bundle's seen classes, by its name and from examples.

    All classes are asked for in one pass. A class from examples competes with the seen classes
    only, as the name does: for every draw the best 100 detections of both together are kept.

    Args:
        bundle: whose detector; its scores of one class must not depend on the other classes.
        dataset: photographs with boxes of this class alone.
        name: of the class; a name in the annotations counts as this one.
        counts: numbers of examples.
        repeats: draws of each number.
        seed: of the draws.
        **options: of ``Detector``: backend, threads.

    Returns:
        JSON values, see ``_summary``.

    Raises:
        ConfigError: the bundle cannot learn from examples.
        DataError: there are too few photographs, or boxes of several classes.
    """
    if fold_name(name) in map(fold_name, bundle.seen):
        raise ConfigError(f"evaluate_examples: {name!r} is a seen class of {bundle.path}.")
    records, chosen = dataset.images, _candidates(dataset)
    labels = sorted({fold_name(label) for record in records for label in record.labels})
    if len(labels) > 1:
        raise DataError(
            f"evaluate_examples: the annotations have boxes of {len(labels)} classes "
            f"({', '.join(map(shown, labels[:3]))}{', ...' if len(labels) > 3 else ''}), but every "
            f"box would count as {shown(name)}; keep those of that class alone."
        )
    drawn = draws(len(chosen), counts, repeats, seed)
    pointed = [Example(read_image(records[i]), records[i].boxes[row].tolist()) for i, row in chosen]
    vectors = embed(bundle, pointed, **options)
    examples = {draw.label(name): vectors[list(draw.places)].mean(axis=0) for draw in drawn}
    wanted = dict.fromkeys([*bundle.seen, name]) | examples
    regions = bundle.model_config.proposals.post_nms_top
    detector = Detector(
        bundle,
        classes=wanted,
        score_threshold=0.0,
        max_detections=LIMIT + regions * (1 + len(drawn)),  # nothing that may count is cut off
        **options,
    )
    found = []
    with detector, Progress("photographs", len(records)) as progress:
        for record in records:
            seen = detector(read_image(record))
            found.append((seen.boxes, seen.scores, np.asarray(seen.class_ids, np.int64)))
            progress.advance()

    def precision(column: int, left: Sequence[int]) -> float:
        return _ap([records[i] for i in left], [found[i] for i in left], column, len(bundle.seen))

    everything, by_name = range(len(records)), len(bundle.seen)
    pairs = {}
    for index, draw in enumerate(drawn):
        used = {chosen[place][0] for place in draw.places}
        left = [i for i in everything if i not in used]
        pairs[draw] = precision(by_name, left), precision(by_name + 1 + index, left)
    return {
        "name": name,
        "photographs": len(records),
        "boxes": sum(int((~record.ignore).sum()) for record in records),
        "classes": len(bundle.seen) + 1,
        "metric": "AP at IoU 0.5, area under the precision envelope",
        "name alone": 100 * precision(by_name, everything),
        "draws": _summary(pairs),
    }


def _candidates(dataset: Dataset) -> list[tuple[int, int]]:
    """One box of each photograph that has a large one: image and row of its largest."""
    chosen = []
    for index, record in enumerate(dataset.images):
        edges = np.where(record.ignore, 0, (record.boxes[:, 2:] - record.boxes[:, :2]).min(axis=1))
        if edges.max(initial=0) >= SMALLEST:
            chosen.append((index, int(edges.argmax())))
    return chosen


def _ap(
    records: Sequence[ImageRecord], found: Sequence[tuple[Any, ...]], column: int, seen: int
) -> float:
    """AP of one column of the detections, among the seen classes."""
    predictions: list[Prediction] = []
    truths = []
    for record, (boxes, scores, columns) in zip(records, found, strict=True):
        kept = (columns < seen) | (columns == column)
        predictions.append((boxes[kept], scores[kept], np.minimum(columns[kept], seen)))
        truths.append(dataclasses.replace(record, labels=("asked",) * len(record.labels)))
    classes = [*map(str, range(seen)), "asked"]
    matches = match(truths, predictions, classes, classes[:-1], thresholds=(0.5,), limit=LIMIT)
    return float(measure(matches, kinds=("area",))["area"][0, seen])


def pictures(
    bundle: Bundle,
    files: Sequence[Path],
    labels: Sequence[str],
    held_out: Sequence[str],
    *,
    counts: Sequence[int] = (1, 3, 9),
    repeats: int = 5,
    seed: int = 0,
    others: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Average precision with which held-out names rank pictures, by name and from examples.

    The score of a picture is the score of its best detection. Whole pictures are examples: nobody
    drew boxes.

    Args:
        bundle: whose detector.
        files: pictures.
        labels: the name of each.
        held_out: names that taught the bundle nothing; each counts once.
        counts: numbers of examples.
        repeats: draws of each number, for every name.
        seed: of the draws.
        others: most pictures of other names, chosen by a hash of the file's name; None: all.
        **options: of ``Detector``: backend, threads.

    Returns:
        JSON values: the means over names, and every name's own.

    Raises:
        ConfigError: the bundle cannot learn from examples.
        DataError: there is no name, or a name has too few pictures.
    """
    if not held_out:
        raise DataError("evaluate_examples: the list of held-out names is empty; name one a line.")
    once: dict[str, str] = {}
    for name in held_out:
        once.setdefault(fold_name(name), name)
    wanted, held_out = set(once), list(once.values())
    folded = [fold_name(label) for label in labels]
    rest = [i for i, label in enumerate(folded) if label not in wanted]
    rest = sorted(rest, key=lambda i: hashlib.sha256(files[i].name.encode()).digest())[:others]
    pool = [i for i, label in enumerate(folded) if label in wanted] + sorted(rest)
    own = {n: [p for p, i in enumerate(pool) if folded[i] == fold_name(n)] for n in held_out}
    drawn = {
        name: draws(len(own[name]), counts, repeats, seed + index)
        for index, name in enumerate(held_out)
    }
    every = [place for name in held_out for place in own[name]]
    rows = iter(embed(bundle, [Example(files[pool[place]]) for place in every], **options))
    vectors = {name: np.stack([next(rows) for _ in own[name]]) for name in held_out}
    examples = {
        draw.label(name): vectors[name][list(draw.places)].mean(axis=0)
        for name in held_out
        for draw in drawn[name]
    }
    regions = bundle.model_config.proposals.post_nms_top
    asked: Mapping[str, Any] = dict.fromkeys(held_out) | examples
    detector = Detector(
        bundle,
        classes=asked,
        score_threshold=0.0,
        max_detections=regions * len(asked),
        **options,
    )
    scores = np.zeros((len(pool), len(asked)))
    with detector, Progress("pictures", len(pool)) as progress:
        for row, index in enumerate(pool):
            found = detector(files[index])
            np.maximum.at(scores[row], np.asarray(found.class_ids, np.int64), found.scores)
            progress.advance()
    columns = {label: column for column, label in enumerate(asked)}
    result: dict[str, dict[str, Any]] = {}
    for name in held_out:
        right = np.zeros(len(pool), bool)
        right[own[name]] = True
        pairs = {}
        for draw in drawn[name]:
            left = np.ones(len(pool), bool)
            left[[own[name][place] for place in draw.places]] = False
            pairs[draw] = tuple(
                average_precision(scores[left, columns[column]], right[left])
                for column in (name, draw.label(name))
            )
        result[name] = {
            "pictures": len(own[name]),
            "name alone": 100 * average_precision(scores[:, columns[name]], right),
            "draws": _summary(pairs),
        }
    return {
        "names": len(held_out),
        "pictures": len(pool),
        "of other names": len(rest),
        "metric": "average precision of the ranking by the best detection, mean over names",
        "name alone": float(np.mean([entry["name alone"] for entry in result.values()])),
        "draws": _over_names([entry["draws"] for entry in result.values()]),
        "per name": result,
    }


def _summary(pairs: Mapping[Draw, tuple[float, ...]]) -> list[dict[str, Any]]:
    """For every number of examples: percent of each draw, by name and from examples."""
    summary = []
    for count in sorted({draw.count for draw in pairs}):
        both = 100 * np.array([pair for draw, pair in pairs.items() if draw.count == count])
        summary.append(
            {
                "examples": count,
                "name alone, same photographs": float(both[:, 0].mean()),
                "mean": float(both[:, 1].mean()),
                "deviation": float(both[:, 1].std(ddof=1)) if len(both) > 1 else 0.0,
                "of each draw": both[:, 1].round(2).tolist(),
            }
        )
    return summary


def _over_names(entries: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means over names, and over the draws the deviation of the mean over names."""
    summary = []
    for parts in zip(*entries, strict=True):
        each = np.mean([part["of each draw"] for part in parts], axis=0)
        summary.append(
            {
                "examples": parts[0]["examples"],
                "name alone, same photographs": float(
                    np.mean([part["name alone, same photographs"] for part in parts])
                ),
                "mean": float(each.mean()),
                "deviation": float(each.std(ddof=1)) if len(each) > 1 else 0.0,
                "of each draw": each.round(2).tolist(),
            }
        )
    return summary
