"""Find any classes in images, videos and camera streams.

Try:
  python -m runtime.detect photo.jpg
      the classes of the bundle that ships; writes out/detect/photo.jpg and photo.json
  python -m runtime.detect photos/ --classes "cat, cup, fire truck" --mode gzsd --output found
      every image of a folder, three classes of your own: nothing is exported or trained for them
  python -m runtime.detect street.mp4 --classes "e-scooter" --score-threshold seen=0.4,unseen=0.2
      a video, with a threshold for seen and one for unseen classes
  python -m runtime.detect 0 rtsp://camera/1 --classes @classes.txt --jsonl -
      a camera and a stream at once, until Ctrl-C; a file with one class per line; every frame is
      a line of JSON on standard output. The newest frame counts, and a lost camera comes back
  python -m runtime.detect --search truk
      the nearest names of the vocabulary

Exit status:
  0  every input was searched; a live source was stopped by Ctrl-C, SIGTERM or SIGHUP
  1  an error: an input could not be read, or a result not written
  2  the command line is wrong
  3  partly: all inputs were searched, but frames of a video could not be read
  128 + the signal's number: stopped before the end of a file; what was searched is written
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.arguments import Parser, add_detector_arguments, whole_number
from runtime.bundle import open_bundle
from runtime.console import Stop, introduce, log_to_stderr, say, tolerate_any_text
from runtime.detect_inputs import Search, Settings
from runtime.detector import Detector
from runtime.images import MAX_PIXELS
from runtime.results import Lines, keep_inputs
from runtime.sources import find_sources
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import ClassError, ConfigError
from zsd_core.files import visible

__all__ = ["main", "make_folder", "parse"]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    tolerate_any_text()
    log_to_stderr(logging.WARNING, "%(message)s")  # lost cameras
    args = parse(argv)
    if args.search is not None:
        return _search(args)
    return _detect(args)


def _detect(args: argparse.Namespace) -> int:
    """Search the inputs; return the exit status."""
    (sources, notes), step = find_sources(args.inputs), Steps(2)
    outputs = [
        args.output / f"{source.name}{suffix}"
        for source in sources
        for suffix in (".jpg" if source.kind == "image" else ".mp4", ".json")
    ]
    lines = [Path(args.jsonl)] if args.jsonl and args.jsonl != "-" else []
    keep_inputs(outputs + lines, [Path(s.place) for s in sources if s.kind != "live"])
    for note in notes:
        say(note, file=sys.stderr)
    with step("open the bundle"):
        detector = _open_detector(args)
    introduce(detector)
    settings = Settings(
        folder=make_folder(args.output),
        max_frames=args.max_frames,
        timeout=args.timeout,
        retry=None if args.no_retry else (0.5, 30.0),
        track=args.track,
        lines=Lines(args.jsonl) if args.jsonl else None,
    )
    with Stop() as stop, step(f"search {len(sources)} input{'s' * (len(sources) != 1)}"):
        say("", file=sys.stderr)
        outcome = Search(detector, settings, stop).run(sources)
    if outcome.done:
        settings.say(f"{outcome.times}\npictures and JSON are in {settings.folder}/")
    return outcome.status(stop.signal)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("runtime.detect", __doc__, Parser)
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="IMAGE|FOLDER|VIDEO|CAMERA",
        help="files, folders of images, a camera number, or an address such as rtsp://host/path",
    )
    add_detector_arguments(add)
    add(
        "--output", type=Path, default=Path("out/detect"), metavar="DIR", help="default: out/detect"
    )
    add("--nms-threshold", type=float, metavar="IOU", help="default: the bundle's")
    add("--max-detections", type=int, metavar="N", help="per image; default: the bundle's")
    add(
        "--scoring-precision",
        default="float32",
        metavar="P",
        help="of the scoring: float32 (the default), or int8, which is faster where classes are "
        "many and moves scores a little",
    )
    add("--providers", metavar="A,B", help="onnxruntime: execution providers, best first")
    add("--device", help="openvino: its name of a device, such as GPU")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all it may use")
    add(
        "--max-pixels",
        type=float,
        default=MAX_PIXELS / 1e6,
        metavar="MP",
        help=f"largest image file, in megapixels ({MAX_PIXELS // 10**6})",
    )
    add("--max-frames", type=int, metavar="N", help="stop a video or stream after N frames")
    add(
        "--jsonl",
        metavar="FILE",
        help="write every image and frame as a line of JSON, at once; - is standard output",
    )
    add("--track", action="store_true", help="number objects through a video; needs [track]")
    add(
        "--timeout",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to wait for a live source to open or to send a frame (5)",
    )
    add("--no-retry", action="store_true", help="a live source that is lost is an error")
    add("--search", metavar="WORD", help="print the nearest names of the vocabulary and stop")
    args = parser.parse_intermixed_args(argv)
    if args.search is None and not args.inputs:
        parser.error("name at least one image, folder, video or camera number (or use --search)")
    if args.max_frames is not None and args.max_frames < 1:
        parser.error(f"--max-frames is {args.max_frames}, must be at least 1")
    if not args.timeout > 0:
        parser.error(f"--timeout is {args.timeout}, must be a number of seconds > 0")
    return args


def _open_detector(args: argparse.Namespace) -> Detector:
    """Build the detector that the command line describes."""
    options: dict[str, Any] = {}
    if args.providers:
        options["providers"] = [name.strip() for name in args.providers.split(",")]
    if args.device:
        options["device"] = args.device
    try:
        return Detector(
            args.bundle,
            backend=args.backend,
            precision=args.precision,
            scoring_precision=args.scoring_precision,
            classes=args.classes,
            exact=args.exact,
            mode=args.mode,
            score_threshold=args.score_threshold,
            nms_threshold=args.nms_threshold,
            max_detections=args.max_detections,
            threads=args.threads,
            max_pixels=whole_number("--max-pixels", args.max_pixels, 10**6),
            backend_options=options,
            require_signature=args.require_signature,
        )
    except ClassError as error:
        raise ClassError(f"{error} (python -m runtime.detect --search WORD finds names)") from error


def _search(args: argparse.Namespace) -> int:
    """Print the nearest names of the vocabulary."""
    bundle = open_bundle(args.bundle, require_signature=args.require_signature)
    found = bundle.vocabulary.search(args.search, also=bundle.seen + bundle.unseen)
    roles = dict.fromkeys(bundle.seen, "  (seen in training)")
    for name in found:
        print(visible(f"{name}{roles.get(name, '')}"), flush=True)
    if not found:
        raise ClassError(f"no name of {bundle.name!r} resembles {args.search!r}; try another word.")
    return 0


def make_folder(folder: Path) -> Path:
    """Make the output folder.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: cannot be made: {error.strerror}.") from error
    return folder


if __name__ == "__main__":
    sys.exit(main())
