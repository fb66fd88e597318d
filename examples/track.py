"""Follow objects through a video and count those that cross a line.

    python examples/track.py street.mp4

Needs: pip install 'contrastzsd[track]'
"""

import sys

import supervision as sv

from contrastzsd import Detector, Stream
from runtime.tracking import byte_tracker

LINE = sv.Point(320, 0), sv.Point(320, 480)  # from top to bottom, in pixels


def main(video: str) -> None:
    """Give every object a number and count the numbers that cross."""
    detector = Detector(classes=["person", "car", "cat"])
    tracker = byte_tracker(detector)  # its thresholds are those of the detector's scores
    line = sv.LineZone(*LINE, triggering_anchors=[sv.Position.CENTER])
    with Stream(detector, [video], tracker=tracker) as stream:
        for frame, found in stream:
            detections = found.to_supervision()
            line.trigger(detections[detections.tracker_id >= 0])  # -1: no track yet
            print(f"{frame.seconds:.2f} s: {found}, tracks {found.track_ids}")
    print(f"{line.in_count} in, {line.out_count} out")


if __name__ == "__main__":
    main(*sys.argv[1:])
