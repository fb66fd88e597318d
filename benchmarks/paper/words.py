"""Names with a photograph and no box, as further classes of a training: DSES's dense space.

The region of a photograph is the one that the proposal network likes best.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.paper.described import described
from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import Dataset, ImageRecord, image_record
from zsd_core.learning.data.photographs import read_photograph
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.vectors import load_vectors

__all__ = ["Words", "load_words"]


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Regions and vectors of W names.

    Attributes:
        features: ``(W, F)`` float16, f of each name's region.
        vectors: ``(W, E)``.
    """

    features: Tensor
    vectors: NDArray[np.float32]

    def beside(
        self, features: Tensor, labels: Tensor, vectors: NDArray[np.float32], seen: int
    ) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
        """Regions ``(R, F)``, labels and class vectors with the names behind the seen classes."""
        own = torch.arange(1 + seen, 1 + seen + len(self.features))
        return (
            torch.cat([features, self.features]),
            torch.cat([labels, own]),
            np.concatenate([vectors[:seen], self.vectors, vectors[seen:]]),
        )


def load_words(
    model: ContrastZSD, listed: Path, folder: Path, source: str, work: Path, threads: int = 1
) -> Words:
    """Describe the photograph of every name.

    Args:
        model: whose trunk and region stage describe them.
        listed: what ``scripts.vocabulary.others`` wrote.
        folder: of the photographs.
        source: of the names' vectors, the encoder of the class vectors.
        work: folder of kept regions.
        threads: of a network.

    Raises:
        DataError: ``listed`` is something else, or a photograph is missing.
    """
    try:
        entries = json.loads(listed.read_text(encoding="utf-8"))
        names = [str(entry["name"]) for entry in entries]
        paths = [folder / entry["file"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {listed} ({error!r}); pass what scripts.vocabulary.others wrote."
        ) from error
    best = copy.copy(model)
    one = dataclasses.replace(model.config.proposals, post_nms_top=1)
    best.config = dataclasses.replace(model.config, proposals=one)
    found = described(best, Dataset(images=tuple(map(_record, paths))), work, threads)
    rows = [i for i, regions in enumerate(found) if len(regions.rois)]
    features = np.concatenate([found[i].embeddings for i in rows]).astype(np.float16)
    vectors = load_vectors(source, [names[i] for i in rows]).vectors
    return Words(torch.from_numpy(features), vectors)


def _record(path: Path) -> ImageRecord:
    """A photograph without boxes."""
    height, width = read_photograph(path).shape[:2]
    return image_record(
        where=str(path), path=path, id=path.name, width=width, height=height, boxes=[], labels=[]
    )
