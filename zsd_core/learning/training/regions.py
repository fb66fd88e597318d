"""Kept regions: the file that holds their features, and batches of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from zsd_core.errors import DataError
from zsd_core.learning.checkpoint import whole_output
from zsd_core.learning.experiment import TrainingConfig

__all__ = ["Columns", "class_weights", "link_regions", "read_regions", "region_batches"]

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def read_regions(path: Path) -> tuple[str, Columns]:
    """Read kept regions; they stay on disk until they are used.

    Returns:
        What names the proposals and data they come from; and of each region f ``(R, F)`` float16,
        the bins ``(R, B)`` float16 of the regressor, the label ``(R,)`` from 1, 0 is background,
        the offsets ``(R, 4)`` of eq. 5, and the photograph ``(R,)`` as an epoch counts them.

    Raises:
        DataError: no such file, or another kind.
    """
    try:
        kept = torch.load(path, weights_only=True, mmap=True)
        f, bins, labels, offsets, owners = kept["columns"]
        return str(kept["fingerprint"]), (f, bins, labels, offsets, owners)
    except Exception as error:  # torch raises many kinds for a damaged file
        problem = (
            "does not hold kept regions, or those of an older version; delete it"
            if path.is_file()
            else "is not there"
        )
        raise DataError(
            f"{path} {problem}; training with training.cache: regions writes regions.pt."
        ) from error


def link_regions(source: Path, target: Path) -> None:
    """Give ``target`` the content of ``source``, without its size on disk where that can be.

    Raises:
        ConfigError: it cannot be written.
    """
    with whole_output(target) as aside:
        try:
            os.link(source, aside)
        except OSError:  # another disk
            shutil.copyfile(source, aside)


def region_batches(labels: Tensor, training: TrainingConfig, epoch: int) -> Iterator[Tensor]:
    """Batches of indices of kept regions with labels ``(R,)``, for one epoch."""
    generator = torch.Generator().manual_seed(training.seed * 100_003 + epoch)
    if training.balance:
        weights = class_weights(labels, training.balance, training.foreground)
        order = torch.multinomial(weights, len(labels), replacement=True, generator=generator)
    else:
        order = torch.randperm(len(labels), generator=generator)
    yield from order.split(training.head_batch)


def class_weights(labels: Tensor, balance: float, foreground: float) -> Tensor:
    """Weight ``(R,)`` of every region, so that objects have ``foreground`` of the sum.

    Within the objects, a class of n regions weighs n ** (1 - balance); labels ``(R,)``, 0 is
    background.
    """
    counts = torch.bincount(labels).double()
    weights = counts[labels] ** -balance
    objects = labels > 0
    for part, share in ((objects, foreground), (~objects, 1 - foreground)):
        weights[part] *= share / weights[part].sum().clamp(min=1e-12)
    return weights
