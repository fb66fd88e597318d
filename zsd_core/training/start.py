"""Where a run starts: at the beginning, where it stopped, or over the proposals of another run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zsd_core.checkpoint import Checkpoint, load_checkpoint
from zsd_core.errors import ConfigError
from zsd_core.experiment import Config
from zsd_core.models import ContrastZSD
from zsd_core.training.loop import Position

__all__ = ["HEADS_ONLY", "resume_run", "take_proposals"]

# What training the proposal network does not read: options, or whole sections of them.
HEADS_ONLY = (
    "data.template",
    "data.vectors",
    "loss",
    "model.detection",
    "model.proposals.min_size",
    "model.proposals.nms_threshold",
    "model.proposals.post_nms_top",
    "model.proposals.pre_nms_top",
    "model.regions",
    "model.scoring",
    "training.balance",
    "training.dropout",
    "training.foreground",
    "training.head_batch",
    "training.head_epochs",
    "training.regions",
    "training.workers",
)


def resume_run(model: ContrastZSD, path: Path) -> tuple[Position, dict[str, Any]]:
    """Put the weights of a run's last checkpoint into ``model``.

    Returns:
        Where that run stopped, and its provenance, ``Checkpoint.training``.

    Raises:
        DataError: the file is no checkpoint.
    """
    earlier = load_checkpoint(path)
    model.load_state_dict(earlier.model.state_dict())
    return Position(**earlier.state["position"]), earlier.training


def take_proposals(
    model: ContrastZSD, config: Config, seen: tuple[str, ...], path: Path
) -> tuple[Position, dict[str, Any]]:
    """Put the trained proposal network of a checkpoint into a new model.

    What follows is what one run with ``config`` would do after its first phase; so every option
    that the first phase reads must be what it was.

    Args:
        model: new; its heads keep the weights they start with.
        config: of the new run.
        seen: its seen classes, in label order.
        path: ``proposals.pt`` of a run, or any later checkpoint of it.

    Returns:
        The heads' first step, and what provenance says of the start.

    Raises:
        ConfigError: an option is another; the message holds both values.
        DataError: the file is no checkpoint.
    """
    earlier = load_checkpoint(path)
    if config.training.cache != "regions":
        raise ConfigError(
            f"--from takes the proposal network of {path}, which needs training.cache: regions; "
            f"got {config.training.cache!r}."
        )
    _check_options(config, earlier, path)
    if changed := set(seen) ^ set(earlier.seen):
        raise ConfigError(
            f"{', '.join(sorted(changed))}: seen in split {config.data.split} or in {path}, not in "
            "both; the proposal network must have learned from the same classes. Leave out --from."
        )
    position = Position(**earlier.state["position"])
    if not position.phase:
        raise ConfigError(
            f"the proposal network of {path} has trained for {position.epoch} of "
            f"{earlier.config.training.epochs} epochs; finish that run with --resume first."
        )
    model.trunk.load_state_dict(earlier.model.trunk.state_dict())
    model.head.region_stage.load_state_dict(earlier.model.head.region_stage.state_dict())
    source = {"checkpoint": str(path), "seconds": earlier.training["seconds"]}
    return Position(phase=1, step=position.step), {"proposals": source}


def _check_options(config: Config, earlier: Checkpoint, path: Path) -> None:
    now, then = _read_by_proposals(config), _read_by_proposals(earlier.config)
    changed = [
        f"{name} is {now.get(name)!r}, but {then.get(name)!r} there"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    ]
    if changed:
        raise ConfigError(
            f"--from {path}: {'; '.join(changed)}. Its proposal network depends on that: give the "
            "value it was trained with, or leave out --from to train another."
        )


def _read_by_proposals(config: Config) -> dict[str, object]:
    """Every option that the proposal network depends on, by its dotted name."""
    values = dict(_flat(dataclasses.asdict(config)))
    read = {
        name: value
        for name, value in values.items()
        if not any(f"{name}.".startswith(f"{part}.") for part in HEADS_ONLY)
    }
    shared = ["model.regions.conv5"]  # whether conv5 is a part of the trunk
    if config.model.proposals.objectness == "background":
        shared.append("model.scoring.vector_dim")  # of a_0, which the proposal network learns
    return read | {name: values[name] for name in shared}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
