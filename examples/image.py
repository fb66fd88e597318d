"""Find classes of your own in a picture, and draw them.

python examples/image.py photo.jpg "cat, cup, fire truck" found.jpg
"""

import sys

import cv2

from contrastzsd import Detector
from runtime.annotate import annotate
from runtime.images import read_image


def main(photo: str, classes: str, output: str) -> None:
    """Detect, print, draw."""
    detector = Detector(classes=[name.strip() for name in classes.split(",")])
    found = detector(photo)
    for detection in found:
        x1, y1, x2, y2 = detection.box  # pixels of the photograph
        print(
            f"{detection.class_name} {detection.score:.2g} at {x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}"
        )
    if not found:
        print(f"nothing found; the best guess was {found.near_miss}")
    cv2.imwrite(output, annotate(read_image(photo, "bgr"), found))


if __name__ == "__main__":
    main(*sys.argv[1:])
