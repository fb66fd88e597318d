"""Fuzz a loader guided by coverage: atheris keeps every input that reaches new code.

    pip install atheris
    python -m benchmarks.trust.guided manifest --seconds 60

It goes on until the time is over or an input gives a raw exception or a wrong result, whose bytes
are then written beside the corpus, as ``crash-*``; ``--again FILE`` tries such a file once more. An
input is the content of one file, as a stranger would write it; hashes fit. The inputs that
``benchmarks.trust`` makes are the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.trust.attempts import refusal
from zsd_core.commands import command, new_parser, print_error
from zsd_core.errors import DataError, MissingPackageError, ZsdError
from zsd_core.files import prepare_files

__all__ = ["LOADERS", "main", "parse", "take"]

# Keys of benchmarks.trust.loads.LOADS, which is imported once coverage is measured.
LOADERS = (
    *("checkpoint", "class-names", "coco", "configuration", "manifest", "network", "scorer"),
    *("tokenizer", "vectors-csv", "vectors-text", "vocabulary", "zip"),
)
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
        prepare_files(corpus / "seed")
        return _fuzz(args.loader, Path(folder) / "work", args.seconds, corpus)


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


def _fuzz(loader: str, folder: Path, seconds: int, corpus: Path) -> int:
    """Run atheris in a child, because it ends its process."""
    try:
        import atheris
    except ImportError as error:
        raise MissingPackageError(
            "fuzzing guided by coverage needs atheris. Install it: pip install atheris"
        ) from error
    child = os.fork()
    if child:
        return int(os.waitpid(child, 0)[1] != 0)
    try:
        folder.mkdir()
        with atheris.instrument_imports(include=MEASURED):
            loads = importlib.import_module("benchmarks.trust.loads")
            load, seeds = loads.LOADS[loader](folder)
            for index, seed in enumerate(seeds):
                (corpus / f"seed-{index}").write_bytes(seed)
                take(load, seed)  # imports what it needs

        def target(data: bytes) -> None:
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
