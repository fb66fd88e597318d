"""The runs of the experiments: what each changes, how it is trained, and its log."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.portraits import detections, region_map
from benchmarks.paper.published import SWEEP
from zsd_core import stages
from zsd_core.errors import ConfigError
from zsd_core.learning import metrics
from zsd_core.learning.balance import SCALES, curve
from zsd_core.learning.checkpoint import Checkpoint
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.protocol import Task
from zsd_core.learning.data.splits import Split
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.training.kept import (
    Kept,
    class_set_of,
    matches_of,
    score_photographs,
    train_scoring,
)
from zsd_core.learning.vectors import load_vectors
from zsd_core.options import from_mapping

__all__ = [
    "CALIBRATED",
    "OWN",
    "PORTRAITS",
    "READINGS",
    "RUNS",
    "Bench",
    "Run",
    "rounded",
    "run_experiment",
    "scores_of",
    "with_options",
]

READINGS: Mapping[str, Mapping[str, Any]] = {  # of eq. 14, tried on one trained model
    "o_s in eq. 14: softmax": {"fusion": "softmax"},
    "o_s in eq. 14: sigmoid": {"fusion": "sigmoid"},
    "o_s in eq. 14: raw": {"fusion": "raw"},
    "eq. 14 with what seen classes say": {"seen_evidence": True},
    "eq. 14 without it": {"seen_evidence": False},
}
PORTRAITS = ("contrastzsd", "conse")  # whose regions and detections the figures show
CALIBRATED = ("seen_scale", "similarity_temperature")  # what zsd_core.calibrate fits
KEPT_COLUMNS = ("boxes", "AP@0.5 area", "AP@0.5 voc11", "recall IoU 0.5")


@dataclass(frozen=True, slots=True)
class Run:
    """One row of a table or point of a figure.

    Attributes:
        name: of the log, without the seed.
        options: ``section.field`` of the experiment to value, over the checkpoint's.
        vectors: key of ``--vectors``; "" takes the checkpoint's class vectors.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    vectors: str = ""


def _runs() -> Iterator[Run]:
    yield Run("contrastzsd")
    yield Run("without-rrcl", {"loss.contrast_weight": 0.0})
    yield Run("without-rccl-u", {"loss.unseen_weight": 0.0})
    yield Run("conse", {"model.scoring.method": "conse"})
    for value in SWEEP:
        if value:  # 0 is without-rccl-u
            yield Run(f"lambda-{value:g}", {"loss.unseen_weight": value})
    for value in SWEEP:
        if value:  # 0 is without-rrcl
            yield Run(f"beta-{value:g}", {"loss.contrast_weight": value})
    for value in (0.03, 0.3, 1.0):
        yield Run(f"temperature-{value:g}", {"model.scoring.similarity_temperature": value})
    yield Run("relu", {"model.scoring.seen_activation": "relu"})
    for name in ("glove", "word2vec", "minilm"):
        yield Run(f"vectors-{name}", vectors=name)


RUNS = tuple(_runs())
OWN = RUNS[0]  # with the checkpoint's options


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Shared state of all runs.

    Attributes:
        base: the trained detector.
        kept: its regions of the training photographs.
        split: of the training.
        tests: the photographs and truth of every task.
        found: regions of the photographs of every task, in order.
        steps: of each training.
        vectors: sources of class vectors by key.
        calibration: per scoring method, the options ``CALIBRATED`` to evaluate with besides.
    """

    base: Checkpoint
    kept: Kept
    split: Split
    tests: Mapping[Task, Dataset]
    found: Mapping[Task, Sequence[stages.Described]]
    steps: int
    vectors: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """The experiment with some ``section.field`` changed; an unknown one is an error."""
    values = dataclasses.asdict(config)
    for key, value in options.items():
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[last] = value
    return from_mapping(Config, values)


def run_experiment(bench: Bench, run: Run, seed: int) -> dict[str, Any]:
    """Train, test, and return the log.

    Raises:
        ConfigError: the run needs class vectors that were not given.
    """
    started = time.perf_counter()
    vectors, options = bench.base.vectors, dict(run.options)
    if run.vectors:
        if run.vectors not in bench.vectors:
            raise ConfigError(f"run {run.name} needs --vectors {run.vectors}=SOURCE.")
        source = bench.vectors[run.vectors]
        vectors = load_vectors(source, bench.split.classes).vectors
        options["model.scoring.vector_dim"] = int(vectors.shape[1])
    config = with_options(bench.base.config, {**options, "training.seed": seed})
    log: dict[str, Any] = {
        "run": run.name,
        "seed": seed,
        "split": bench.split.name,
        "options": options,
        "loss": dataclasses.asdict(config.loss),
        "steps": bench.steps,
    }
    try:
        model, losses = train_scoring(
            bench.base,
            config,
            vectors,
            bench.kept.features,
            bench.kept.labels,
            seen=len(bench.split.seen),
            steps=bench.steps,
        )
    except ConfigError as error:  # a dead g_s is a result of this comparison, not a mistake
        if "g_s is dead" not in str(error):
            raise
        return log | {"dead": str(error), "seconds": round(time.perf_counter() - started, 1)}
    log["losses"] = rounded(losses, 4)
    scores = scores_of(bench, model, config, vectors)
    log["results"] = _results(bench, config, scores)
    log["curve"] = _curve(bench, config, scores["gzsd"])
    if run.name == OWN.name:
        log["readings"] = {}
        for reading, changed in READINGS.items():
            other = with_options(config, {f"model.scoring.{k}": v for k, v in changed.items()})
            log["readings"][reading] = _brief(
                _results(bench, other, scores_of(bench, model, other, vectors))
            )
    calibration = bench.calibration.get(config.model.scoring.method)
    if calibration and run.name in PORTRAITS:
        fitted = with_options(config, {f"model.scoring.{k}": v for k, v in calibration.items()})
        log["calibrated"] = {
            **calibration,
            **_brief(_results(bench, fitted, scores_of(bench, model, fitted, vectors))),
        }
    if run.name in PORTRAITS and seed == 0:
        names = bench.split.classes
        log["regions"] = region_map(model, bench.tests["gzsd"], bench.found["gzsd"], names)
        scorer, classes = class_set_of(model, config.model, names, vectors, len(bench.split.seen))
        log["detections"] = detections(model, config.model, scorer, classes)
    return log | {"seconds": round(time.perf_counter() - started, 1)}


Scores = Mapping[Task, Sequence[NDArray[np.float32]]]


def scores_of(
    bench: Bench, model: ContrastZSD, config: Config, vectors: NDArray[np.float32]
) -> Scores:
    """Scores of the regions of every task; tasks on the same photographs share them."""
    scorer, classes = class_set_of(
        model, config.model, bench.split.classes, vectors, len(bench.split.seen)
    )
    result: dict[Task, Sequence[NDArray[np.float32]]] = {}
    for task, found in bench.found.items():
        same = next((t for t in result if bench.found[t] is found), None)
        result[task] = result[same] if same else score_photographs(model, scorer, classes, found)
    return result


def _results(bench: Bench, config: Config, scores: Scores) -> dict[str, Any]:
    """The metrics of every task, small enough to commit."""
    names, seen = bench.split.classes, bench.split.seen
    results: dict[str, Any] = {}
    for task, test in bench.tests.items():
        matches = matches_of(test, bench.found[task], scores[task], names, seen, config.model)
        report = metrics.report(matches, samples=0)
        results[task] = {
            "images": report["images"],
            "boxes": report["boxes"],
            "values": rounded(report["values"], 3),
            "classes": {
                entry["name"]: rounded([entry[c] for c in KEPT_COLUMNS], 2)
                for entry in report["classes"]
                if entry["boxes"]
            },
        }
    return results


def _brief(results: Mapping[str, Any]) -> dict[str, Any]:
    return {task: result["values"] for task, result in results.items()}


def _curve(
    bench: Bench, config: Config, scores: Sequence[NDArray[np.float32]]
) -> list[dict[str, float]]:
    """Seen against unseen mAP in GZSD for each factor of the seen scores."""
    test, names, seen = bench.tests["gzsd"], bench.split.classes, bench.split.seen
    points = curve(
        scores,
        len(seen),
        SCALES,
        lambda s: matches_of(test, bench.found["gzsd"], s, names, seen, config.model),
    )
    return [{"seen_scale": scale, **rounded(v, 2)} for scale, v in sorted(points.items())]


def rounded(values: Any, digits: int) -> Any:
    """Numbers of nested mappings and sequences, rounded."""
    if isinstance(values, Mapping):
        return {key: rounded(value, digits) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(value, digits) for value in values]
    return values if values is None else round(float(values), digits)
