"""Checkpoints: a model with its configuration, class table and provenance, in one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, DataError
from zsd_core.folders import written_whole
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.options import from_mapping

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "save_whole", "whole_output"]

FORMAT = 1
FIELDS: dict[str, type] = {
    "format": int,
    "config": dict,
    "model": dict,
    "seen": list,
    "unseen": list,
    "vectors": torch.Tensor,
    "training": dict,
    "state": dict,
}
RANDOM = (torch.Tensor.normal_, torch.Tensor.uniform_)  # what functions of nn.init end in


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
        state: what resuming needs, which ``zsd_core.learning.training.position`` reads.
    """

    config: Config
    model: ContrastZSD
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    vectors: NDArray[np.float32]
    training: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint; an older file of that name is replaced only once the new one is whole.

    Raises:
        ConfigError: it cannot be written; the older file is as it was.
    """
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
    """``torch.save`` under another name first, so that ``path`` is never half written.

    Raises:
        ConfigError: it cannot be written; the older file is as it was.
    """
    with whole_output(path) as aside:
        torch.save(values, aside)


@contextmanager
def whole_output(path: Path) -> Iterator[Path]:
    """``written_whole`` of a file in the folder of a run, whose failure is a sentence.

    Raises:
        ConfigError: it cannot be written; the older file is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as aside:
            yield aside
    except (OSError, RuntimeError) as error:  # on a full disk, torch's zip is a RuntimeError
        why = getattr(error, "strerror", None) or "is the disk full?"
        raise ConfigError(
            f"{path} cannot be written ({why}); make room, or choose another "
            "--output. What was there before is whole."
        ) from error


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
    if isinstance(values["format"], int) and values["format"] > FORMAT:
        raise DataError(
            f"{path} has format {values['format']}, this version reads up to {FORMAT}; "
            "upgrade contrastzsd."
        )
    for key, kind in FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise DataError(f"{path} is damaged: {key!r} is missing or not a {kind.__name__}.")
    config = from_mapping(Config, values["config"], str(path))
    names, vectors = (*values["seen"], *values["unseen"]), values["vectors"]
    wanted = (len(names), config.model.scoring.vector_dim)
    if not all(isinstance(name, str) for name in names) or tuple(vectors.shape) != wanted:
        raise DataError(
            f"{path} is damaged: vectors of shape {tuple(vectors.shape)} for {len(names)} names, "
            f"must be {wanted}."
        )
    if not (vectors.dtype == torch.float32 and bool(torch.isfinite(vectors).all())):
        raise DataError(f"{path} is damaged: its class vectors are not finite float32 numbers.")
    model = _model(config.model, values["model"], vectors, len(values["seen"]), str(path))
    return Checkpoint(
        config=config,
        model=model,
        seen=tuple(values["seen"]),
        unseen=tuple(values["unseen"]),
        vectors=vectors.numpy(),
        training=values["training"],
        state=values["state"],
    )


class _NoStart(TorchFunctionMode):
    """Skips the random start of new weights, which those of the file replace."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in RANDOM or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@lru_cache(maxsize=4)
def _shapes(config: ModelConfig) -> Mapping[str, torch.Size]:
    """Shapes of a model's weights, without their memory: a file may ask for any."""
    with torch.device("meta"), _NoStart():
        return {name: value.shape for name, value in ContrastZSD(config).state_dict().items()}


def _model(
    config: ModelConfig, state: Mapping[str, Any], vectors: torch.Tensor, seen: int, path: str
) -> ContrastZSD:
    """Make the model and give it its weights, once their sizes agree with the configuration.

    Raises:
        DataError: they do not.
    """
    # The checkpoint holds the backbone's weights.
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights=""))
    wanted = _shapes(config)
    found = {name: getattr(value, "shape", None) for name, value in state.items()}
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        raise DataError(
            f"{path} is damaged: its weights do not fit its configuration, first {other[0]}, of "
            f"shape {found.get(other[0])}, must be {tuple(wanted[other[0]])}."
        )
    with _NoStart(), torch.random.fork_rng(devices=[]):
        model = ContrastZSD(config)
        model.scorer.read_classes(vectors[:seen], vectors[seen:])
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:  # names or types that do not fit
        raise DataError(f"{path} is damaged: its weights do not fit: {error}") from error
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"{path} is damaged: {name} holds numbers that are not finite.")
    return model.eval()
