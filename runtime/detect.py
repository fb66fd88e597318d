"""Find any classes in images, videos and camera streams.

Try:
  python -m runtime.detect photo.jpg
      the classes of the bundle that ships; writes out/detect/photo.jpg and photo.json
  python -m runtime.detect photos/ --classes "cat, cup, fire truck" --mode gzsd --output found
      every image of a folder, three classes of your own: nothing is exported or trained for them
  python -m runtime.detect street.mp4 --classes "e-scooter" --score-threshold 0.002
      a video, with a threshold for seen and one for unseen classes
  python -m runtime.detect 0 --classes @classes.txt --max-frames 300
      camera 0; a file with one class per line; frames that come too fast are dropped, so that the
      video is a time lapse, and its JSON has the seconds
  python -m runtime.detect --search truk
      the nearest names of the vocabulary
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.backends import BACKENDS
from runtime.bundle import PRECISIONS, open_bundle
from runtime.detector import Detector
from runtime.results import StageTimes, VideoWriter, explain, keep_inputs, write_picture
from runtime.sources import Source, Video, find_sources
from runtime.thresholds import ScoreThreshold
from zsd_core.errors import ClassError, ConfigError, ImageError, ZsdError
from zsd_core.progress import Steps

__all__ = [
    "detect_all",
    "main",
    "make_folder",
    "parse",
    "parse_classes",
    "parse_threshold",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = parse(argv)
    try:
        if args.search is not None:
            return _search(args)
        sources, step = find_sources(args.inputs), Steps(2)
        keep_inputs(
            [args.output / f"{s.name}.{'jpg' if s.kind == 'image' else 'mp4'}" for s in sources],
            [Path(s.place) for s in sources if s.kind != "live"],
        )
        with step("open the bundle"):
            detector = _open_detector(args)
        print(f"      {detector!r}", file=sys.stderr)
        folder = make_folder(args.output)
        with step(f"search {len(sources)} input{'s' * (len(sources) != 1)}"):
            print(file=sys.stderr)
            failed, times = detect_all(detector, sources, folder, args.max_frames)
        if failed < len(sources):
            print(f"{times}\npictures and JSON are in {folder}/", flush=True)
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whatever reads the output, as head does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m runtime.detect",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="IMAGE|FOLDER|VIDEO|CAMERA",
        help="files, folders of images, a camera number, or an address such as rtsp://host/path",
    )
    add(
        "--classes",
        type=parse_classes,
        metavar='"cat, cup"',
        help="names, separated by commas, or @FILE with one per line; any word of the vocabulary "
        "(--search finds them). Default: the bundle's own table",
    )
    add(
        "--mode",
        default="gzsd",
        choices=("zsd", "gzsd", "seen"),
        help="report the unseen classes only (zsd), all (gzsd, the default), or the seen only",
    )
    add(
        "--output", type=Path, default=Path("out/detect"), metavar="DIR", help="default: out/detect"
    )
    add(
        "--score-threshold",
        type=parse_threshold,
        metavar="T",
        help='one number; "seen,unseen"; or "cat=0.1,cup=0.2,unseen=0.3". Default: the bundle\'s. '
        "Scores of eq. 14 are products of probabilities, so a useful value is often small",
    )
    add("--nms-threshold", type=float, metavar="IOU", help="default: the bundle's")
    add("--max-detections", type=int, metavar="N", help="per image; default: the bundle's")
    add("--bundle", type=Path, help="directory or zip; default: the bundle that ships")
    add("--backend", default="auto", choices=("auto", *BACKENDS), help="default: the first there")
    add("--precision", default="float32", choices=PRECISIONS, help="of the networks (float32)")
    add(
        "--scoring-precision",
        default="float32",
        metavar="P",
        help="of the scoring: float32 (the default), or int8, which is faster where classes are "
        "many and moves scores a little",
    )
    add("--providers", metavar="A,B", help="onnxruntime: execution providers, best first")
    add("--device", help="openvino: its name of a device, such as GPU")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    add("--phrases", action="store_true", help="encode what the vocabulary lacks; needs [text]")
    add("--max-frames", type=int, metavar="N", help="stop a video or stream after N frames")
    add("--search", metavar="WORD", help="print the nearest names of the vocabulary and stop")
    args = parser.parse_args(argv)
    if args.search is None and not args.inputs:
        parser.error("name at least one image, folder, video or camera number (or use --search)")
    if args.max_frames is not None and args.max_frames < 1:
        parser.error(f"--max-frames is {args.max_frames}, must be at least 1")
    return args


def parse_classes(text: str) -> list[str]:
    """Names from ``"cat, cup"`` or from a file ``@classes.txt``, one per line."""
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error}") from error
    else:
        lines = text.split(",")
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise argparse.ArgumentTypeError('names no class; write for example "cat, cup"')
    return names


def parse_threshold(text: str) -> ScoreThreshold:
    """A threshold from ``0.1``, ``0.1,0.05`` (seen, unseen) or ``cat=0.1,unseen=0.05``."""
    try:
        if "=" in text:
            pairs = [part.rsplit("=", 1) for part in text.split(",")]
            return {name.strip(): float(value) for name, value in pairs}
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    raise argparse.ArgumentTypeError(
        f'{text!r} is not a number, "seen,unseen" or "cat=0.1,unseen=0.05"'
    )


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
            mode=args.mode,
            score_threshold=args.score_threshold,
            nms_threshold=args.nms_threshold,
            max_detections=args.max_detections,
            phrases=args.phrases,
            threads=args.threads,
            backend_options=options,
        )
    except ClassError as error:
        raise ClassError(f"{error} (python -m runtime.detect --search WORD finds names)") from error


def _search(args: argparse.Namespace) -> int:
    """Print the nearest names of the vocabulary."""
    bundle = open_bundle(args.bundle)
    found = bundle.vocabulary.search(args.search, also=bundle.seen + bundle.unseen)
    roles = dict.fromkeys(bundle.seen, "  (seen in training)")
    for name in found:
        print(f"{name}{roles.get(name, '')}", flush=True)
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


def detect_all(
    detector: Detector, sources: Sequence[Source], folder: Path, max_frames: int | None = None
) -> tuple[int, StageTimes]:
    """Search every source; one that fails is reported and does not stop the others.

    Returns:
        The number of failures, and the times.
    """
    times, failed = StageTimes(), 0
    for source in sources:
        try:
            if source.kind == "image":
                found = detector(source.place)
                times.add(found)
                picture = write_picture(folder, source.name, Path(source.place), found)
                print(f"{picture}: {explain(found)}", flush=True)
            else:
                _detect_video(detector, source, folder, max_frames, times)
        except ImageError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    return failed, times


def _detect_video(
    detector: Detector, source: Source, folder: Path, max_frames: int | None, times: StageTimes
) -> None:
    """Search a video or a live source; Ctrl-C ends a live one, and its files are complete."""
    video = Video(source)
    try:
        writer = VideoWriter(folder, source.name, video.rate)
    except ImageError:
        video.close()
        raise
    known = [count for count in (video.count, max_frames) if count is not None]
    of = f"/{min(known)}" if known else ""
    objects = 0
    try:
        for seconds, frame in video:
            found = detector(frame, color="bgr")
            times.add(found)
            objects += len(found)
            writer.add(seconds, frame, found)
            print(f"\r{source.name}: frame {writer.frames}{of}", end="", file=sys.stderr)
            if writer.frames == max_frames:  # the file's own count may be an estimate
                break
    except KeyboardInterrupt:
        if source.kind != "live":
            raise
    finally:
        print(file=sys.stderr)
        video.close()
        writer.close()
    note = f", {video.dropped} dropped to keep up" if video.dropped else ""
    if video.count is not None and writer.frames < min(known):
        note = f", though the file announces {video.count}: is it whole?"
    counts = f"{objects} object{'s' * (objects != 1)} in {writer.frames} frame"
    print(f"{writer.path}: {counts}{'s' * (writer.frames != 1)}{note}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
