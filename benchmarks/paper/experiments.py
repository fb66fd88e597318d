r"""Run the paper's comparisons, ablations and sweeps on kept features, one JSON log per run.

    python -m benchmarks.paper.experiments --checkpoint runs/first/last.pt \
        --annotations instances.json --images photographs --output logs/ --steps 250 --seeds 0 1 2

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

``--list`` shows the runs. ``python -m benchmarks.paper.experiments_page`` turns the logs into
tables and figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.paper.runs import (
    CALIBRATED,
    OWN,
    RUNS,
    Bench,
    Run,
    run_experiment,
    with_options,
)
from zsd_core import stages
from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError, DataError, did_you_mean
from zsd_core.files import prepare_files
from zsd_core.learning.balance import pseudo_split, pseudo_task
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.protocol import Task, test_set
from zsd_core.learning.data.read import read_dataset, read_training_set
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.experiment import Config
from zsd_core.learning.training.kept import Kept, describe_photographs, load_regions
from zsd_core.scoring import check_method

__all__ = ["main", "open_bench", "parse", "part_of"]


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
        kept = Kept(kept.features[held.rows], held.labels, kept.owners[held.rows], kept.fingerprint)
    else:
        photographs = read_dataset(args.format, args.annotations, args.images)
    tests = {
        task: test_set(photographs, split, task)
        for task in dict.fromkeys(("zsd", "gzsd", *args.tasks))
    }
    found: dict[Task, Sequence[stages.Described]] = {}
    for task, test in tests.items():
        paths = [image.path for image in test.images]
        same = next((t for t in found if [i.path for i in tests[t].images] == paths), None)
        found[task] = found[same] if same else describe_photographs(base.model, test)
    return Bench(base, kept, split, tests, found, args.steps, dict(args.vectors), calibration)


def _read_calibration(paths: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Values that ``zsd_core.calibrate`` fitted, by scoring method."""
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


def part_of(text: str) -> tuple[int, int]:
    """Read I/N of a command line: part I of N, from 1."""
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
    parser = new_parser("benchmarks.paper.experiments", __doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a detector trained with cache: regions")
    add("--regions", type=Path, help="its kept regions (regions.pt beside the checkpoint)")
    add("--annotations", nargs="+", help="boxes of the test photographs")
    add("--images", nargs="+", help="their folders")
    add(
        "--pseudo-unseen",
        type=int,
        default=0,
        metavar="N",
        help="test on up to N training photographs of seen classes that play unseen",
    )
    add("--machine-boxes", action="store_true", help="the boxes of --annotations are a machine's")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--tasks", nargs="*", choices=("seen",), default=[], help="also test seen photographs")
    add("--output", type=Path, required=True, help="folder of the logs; one below it per split")
    add("--steps", type=int, default=250, help="of each training (250)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add(
        "--only", nargs="+", metavar="RUN", help="these runs; * stands for anything, as in 'beta-*'"
    )
    add(
        "--vectors",
        nargs="+",
        type=_source,
        default=[],
        metavar="NAME=SOURCE",
        help="class vectors of runs vectors-NAME, read by zsd_core.learning.vectors",
    )
    add(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        help="what zsd_core.calibrate --json wrote, one file per scoring method",
    )
    add("--part", type=part_of, default=(1, 1), metavar="I/N", help="every N-th run, from the I-th")
    add("--list", action="store_true", help="print the runs that are left, and stop")
    args = parser.parse_args(argv)
    if not args.pseudo_unseen and not (args.annotations and args.images):
        parser.error("--annotations and --images, or --pseudo-unseen, say what to test on")
    if args.steps < 1 or min(args.pseudo_unseen, *args.seeds) < 0:
        parser.error("--steps must be at least 1, --pseudo-unseen and --seeds not negative")
    return args


def _chosen(args: argparse.Namespace, split: str, config: Config) -> list[tuple[Run, int, Path]]:
    """The runs asked for whose logs do not exist yet, over a checkpoint's configuration."""
    given, names = dict(args.vectors), [run.name for run in RUNS]
    for only in args.only or ():
        if not fnmatch.filter(names, only):
            hint = did_you_mean(only, names) or "."
            raise ConfigError(f"no run is called {only!r}{hint} There are {', '.join(names)}.")

    def wanted(run: Run) -> bool:
        if args.only is None:
            return not run.vectors or run.vectors in given
        return any(fnmatch.fnmatchcase(run.name, only) for only in args.only)

    def itself(run: Run) -> Run:
        same = not run.vectors and with_options(config, run.options) == config
        return OWN if same else run

    runs = {run.name: run for run in map(itself, filter(wanted, RUNS))}
    part, parts = args.part
    seeds = dict.fromkeys(args.seeds)
    mine = [(run, seed) for seed in seeds for run in runs.values()][part - 1 :: parts]
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
    return "python -m benchmarks.paper.experiments " + " ".join(words)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(words)
    config = load_checkpoint(args.checkpoint).config
    split = Path(config.data.split).stem
    kind = "_pseudo" if args.pseudo_unseen else "_machine" if args.machine_boxes else ""
    folder = f"{split}{kind}"
    left = _chosen(args, folder, config)
    if args.list:
        print("\n".join(str(path) for _, _, path in left))
        return 0
    prepare_files(args.output / "a log")
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
    print(args.output / folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
