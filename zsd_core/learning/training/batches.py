"""Training images as network inputs and targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zsd_core import kernels
from zsd_core.config import PreprocessConfig
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.experiment import TrainingConfig
from zsd_core.learning.objective import Target

__all__ = ["TrainingImages", "collate", "shown"]


class TrainingImages(Dataset[tuple[Tensor, Target]]):
    """Augmented training images; the same seed, epoch and index give the same augmentation.

    Args:
        records: images of the training protocol, with boxes of seen classes only.
        seen: the seen classes in order; class i has label i + 1.
        preprocess: how an image becomes network input.
        training: seed and augmentations.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        seen: Sequence[str],
        preprocess: PreprocessConfig,
        training: TrainingConfig,
    ) -> None:
        self.records = [records[index] for index in shown(records, training)]
        self.preprocess, self.training = preprocess, training
        self.labels = {name: index for index, name in enumerate(seen, start=1)}
        self.epoch = 0

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Image ``(3, H, W)`` of the current epoch, and its target."""
        record, rng = (
            self.records[index],
            np.random.default_rng((self.training.seed, self.epoch, index)),
        )
        image = read_image(record)
        flip = self.training.flip and bool((index + self.epoch) % 2)
        stretch = rng.choice(self.training.stretch)
        height, width = image.shape[:2]
        config = self._preprocess(rng)
        size = config.resized(height, max(1, round(width * stretch)))
        pixels = kernels.preprocess(
            np.ascontiguousarray(image[:, ::-1]) if flip else image,
            size=size,
            padded=config.padded(*size),
            mean=config.mean,
            std=config.std,
        )
        boxes = record.boxes * np.array([size[1] / width, size[0] / height] * 2, np.float32)
        if flip:
            boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        learned = ~record.ignore
        labels = [self.labels[name] for name in np.asarray(record.labels, object)[learned]]
        return torch.from_numpy(pixels), Target(
            torch.from_numpy(boxes[learned]),
            torch.tensor(labels, dtype=torch.long),
            torch.from_numpy(boxes[record.ignore]),
            size,
            machine=bool((record.scores < 1).any()),
        )

    def _preprocess(self, rng: np.random.Generator) -> PreprocessConfig:
        if not self.training.edges:
            return self.preprocess
        edge = int(rng.choice(self.training.edges))
        longer = max(edge, self.preprocess.longer_edge)
        return dataclasses.replace(self.preprocess, shorter_edge=edge, longer_edge=longer)


def shown(records: Sequence[ImageRecord], training: TrainingConfig) -> list[int]:
    """Indices of the photographs of an epoch: those whose boxes are all human may come again."""
    human = [index for index, record in enumerate(records) if (record.scores == 1).all()]
    return [*range(len(records)), *human * (training.human_repeats - 1)]


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Pad images to the largest of the batch, ``(N, 3, H, W)``; targets stay a list."""
    height = max(image.shape[1] for image, _ in samples)
    width = max(image.shape[2] for image, _ in samples)
    batch = torch.zeros(len(samples), 3, height, width)
    for row, (image, _) in zip(batch, samples, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, [target for _, target in samples]
