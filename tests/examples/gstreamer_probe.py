"""Run by test_gstreamer.py under Debian's Python: what an element behind the example sees.

Prints JSON: per frame its time, and per object what arrives before and behind a conversion.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import gstreamer_overlay as example
from gi.repository import GLib, Gst, GstVideo

from contrastzsd import Detector
from runtime.annotate import COLORS

SOURCE = (
    "videotestsrc num-buffers=5 pattern=ball ! "
    "video/x-raw,width=322,height=250,framerate=10/1"  # a row of 966 bytes is padded to 968
)
SINK = (
    "identity name=first ! videoconvert ! video/x-raw,format=I420 ! identity name=second ! fakesink"
)
OBJECTS = 3


def regions(buffer):
    """Type, place and score of every region of interest."""
    found = []
    for number in range(OBJECTS):
        meta = GstVideo.buffer_get_video_region_of_interest_meta_id(buffer, number)
        if meta is None:
            break
        score = meta.get_param("detection")
        found.append(
            {
                "class": GLib.quark_to_string(meta.roi_type),
                "place": [meta.x, meta.y, meta.w, meta.h],
                "score": score and score.get_double("confidence")[1],
            }
        )
    return found


def main() -> None:
    detector = Detector(
        sys.argv[1], score_threshold=0.0, max_detections=OBJECTS, threads=1, backend="onnxruntime"
    )
    overlay, frames = example.Overlay(detector, SOURCE, SINK), []

    def first(pad, info):
        buffer = info.get_buffer()
        rows = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8).reshape(250, 968)
        image = rows[:, :966].reshape(250, 322, 3)
        drawn = sum(int((image == color).all(axis=2).sum()) for color in COLORS.values())
        frames.append({"pts": buffer.pts, "drawn": drawn, "before": regions(buffer)})
        return Gst.PadProbeReturn.OK

    def second(pad, info):
        frames[-1]["behind"] = regions(info.get_buffer())
        return Gst.PadProbeReturn.OK

    for name, probe in (("first", first), ("second", second)):
        pad = overlay.after.get_by_name(name).get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.BUFFER, probe)
    count = overlay.run()
    try:
        example.Overlay(detector, "filesrc location=/nowhere.mp4", "fakesink").run()
        error = None
    except RuntimeError as failure:
        error = str(failure)
    print(json.dumps({"count": count, "frames": frames, "error": error}))


main()
