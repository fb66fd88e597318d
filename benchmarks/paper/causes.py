"""What separates ContrastZSD from the other systems: experiments that could refute a guess.

    python -m benchmarks.paper.causes --checkpoint runs/coco48/last.pt --work bench/ \
        --held-out held_out.json photographs --json docs/measurements/causes.json

Seen classes play unseen ones, in the photographs of ``--held-out``, which trained nothing; no
unseen class takes part, so what is learned here may be used. Every row changes one thing. It is
tested on the detector's regions and, with the same scoring, on human boxes: what differs between
the two is the regions' doing. Rows whose log is under ``--work`` are not run again; ``--only``
names some, ``--part 1/2`` and ``--part 2/2`` share them between two processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.bench import Material, kept_values, pseudo_benches, source_of, write_values
from benchmarks.paper.described import DescribingNetworks
from benchmarks.paper.experiments import part_of
from benchmarks.paper.runs import Bench, rounded, scores_of
from benchmarks.paper.systems import OWN, SYSTEMS, System
from benchmarks.paper.trials import config_of, matched, trained, vectors_of
from benchmarks.paper.words import load_words
from zsd_core.commands import Progress, command, new_parser
from zsd_core.files import prepare_files
from zsd_core.learning import metrics
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.limits import human_regions
from zsd_core.learning.training.kept import load_regions

__all__ = ["Cause", "causes", "main", "parse"]

AP, RECALL = "mAP@0.5 area", "Recall@100 IoU 0.5"
RATE = 5e-4  # of the recipe coco48
SCORING = "model__scoring__"


@dataclass(frozen=True, slots=True)
class Cause:
    """One row: a system with something changed.

    Attributes:
        name: of its log.
        title: in the table.
        system: what is trained.
    """

    name: str
    title: str
    system: System


def _of(name: str, **options: Any) -> System:
    """A system with further options, ``section__field`` for ``section.field``."""
    system = next(one for one in SYSTEMS if one.name == name)
    changed = {key.replace("__", "."): value for key, value in options.items()}
    return replace(system, options={**system.options, **changed}, tried={})


def causes(vectors: Sequence[str] = ()) -> list[Cause]:
    """Every row, with one for each further source of class vectors."""
    rows = [
        Cause("own", "ContrastZSD", _of(OWN)),
        Cause("conse", "ConSE-ZSD", _of("conse", model__scoring__conse_top=48)),
        Cause("ridge", "from a ridge regression, not trained", _of("contrastzsd-ridge")),
        Cause(
            "warm",
            "from a ridge regression, then trained",
            replace(_of("contrastzsd-ridge"), steps=None),
        ),
        Cause("rate", "4 times the learning rate", _of(OWN, training__learning_rate=4 * RATE)),
        Cause(
            "no-evidence", "without `seen_evidence`", _of(OWN, **{SCORING + "seen_evidence": False})
        ),
        Cause(
            "no-objectness", "without objectness", _of(OWN, **{SCORING + "objectness_power": 0.0})
        ),
        Cause(
            "temperature",
            "temperature of S 1 in the place of 0.05",
            _of(OWN, **{SCORING + "similarity_temperature": 1.0}),
        ),
        Cause("no-center", "class vectors not centred", _of(OWN, **{SCORING + "center": False})),
        Cause(  # once centred, the mean is zero
            "mean",
            "not centred, a_0 fixed: the mean of the seen vectors",
            _of(OWN, **{SCORING + "center": False, SCORING + "background": "mean"}),
        ),
        Cause("no-unseen", "g_u without a loss", _of(OWN, loss__unseen_weight=0.0)),
        Cause("dropout", "half of f dropped in training", _of(OWN, training__dropout=0.5)),
        Cause(
            "decay", "weight decay 20 in the place of 0.0001", _of(OWN, training__weight_decay=20.0)
        ),
        Cause("words", "p_s learns further names too", replace(_of(OWN), words=True)),
    ]
    for name in vectors:
        rows.append(
            Cause(f"vectors-{name}", f"class vectors {name}", replace(_of(OWN), vectors=name))
        )
    for name in ("conse", "sb", "hre", "blc", OWN):
        title = next(one.title for one in SYSTEMS if one.name == name)
        for factor in (1, 4):
            for steps in (200, 800):
                system = _of(name, training__learning_rate=RATE * factor)
                what = f"{title}, rate {RATE * factor:g}, {steps} steps"
                rows.append(Cause(f"{name}-{factor}-{steps}", what, replace(system, steps=steps)))
    return rows


def _measured(bench: Bench, human: Bench, cause: Cause, draw: int, words: Any) -> dict[str, Any]:
    """ZSD numbers of one draw in percent, on proposals and on human boxes, and the last losses."""
    system, started = cause.system, time.process_time()
    config = config_of(bench, system, {}, draw)
    model, losses = trained(bench, system, config, words)
    images = len(bench.tests["zsd"])
    result: dict[str, Any] = {"images": images, "losses": rounded(losses, 4)}
    for name, one in (("regions", bench), ("human boxes", human)):
        scores = scores_of(one, model, config, vectors_of(one, system))["zsd"]
        values = metrics.report(matched(one, config, "zsd", scores), samples=0)["values"]
        both = {"mAP": values[AP]["unseen"], "recall": values[RECALL]["unseen"]}
        result[name] = rounded(both, 3)
    return {**result, "seconds": round(time.process_time() - started, 1)}


def _on_human_boxes(material: Material, bench: Bench) -> Bench:
    """The same test with the true boxes of its photographs as regions."""
    networks = DescribingNetworks(material.base.model, material.threads)
    model = material.base.config.model
    found = [human_regions(networks, model, one) for one in bench.tests["zsd"].images]
    return replace(bench, found={"zsd": found}, tests={"zsd": bench.tests["zsd"]})


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.paper.causes", __doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a detector trained with cache: regions")
    add("--regions", type=Path, help="its kept regions (regions.pt beside the checkpoint)")
    add("--held-out", nargs=2, required=True, metavar=("JSON", "FOLDER"), help="to test on")
    add("--work", type=Path, required=True, help="folder of regions and logs, as of the bench")
    add("--json", type=Path, help="where the table goes once all rows are there")
    add("--words", nargs=2, metavar=("JSON", "FOLDER"), help="further names for p_s")
    add("--word-vectors", default="minilm", help="encoder of these names (minilm)")
    add("--vectors", nargs="+", type=source_of, default=[], metavar="NAME=SOURCE", help="to try")
    add("--only", nargs="+", metavar="ROW", help="these rows")
    add("--part", type=part_of, default=(1, 1), metavar="I/N", help="every N-th row from the I-th")
    add("--draws", type=int, default=1, help="of seen classes that play unseen ones (1)")
    add("--steps", type=int, default=200, help="of a row that does not say (200)")
    add("--threads", type=int, default=1, help="of a network (1)")
    args = parser.parse_args(argv)
    if min(args.steps, args.draws, args.threads) < 1:
        parser.error("--steps, --draws and --threads are at least 1")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    torch.set_num_threads(args.threads)
    base = load_checkpoint(args.checkpoint)
    kept = load_regions(args.regions or args.checkpoint.with_name("regions.pt"))
    own = args.work, args.steps, args.threads, dict(args.vectors)
    words = None
    if args.words:
        listed, folder = map(Path, args.words)
        regions = args.work / "regions"
        words = load_words(base.model, listed, folder, args.word_vectors, regions, args.threads)
    material = Material(base, kept, load_split(base.config.data.split), *own, words)
    every = [c for c in causes(list(material.vectors)) if words or not c.system.words]
    asked = [c for c in every if not args.only or c.name in args.only]
    named = [*args.held_out, *(args.words or ()), *(f"{k}={v}" for k, v in args.vectors)]
    inputs = [str(name) for name in named]
    part, parts = args.part
    benches: list[tuple[Bench, Bench]] = []
    logs: dict[str, list[Mapping[str, Any]]] = {}
    with Progress("causes", len(asked[part - 1 :: parts]) * args.draws) as progress:
        for cause in asked[part - 1 :: parts]:
            for draw in range(args.draws):
                path = args.work / "causes" / f"{cause.name}-draw{draw}.json"
                wanted = material.conditions | {"options": cause.system.options, "inputs": inputs}
                log = kept_values(path, wanted)
                if log is None:
                    if not benches:
                        held = read_dataset("coco", [args.held_out[0]], [args.held_out[1]])
                        plain = pseudo_benches(material, held, args.draws)
                        benches = [(one, _on_human_boxes(material, one)) for one in plain]
                    measured = _measured(*benches[draw], cause, draw, words)
                    log = {"conditions": wanted, **measured}
                    write_values(path, log)
                shown = {key: value for key, value in log.items() if key != "conditions"}
                logs.setdefault(cause.name, []).append(shown)  # without the names of folders
                progress.advance(values={"last": cause.name})
    rows: list[dict[str, Any]] = [
        {"name": c.name, "title": c.title, "steps": _steps(c, args.steps), "draws": logs[c.name]}
        for c in asked
        if c.name in logs
    ]
    if args.json and len(rows) == len(asked):
        held = rows[0]["draws"]
        told = {
            "photographs": f"{'/'.join(str(draw['images']) for draw in held)} photographs that "
            "trained nothing (a number for each draw)",
            "what": f"trained on the {len(kept.labels):,} regions of "
            f"{len(kept.owners.unique()):,} photographs, less those that show such a class",
        }
        write_values(args.json, {"conditions": material.conditions, **told, "rows": rows})
    for row in rows:
        print(row["title"], [one["regions"] for one in row["draws"]])
    return 0


def _steps(cause: Cause, given: int) -> int:
    return given if cause.system.steps is None else cause.system.steps


if __name__ == "__main__":
    sys.exit(main())
