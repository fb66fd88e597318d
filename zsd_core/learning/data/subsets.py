"""Test, validation and training photographs of one data set, by a hash of their ids.

Photographs are ordered by the SHA-256 of their id, written in decimal: the first 300 are the test
set, the next 200 the validation set, the rest may train. Nobody chose them, anybody can find them
again, and the order in a file does not matter. They depend on the set of ids: leave none out before
they are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

from zsd_core.errors import ConfigError, DataError, did_you_mean
from zsd_core.files import shown
from zsd_core.learning.data.dataset import Dataset

__all__ = ["SUBSETS", "TEST", "VALIDATION", "Subset", "draw", "select"]

Subset = Literal["train", "validation", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
TEST, VALIDATION = 300, 200  # photographs


def draw(ids: Sequence[int | str]) -> dict[int | str, Subset]:
    """The subset of every id, in the order of the hash.

    Raises:
        DataError: an id stands there twice or is no text, or nothing would be left to train on.
    """
    if len(set(map(str, ids))) != len(ids):
        raise DataError(
            "subsets: an image id stands there twice, so its hash would not decide; draw them of "
            "one annotation file at a time."
        )
    if len(ids) <= TEST + VALIDATION:
        raise DataError(
            f"subsets: {len(ids)} photographs are not enough: {TEST} are for the test and "
            f"{VALIDATION} for validation. Leave the subset out to use all of them."
        )
    try:
        ordered = sorted(ids, key=lambda key: hashlib.sha256(str(key).encode()).digest())
    except UnicodeEncodeError as error:
        raise DataError(
            f"subsets: the image id {shown(error.object)} holds half of a character, so it has no "
            "hash; give the photograph another id."
        ) from error
    return {
        key: "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"
        for place, key in enumerate(ordered)
    }


def select(dataset: Dataset, subset: str) -> Dataset:
    """The photographs of one subset, in the order of the data set.

    Args:
        dataset: all photographs that were annotated, before any filter.
        subset: "train", "validation" or "test".

    Raises:
        ConfigError: no such subset.
        DataError: as ``draw``.
    """
    if subset not in SUBSETS:
        raise ConfigError(
            f"subset is {subset!r}, must be 'train', 'validation' or 'test'"
            f"{did_you_mean(subset, SUBSETS)}"
        )
    belongs = draw([image.id for image in dataset.images])
    images = tuple(image for image in dataset.images if belongs[image.id] == subset)
    counts = {**dataset.counts, f"images of the subset {subset}": len(images)}
    return Dataset(images=images, categories=dataset.categories, counts=counts)
