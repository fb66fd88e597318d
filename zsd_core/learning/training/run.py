"""A training run: the data, the phases, checkpoints after each, and the log."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zsd_core import kernels
from zsd_core.errors import ConfigError, DataError, DeviceError, require
from zsd_core.files import parse_json
from zsd_core.folders import clear_parts, lock_folder
from zsd_core.learning.checkpoint import Checkpoint, save_checkpoint, whole_output
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.read import read_training_set
from zsd_core.learning.data.splits import Split, load_split
from zsd_core.learning.experiment import Config, DataConfig
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.objective import Objective
from zsd_core.learning.training.batches import TrainingImages
from zsd_core.learning.training.loop import fit
from zsd_core.learning.training.phases import build_phases
from zsd_core.learning.training.position import Position
from zsd_core.learning.training.start import resume_run, take_proposals
from zsd_core.learning.vectors import VectorTable, load_vectors
from zsd_core.options import check_option

__all__ = ["read_vectors", "train"]

DEVICES = ("auto", "cpu", "cuda")


def read_vectors(config: DataConfig, split: Split, width: int) -> VectorTable:
    """Class vectors of a split, seen then unseen.

    Raises:
        ConfigError: none are named, or their width is not ``scoring.vector_dim``.
    """
    if not config.vectors:
        raise ConfigError(
            "data.vectors is empty; name the class vectors: data.vectors=word2vec.txt, or minilm."
        )
    table = load_vectors(config.vectors, split.classes, template=config.template)
    if table.vectors.shape[1] != width:
        raise ConfigError(
            f"{config.vectors} holds vectors of {table.vectors.shape[1]} numbers, but "
            f"model.scoring.vector_dim is {width}; set it to {table.vectors.shape[1]}."
        )
    return table


def train(
    config: Config,
    output: Path,
    *,
    resume: bool = False,
    proposals: Path | None = None,
    max_steps: int = 0,
    device: str = "auto",
) -> Path:
    """Train as configured and return the path of the last checkpoint.

    Under ``torchrun`` every process calls this; process 0 writes.

    Args:
        config: the experiment.
        output: folder of the run.
        resume: go on from its ``last.pt``.
        proposals: a checkpoint whose proposal network is taken as it is, so that the heads alone
            are trained; the kept regions beside it serve if ``config`` would keep the same.
        max_steps: stop each phase after so many steps; 0 does not.
        device: "auto", "cpu" or "cuda".

    Raises:
        ZsdError: of the kinds the parts raise; nothing is overwritten before they have run.
    """
    check_option(max_steps >= 0, "max_steps", max_steps, "must not be negative")
    with ExitStack() as held:
        return _train(config, output, resume, proposals, max_steps, _device(device), held)


def _train(
    config: Config,
    output: Path,
    resume: bool,
    proposals: Path | None,
    max_steps: int,
    target: torch.device,
    held: ExitStack,
) -> Path:
    """See ``train``; the lock of the folder ends with ``held``."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    path = output / "last.pt"
    if not resume:
        _refuse_to_overwrite(path)
    elif rank == 0 and path.exists():
        _take(output, held)  # before the checkpoint is read that another run may replace
    split = load_split(config.data.split)
    table = read_vectors(config.data, split, config.model.scoring.vector_dim)
    dataset = read_training_set(config.data, split)
    limit = kernels.thread_limit()
    if limit and limit < torch.get_num_threads():  # torch does not know of a cgroup's quota
        torch.set_num_threads(limit)
    torch.manual_seed(config.training.seed)
    position, model, begun = Position(), ContrastZSD(config.model), time.monotonic()
    training: dict[str, Any] = {"seconds": 0.0}
    if not (config.model.backbone.weights or resume or proposals):
        whole = ", and its bottom stays so" if config.training.trunk_epochs else ", and stays so"
        kept = {"none": "", "bottom": ", and its bottom stays so", "all": whole}
        print(
            "model.backbone.weights is empty: the backbone starts from random weights"
            f"{kept[config.model.backbone.frozen]}",
            file=sys.stderr,
        )
    model.to(target)
    vectors = torch.from_numpy(table.vectors).float().to(target)
    seen = len(split.seen)
    objective = Objective(model, config, vectors[:seen], vectors[seen:]).to(target)
    if resume:
        position, training = resume_run(model, config, split, table.vectors, path)
        begun -= training["seconds"]
    elif proposals:
        position, training = take_proposals(model, config, split.seen, proposals)
    forward = _distribute(objective, target, processes)
    images = TrainingImages(dataset.images, split.seen, config.model.preprocess, config.training)
    training |= _provenance(dataset, split, table)
    phases = build_phases(
        objective,
        forward,
        images,
        config,
        target,
        output / "regions.pt",
        [proposals.with_name("regions.pt")] if proposals else [],
        processes,
    )

    def save(at: Position) -> None:
        if rank == 0:
            training["seconds"] = time.monotonic() - begun
            checkpoint = Checkpoint(
                config=config,
                model=model,
                seen=split.seen,
                unseen=split.unseen,
                vectors=table.vectors.astype(np.float32),
                training=training,
                state={"position": dataclasses.asdict(at)},
            )
            if at.epoch == 0 and 0 < at.phase < len(phases):  # a phase ended, another follows
                save_checkpoint(checkpoint, output / f"{phases[at.phase - 1].name}.pt")
            save_checkpoint(checkpoint, path)  # last: a run killed before it writes both again

    if rank == 0 and not resume:
        _take(output, held)
        _refuse_to_overwrite(path)  # of a run that has come and gone meanwhile
    with _Log(output, config, dataset, position.step, enabled=rank == 0) as log:
        fit(
            phases,
            config.training,
            device=target,
            position=position,
            save=save,
            log=log,
            max_steps=max_steps,
            source=str(path),
        )
    save(position)  # a finished run resumed with other options keeps those
    if processes > 1:
        torch.distributed.destroy_process_group()
    return path


class _Log:
    """Losses as JSON lines and TensorBoard events; a process other than 0 writes nothing.

    Steps from ``start`` on that stand there already are of a run that stopped between two
    checkpoints, and go: they are made again.
    """

    def __init__(
        self, output: Path, config: Config, dataset: Dataset, start: int, *, enabled: bool
    ) -> None:
        self.enabled = enabled
        if enabled:
            require("tensorboard", "train")
            from torch.utils.tensorboard import SummaryWriter

            options = json.dumps(dataclasses.asdict(config), indent=1)
            losses = output / "losses.jsonl"
            with whole_output(output / "config.json") as aside:
                aside.write_text(options, encoding="utf-8")
            _cut(losses, start)
            try:
                self.lines = losses.open("a", buffering=1, encoding="utf-8")
                self.writer = SummaryWriter(str(output), purge_step=start)
            except OSError as error:
                raise _unwritable(output, error) from error
            counts = ", ".join(f"{name} {count}" for name, count in dataset.counts.items())
            print(f"training data: {counts}", file=sys.stderr)

    def __enter__(self) -> Callable[[str, float, int], None]:
        return self.write

    def write(self, tag: str, value: float, step: int) -> None:
        if self.enabled:
            self.lines.write(json.dumps({"step": step, "tag": tag, "value": value}) + "\n")
            self.writer.add_scalar(tag, value, step)

    def __exit__(self, *_: object) -> None:
        if self.enabled:
            self.lines.close()
            self.writer.close()


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists; continue it with --resume or choose another --output.")


def _take(output: Path, held: ExitStack) -> None:
    """Lock the folder of a run against others, and clear what a killed one left half written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock_folder(output))
        clear_parts(output)
    except OSError as error:
        raise _unwritable(output, error) from error


def _unwritable(output: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write into {output}: {error.strerror}; choose another --output.")


def _cut(losses: Path, start: int) -> None:
    """Keep the lines of a log that are of steps before ``start``; damaged ones go, and are told."""
    if not losses.exists():
        return
    *whole, _ = losses.read_bytes().split(b"\n")  # the last may be cut short: the run was killed
    steps = [_step_of(line) for line in whole]
    if damaged := steps.count(None):
        print(f"resume: {losses}: {damaged} damaged lines are left out", file=sys.stderr)
    pairs = zip(whole, steps, strict=True)
    kept = [line + b"\n" for line, step in pairs if step is not None and step < start]
    with whole_output(losses) as aside:
        aside.write_bytes(b"".join(kept))


def _step_of(line: bytes) -> int | None:
    """The step that a line of the log is of, None if it is damaged."""
    try:
        values = parse_json(line.decode(), "a line")
    except (UnicodeDecodeError, DataError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if type(step) is int else None


def _device(name: str) -> torch.device:
    check_option(name in DEVICES, "device", name, f"must be one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "device is 'cuda', but this PyTorch finds no CUDA GPU; install one built for your "
            "driver, or give --device cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(name)


def _distribute(objective: Objective, device: torch.device, processes: int) -> nn.Module:
    if processes == 1:
        return objective
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    devices = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        objective, device_ids=devices, find_unused_parameters=True
    )


def _provenance(dataset: Dataset, split: Split, table: VectorTable) -> dict[str, Any]:
    return {
        "counts": dict(dataset.counts),
        "boxes_per_class": dict(dataset.boxes_per_class()),
        "split": split.name,
        "vectors": table.provenance,
        "versions": {"torch": str(torch.__version__), "numpy": np.__version__},
    }
