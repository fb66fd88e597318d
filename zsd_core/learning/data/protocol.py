"""The zero-shot protocol: which photographs and boxes train, which test, and no leak between.

Training sees no photograph with an unseen or unlisted object, so that an unseen object is never
learnt, not even as background. Boxes made by a machine have scores; those of unseen and unlisted
classes drop photographs and serve for nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np

from zsd_core.errors import ConfigError, DataError, did_you_mean
from zsd_core.learning.data.dataset import Dataset, ImageRecord
from zsd_core.learning.data.splits import Split
from zsd_core.semantics import fold_name

__all__ = ["Task", "check_leakage", "test_set", "training_set"]

Task = Literal["zsd", "gzsd", "seen"]
_UNLISTED = ""  # what a class on neither side is renamed to, for a moment


def training_set(
    dataset: Dataset, split: Split, *, drop_score: float = 0.0, keep_score: float = 0.0
) -> Dataset:
    """Apply the protocol filter.

    Args:
        dataset: human boxes (score 1) or machine-made ones.
        split: only its seen classes come out, under its spelling.
        drop_score: a photograph with an unseen or unlisted class of at least this score is
            dropped; 0 drops it for any such box.
        keep_score: seen boxes of at least this score are objects to learn. Weaker ones come out
            flagged ``ignore``, so that nothing learns them as background either.

    Returns:
        Photographs with at least one object to learn; ``counts`` says what went.

    Raises:
        ConfigError: a threshold outside [0, 1].
        DataError: nothing is left, or the split names a class that the data does not declare.
    """
    for name, value in (("drop_score", drop_score), ("keep_score", keep_score)):
        if not 0 <= value <= 1:
            raise ConfigError(f"training_set: {name} is {value}, must lie in [0, 1].")
    counts, kept = Counter(dataset.counts), []
    for image in _respelled(dataset, split):
        strong = {n for n, s in zip(image.labels, image.scores, strict=True) if s >= drop_score}
        if not strong <= set(split.seen):
            held = strong.isdisjoint(split.unseen)
            counts["images dropped, " + ("unlisted class" if held else "unseen class")] += 1
            continue
        seen = np.array([name in split.seen for name in image.labels], dtype=bool)
        counts["boxes of other classes removed"] += int((~seen).sum())
        image = image.select(seen)
        image = replace(image, ignore=image.ignore | (image.scores < keep_score))
        if image.ignore.all():
            counts["images dropped, no object to learn"] += 1
            continue
        counts["boxes ignored"] += int(image.ignore.sum())
        kept.append(image)
    counts["images"] = len(kept)
    counts["boxes"] = sum(int((~image.ignore).sum()) for image in kept)
    result = Dataset(images=tuple(kept), categories=split.seen, counts=dict(counts))
    if not kept:
        raise DataError(f"training_set: split {split.name} leaves no image of {len(dataset)}.")
    check_leakage(result, split)
    return result


def test_set(dataset: Dataset, split: Split, task: Task) -> Dataset:
    """Choose the photographs and the ground truth of one test.

    ``"zsd"``: photographs with an unseen object, and with no seen one besides if the split says
    ``zsd_images: only_unseen``; the truth is their unseen boxes. ``"gzsd"``: photographs with an
    unseen object; the truth is all boxes of the split's classes. ``"seen"``: photographs with a
    seen and no unseen object; the truth is their seen boxes. Unlisted classes are in no truth. An
    ignored (crowd, difficult) box does not make a photograph one "with an unseen object", and
    stays in the truth as ignored.

    Raises:
        ConfigError: no such task.
        DataError: no photograph is left, or the split names a class the data does not declare.
    """
    wanted = {"zsd": split.unseen, "gzsd": split.classes, "seen": split.seen}
    if task not in wanted:
        raise ConfigError(f"test_set: task is {task!r}, must be 'zsd', 'gzsd' or 'seen'.")
    counts, kept = Counter(dataset.counts), []
    for image in _respelled(dataset, split):
        names = {n for n, ignored in zip(image.labels, image.ignore, strict=True) if not ignored}
        unseen, seen = names & set(split.unseen), names & set(split.seen)
        if task == "seen":
            chosen = bool(seen) and set(image.labels).isdisjoint(split.unseen)
        elif task == "zsd" and split.zsd_images == "only_unseen":
            chosen = bool(unseen) and set(image.labels).isdisjoint(split.seen)
        else:
            chosen = bool(unseen)
        if chosen:
            kept.append(image.select([name in wanted[task] for name in image.labels]))
    counts["images"] = len(kept)
    counts["boxes"] = sum(int((~image.ignore).sum()) for image in kept)
    counts["boxes ignored"] = sum(int(image.ignore.sum()) for image in kept)
    if not kept:
        raise DataError(f"test_set: no image of {len(dataset)} suits {task!r} of {split.name}.")
    return Dataset(images=tuple(kept), categories=wanted[task], counts=dict(counts))


test_set.__test__ = False  # type: ignore[attr-defined]  # pytest: a function, not a test


def check_leakage(training: Dataset, split: Split, held_out: Dataset | None = None) -> None:
    """Prove that training images carry seen classes only, and none is a test image.

    Raises:
        DataError: with how many leaks there are and where the first is.
    """
    allowed, leaks = set(split.seen), Counter[str]()
    first = ""
    for image in training.images:
        for name in image.labels:
            if name not in allowed:
                first = first or f"{name!r} in {image.path}"
                leaks["unseen" if name in split.unseen else "unlisted"] += 1
    if leaks:
        found = " and ".join(f"{n} boxes of {kind} classes" for kind, n in sorted(leaks.items()))
        raise DataError(
            f"leakage: the training data of split {split.name} holds {found}, first {first}; "
            "build it with training_set()."
        )
    if held_out is not None:
        shared = {i.path.resolve() for i in training.images} & {
            i.path.resolve() for i in held_out.images
        }
        if shared:
            raise DataError(
                f"leakage: {len(shared)} images are in the training and the test data, first "
                f"{min(shared)}."
            )


def _respelled(dataset: Dataset, split: Split) -> list[ImageRecord]:
    """Images with labels in the split's spelling, "" for a class it does not list."""
    spellings = split.spellings()
    declared = {spellings.get(fold_name(name)) for name in dataset.categories}
    for name in split.classes:
        if dataset.categories and name not in declared:
            raise DataError(
                f"split {split.name} names class {name!r}, which the data does not declare"
                f"{did_you_mean(name, dataset.categories)}"
            )
    return [
        replace(
            image,
            labels=tuple(spellings.get(fold_name(name), _UNLISTED) for name in image.labels),
        )
        for image in dataset.images
    ]
