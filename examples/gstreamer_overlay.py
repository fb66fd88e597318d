"""Detect inside a GStreamer pipeline: boxes drawn, and attached to every frame for what follows.

    /usr/bin/python3 -m venv --system-site-packages .venv        # Debian's GStreamer for Python
    .venv/bin/pip install 'contrastzsd[cpu]'
    .venv/bin/python examples/gstreamer_overlay.py "filesrc location=street.mp4 ! decodebin" \
        "videoconvert ! x264enc ! mp4mux ! filesink location=found.mp4"

Needs Debian's python3-gi, gir1.2-gst-plugins-base-1.0 and gstreamer1.0-plugins-{base,good}. Each
object is a ``GstVideoRegionOfInterestMeta`` of its frame: the type is the class name, the
parameter "detection" holds the score. In GStreamer 1.22 videoconvert loses the parameter: read the
score before it. (GstAnalytics, the successor, needs GStreamer 1.24.)
"""

import sys

import cv2
import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstApp, GstVideo  # noqa: E402, F401

from contrastzsd import Detector  # noqa: E402
from runtime.annotate import annotate  # noqa: E402

FRAMES = "video/x-raw,format=BGR"


class Overlay:
    """A pipeline that brings frames, the detector, and a pipeline that takes them.

    Args:
        detector: ready to use.
        source: description of the first pipeline; it ends in raw video.
        sink: description of the second pipeline; it begins with raw video.
    """

    def __init__(self, detector: Detector, source: str, sink: str) -> None:
        Gst.init(None)
        self._detector = detector
        self.before = Gst.parse_launch(
            f"{source} ! videoconvert ! {FRAMES} ! appsink name=end max-buffers=2 sync=false"
        )
        self.after = Gst.parse_launch(f"appsrc name=start format=time block=true ! {sink}")
        self._end, self._start = self.before.get_by_name("end"), self.after.get_by_name("start")

    def run(self) -> int:
        """Play to the end; return the number of frames.

        Raises:
            RuntimeError: an element failed; the message is GStreamer's.
        """
        count = 0
        try:
            for pipeline in (self.after, self.before):
                pipeline.set_state(Gst.State.PLAYING)
            while (sample := self._next()) is not None:
                self._start.set_caps(sample.get_caps())
                self._start.push_buffer(self._annotated(sample))
                count += 1
            self._start.end_of_stream()
            if not _ended(self.after, 10 * Gst.SECOND):
                raise RuntimeError("the second pipeline does not end")
        finally:
            for pipeline in (self.before, self.after):
                pipeline.set_state(Gst.State.NULL)
        return count

    def _next(self) -> Gst.Sample | None:
        """The next frame; None at the end."""
        while (sample := self._end.try_pull_sample(Gst.SECOND // 5)) is None:
            if _ended(self.before) or self._end.is_eos():
                return None
            _ended(self.after)
        return sample

    def _annotated(self, sample: Gst.Sample) -> Gst.Buffer:
        """A copy of a frame with boxes drawn, and with a region of interest per object."""
        info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
        before = sample.get_buffer()
        data = np.frombuffer(before.extract_dup(0, before.get_size()), np.uint8)
        rows = data.reshape(info.height, -1)[:, : 3 * info.width]  # a row may end in padding
        image = np.ascontiguousarray(rows).reshape(info.height, info.width, 3)
        found = self._detector(image, color="bgr")
        drawn = cv2.resize(annotate(image, found), (info.width, info.height))  # small ones grew
        padded = np.zeros((info.height, info.stride[0]), np.uint8)
        padded[:, : 3 * info.width] = drawn.reshape(info.height, -1)
        after = Gst.Buffer.new_wrapped(padded.tobytes())
        after.pts, after.dts, after.duration = before.pts, before.dts, before.duration
        for number, detection in enumerate(found):
            left, top, right, bottom = (round(x) for x in detection.box)
            meta = GstVideo.buffer_add_video_region_of_interest_meta(
                after, detection.class_name, left, top, right - left, bottom - top
            )
            meta.id = number
            score = Gst.Structure.new_empty("detection")
            score.set_value("confidence", detection.score)
            meta.add_param(score)
        return after


def _ended(pipeline: Gst.Pipeline, wait: int = 0) -> bool:
    """Whether a pipeline has come to its end; its error becomes an exception."""
    kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(wait, kinds)
    if message is not None and message.type == Gst.MessageType.ERROR:
        raise RuntimeError(message.parse_error()[0].message)
    return message is not None


def main(source: str, sink: str) -> None:
    """Run a pipeline with the classes of the bundle that ships."""
    print(f"{Overlay(Detector(), source, sink).run()} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])
