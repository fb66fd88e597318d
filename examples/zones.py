"""Count objects in a zone of many pictures, with supervision's tools.

    python examples/zones.py desk1.jpg desk2.jpg desk3.jpg

Needs: pip install 'contrastzsd[track]'
"""

import sys

import numpy as np
import supervision as sv

from contrastzsd import Detector

LEFT_HALF = np.array([[0, 0], [320, 0], [320, 480], [0, 480]])  # corners in pixels


def main(*photos: str) -> None:
    """Search all pictures as one batch and count what stands in the zone."""
    detector = Detector(classes=["cup", "bottle", "keyboard"])
    zone = sv.PolygonZone(polygon=LEFT_HALF, triggering_anchors=[sv.Position.CENTER])
    for photo, found in zip(photos, detector(list(photos)), strict=True):
        detections = found.to_supervision()
        inside = detections[zone.trigger(detections)]
        print(f"{photo}: {len(detections)} objects, {len(inside)} in the zone")


if __name__ == "__main__":
    main(*sys.argv[1:])
