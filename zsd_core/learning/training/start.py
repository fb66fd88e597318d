"""Starts of a run: the beginning, its last stop, or the proposals of another run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint
from zsd_core.learning.data.splits import Split
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.training.position import Position, read_position, read_seconds

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
    "training.region_versions",
    "training.warm_start",
    "training.regions",
    "training.workers",
)
# Without these, what a stopped run has kept means nothing.
FIXED = ("training.cache", "training.optimizer")


def resume_run(
    model: ContrastZSD, config: Config, split: Split, vectors: NDArray[np.float32], path: Path
) -> tuple[Position, dict[str, Any]]:
    """Put the weights of a run's last checkpoint into ``model``.

    Options may be others than before, and each that is goes to standard error; classes may not:
    a model would be called zero-shot for classes it has learned.

    Args:
        model: of ``config``.
        config: what the run goes on with.
        split: its classes.
        vectors: ``(Ks + U, E)`` of those, seen then unseen.
        path: ``last.pt`` of the run.

    Returns:
        Where that run stopped, and its provenance, ``Checkpoint.training``.

    Raises:
        ConfigError: the run has other classes, vectors, cache or optimiser, or weights of other
            shapes; it has begun what follows its first phase, and whether a phase trains the
            backbone has changed; or it has come to its end, and an option of training would change
            nothing.
        DataError: the file is no checkpoint, or does not say where its run stopped.
    """
    earlier = load_checkpoint(path)
    position, seconds = read_position(earlier, path), read_seconds(earlier, path)
    changed = _changes(dict(_options(config)), dict(_options(earlier.config)))
    fixed = [text for name, text in changed.items() if name in FIXED]
    begun = (position.phase, position.epoch) > (1, 0)
    if begun and earlier.config.training.trunk_phases != config.training.trunk_phases:
        fixed.append(changed["training.trunk_epochs"])  # the phase that it is in would be another
    if (split.seen, split.unseen) != (earlier.seen, earlier.unseen):
        fixed.append(f"split {config.data.split} has other seen or unseen classes")
    elif not _alike(vectors, earlier.vectors):
        fixed.append(f"{config.data.vectors} has other class vectors")
    if fixed:
        raise ConfigError(
            f"--resume {path}: {'; '.join(fixed)}. A run goes on with what it began with: repeat "
            "the overrides of the first call, or choose another --output."
        )
    try:
        model.load_state_dict(earlier.model.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"--resume {path}: its weights do not fit this model: "
            f"{'; '.join(t for n, t in changed.items() if n.startswith('model.'))}. Repeat the "
            "overrides of the first call."
        ) from error
    phases = config.training.trunk_phases + 1 if config.training.cache == "regions" else 1
    ended = position.phase >= phases
    if ended:
        _refuse_at_end(path, changed)
    notes = [*changed.values(), *["the run has come to its end; nothing is trained"] * ended]
    for note in notes:
        print(f"resume: {note}", file=sys.stderr)
    return position, earlier.training | {"seconds": seconds}


def _alike(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether class vectors are the same, but for the rounding of another machine."""
    return vectors.shape == others.shape and np.allclose(vectors, others, atol=1e-4)


def _refuse_at_end(path: Path, changed: Mapping[str, str]) -> None:
    """Refuse options that a checkpoint would then claim to be trained with."""
    trained = ("training.", "loss.", "data.")
    if late := [text for name, text in changed.items() if name.startswith(trained)]:
        raise ConfigError(
            f"--resume {path}: {'; '.join(late)}; but that run has come to its end. Train another: "
            "choose another --output, with --from if only the heads change."
        )


def take_proposals(
    model: ContrastZSD, config: Config, seen: tuple[str, ...], path: Path
) -> tuple[Position, dict[str, Any]]:
    """Put the trained proposal network of a checkpoint into a new model.

    What follows is what one run with ``config`` would do in the phase of its heads; so every option
    that the phases before it read must be what it was.

    Args:
        model: new; its heads keep the weights they start with.
        config: of the new run.
        seen: its seen classes, in label order.
        path: ``proposals.pt`` of a run, or ``trunk.pt`` with ``training.trunk_epochs``; any later
            checkpoint of it will do.

    Returns:
        The heads' first step, and what provenance says of the start.

    Raises:
        ConfigError: an option is another; the message holds both values.
        DataError: the file is no checkpoint, or does not say where its run stopped.
    """
    earlier = load_checkpoint(path)
    position, seconds = read_position(earlier, path), read_seconds(earlier, path)
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
    heads = config.training.trunk_phases
    if position.phase < heads:
        epochs = (config.training.epochs, config.training.trunk_epochs)[position.phase]
        raise ConfigError(
            f"the proposal network of {path} has trained for {position.epoch} of {epochs} epochs "
            f"in phase {position.phase + 1} of {heads}; finish that run with --resume first."
        )
    model.trunk.load_state_dict(earlier.model.trunk.state_dict())
    model.head.region_stage.load_state_dict(earlier.model.head.region_stage.state_dict())
    source = {"checkpoint": path.name, "seconds": seconds}
    return Position(phase=heads, step=position.step), {"proposals": source}


def _check_options(config: Config, earlier: Checkpoint, path: Path) -> None:
    changed = _changes(_read_by_proposals(config), _read_by_proposals(earlier.config)).values()
    if changed:
        raise ConfigError(
            f"--from {path}: {'; '.join(changed)}. Its proposal network depends on that: give the "
            "value it was trained with, or leave out --from to train another."
        )


def _changes(now: Mapping[str, object], then: Mapping[str, object]) -> dict[str, str]:
    """Values that have changed, by name, in words."""
    return {
        name: f"{name} is {now.get(name)!r}, but {then.get(name)!r} there"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    }


def _read_by_proposals(config: Config) -> dict[str, object]:
    """Every option that the proposal network depends on, by its dotted name."""
    values = dict(_options(config))
    read = {
        name: value
        for name, value in values.items()
        if not any(f"{name}.".startswith(f"{part}.") for part in HEADS_ONLY)
    }
    shared = ["model.regions.conv5"]  # whether conv5 is a part of the trunk
    if config.model.proposals.objectness == "background":
        shared.append("model.scoring.vector_dim")  # of a_0, which the proposal network learns
    return read | {name: values[name] for name in shared}


def _options(config: Config) -> Iterator[tuple[str, object]]:
    """Every option by its dotted name."""
    return _flat(dataclasses.asdict(config))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
