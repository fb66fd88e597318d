"""Read the annotation files that a configuration names, whatever their format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.dataset import Dataset, join
from zsd_core.learning.data.protocol import training_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.data.subsets import select
from zsd_core.learning.data.voc import read_voc
from zsd_core.learning.experiment import DataConfig

__all__ = ["read_dataset", "read_training_set"]


def read_dataset(
    format: Literal["coco", "voc"],
    annotations: Sequence[str],
    images: Sequence[str],
    subset: str = "",
) -> Dataset:
    """Read annotation files, one per image folder, and put them one after another.

    Args:
        format: "coco" (JSON of boxes) or "voc" (image sets).
        annotations: JSON files, or ``ImageSets/Main/*.txt``.
        images: the folder of each annotation file's photographs; a single one serves all.
        subset: "train", "validation" or "test", see ``subsets``; "" is all of them.

    Raises:
        ConfigError: no such subset.
        DataError: no annotation file, not one folder for each, or what a reader refuses.
    """
    folders = list(images) * len(annotations) if len(images) == 1 else list(images)
    if not annotations or len(folders) != len(annotations):
        raise DataError(
            f"{len(annotations)} annotation files and {len(images)} image folders were given; "
            "give at least one annotation file, and one image folder for each or one for all."
        )
    pairs = list(zip(annotations, folders, strict=True))
    reader = read_voc if format == "voc" else read_coco
    dataset = join([reader(notes, at) for notes, at in pairs])
    return select(dataset, subset) if subset else dataset


def read_training_set(config: DataConfig, split: Split) -> Dataset:
    """The photographs and boxes that an experiment trains on, filtered by the protocol.

    Raises:
        ConfigError: no annotations or no images are named, or as ``training_set``.
        DataError: as ``read_dataset`` and ``training_set``.
    """
    for name, paths in (("annotations", config.annotations), ("images", config.images)):
        if not paths:
            raise ConfigError(
                f"data.{name} is empty; give 'data.annotations=[instances.json]' and "
                "'data.images=[photographs]'."
            )
    return training_set(
        read_dataset(config.format, config.annotations, config.images, config.subset),
        split,
        drop_score=config.drop_score,
        keep_score=config.keep_score,
    )
