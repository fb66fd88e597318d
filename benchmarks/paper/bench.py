r"""Train, test and compare every system of the paper on one detector's regions.

    python -m benchmarks.paper.bench --checkpoint runs/coco48/last.pt --work bench/ \
        --annotations instances.json --images photographs \
        --held-out held_out.json photographs --json docs/measurements/systems.json

Trunk, proposals, box regression, training regions, class vectors and evaluator are the same for
all. First every system's options are chosen on seen classes that play unseen ones, in the
photographs of ``--held-out``, which trained nothing; no unseen class takes part. Then every system
is trained with every seed and tested on the photographs of ``--annotations`` that show an unseen
object. Last, systems are compared by a paired bootstrap over photographs and seeds.

DSES wants names with photographs and no boxes (``--words words.json FOLDER``, by
``scripts.vocabulary.others``), and TD descriptions (``--vectors glosses=glosses.npz``, by
``scripts.vocabulary.glosses``); without them the two are left out.

Everything is kept under ``--work``: an interrupted command goes on where it was. The checkpoint
comes from training with ``training.cache: regions``, whose ``regions.pt`` lies beside it.
``python -m benchmarks.paper.report`` writes the page. ``--bundles DIR`` makes every system, as its
first seed trained it, a detector of its own there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.paper.bundles import write_bundles
from benchmarks.paper.described import described
from benchmarks.paper.paired import compared, summary
from benchmarks.paper.runs import Bench
from benchmarks.paper.systems import OWN, SYSTEMS, System
from benchmarks.paper.trials import choose, measure, outside
from benchmarks.paper.words import Words, load_words
from export.checks.images import sample_images
from zsd_core.commands import Progress, command, new_parser
from zsd_core.errors import ConfigError, DataError
from zsd_core.files import prepare_files
from zsd_core.learning.balance import pseudo_regions, pseudo_split
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.protocol import Task, test_set
from zsd_core.learning.data.read import read_dataset, read_training_set
from zsd_core.learning.data.splits import Split, load_split
from zsd_core.learning.training.kept import Kept, load_regions

__all__ = [
    "Material",
    "kept_values",
    "main",
    "parse",
    "pseudo_benches",
    "source_of",
    "write_values",
]

TASKS: tuple[Task, ...] = ("zsd", "gzsd")


def source_of(text: str) -> tuple[str, str]:
    """Read NAME=SOURCE of class vectors."""
    name, _, source = text.partition("=")
    if not name or not source:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=SOURCE")
    return name, source


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.paper.bench", __doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a detector trained with cache: regions")
    add("--regions", type=Path, help="its kept regions (regions.pt beside the checkpoint)")
    add("--annotations", required=True, help="boxes of the test photographs, COCO's format")
    add("--images", required=True, help="their folder")
    add(
        "--held-out",
        nargs=2,
        required=True,
        metavar=("JSON", "FOLDER"),
        help="photographs with seen classes only, which trained nothing, to choose options on",
    )
    add("--work", type=Path, required=True, help="folder of regions, choices and runs")
    add("--json", type=Path, help="where the comparison goes, such as docs/measurements/...")
    add("--words", nargs=2, metavar=("JSON", "FOLDER"), help="names and photographs for DSES")
    add("--word-vectors", default="minilm", help="encoder of these names (minilm)")
    add(
        "--vectors",
        nargs="+",
        type=source_of,
        default=[],
        metavar="NAME=SOURCE",
        help="other class vectors, read by zsd_core.learning.vectors",
    )
    names = [system.name for system in SYSTEMS]
    add("--only", nargs="+", choices=names, metavar="SYSTEM", help="these systems")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--draws", type=int, default=2, help="of seen classes that play unseen ones (2)")
    add("--steps", type=int, default=200, help="of each training (200)")
    add("--samples", type=int, default=300, help="of the bootstrap (300)")
    add("--bundles", type=Path, help="write the detectors of the first seed there, and check them")
    add("--outside", action="store_true", help="score the first run by pycocotools too")
    add("--threads", type=int, default=1, help="of a network (1)")
    args = parser.parse_args(argv)
    known = {system.vectors for system in SYSTEMS if system.vectors}
    if other := sorted(set(dict(args.vectors)) - known):
        parser.error(f"--vectors {other[0]}=…: must be one of {', '.join(sorted(known))}")
    if min(args.steps, args.samples, args.draws, args.threads) < 1 or min(args.seeds) < 0:
        parser.error("--steps, --samples, --draws and --threads are at least 1, seeds 0")
    return args


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything that is read once.

    Attributes:
        base: the trained detector.
        kept: its regions of the training photographs.
        split: of the training.
        work: folder of regions, choices and runs.
        steps: of each training.
        threads: of a network.
        vectors: sources of class vectors by key.
        words: further classes, for systems that take them.
    """

    base: Checkpoint
    kept: Kept
    split: Split
    work: Path
    steps: int
    threads: int
    vectors: Mapping[str, str]
    words: Words | None

    @property
    def place(self) -> Path:
        """Folder of choices and runs."""
        return self.work / self.split.name

    @property
    def conditions(self) -> dict[str, Any]:
        """What every choice and run depends on."""
        return {"regions": self.kept.fingerprint, "steps": self.steps}

    def bench(
        self, photographs: Dataset, split: Split, kept: Kept, vectors: NDArray[np.float32]
    ) -> Bench:
        """The tests of photographs under a split, described."""
        tests = {task: test_set(photographs, split, task) for task in TASKS}
        regions = self.work / "regions"
        found = {
            task: described(self.base.model, test, regions, self.threads)
            for task, test in tests.items()
        }
        base = dataclasses.replace(self.base, vectors=vectors)
        return Bench(base, kept, split, tests, found, self.steps, self.vectors)


def pseudo_benches(material: Material, held: Dataset, draws: int) -> list[Bench]:
    """Tests in which seen classes play the unseen ones, one for each draw."""
    base, kept, split = material.base, material.kept, material.split
    training = read_training_set(base.config.data, split)
    benches = []
    for draw in range(draws):
        pseudo = pseudo_split(training, split, draw)
        rows, labels, vectors = pseudo_regions(base, kept, training, split, pseudo)
        own = Kept(kept.features[rows], labels, kept.owners[rows], kept.fingerprint)
        photographs = dataclasses.replace(held, categories=split.seen)
        benches.append(material.bench(photographs, pseudo, own, vectors))
    return benches


def write_values(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def kept_values(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """A file of this command, if it is there and was made under the same conditions."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it.") from error
    same = found.get("conditions") == json.loads(json.dumps(wanted))
    return found if same else None


def _compare(systems: Sequence[System], runs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """A row for every system: each number with its interval, and its distance from ContrastZSD."""
    rows = []
    for system in systems:
        logs, draws = zip(*runs[system.name], strict=True)
        row: dict[str, Any] = {
            "name": system.name,
            "title": system.title,
            "note": system.note,
            "options": logs[0]["conditions"]["options"],
            "losses": logs[0]["losses"],
            "classes": {task: _by_class(logs, task) for task in TASKS},
            "values": {},
            "against": {},
        }
        for key in draws[0]:
            row["values"][key] = summary(_points(logs, key), np.stack([d[key] for d in draws]))
            if system.name != OWN and OWN in runs:
                own_logs, own = zip(*runs[OWN], strict=True)
                row["against"][key] = compared(
                    _points(logs, key),
                    np.stack([d[key] for d in draws]),
                    _points(own_logs, key),
                    np.stack([d[key] for d in own]),
                )
        rows.append(row)
    return rows


def _by_class(logs: Sequence[Mapping[str, Any]], task: str) -> dict[str, dict[str, Any]]:
    """Boxes of every unseen class; its AP and recall as mean and deviation over the seeds."""
    found: dict[str, dict[str, Any]] = {}
    for name, (boxes, *_) in logs[0]["results"][task]["classes"].items():
        numbers = np.array([log["results"][task]["classes"][name][1:] for log in logs])
        spread = numbers.std(axis=0, ddof=1) if len(logs) > 1 else (None, None)
        pairs = zip(numbers.mean(axis=0), spread, strict=True)
        ap, recall = ([round(float(mean), 2), s and round(float(s), 2)] for mean, s in pairs)
        found[name] = {"boxes": boxes, "AP": ap, "recall": recall}
    return found


def _points(logs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    task, number, group = key.split("|")
    return [log["results"][task]["values"][number][group] for log in logs]


def _systems(args: argparse.Namespace) -> list[System]:
    """The systems asked for; those whose data were not given are left out, with a line."""
    chosen = []
    for system in SYSTEMS:
        needs = "--words" if system.words and not args.words else ""
        if system.vectors and system.vectors not in dict(args.vectors):
            needs = f"--vectors {system.vectors}=SOURCE"
        if args.only and system.name not in args.only:
            continue
        if needs and args.only:
            raise ConfigError(f"{system.name} needs {needs}.")
        if needs:
            print(f"{system.title} is left out: it needs {needs}", file=sys.stderr)
            continue
        chosen.append(system)
    return chosen


def _choices(
    material: Material, systems: Sequence[System], args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """The options of every system, or of the one that it is like, and what was tried for them."""
    choices: dict[str, dict[str, Any]] = {}
    benches: list[Bench] = []
    with Progress("choose options", len(systems)) as progress:
        for asked in systems:
            system = next(s for s in SYSTEMS if s.name == (asked.like or asked.name))
            path = material.place / f"{system.name}-options.json"
            tried = {key: list(values) for key, values in system.tried.items()}
            wanted = {"options": system.options, "tried": tried, "draws": args.draws}
            found = kept_values(path, material.conditions | wanted)
            if found is None:
                if not benches:
                    held = read_dataset("coco", [args.held_out[0]], [args.held_out[1]])
                    benches = pseudo_benches(material, held, args.draws)
                chosen = choose(benches, system, material.words)
                found = {"conditions": material.conditions | wanted, **chosen}
                write_values(path, found)
            choices[asked.name] = found
            progress.advance(values={"last": asked.name})
    return choices


def _runs(
    material: Material,
    systems: Sequence[System],
    choices: Mapping[str, Mapping[str, Any]],
    args: argparse.Namespace,
) -> tuple[dict[str, list[Any]], dict[str, Any] | None]:
    """Log and bootstrap samples of every run by system; and one run scored by others' evaluators.

    Every system runs once before any runs a second time.
    """
    bench: list[Bench] = []  # made where a run is missing

    def tested() -> Bench:
        if not bench:
            photographs = read_dataset("coco", [args.annotations], [args.images])
            own = material.split, material.kept, material.base.vectors
            bench.append(material.bench(photographs, *own))
        return bench[0]

    runs: dict[str, list[Any]] = {}
    with Progress("train and test", len(systems) * len(args.seeds)) as progress:
        for seed, system in product(args.seeds, systems):
            path = material.place / f"{system.name}-seed{seed}.json"
            options = {**system.options, **choices[system.name]["options"]}
            wanted = {"options": options, "seed": seed, "samples": args.samples}
            log = kept_values(path, material.conditions | wanted)
            if log is None:
                path.with_suffix(".pt").unlink(missing_ok=True)  # of a run with other options
            keep = path.with_suffix(".pt") if args.bundles and seed == args.seeds[0] else None
            if log is None or (keep and not keep.exists()):
                own = options, seed, args.samples, material.words, keep
                run, drawn = measure(tested(), system, *own)
                np.savez(path.with_suffix(".npz"), **drawn)  # type: ignore[arg-type]
                log = {"conditions": material.conditions | wanted, **run}
                write_values(path, log)
            with np.load(path.with_suffix(".npz")) as arrays:
                runs.setdefault(system.name, []).append((log, dict(arrays)))
            progress.advance(values={"last": system.name})
    if not args.outside:
        return runs, None
    path, system, seed = material.place / "outside.json", systems[0], args.seeds[0]
    options = choices[system.name]["options"]
    wanted = material.conditions | {"system": system.name, "options": options, "seed": seed}
    judged = kept_values(path, wanted)
    if judged is None:
        tasks = outside(tested(), system, options, seed, material.words)
        judged = {"conditions": wanted, "tasks": tasks}
        write_values(path, judged)
    return runs, judged


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    if args.json:
        prepare_files(args.json)
    torch.set_num_threads(args.threads)
    base = load_checkpoint(args.checkpoint)
    kept = load_regions(args.regions or args.checkpoint.with_name("regions.pt"))
    split = load_split(base.config.data.split)
    if base.seen != split.seen:
        raise DataError(f"{args.checkpoint} was not trained on split {split.name}.")
    systems, words = _systems(args), None
    if any(system.words for system in systems):
        listed, folder = map(Path, args.words)
        regions = args.work / "regions"
        words = load_words(base.model, listed, folder, args.word_vectors, regions, args.threads)
    own = args.work, args.steps, args.threads, dict(args.vectors), words
    material = Material(base, kept, split, *own)
    choices = _choices(material, systems, args)
    runs, judged = _runs(material, systems, choices, args)
    agreement: dict[str, Any] | None = None
    if args.bundles:
        made = [(s, material.place / f"{s.name}-seed{args.seeds[0]}.pt") for s in systems]
        images = sample_images()
        agreement = {"images": len(images), "rows": write_bundles(made, args.bundles, images)}
    first = runs[systems[0].name][0][0]["results"]
    result = {
        "split": split.name,
        "zsd_images": split.zsd_images,
        "conditions": {**material.conditions, "seeds": args.seeds, "samples": args.samples},
        "training": {
            "photographs": base.training.get("counts", {}).get("images"),
            "passes": base.config.training.epochs,
            "trunk_passes": base.config.training.trunk_epochs,
        },
        "tests": {task: {k: first[task][k] for k in ("images", "boxes")} for task in TASKS},
        "chosen": {s.name: choices[s.name]["tried"] for s in systems if not s.like},
        "systems": _compare(systems, runs),
        "outside": judged,
        "bundles": agreement,
    }
    target = args.json or material.place / "systems.json"
    target.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
