r"""Search folders of any size; a run that was stopped goes on where it was.

Try:
  python -m runtime.batch photos/ --output run/
      every image below photos/; the rows are in run/detections.jsonl
  python -m runtime.batch "photos/**/*.jpg" more.txt --output run/ --format parquet coco jsonl \
      --classes "cat, cup, fire truck"
      globs, lists of paths and Parquet tables of paths; three formats; classes of your own
  python -m runtime.batch photos/ --output run/ --ray local
      a process per CPU of this machine, with Ray; --ray ADDRESS takes a cluster

The same command again goes on with what is missing. Exit status: 0 all images were searched,
1 error, 3 some images are damaged (their rows say why), 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from runtime.arguments import add_detector_arguments, whole_number
from runtime.batch.cluster import search_on_ray
from runtime.batch.folder import RunFolder, Shard
from runtime.batch.formats import FORMATS, CocoIds, check_formats
from runtime.batch.inputs import Listing, list_images
from runtime.batch.progress import Countdown
from runtime.batch.shards import PICTURES, search_shard
from runtime.bundle import Bundle
from runtime.console import introduce, say, tolerate_any_text
from runtime.detector import Detector
from runtime.images import MAX_PIXELS
from zsd_core.commands import Steps, command, new_parser

__all__ = ["main", "parse"]

ALL, PARTLY = 0, 3  # exit statuses


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = parse(argv)
    tolerate_any_text()
    stopped = [signal.SIGINT]
    try:
        with _interrupted_by(signal.SIGTERM, signal.SIGHUP, into=stopped):
            return _run(args)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on with {args.output}", start="\n", file=sys.stderr)
        return 128 + stopped[-1]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("runtime.batch", __doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="FOLDER|IMAGE|GLOB|LIST|PARQUET", help="what to search")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    add(
        "--format",
        nargs="+",
        default=["jsonl"],
        choices=sorted(FORMATS),
        help="of the results; any number; default: jsonl",
    )
    add("--pictures", action="store_true", help="write annotated pictures too")
    add("--column", metavar="NAME", help='of a Parquet file; default: "path", or its only text')
    add(
        "--coco-ids",
        type=Path,
        metavar="JSON",
        help="COCO annotations whose numbers of images and categories the COCO results take",
    )
    add("--ray", metavar="ADDRESS|local", help="search with Ray; needs contrastzsd[cluster]")
    add("--shard-size", type=_positive, default=256, metavar="N", help="images a shard (256)")
    add("--batch", type=_positive, default=8, metavar="N", help="images in memory at once (8)")
    add_detector_arguments(add)
    add(
        "--max-pixels",
        type=float,
        default=MAX_PIXELS / 1e6,
        metavar="MP",
        help=f"largest image file, in megapixels ({MAX_PIXELS // 10**6})",
    )
    add("--nms-threshold", type=float, metavar="IOU", help="default: the bundle's")
    add("--max-detections", type=_positive, metavar="N", help="per image; default: the bundle's")
    add("--scoring-precision", default="float32", metavar="P", help="float32 (default) or int8")
    add(
        "--threads",
        type=_positive,
        metavar="N",
        help="CPU threads of a process; default: all it may use, with --ray 1",
    )
    return parser.parse_intermixed_args(argv)


def _run(args: argparse.Namespace) -> int:
    """List, search what is missing, write the formats."""
    step = Steps(4)
    check_formats(args.format)
    with step("list the images"):
        own = args.output / PICTURES if args.pictures else None
        listing = list_images(args.inputs, args.column, without=own)
    for note in listing.notes:
        say(f"      {note}", file=sys.stderr)
    options = _detector_options(args)
    with step("open the bundle"):
        detector = Detector(**options)
    with detector:
        introduce(detector)
        ids = CocoIds.of(detector.classes, args.coco_ids, listing.paths)
        with RunFolder(args.output, _request(args, detector), listing, args.shard_size) as run:
            missing = run.missing()
            searched = len(listing.paths) - sum(len(shard.paths) for shard in missing)
            known = f" ({searched} are done)" if searched else ""
            with step(f"search {len(listing.paths)} images{known}"):
                say("", file=sys.stderr)
                with closing(Countdown(len(listing.paths), searched)) as progress:
                    _search(args, detector, missing, progress)
            with step(f"write {', '.join(args.format)}"):
                damaged, objects = _write_formats(run, args.format, ids)
    return _report(args, listing, damaged, objects)


def _detector_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ``Detector``, plain enough to be sent to another machine."""
    return {
        "bundle": args.bundle,
        "backend": args.backend,
        "classes": args.classes,
        "exact": args.exact,
        "mode": args.mode,
        "score_threshold": args.score_threshold,
        "nms_threshold": args.nms_threshold,
        "max_detections": args.max_detections,
        "precision": args.precision,
        "scoring_precision": args.scoring_precision,
        "threads": args.threads or (1 if args.ray else None),
        "max_pixels": whole_number("--max-pixels", args.max_pixels, 10**6),
        "require_signature": args.require_signature,
    }


def _request(args: argparse.Namespace, detector: Detector) -> dict[str, Any]:
    """Settings that decide the rows, for run.json."""
    return {
        "bundle": {"name": detector.bundle.name, "sha256": _hash(detector.bundle)},
        "backend": detector.backend,
        "precision": args.precision,
        "scoring_precision": args.scoring_precision,
        "classes": list(detector.classes),
        "max_pixels": detector.max_pixels,
        "mode": args.mode,
        "score_threshold": args.score_threshold,
        "nms_threshold": args.nms_threshold,
        "max_detections": args.max_detections,
        "pictures": args.pictures,
    }


def _hash(bundle: Bundle) -> str:
    """SHA-256 of the manifest, which holds the hashes of all files."""
    text = json.dumps(bundle.manifest, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _search(
    args: argparse.Namespace, detector: Detector, missing: Sequence[Shard], progress: Countdown
) -> None:
    """Search the missing shards here, or with Ray."""
    search = {"batch": args.batch, "pictures": args.pictures}
    if args.ray and missing:
        detector.close()  # every process opens its own
        options = _detector_options(args)
        search_on_ray(args.ray, missing, args.output, options, progress.add, **search)
    else:
        for shard in missing:
            search_shard(detector, shard, args.output, progress=progress.add, **search)


def _write_formats(run: RunFolder, formats: Sequence[str], ids: CocoIds) -> tuple[int, int]:
    """Write all formats in one pass over the shards; return damaged images and objects."""
    damaged = objects = 0
    with ExitStack() as files:
        writers = [files.enter_context(FORMATS[name][1](run.path, ids)) for name in formats]
        for rows in run.rows():
            damaged += sum(row["error"] is not None for row in rows)
            objects += sum(len(row["detections"]) for row in rows)
            for add in writers:
                add(rows)
    return damaged, objects


def _report(args: argparse.Namespace, listing: Listing, damaged: int, objects: int) -> int:
    """Print where everything is; return the exit status."""
    for name in args.format:
        for file in FORMATS[name][0]:
            print(args.output / file)
    print(f"{objects} objects in {len(listing.paths)} images, {damaged} damaged", flush=True)
    return PARTLY if damaged else ALL


@contextmanager
def _interrupted_by(*signals: signal.Signals, into: list[signal.Signals]) -> Iterator[None]:
    """Let signals end the body as Ctrl-C does: the shard in hand is dropped, the rest is whole.

    A signal that is ignored stays so, as SIGHUP under nohup.
    """

    def interrupt(number: int, frame: object) -> None:
        into.append(signal.Signals(number))
        raise KeyboardInterrupt

    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    old = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
