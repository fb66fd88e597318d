"""Checkpoints that say strangely where their run stopped, as ``--resume`` reads it."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import mutated_json
from benchmarks.trust.table import Attempt

__all__ = ["PARTS", "resuming"]

PLACE: dict[str, Any] = {
    "phase": 0,
    "epoch": 1,
    "step": 4,
    "optimizer": {"state": {}, "param_groups": [{"params": [0, 1], "lr": 0.1}]},
    "random": None,
}


def resuming(folder: Path) -> Attempt:
    """Where a run stopped: other values, names and structure, and states of the wrong type."""
    import torch

    from zsd_core.config import BackboneConfig, ModelConfig
    from zsd_core.learning.checkpoint import Checkpoint
    from zsd_core.learning.experiment import Config
    from zsd_core.learning.models import ContrastZSD
    from zsd_core.learning.training.position import read_position, read_seconds

    model = ModelConfig(backbone=BackboneConfig(name="mobilenet_v2", frozen="none"))
    whole = Checkpoint(
        config=Config(model=model),
        model=ContrastZSD(model),
        seen=("a", "b"),
        unseen=("c",),
        vectors=np.eye(3, 6, dtype=np.float32),
    )
    path, state = folder / "last.pt", torch.get_rng_state()
    short = torch.zeros(3, dtype=torch.uint8)
    odd = (state, state.float(), state * 0, short, [1], "x")

    def attempt(rng: random.Random) -> None:
        parts = [mutated_json(part, rng) for part in ({"seconds": 1.5}, {"position": PLACE})]
        training, stopped = (part if isinstance(part, dict) else {} for part in parts)
        position = stopped.get("position")
        if isinstance(position, dict) and rng.random() < 0.5:
            position["random"] = rng.choice(odd)
        found = dataclasses.replace(whole, training=training, state=stopped)
        place, seconds = read_position(found, path), read_seconds(found, path)
        if min(place.phase, place.epoch, place.step, seconds) < 0:
            raise WrongResultError(f"a run that stopped at {place} after {seconds} seconds")

    return attempt


PARTS = (
    loader_part(
        resuming, "resuming", "where a run stopped: other values and types", 1_000_000, 1_000
    ),
)
