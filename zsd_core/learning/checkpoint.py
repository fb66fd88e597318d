"""Checkpoints: a model with its configuration, class table and provenance, in one file."""

from __future__ import annotations

import dataclasses
import zipfile
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
from zsd_core.files import shown
from zsd_core.folders import written_whole
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.options import from_mapping
from zsd_core.semantics import fold_name

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
Form = tuple[tuple[int, ...], torch.dtype]  # shape and type of a tensor
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
    values = _load(Path(path))
    if not isinstance(values, dict) or "format" not in values:
        raise DataError(f"{path} is not a checkpoint of this project; train writes last.pt.")
    if isinstance(values["format"], int) and values["format"] > FORMAT:
        raise DataError(
            f"{path} has format {shown(values['format'])}, this version reads up to {FORMAT}; "
            "upgrade contrastzsd."
        )
    for key, kind in FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise DataError(f"{path} is damaged: {key!r} is missing or not a {kind.__name__}.")
    config = from_mapping(Config, values["config"], str(path))
    _check_tensors(Path(path), {"vectors": values["vectors"], **values["model"]})
    names, vectors = (*values["seen"], *values["unseen"]), values["vectors"].detach()
    wanted = (len(names), config.model.scoring.vector_dim)
    if not all(isinstance(name, str) for name in names) or tuple(vectors.shape) != wanted:
        raise DataError(
            f"{path} is damaged: vectors of shape {tuple(vectors.shape)} for {len(names)} names, "
            f"must be {wanted}."
        )
    if len({fold_name(name) for name in names}) < len(names):
        raise DataError(f"{path} is damaged: two of its classes have one name.")
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


def _load(path: Path) -> Any:
    """What a file of PyTorch's holds; packed records, which could be of any size, are refused."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                packed = [r.filename for r in archive.infolist() if r.compress_type]
            if packed:
                raise DataError(f"{path} is damaged: {shown(packed[0])} is packed in it.")
        return torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read checkpoint {path}: {error.strerror or error}.") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path} is not a checkpoint of this project, or is damaged; train writes last.pt."
        ) from error


def _check_tensors(path: Path, tensors: Mapping[Any, Any]) -> None:
    """Refuse what is no plain tensor, and tensors that are larger together than their file.

    One number can stand for a tensor of any shape, whose copy takes all memory.
    """
    for name, value in tensors.items():
        plain = type(value) is torch.Tensor and value.layout == torch.strided
        if not (plain and value.device.type == "cpu" and not value.is_quantized):
            raise DataError(f"{path} is damaged: {shown(name)} is no tensor of plain numbers.")
    total, size = sum(value.nbytes for value in tensors.values()), path.stat().st_size
    if total > size:
        raise DataError(f"{path} is damaged: it has {size} bytes, and its tensors {total}.")


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
def _forms(config: ModelConfig) -> Mapping[str, Form]:
    """Forms of a model's weights, without their memory: a file may ask for any."""
    with torch.device("meta"), _NoStart():
        return _form(ContrastZSD(config))


def _form(model: ContrastZSD) -> dict[str, Form]:
    return {name: (tuple(v.shape), v.dtype) for name, v in model.state_dict().items()}


def _check_forms(state: Mapping[str, Any], wanted: Mapping[str, Form], path: str) -> None:
    for name, form in wanted.items():
        value = state.get(name)
        found = None if value is None else (tuple(value.shape), value.dtype)
        if found != form:
            what = "which is missing" if found is None else f"of shape {found[0]} in {found[1]}"
            raise DataError(
                f"{path} is damaged: its weights do not fit its configuration, first {name}, "
                f"{what}, must be of shape {form[0]} in {form[1]}."
            )


def _model(
    config: ModelConfig, state: Mapping[str, Any], vectors: torch.Tensor, seen: int, path: str
) -> ContrastZSD:
    """Make the model and give it its weights, once their sizes agree with the configuration.

    Raises:
        DataError: they do not.
    """
    # The checkpoint holds the backbone's weights.
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights=""))
    _check_forms(state, _forms(config), path)  # before memory is taken for the model
    with _NoStart(), torch.random.fork_rng(devices=[]):
        model = ContrastZSD(config)
        model.scorer.read_classes(vectors[:seen], vectors[seen:])
    _check_forms(state, _form(model), path)
    if strange := sorted(state.keys() - model.state_dict().keys(), key=str):
        raise DataError(f"{path} is damaged: the model has no weights {shown(strange[0])}.")
    model.load_state_dict(state)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"{path} is damaged: {name} holds numbers that are not finite.")
    return model.eval()
