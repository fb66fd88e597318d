"""Checkpoints: a model with its configuration, class table and provenance, in one file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zsd_core.config import from_mapping
from zsd_core.errors import DataError
from zsd_core.experiment import Config
from zsd_core.models import ContrastZSD

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "save_whole"]

FORMAT = 1


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """A trained, or half trained, detector.

    Attributes:
        config: the whole experiment.
        model: in evaluation mode, on the CPU, when loaded.
        seen: names of the seen classes, in label order.
        unseen: names of the unseen classes.
        vectors: ``(Ks + U, E)`` float32 unit rows, seen then unseen.
        training: provenance: data counts, vectors, versions, times.
        state: what resuming needs (``zsd_core.training.loop.Position`` and random states).
    """

    config: Config
    model: ContrastZSD
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    vectors: NDArray[np.float32]
    training: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint; an older file of that name is replaced only once the new one is whole."""
    save_whole(
        {
            "format": FORMAT,
            "config": dataclasses.asdict(checkpoint.config),
            "model": checkpoint.model.state_dict(),
            "seen": list(checkpoint.seen),
            "unseen": list(checkpoint.unseen),
            "vectors": torch.from_numpy(np.ascontiguousarray(checkpoint.vectors)),
            "training": checkpoint.training,
            "state": checkpoint.state,
        },
        Path(path),
    )


def save_whole(values: Mapping[str, Any], path: Path) -> None:
    """``torch.save`` under another name first, so that ``path`` is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(values, partial)
    os.replace(partial, path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        DataError: the file is missing, is no checkpoint of this project or of a newer format.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot read checkpoint {path}: {error.strerror or error}.") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path} is not a checkpoint of this project, or is damaged; train writes last.pt."
        ) from error
    if not isinstance(values, dict) or "format" not in values:
        raise DataError(f"{path} is not a checkpoint of this project; train writes last.pt.")
    if values["format"] > FORMAT:
        raise DataError(
            f"{path} has format {values['format']}, this version reads up to {FORMAT}; "
            "upgrade contrastzsd."
        )
    config = from_mapping(Config, values["config"], str(path))
    unloaded = dataclasses.replace(
        config.model, backbone=dataclasses.replace(config.model.backbone, weights="")
    )
    model = ContrastZSD(unloaded)  # the checkpoint holds the backbone's weights
    seen = len(values["seen"])
    model.scorer.read_classes(values["vectors"][:seen], values["vectors"][seen:])
    model.load_state_dict(values["model"])
    return Checkpoint(
        config=config, model=model.eval(), seen=tuple(values["seen"]),
        unseen=tuple(values["unseen"]), vectors=values["vectors"].numpy(),
        training=values["training"], state=values["state"],
    )  # fmt: skip
