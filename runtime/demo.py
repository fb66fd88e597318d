"""Search the photographs that ship inside scikit-image with the bundle that ships here.

    python -m runtime.demo            # make demo runs this

The photographs are in scikit-image's wheel, so nothing is downloaded. All colour photographs there
that their authors put under CC0 or into the public domain are used, and the results are shown as
they are. First come the bundle's own classes; then names, phrases and a class from one example are
added while the detector runs.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.detect import make_folder
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.examples import Example
from runtime.results import StageTimes, explain, keep_inputs, write_json, write_picture
from zsd_core.commands import Steps, command, new_parser, say
from zsd_core.errors import ClassError, ConfigError, MissingPackageError

__all__ = ["PHOTOGRAPHS", "main", "photograph"]

PHOTOGRAPHS = {
    "astronaut.png": "NASA, public domain",
    "chelsea.png": "Stefan van der Walt, CC0",
    "coffee.png": "Rachel Michetti, CC0",
    "rocket.jpg": "SpaceX, public domain",
}
NAMES = ("space shuttle", "missile", "espresso", "tabby")  # words of the vocabulary
PHRASES = ("flag with stars and stripes", "astronaut in an orange space suit")
# A box that somebody could draw: the spoon beside the cup.
EXAMPLE = ("my spoon", "coffee.png", (322.0, 190.0, 412.0, 330.0))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return its exit status."""
    parser = new_parser("runtime.demo", __doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")
    add("--bundle", type=Path, help="directory or zip; default: the bundle that ships")
    args = parser.parse_args(argv)
    step = Steps(4)
    with step("find the photographs"):
        photographs = {Path(name).stem: photograph(name) for name in PHOTOGRAPHS}
        keep_inputs(
            [args.output / f"{name}.jpg" for name in photographs], list(photographs.values())
        )
    with step("open the bundle"):
        detector = Detector(args.bundle)
        detector.warmup()
    with step("search the photographs"):
        found = {name: detector(path) for name, path in photographs.items()}
    with step("add classes, and search again"):
        added = _add_classes(detector, photographs)
        if added:
            found |= {f"{name}-open": detector(path) for name, path in photographs.items()}
    folder = make_folder(args.output)
    for name, detections in found.items():
        write_picture(folder, name, photographs[name.removesuffix("-open")], detections)
    write_json(folder / "detections.json", {n: d.to_list() for n, d in found.items()})
    _report(detector, found, added)
    print(f"\npictures and detections.json are in {folder}/")
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


def _add_classes(detector: Detector, photographs: Mapping[str, Path]) -> dict[str, float]:
    """Add what this bundle can take, and return the milliseconds each addition took."""
    name, file, box = EXAMPLE
    additions: dict[str, Any] = {
        f"names {', '.join(NAMES)}": NAMES,
        f"phrases {', '.join(map(repr, PHRASES))}": PHRASES,
        f"an example, {name!r}": {name: Example(photographs[Path(file).stem], box)},
    }
    times = {}
    for what, classes in additions.items():
        start = time.perf_counter()
        try:
            detector.add_classes(classes)
        except (ClassError, ConfigError) as error:  # a bundle without these words, or a second look
            say(f"not added, {what}: {error}", file=sys.stderr)
        else:
            times[what] = 1e3 * (time.perf_counter() - start)
    return times


def _report(
    detector: Detector, found: Mapping[str, Detections], added: Mapping[str, float]
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
    for what, milliseconds in added.items():
        print(f"added to the running detector in {milliseconds:.1f} ms: {what}")
    for name, detections in found.items():
        if name.endswith("-open"):
            print(f"  {name.removesuffix('-open')}: {explain(detections)}")
    print(f"\n{times}")


if __name__ == "__main__":
    sys.exit(main())
