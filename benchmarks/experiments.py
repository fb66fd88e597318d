r"""Run the paper's comparisons, ablations and sweeps on kept features, one JSON log per run.

    python -m benchmarks.experiments --checkpoint runs/first/last.pt --annotations instances.json \
        --images photographs --output logs/ --steps 250 --seeds 0 1 2

Trunk, proposals and box regression are the checkpoint's in every run; p_v and the scoring method
are trained anew on its kept regions, with one option changed, and tested on human-labelled
photographs that nothing is tuned on. A run whose log exists is skipped, so an interrupted command
goes on where it was; ``--part 1/2`` and ``--part 2/2`` share the runs between two processes. A run
whose options are the checkpoint's own is the run "contrastzsd", and is not trained twice.

With ``--pseudo-unseen N`` no unseen class takes part: every seed draws seen classes that play the
unseen ones, and up to N training photographs that show one are held out to test on. Their boxes are
the training's; trunk, proposals and box regression have seen them.

With ``--machine-boxes`` the annotations are a machine's: more photographs, and worse labels. These
logs too go to a folder of their own.

``--list`` shows the runs. ``python -m benchmarks.report`` turns the logs into tables and figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.published import SWEEP
from zsd_core import metrics, pipeline
from zsd_core.calibrate import SCALES, curve, pseudo_split, pseudo_task
from zsd_core.checkpoint import Checkpoint, load_checkpoint
from zsd_core.config import from_mapping
from zsd_core.data.dataset import Dataset
from zsd_core.data.protocol import Task, test_set
from zsd_core.data.read import read_dataset, read_training_set
from zsd_core.data.splits import Split, load_split
from zsd_core.errors import ConfigError, DataError, ZsdError, require
from zsd_core.experiment import Config
from zsd_core.matching import box_iou
from zsd_core.models import ContrastZSD, TorchNetworks
from zsd_core.scoring import check_method
from zsd_core.training.kept import (
    Kept,
    class_set_of,
    describe_photographs,
    load_regions,
    matches_of,
    score_photographs,
    train_scoring,
)
from zsd_core.vectors import load_vectors

__all__ = [
    "READINGS", "RUNS", "Bench", "Run", "main", "open_bench", "parse", "run_experiment",
    "with_options",
]  # fmt: skip

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
    """What all runs share.

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
    found: Mapping[Task, Sequence[pipeline.Described]]
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
    log: dict[str, Any] = {"run": run.name, "seed": seed, "split": bench.split.name,
                           "options": options, "loss": dataclasses.asdict(config.loss),
                           "steps": bench.steps}  # fmt: skip
    try:
        model, losses = train_scoring(
            bench.base, config, vectors, bench.kept.features, bench.kept.labels,
            seen=len(bench.split.seen), steps=bench.steps,
        )  # fmt: skip
    except ConfigError as error:  # a dead g_s is a result of this comparison, not a mistake
        if "g_s is dead" not in str(error):
            raise
        return log | {"dead": str(error), "seconds": round(time.perf_counter() - started, 1)}
    log["losses"] = _rounded(losses, 4)
    scores = _scores(bench, model, config, vectors)
    log["results"] = _results(bench, config, scores)
    log["curve"] = _curve(bench, config, scores["gzsd"])
    if run.name == OWN.name:
        log["readings"] = {}
        for reading, changed in READINGS.items():
            other = with_options(config, {f"model.scoring.{k}": v for k, v in changed.items()})
            log["readings"][reading] = _brief(
                _results(bench, other, _scores(bench, model, other, vectors))
            )
    calibration = bench.calibration.get(config.model.scoring.method)
    if calibration and run.name in PORTRAITS:
        fitted = with_options(config, {f"model.scoring.{k}": v for k, v in calibration.items()})
        log["calibrated"] = {
            **calibration,
            **_brief(_results(bench, fitted, _scores(bench, model, fitted, vectors))),
        }
    if run.name in PORTRAITS and seed == 0:
        log["regions"] = _region_map(bench, model)
        log["detections"] = _detections(bench, model, config, vectors)
    return log | {"seconds": round(time.perf_counter() - started, 1)}


Scores = Mapping[Task, Sequence[NDArray[np.float32]]]


def _scores(
    bench: Bench, model: ContrastZSD, config: Config, vectors: NDArray[np.float32]
) -> Scores:
    """Scores of the regions of every task; tasks on the same photographs share them."""
    scorer, classes = class_set_of(
        model, config.model, bench.split.classes, vectors, len(bench.split.seen)
    )
    result: dict[Task, Sequence[NDArray[np.float32]]] = {}
    for task, found in bench.found.items():
        same = next((t for t in result if bench.found[t] is found), None)
        result[task] = (
            result[same] if same else score_photographs(model, scorer, classes, found)
        )  # fmt: skip
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
            "values": _rounded(report["values"], 3),
            "classes": {
                entry["name"]: _rounded([entry[c] for c in KEPT_COLUMNS], 2)
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
        scores, len(seen), SCALES,
        lambda s: matches_of(test, bench.found["gzsd"], s, names, seen, config.model),
    )  # fmt: skip
    return [{"seen_scale": scale, **_rounded(v, 2)} for scale, v in sorted(points.items())]


@torch.inference_mode()
def _region_map(bench: Bench, model: ContrastZSD, most: int = 25) -> dict[str, Any]:
    """Regions of objects as points of a plane, by t-SNE of v (figure 4).

    A region is an object's if its IoU with it is at least 0.5; up to ``most`` per class, and only
    classes with at least 5.
    """
    manifold = require("sklearn.manifold", "report")
    vectors, labels = [], []
    for image, one in zip(bench.tests["gzsd"].images, bench.found["gzsd"], strict=True):
        if not len(one.rois):
            continue
        resized, (height, width) = one.image_sizes[0], one.originals[0]
        boxes = pipeline.to_original(one.rois, (int(resized[0]), int(resized[1])), (height, width))
        overlap = np.where(image.ignore[None], 0, box_iou(boxes, image.boxes))
        for row in np.flatnonzero(overlap.max(axis=1, initial=0) >= 0.5):
            labels.append(image.labels[int(overlap[row].argmax())])
            vectors.append(one.embeddings[row])
    rng, kept = np.random.default_rng(0), []
    for name in bench.split.classes:
        own = np.flatnonzero([label == name for label in labels])
        if len(own) >= 5:
            kept += sorted(rng.permutation(own)[:most].tolist())
    if len(kept) < 10:
        return {"points": [], "labels": []}
    embedded = model.head.project_visual(torch.from_numpy(np.stack([vectors[i] for i in kept])))
    points = manifold.TSNE(
        perplexity=min(30, len(kept) // 4), init="pca", random_state=0
    ).fit_transform(embedded.numpy())
    span = np.abs(points).max()
    return {
        "points": np.round(points / span, 3).tolist(),
        "labels": [labels[i] for i in kept],
    }


def _detections(
    bench: Bench, model: ContrastZSD, config: Config, vectors: NDArray[np.float32], most: int = 6
) -> dict[str, Any]:
    """The best boxes in the photographs that ship with scikit-image (figures 5 and 6)."""
    from export.stages import sample_images

    scorer, classes = class_set_of(
        model, config.model, bench.split.classes, vectors, len(bench.split.seen)
    )
    networks, result = TorchNetworks(model), {}
    thresholds = np.zeros(len(classes.names), np.float32)
    for image in sample_images():
        if image.name not in ("chelsea", "coffee", "astronaut", "rocket", "motorcycle"):
            continue
        (found,) = pipeline.run(
            networks, scorer, classes, config.model, [image.pixels], thresholds,
            max_detections=most,
        )  # fmt: skip
        result[image.name] = [
            [*np.round(box, 1).tolist(), round(float(score), 4), classes.names[column]]
            for box, score, column in zip(found.boxes, found.scores, found.columns, strict=True)
        ]
    return result


def _rounded(values: Any, digits: int) -> Any:
    if isinstance(values, Mapping):
        return {key: _rounded(value, digits) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value, digits) for value in values]
    return values if values is None else round(float(values), digits)


def open_bench(args: argparse.Namespace, draw: int = 0) -> Bench:
    """Read everything that the runs share, and describe the test photographs.

    ``draw`` is of the pseudo-unseen classes, where those are asked for.
    """
    calibration = _read_calibration(args.calibration)
    base = load_checkpoint(args.checkpoint)
    split = load_split(base.config.data.split)
    if base.seen != split.seen:
        raise DataError(f"{args.checkpoint} was not trained on split {split.name}.")
    kept = load_regions(args.regions or args.checkpoint.with_name("regions.pt"))
    if args.pseudo_unseen:
        training = read_training_set(base.config.data, split)
        pseudo = pseudo_split(training, split, draw)
        held = pseudo_task(base, kept, training, split, pseudo, args.pseudo_unseen, draw)
        photographs, split = held.test, pseudo
        base = dataclasses.replace(base, vectors=held.vectors)
        kept = Kept(kept.features[held.rows], held.labels, kept.fingerprint)
    else:
        photographs = read_dataset(args.format, args.annotations, args.images)
    tests = {
        task: test_set(photographs, split, task)
        for task in dict.fromkeys(("zsd", "gzsd", *args.tasks))
    }
    found: dict[Task, Sequence[pipeline.Described]] = {}
    for task, test in tests.items():
        paths = [image.path for image in test.images]
        same = next((t for t in found if [i.path for i in tests[t].images] == paths), None)
        found[task] = found[same] if same else describe_photographs(base.model, test)
    return Bench(base, kept, split, tests, found, args.steps, dict(args.vectors), calibration)


def _read_calibration(paths: Iterable[Path]) -> dict[str, dict[str, float]]:
    """What ``zsd_core.calibrate`` fitted, by scoring method."""
    found = {}
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            found[check_method(result["method"])] = {key: float(result[key]) for key in CALIBRATED}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--calibration {path} cannot be used ({error!r}); pass what python -m "
                "zsd_core.calibrate --json wrote."
            ) from error
    return found


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no I/N with I from 1 to N, such as 1/2")
    return int(part), int(parts)


def _source(text: str) -> tuple[str, str]:
    name, _, source = text.partition("=")
    names = [run.vectors for run in RUNS if run.vectors]
    if name not in names or not source:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME=SOURCE with a name of {', '.join(names)}"
        )
    return name, source


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a detector trained with cache: regions")
    add("--regions", type=Path, help="its kept regions (regions.pt beside the checkpoint)")
    add("--annotations", nargs="+", help="boxes of the test photographs")
    add("--images", nargs="+", help="their folders")
    add("--pseudo-unseen", type=int, default=0, metavar="N",
        help="test on up to N training photographs of seen classes that play unseen")  # fmt: skip
    add("--machine-boxes", action="store_true", help="the boxes of --annotations are a machine's")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--tasks", nargs="*", choices=("seen",), default=[], help="also test seen photographs")
    add("--output", type=Path, required=True, help="folder of the logs; one below it per split")
    add("--steps", type=int, default=250, help="of each training (250)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--only", nargs="+", metavar="RUN", help="these runs, or those that begin like RUN*")
    add("--vectors", nargs="+", type=_source, default=[], metavar="NAME=SOURCE",
        help="class vectors of runs vectors-NAME, as zsd_core.vectors reads them")  # fmt: skip
    add("--calibration", type=Path, nargs="+", default=[],
        help="what zsd_core.calibrate --json wrote, one file per scoring method")  # fmt: skip
    add("--part", type=_part, default=(1, 1), metavar="I/N", help="every N-th run, from the I-th")
    add("--list", action="store_true", help="print the runs that are left, and stop")
    args = parser.parse_args(argv)
    if not args.pseudo_unseen and not (args.annotations and args.images):
        parser.error("--annotations and --images, or --pseudo-unseen, say what to test on")
    return args


def _chosen(args: argparse.Namespace, split: str, config: Config) -> list[tuple[Run, int, Path]]:
    """The runs asked for whose logs do not exist yet, over a checkpoint's configuration."""
    given = dict(args.vectors)

    def wanted(run: Run) -> bool:
        if args.only is None:
            return not run.vectors or run.vectors in given
        return any(
            run.name == only or (only.endswith("*") and run.name.startswith(only[:-1]))
            for only in args.only
        )

    def itself(run: Run) -> Run:
        same = not run.vectors and with_options(config, run.options) == config
        return OWN if same else run

    runs = {run.name: run for run in map(itself, filter(wanted, RUNS))}
    if not runs:
        raise ConfigError(f"no run is called {args.only}; there are {[r.name for r in RUNS]}.")
    part, parts = args.part
    mine = [(run, seed) for seed in args.seeds for run in runs.values()][part - 1 :: parts]
    folder = args.output / split
    places = [(run, seed, folder / f"{run.name}-seed{seed}.json") for run, seed in mine]
    return [(run, seed, path) for run, seed, path in places if not path.exists()]


def _command(argv: Sequence[str]) -> str:
    """The command without this machine's folders."""

    def shown(option: str, word: str) -> str:
        name, equals, value = word.rpartition("=")
        is_path = os.sep in value and option != "--part"  # which holds I/N
        return f"{name}{equals}{Path(value).name}" if is_path else word

    words = [shown(option, word) for option, word in pairwise(["", *argv])]
    return "python -m benchmarks.experiments " + " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(words)
    try:
        config = load_checkpoint(args.checkpoint).config
        split = Path(config.data.split).stem
        kind = "_pseudo" if args.pseudo_unseen else "_machine" if args.machine_boxes else ""
        folder = f"{split}{kind}"
        left = _chosen(args, folder, config)
        if args.list:
            print("\n".join(str(path) for _, _, path in left))
            return 0
        bench, drawn = None, -1
        for number, (run, seed, path) in enumerate(left, start=1):
            if bench is None or (args.pseudo_unseen and seed != drawn):
                bench, drawn = open_bench(args, seed), seed
            print(f"[{number}/{len(left)}] {run.name}, seed {seed}", file=sys.stderr, flush=True)
            log = run_experiment(bench, run, seed)
            log["command"] = _command(words)
            log["regions kept"] = bench.kept.fingerprint
            log["versions"] = {"torch": str(torch.__version__), "numpy": np.__version__}
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(log, separators=(",", ":")) + "\n", encoding="utf-8")
            os.replace(partial, path)
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(args.output / folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
