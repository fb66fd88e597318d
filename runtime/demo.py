"""Search the photographs that ship inside scikit-image with the bundle that ships here.

    python -m runtime.demo            # make demo runs this

The photographs are in scikit-image's wheel, so nothing is downloaded. All colour photographs there
that their authors put under CC0 or into the public domain are used, and the results are shown as
they are. Two of them show a class the model was never trained on: chelsea a cat, coffee a cup.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.detect import make_folder
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.results import StageTimes, explain, keep_inputs, write_json, write_picture
from zsd_core.errors import MissingPackageError, ZsdError
from zsd_core.progress import Steps

__all__ = ["PHOTOGRAPHS", "main", "photograph"]

PHOTOGRAPHS = {
    "astronaut.png": "NASA, public domain",
    "chelsea.png": "Stefan van der Walt, CC0",
    "coffee.png": "Rachel Michetti, CC0",
    "rocket.jpg": "SpaceX, public domain",
}
# Words of the vocabulary, none of them in the bundle's table: open classes for the same pictures.
OPEN_CLASSES = ("kitten", "teacup", "astronaut", "rocket", "flag", "saucer")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")
    add("--bundle", type=Path, help="directory or zip; default: the bundle that ships")
    args = parser.parse_args(argv)
    step = Steps(3)
    try:
        with step("find the photographs"):
            photographs = [photograph(name) for name in PHOTOGRAPHS]
            keep_inputs([args.output / f"{path.stem}.jpg" for path in photographs], photographs)
        with step("open the bundle"):
            detector = Detector(args.bundle)
            detector.warmup()
        with step("search the photographs"):
            folder = make_folder(args.output)
            found = {path.stem: detector(path) for path in photographs}
            words, milliseconds = _add_open_classes(detector)
            if words:
                found |= {f"{path.stem}-open": detector(path) for path in photographs}
            for path in photographs:
                for name in (path.stem, f"{path.stem}-open"):
                    if name in found:
                        write_picture(folder, name, path, found[name])
            write_json(folder / "detections.json", {n: d.to_list() for n, d in found.items()})
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _report(detector, found, words, milliseconds)
    print(f"\npictures and detections.json are in {folder}/ (seen classes red, unseen green)")
    return 0


def photograph(name: str) -> Path:
    """Path of a photograph inside scikit-image.

    Raises:
        MissingPackageError: scikit-image, or this file of it, is not there.
    """
    spec = importlib.util.find_spec("skimage")
    path = Path(spec.origin).parent / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingPackageError(
            f"the photograph {name} of scikit-image is not here. "
            "Install it: pip install 'contrastzsd[demo]'"
        )
    return path


def _add_open_classes(detector: Detector) -> tuple[tuple[str, ...], float]:
    """Add the open classes that this bundle's vocabulary knows; return them and milliseconds."""
    known, active = detector.bundle.vocabulary, set(detector.classes)
    words = tuple(word for word in OPEN_CLASSES if word in known and word not in active)
    start = time.perf_counter()
    if words:
        detector.add_classes(words)
    return words, 1e3 * (time.perf_counter() - start)


def _report(
    detector: Detector, found: Mapping[str, Detections], words: Sequence[str], milliseconds: float
) -> None:
    """Print what was found in which picture, and how long it took."""
    table = len(detector.bundle.seen), len(detector.bundle.unseen)
    print(f"{detector.description}\n")
    print(f"the {table[0]} seen and {table[1]} unseen classes of the bundle:")
    times = StageTimes()
    for name, detections in found.items():
        times.add(detections)
        if not name.endswith("-open"):
            print(f"  {name}: {explain(detections)}")
    if words:
        print(f"with {', '.join(words)} added to the running detector ({milliseconds:.1f} ms):")
    for name, detections in found.items():
        if name.endswith("-open"):
            print(f"  {name}: {explain(detections)}")
    print(f"\n{times}")


if __name__ == "__main__":
    sys.exit(main())
