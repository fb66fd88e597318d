"""The loop around the phases: optimiser, rate, precision, checkpoints, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from zsd_core.commands import Progress
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import TrainingConfig
from zsd_core.learning.training.phases import Phase, summed
from zsd_core.learning.training.position import Position, restore_optimizer

__all__ = ["fit", "rate_at"]

Log = Callable[[str, float, int], None]


def rate_at(config: TrainingConfig, phase: Phase, step: int, steps: int) -> float:
    """Learning rate of a step of a phase, which has ``steps`` steps in each of its epochs."""
    rate = phase.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * step / max(steps * phase.epochs, 1)))
    epoch = step // max(steps, 1)
    return float(rate * 0.1 ** sum(epoch >= d for d in config.decay_epochs))


def fit(
    phases: Sequence[Phase],
    config: TrainingConfig,
    *,
    device: torch.device,
    position: Position,
    save: Callable[[Position], None],
    log: Log,
    max_steps: int = 0,
    source: str = "the checkpoint",
) -> None:
    """Run every phase from ``position`` on; ``save`` is called after each epoch.

    Args:
        phases: in order.
        config: optimiser and schedule.
        device: where the model is; mixed precision is used on "cuda" only.
        position: where to start; changed in place.
        save: writes a checkpoint.
        log: takes a tag, a value and the step.
        max_steps: stop every phase after so many steps (smoke tests); 0 does not.
        source: where ``position`` was read, for errors.

    Raises:
        ConfigError: the loss is not finite, with the step and the losses.
        DataError: ``position`` holds the state of another optimiser, or a damaged one.
    """
    for number, phase in enumerate(phases[position.phase :], start=position.phase):
        if 0 < phase.epochs <= position.epoch:  # resumed with fewer epochs: it has come to its end
            position.phase, position.epoch = number + 1, 0
            position.optimizer = position.random = None
            save(position)
            continue
        phase.prepare()
        if position.epoch == 0:
            phase.begin()
        optimizer = _optimizer(phase.parameters(), config)
        if position.optimizer is not None:
            restore_optimizer(optimizer, position.optimizer, source)
        if position.random is not None:
            torch.set_rng_state(position.random)
        _run_phase(phase, optimizer, config, device, position, save, log, max_steps)
        position.phase, position.epoch = number + 1, 0
        position.optimizer = position.random = None
        save(position)


def _run_phase(
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    device: torch.device,
    position: Position,
    save: Callable[[Position], None],
    log: Log,
    max_steps: int,
) -> None:
    steps = phase.steps()
    scaler = torch.amp.GradScaler(enabled=config.amp and device.type == "cuda")
    in_phase = position.epoch * steps
    total = min(max_steps, phase.epochs * steps) if max_steps else phase.epochs * steps
    with Progress(f"train {phase.name}", total, done=in_phase) as progress:
        while position.epoch < phase.epochs:
            sums: dict[str, float] = {}
            started = time.perf_counter()
            for batch in phase.batches(position.epoch):
                for group in optimizer.param_groups:
                    group["lr"] = rate_at(config, phase, in_phase, steps)
                with torch.autocast(device.type, enabled=scaler.is_enabled()):
                    losses = phase.losses(batch)
                _update(losses, optimizer, scaler, config, position.step)
                for name, value in losses.items():
                    log(f"loss/{name}", value.item(), position.step)
                    sums[name] = sums.get(name, 0.0) + value.item()
                log("rate", optimizer.param_groups[0]["lr"], position.step)
                position.step, in_phase = position.step + 1, in_phase + 1
                progress.advance(values={n: f"{value.item():.3f}" for n, value in losses.items()})
                if max_steps and in_phase >= max_steps:
                    return
            position.epoch += 1
            means = "  ".join(f"{name} {value / steps:.4f}" for name, value in sums.items())
            progress.note(
                f"{phase.name} epoch {position.epoch}/{phase.epochs}  {means}  "
                f"{time.perf_counter() - started:.0f} s"
            )
            position.optimizer, position.random = optimizer.state_dict(), torch.get_rng_state()
            save(position)


def _optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, config.learning_rate, config.momentum, weight_decay=config.weight_decay
    )


def _update(
    losses: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainingConfig,
    step: int,
) -> None:
    loss = summed(losses)
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        raise ConfigError(
            f"the loss is not finite at step {step} ({values}); lower training.learning_rate (of "
            "the trunk's own phase, training.trunk_rate) or "
            "set training.clip_norm, then --resume from the last checkpoint."
        )
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    if config.clip_norm:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], config.clip_norm
        )
    scaler.step(optimizer)
    scaler.update()
