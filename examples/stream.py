"""Watch videos, cameras and network streams together; a camera that is lost is looked for again.

python examples/stream.py street.mp4 rtsp://host/door 0
"""

import sys

from contrastzsd import Detector, Stream


def main(*sources: str) -> None:
    """Print a line per frame; Ctrl-C ends it."""
    detector = Detector(classes=["person", "car", "cat"])
    with Stream(detector, list(sources)) as stream:
        for frame, found in stream:
            print(f"{frame.source} {frame.seconds:.2f} s: {found}", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
