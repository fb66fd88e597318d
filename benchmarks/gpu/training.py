"""Part "training": the paper's recipe for as many steps as fit, on pictures that are made up.

``configs/paper_coco_65_15.yaml`` as it stands: ResNet-101 with random weights, images of 600 x 800
after resizing, batches of 2, mixed precision, the data loader and the log's waiting included. The
losses mean nothing; only images a second and memory do.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.gpu.build import ROOT
from benchmarks.gpu.report import Report
from zsd_core.learning.data.dataset import ImageRecord, image_record
from zsd_core.learning.experiment import Config, load_config

__all__ = ["dry", "fit_for", "pictures", "run"]

CONFIG = ROOT / "configs" / "paper_coco_65_15.yaml"
SECONDS = 15.0  # of steps, at each size of a batch
WARM = 5  # steps that are not counted
SIZE = (640, 480)  # width and height, COCO's most frequent
COUNT = 64  # pictures
BOXES = 7  # in each, about COCO's mean


class _Enough(Exception):
    """There have been enough steps."""


def run(report: Report) -> None:
    """The recipe on the GPU, at two batch sizes."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    for batch in (2, 8):
        config = load_config(CONFIG, [f"training.batch_size={batch}", "training.workers=8"])
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        times = fit_for(config, "cuda", SECONDS)
        per_step = median(times[WARM:])
        report.row(
            backbone=config.model.backbone.name,
            batch=batch,
            steps=len(times),
            ms_per_step=1e3 * per_step,
            images_per_second=batch / per_step,
            peak_memory_gb=torch.cuda.max_memory_allocated() / 1e9,
            amp=config.training.amp,
        )


def dry(report: Report) -> None:
    """Two steps on a CPU, of a small backbone on small pictures: no time is told."""
    small = ["training.batch_size=1", "training.workers=0", "training.regions=8"]
    small += ["model.preprocess.shorter_edge=64", "model.preprocess.longer_edge=96"]
    small += ["model.backbone.name=mobilenet_v2", "model.scoring.joint_dim=64"]
    small += ["model.scoring.hidden_dim=16", "model.regions.output_size=[7,7]"]
    config = load_config(CONFIG, small)
    with redirect_stderr(io.StringIO()):  # the bar of progress does not say that it is a dry run
        times = fit_for(config, "cpu", 0.0, least=1)
    report.row(backbone=config.model.backbone.name, batch=1, steps=1 + len(times))


def fit_for(config: Config, device: str, seconds: float, least: int = WARM + 5) -> list[float]:
    """Train until the time is up; seconds of every step, from one log of losses to the next."""
    import torch

    from benchmarks.paper.model import keep_scale
    from zsd_core.learning.data.splits import load_split
    from zsd_core.learning.models import ContrastZSD
    from zsd_core.learning.objective import Objective
    from zsd_core.learning.training.batches import TrainingImages
    from zsd_core.learning.training.loop import fit
    from zsd_core.learning.training.phases import build_phases
    from zsd_core.learning.training.position import Position

    split, target = load_split(config.data.split), torch.device(device)
    torch.manual_seed(config.training.seed)
    model = ContrastZSD(config.model)
    keep_scale(model)
    model.to(target)
    classes = len(split.seen) + len(split.unseen)
    vectors = torch.randn(classes, config.model.scoring.vector_dim, device=target)
    vectors /= vectors.norm(dim=1, keepdim=True)
    seen = len(split.seen)
    objective = Objective(model, config, vectors[:seen], vectors[seen:]).to(target)
    times, last = list[float](), 0.0

    def log(tag: str, value: float, step: int) -> None:
        """Note the time; "rate" is logged last of a step, when its losses have been waited for."""
        nonlocal last
        if tag != "rate":
            return
        now = time.perf_counter()
        if last:
            times.append(now - last)
        last = now
        if len(times) >= least and sum(times) >= seconds:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        records = pictures(Path(folder), split.seen)
        # An epoch of many: the loader's processes begin once.
        records *= max(1, 2000 // len(records)) if seconds else 1
        images = TrainingImages(records, split.seen, config.model.preprocess, config.training)
        parts = (objective, objective, images, config, target, Path(folder) / "regions.pt")
        phases = build_phases(*parts)
        with suppress(_Enough):
            fit(
                phases,
                config.training,
                device=target,
                position=Position(),
                save=lambda position: None,
                log=log,
            )
    return times


def pictures(folder: Path, names: Sequence[str]) -> list[ImageRecord]:
    """Photographs of noise in blocks, with boxes of seen classes around nothing."""
    import cv2

    random, records = np.random.default_rng(0), list[ImageRecord]()
    width, height = SIZE
    for index in range(COUNT):
        path = folder / f"{index}.jpg"
        blocks = random.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
        cv2.imwrite(str(path), blocks.repeat(20, axis=0).repeat(20, axis=1))
        corners = random.uniform(0, 0.6, (BOXES, 2)) * SIZE
        sizes = random.uniform(0.1, 0.4, (BOXES, 2)) * SIZE
        boxes = np.concatenate([corners, corners + sizes], axis=1)
        labels = [str(names[i]) for i in random.integers(0, len(names), BOXES)]
        values: dict[str, Any] = {"boxes": boxes.tolist(), "labels": labels}
        values |= {"width": width, "height": height}
        records.append(image_record(where="made up", path=path, id=index, **values))
    return records
