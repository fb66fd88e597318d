"""Change the classes of a running detector: nothing is exported, trained or loaded again.

    python examples/add_class.py photo.jpg kitten "fire truck" bracket=crop.jpg

A class is a word of the vocabulary, any phrase where the bundle has a text encoder, or NAME=IMAGE
with a picture of one such object.
"""

import sys
import time

from contrastzsd import Detector, Example


def main(photo: str, *wanted: str) -> None:
    """Search the same photograph before and after the classes are added."""
    detector = Detector(classes=["person", "cup"])
    print(f"{', '.join(detector.classes)}: {detector(photo)}")
    classes = {}
    for text in wanted:
        name, _, image = text.partition("=")
        classes[name] = [Example(image)] if image else None  # None: what the name itself says
    started = time.perf_counter()
    detector.add_classes(classes)
    milliseconds = 1e3 * (time.perf_counter() - started)
    print(f"{', '.join(detector.classes)}: {detector(photo)}   ({milliseconds:.1f} ms to add)")


if __name__ == "__main__":
    main(*sys.argv[1:])
