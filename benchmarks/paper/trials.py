"""One system on one bench: its options chosen, then trained and tested with a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.outside import by_pycocotools, by_torchmetrics, coco_results
from benchmarks.paper.runs import Bench, rounded, scores_of, with_options
from benchmarks.paper.systems import System
from benchmarks.paper.words import Words
from zsd_core.learning import metrics
from zsd_core.learning.balance import curve
from zsd_core.learning.checkpoint import Checkpoint, save_checkpoint
from zsd_core.learning.data.protocol import Task
from zsd_core.learning.experiment import Config
from zsd_core.learning.matching import Matches
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.training.kept import matches_of, predictions_of, train_scoring
from zsd_core.learning.vectors import load_vectors

__all__ = [
    "EVALUATED",
    "choose",
    "config_of",
    "matched",
    "measure",
    "outside",
    "steps_of",
    "trained",
    "vectors_of",
]

CHOOSE_BY = "mAP@0.5 area"
SCALE = "model.scoring.seen_scale"
SCALES = tuple(2.0**power for power in (-6, -4, -3, -2, -1, 0, 1))  # of seen scores
# Options that a trained model is run with, and that its training does not read.
EVALUATED = (SCALE, "model.scoring.conse_top", "model.scoring.cosine_background")
START = {"training.warm_start": 0.0}  # every system starts at random


def config_of(bench: Bench, system: System, options: Mapping[str, Any], seed: int) -> Config:
    """The experiment of a system with further options, from a random start."""
    width = {"model.scoring.vector_dim": int(vectors_of(bench, system).shape[1])}
    changed = {**START, **width, **system.options, **options, "training.seed": seed}
    return with_options(bench.base.config, changed)


def vectors_of(bench: Bench, system: System) -> NDArray[np.float32]:
    """Class vectors that the system reads, seen then unseen."""
    if not system.vectors:
        return bench.base.vectors
    return load_vectors(bench.vectors[system.vectors], bench.split.classes).vectors


def steps_of(bench: Bench, system: System) -> int:
    """Steps of a system's training."""
    return bench.steps if system.steps is None else system.steps


def trained(
    bench: Bench, system: System, config: Config, words: Words | None
) -> tuple[ContrastZSD, dict[str, float]]:
    """The model of a configuration, and its last losses."""
    seen, vectors = len(bench.split.seen), vectors_of(bench, system)
    features, labels = bench.kept.features, bench.kept.labels
    if system.words:
        assert words is not None  # main leaves the system out
        features, labels, vectors = words.beside(features, labels, vectors, seen)
        seen += len(words.features)
    return train_scoring(
        bench.base, config, vectors, features, labels, seen=seen, steps=steps_of(bench, system)
    )


def choose(benches: Sequence[Bench], system: System, words: Words | None) -> dict[str, Any]:
    """The options with the best ZSD mAP over all draws, then the seen scale with the best HM.

    One option is changed at a time; the default wins a tie.
    """
    tried: list[dict[str, Any]] = [{}]
    tried += [{key: value} for key, values in system.tried.items() for value in values[1:]]
    outcomes: list[dict[str, Any]] = [
        {"options": options, "zsd": 0.0, "hm": dict.fromkeys(SCALES, 0.0)} for options in tried
    ]
    for draw, bench in enumerate(benches):
        models: dict[str, ContrastZSD] = {}  # by the options that training reads
        for outcome in outcomes:
            options = outcome["options"]
            key = json.dumps({k: v for k, v in options.items() if k not in EVALUATED})
            config = config_of(bench, system, options, draw)
            if key not in models:
                models[key], _ = trained(bench, system, config, words)
            scores = scores_of(bench, models[key], config, vectors_of(bench, system))
            zsd = metrics.report(matched(bench, config, "zsd", scores["zsd"]), samples=0)
            outcome["zsd"] += (zsd["values"][CHOOSE_BY]["unseen"] or 0.0) / len(benches)
            points = curve(
                scores["gzsd"],
                len(bench.split.seen),
                SCALES,
                partial(matched, bench, config, "gzsd"),
            )
            for scale in SCALES:
                outcome["hm"][scale] += points[scale]["hm"] / len(benches)
    for outcome in outcomes:
        balance = outcome["hm"]
        best = max(sorted(SCALES, key=lambda s: s != 1.0), key=balance.__getitem__)
        outcome |= {"zsd": round(outcome["zsd"], 2), SCALE: best, "hm": round(balance[best], 2)}
    chosen = max(outcomes, key=lambda one: one["zsd"])
    return {"options": {**chosen["options"], SCALE: chosen[SCALE]}, "tried": outcomes}


def matched(
    bench: Bench, config: Config, task: Task, scores: Sequence[NDArray[np.float32]]
) -> Matches:
    """Detections of a task, by scores of its regions, matched to the truth."""
    names, seen = bench.split.classes, bench.split.seen
    return matches_of(bench.tests[task], bench.found[task], scores, names, seen, config.model)


def outside(
    bench: Bench, system: System, options: Mapping[str, Any], seed: int, words: Words | None
) -> dict[str, Any]:
    """Give mAP and recall of a run by others' evaluators beside ours, percent, by task."""
    config = config_of(bench, system, options, seed)
    model, _ = trained(bench, system, config, words)
    scores = scores_of(bench, model, config, vectors_of(bench, system))
    result: dict[str, Any] = {}
    for task, test in bench.tests.items():
        ours = metrics.report(matched(bench, config, task, scores[task]), samples=0)["classes"]
        columns = ("AP@0.5 coco101", "recall IoU 0.5")
        means = [np.mean([c[key] for c in ours if c["boxes"]]) for key in columns]
        predictions = predictions_of(
            test, bench.found[task], scores[task], bench.split.classes, config.model
        )
        truth, found = coco_results(test, predictions)
        result[task] = {
            "ours": {"mAP": float(means[0]), "recall": float(means[1])},
            "pycocotools": by_pycocotools(truth, found),
            "torchmetrics": by_torchmetrics(truth, found),
        }
    return dict(rounded(result, 3))


def measure(
    bench: Bench,
    system: System,
    options: Mapping[str, Any],
    seed: int,
    samples: int,
    words: Words | None,
    keep: Path | None = None,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """The log of a run, and its numbers in every bootstrap sample.

    ``keep`` is where the checkpoint of what was trained goes, if it is wanted.
    """
    config = config_of(bench, system, options, seed)
    model, losses = trained(bench, system, config, words)
    if keep:
        own = {"system": system.title, "steps": steps_of(bench, system), "split": bench.split.name}
        checkpoint = Checkpoint(
            config=config,
            model=model,
            seen=bench.split.seen,
            unseen=bench.split.unseen,
            vectors=vectors_of(bench, system),
            training=own,
        )
        save_checkpoint(checkpoint, keep)
    scores = scores_of(bench, model, config, vectors_of(bench, system))
    log: dict[str, Any] = {"losses": rounded(losses, 4), "results": {}}
    drawn: dict[str, NDArray[np.float32]] = {}
    for task in bench.tests:
        matches = matched(bench, config, task, scores[task])
        report = metrics.report(matches, samples=0)
        log["results"][task] = {
            "images": report["images"],
            "boxes": report["boxes"],
            "values": rounded(report["values"], 4),
            "classes": {
                entry["name"]: rounded(
                    [entry["boxes"], entry["AP@0.5 area"], entry["recall IoU 0.5"]], 2
                )
                for entry in report["classes"]
                if entry["boxes"] and entry["role"] == "unseen"
            },
        }
        for number, groups in metrics.bootstrap(matches, samples, 0).items():
            for group, values in groups.items():
                drawn[f"{task}|{number}|{group}"] = (100 * values).astype(np.float32)
    return log, drawn
