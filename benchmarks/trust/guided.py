"""Fuzz a loader guided by coverage: atheris keeps every input that reaches new code.

    pip install atheris
    python -m benchmarks.trust.guided manifest --seconds 60
    python -m benchmarks.trust.guided manifest --seconds 600 --keep
    python -m benchmarks.trust.guided zip --keep --json out/guided.json

It goes on until the time is over or an input gives a raw exception or a wrong result, whose bytes
are then written beside the corpus, as ``crash-*``; ``--again FILE`` tries such a file once more. An
input is the content of one file, as a stranger would write it; hashes fit. It starts from a good
file and from what earlier runs kept: ``--keep`` puts the inputs that reach new code into the
repository, where every test run loads them again. ``--json`` adds the run to those before, and
``--markdown`` fills the table of a page.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from benchmarks.measure import conditions, markdown, write_rows
from benchmarks.trust.attempts import refusal
from benchmarks.trust.corpora import read_corpus, write_corpus
from benchmarks.trust.table import duration, read_rows
from export.writing.markdown import fill_slot, find_slot
from zsd_core.commands import command, new_parser, print_error
from zsd_core.errors import DataError, MissingPackageError, ZsdError
from zsd_core.files import prepare_files

__all__ = ["LOADERS", "main", "parse", "take"]

# Keys of benchmarks.trust.loads.LOADS, which is imported once coverage is measured.
LOADERS = (
    *("checkpoint", "class-names", "coco", "configuration", "manifest", "network", "scorer"),
    *("tokenizer", "vectors-csv", "vectors-text", "vocabulary", "zip"),
)
SLOT = "guided"
MEASURED = ["runtime", "zsd_core", "zipfile"]  # packages whose coverage guides


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.trust.guided", __doc__)
    add = parser.add_argument
    add("loader", choices=LOADERS, metavar="LOADER", help=f"one of {', '.join(LOADERS)}")
    add("--seconds", type=int, default=60, metavar="N", help="time (%(default)s)")
    add(
        "--corpus",
        type=Path,
        metavar="FOLDER",
        help="inputs that reach new code are read and kept here (out/fuzz/LOADER)",
    )
    add("--keep", action="store_true", help="keep the inputs of the corpus in the repository")
    add("--json", type=Path, metavar="FILE", help="read rows of earlier runs, add this one")
    add("--markdown", type=Path, metavar="FILE", help=f"fill the slot {SLOT!r} of this page")
    add("--again", type=Path, metavar="FILE", help="try this input alone")
    args = parser.parse_args(argv)
    if args.seconds < 1:
        parser.error("--seconds must be at least 1")
    return args


def take(load: Callable[[bytes], None], data: bytes) -> str | None:
    """Load an input; return None if it is taken or refused by an error of ours, or the fault."""
    return refusal(lambda rng: load(data), random.Random(0))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if no fault was found, else 1."""
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        if args.again:
            return _again(args.loader, Path(folder), args.again)
        corpus = args.corpus or Path("out") / "fuzz" / args.loader
        prepare_files(corpus / "seed", args.json)
        if args.markdown:
            find_slot(args.markdown, SLOT)
        rows = read_rows(args.json)
        for name, data in read_corpus(args.loader).items():
            (corpus / name).write_bytes(data)
        started = time.monotonic()
        inputs, fault = _fuzz(args.loader, Path(folder) / "work", args.seconds, corpus)
        seconds = time.monotonic() - started
    kept = write_corpus(args.loader, corpus) if args.keep else len(read_corpus(args.loader))
    rows[args.loader] = _row(args.loader, inputs, seconds, kept, fault, rows.get(args.loader))
    if args.json:
        write_rows(args.json, [rows[name] for name in LOADERS if name in rows])
    shown = _table([rows[name] for name in LOADERS if name in rows])
    print(shown)
    if args.markdown:
        fill_slot(args.markdown, SLOT, shown)
    return int(fault)


def _row(
    loader: str,
    inputs: int,
    seconds: float,
    kept: int,
    fault: bool,
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """All runs of a loader since its last fault."""
    known = {"inputs": 0, "seconds": 0.0, **(before if before and not before["lost"] else {})}
    return {
        "part": loader,
        "inputs": known["inputs"] + inputs,
        "seconds": round(known["seconds"] + seconds, 1),
        "kept": kept,
        "lost": int(fault),
        "machine": conditions(),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    columns = ("loader", ">inputs", ">time", ">kept in the repository", ">lost or wrong")
    cells = []
    for row in rows:
        counts = [f"{row[key]:,}" for key in ("kept", "lost")]
        cells.append([f"`{row['part']}`", f"{row['inputs']:,}", duration(row["seconds"]), *counts])
    return markdown(columns, cells)


def _again(loader: str, folder: Path, file: Path) -> int:
    from benchmarks.trust.loads import LOADS

    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    fault = take(LOADS[loader](folder)[0], data)
    if fault:
        print_error(ZsdError(f"{file}: {fault}"))
    return int(fault is not None)


def _fuzz(loader: str, folder: Path, seconds: int, corpus: Path) -> tuple[int, bool]:
    """Run atheris in a child, because it ends its process.

    Returns:
        The number of inputs, and whether one of them was a fault.
    """
    try:
        import atheris
    except ImportError as error:
        raise MissingPackageError(
            "fuzzing guided by coverage needs atheris. Install it: pip install atheris"
        ) from error
    count: Synchronized[int] = multiprocessing.Value("q", 0)
    child = os.fork()
    if child:
        fault = os.waitpid(child, 0)[1] != 0
        return count.value, fault
    try:
        folder.mkdir()
        with atheris.instrument_imports(include=MEASURED):
            loads = importlib.import_module("benchmarks.trust.loads")
            load, seeds = loads.LOADS[loader](folder)
            for index, seed in enumerate(seeds):
                (corpus / f"seed-{index}").write_bytes(seed)
                take(load, seed)  # imports what it needs

        def target(data: bytes) -> None:
            count.value += 1
            if fault := take(load, data):  # kept here: atheris would write it at the very end
                name = f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
                (corpus.parent / name).write_bytes(data)
                raise RuntimeError(fault)

        options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=4096"]
        prefix = f"-artifact_prefix={corpus.parent}/"
        atheris.Setup([sys.argv[0], *options, prefix, str(corpus)], target)
        atheris.Fuzz()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # Fuzz ends the process itself, by 0 where it found nothing


if __name__ == "__main__":
    sys.exit(main())
