"""Where a run stopped, as its checkpoint says it: checked before anything goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsd_core.errors import DataError
from zsd_core.files import shown
from zsd_core.learning.checkpoint import Checkpoint

__all__ = ["Position", "read_position", "read_seconds", "restore_optimizer"]

CURE = "take a whole copy of it, or train from the beginning into another --output"
MOST = 1 << 53  # of epochs, steps or seconds; far more than any run makes
# What each optimiser keeps of a parameter, beside the number of its steps.
MOMENTS = {"AdamW": {"exp_avg", "exp_avg_sq"}, "SGD": {"momentum_buffer"}}


@dataclass(slots=True)
class Position:
    """Progress of a run, enough to go on from there.

    Attributes:
        phase: index of the phase.
        epoch: finished epochs of that phase.
        step: optimiser steps over all phases.
        optimizer: state of the phase's optimiser, None before its first epoch.
        random: state of torch's generator, likewise.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    optimizer: dict[str, Any] | None = None
    random: Tensor | None = None


def read_position(checkpoint: Checkpoint, path: Path) -> Position:
    """Where the run of a checkpoint stopped.

    Raises:
        DataError: it does not say, or not as training writes it.
    """
    values = checkpoint.state.get("position")
    if not isinstance(values, Mapping):
        raise DataError(f"{path} does not say where its run stopped; {CURE}.")
    names = [field.name for field in fields(Position)]
    if other := [name for name in values if name not in names]:
        raise DataError(f"{path} is damaged: its position has {other[0]!r}; {CURE}.")
    position = Position(**values)
    for name in ("phase", "epoch", "step"):
        value = getattr(position, name)
        if type(value) is not int or not 0 <= value < MOST:
            raise DataError(
                f"{path} is damaged: {name} of its position is {shown(value)}, must be a whole "
                f"number, 0 or more; {CURE}."
            )
    if problem := _random_problem(position.random) or _optimizer_problem(position.optimizer):
        raise DataError(f"{path} is damaged: {problem}; {CURE}.")
    return position


def read_seconds(checkpoint: Checkpoint, path: Path) -> float:
    """How long the run of a checkpoint has trained.

    Raises:
        DataError: it does not say, or no number of seconds.
    """
    value = checkpoint.training.get("seconds")
    if not (isinstance(value, (int, float)) and 0 <= value < MOST):
        raise DataError(
            f"{path} is damaged: its run has trained for {shown(value)} seconds, must be a "
            f"number, 0 or more; {CURE}."
        )
    return float(value)


def _random_problem(state: object) -> str:
    if state is None:
        return ""
    if not isinstance(state, Tensor):
        return f"its random state is a {type(state).__name__}, must be a tensor"
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError):  # another type, length or content
        return "its random state is none of this version of PyTorch"
    return ""


def _optimizer_problem(state: object) -> str:
    """What is wrong with the form of an optimiser's state, whatever it is of."""
    if state is None:
        return ""
    if not isinstance(state, Mapping) or set(state) != {"state", "param_groups"}:
        return "its optimiser's state is none"
    groups, kept = state["param_groups"], state["state"]
    if not isinstance(kept, Mapping) or not all(isinstance(one, Mapping) for one in kept.values()):
        return "its optimiser's state holds no values of parameters"
    if not isinstance(groups, list) or not all(isinstance(g, Mapping) for g in groups):
        return "its optimiser's state has no groups of parameters"
    numbers = [group.get("params") for group in groups]
    if not all(isinstance(n, list) and all(type(one) is int for one in n) for n in numbers):
        return "its optimiser's groups do not number their parameters"
    return ""


def restore_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], source: str
) -> None:
    """Give an optimiser the moments it had; its options stay those that it was made with.

    Args:
        optimizer: new, of the phase that goes on.
        state: its ``state_dict`` then, in the form that ``read_position`` has checked.
        source: where that was read, for the error.

    Raises:
        DataError: it is of another optimiser or of other parameters, or holds numbers that no
            optimiser computes.
    """
    own = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in own]:
        problem = "it is of other parameters"
    else:
        flat = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        problem = _moment_problem(state["state"], flat, MOMENTS[type(optimizer).__name__])
    if problem:
        raise DataError(f"{source} is damaged: its optimiser's state: {problem}; {CURE}.")
    optimizer.load_state_dict({"state": dict(state["state"]), "param_groups": own})


def _moment_problem(
    kept: Mapping[Any, Mapping[str, Any]], parameters: list[Tensor], moments: set[str]
) -> str:
    wanted = moments | ({"step"} if len(moments) > 1 else set())
    for number, values in kept.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            return f"parameter {shown(number)} is none of the {len(parameters)} of this phase"
        if set(values) != wanted:
            return f"parameter {number} has {', '.join(map(str, values)) or 'nothing'}"
        for name, value in values.items():
            if value is None and name == "momentum_buffer":
                continue  # SGD without momentum
            shape = () if name == "step" else tuple(parameters[number].shape)
            if not (isinstance(value, Tensor) and value.is_floating_point()):
                return f"{name} of parameter {number} is no tensor of numbers"
            if tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
                return f"{name} of parameter {number} is not finite or not of shape {shape}"
            if name in ("step", "exp_avg_sq") and bool((value < 0).any()):
                return f"{name} of parameter {number} is negative"
    return ""
