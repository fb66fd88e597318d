"""Training that is killed at any moment and goes on, to the weights of a run left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.trust.small import HELPERS, helper
from benchmarks.trust.table import Advance, Part, Result
from zsd_core.errors import DeviceError

__all__ = ["PARTS", "training"]

ROOT = HELPERS.parents[1]
OPTIONS = ("training.epochs=3", "training.batch_size=4", "training.regions=8", "--device", "cpu")
KINDS = ("CONFIG", "SMALL")  # of tests/helpers/shapes.py: end to end, and in two phases
LEAST_TRIES = 40  # runs of one kill after another, before it counts as one that never ends


def training(budget: float, seed: int, advance: Advance) -> Result:
    """Kill ``budget`` times, at any moment after the start; resume; compare at every end."""
    kills, faults, ends = 0, list[str](), 0
    with tempfile.TemporaryDirectory(prefix="trust-") as work:
        wholes = [_left_alone(Path(work) / kind, kind) for kind in KINDS]
        rng = random.Random(seed)
        while kills < int(budget):
            config, seconds = wholes[ends % len(wholes)]
            output = config.with_name(f"run{ends}")
            for _ in range(LEAST_TRIES):
                kill = rng.uniform(0.2, 1.1) * seconds if kills < int(budget) else None
                status, said = _run(config, output, kill)
                if status is None:
                    kills += 1
                    advance(1)
                    continue
                break
            if status:
                faults.append(f"after a kill: {said}")
            elif other := _difference(output, config.with_name("whole")):
                faults.append(f"run {ends}: {other} differs from that of a run left alone")
            ends += 1
    times = " and ".join(f"{seconds:.0f}" for _, seconds in wholes)
    load = f"{ends} runs of {times} s went on to their end, weights equal to the bit"
    return Result(inputs=kills, load=load, faults=faults)


def _left_alone(folder: Path, kind: str) -> tuple[Path, float]:
    """A configuration whose run beside it, ``whole``, nothing stopped; and how long that took."""
    folder.mkdir()
    shapes = helper("shapes")
    config: Path = shapes.write_config(folder, 8, getattr(shapes, kind), size=64)
    begun = time.monotonic()
    status, said = _run(config, folder / "whole", None)
    if status:
        raise DeviceError(f"training failed when left alone: {said}")
    return config, time.monotonic() - begun


def _difference(output: Path, whole: Path) -> str:
    """The first checkpoint, or the log, that is not what a run left alone has written."""
    for path in sorted(whole.glob("*.pt")):
        if path.name == "regions.pt":  # of features; the heads' weights come from them
            continue
        if not (output / path.name).exists() or _weights(output / path.name) != _weights(path):
            return path.name
    log = "losses.jsonl"
    return "" if (output / log).read_bytes() == (whole / log).read_bytes() else log


def _run(config: Path, output: Path, kill_after: float | None) -> tuple[int | None, str]:
    """Train or resume; the status, or None where it was killed, and the last line of stderr."""
    resume = ["--resume"] if (output / "last.pt").exists() else []
    command = [sys.executable, "-m", "zsd_core.train", str(config), "--output", str(output)]
    process = subprocess.Popen(
        [*command, *OPTIONS, *resume],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, ""
    return process.returncode, (said.strip().splitlines() or [""])[-1]


def _weights(path: Path) -> dict[str, bytes]:
    from zsd_core.learning.checkpoint import load_checkpoint

    state = load_checkpoint(path).model.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


PARTS = (
    Part(
        name="training",
        tried="training killed at any moment, then resumed, on the CPU",
        unit="inputs",
        full=30,
        short=1,
        run=training,
    ),
)
