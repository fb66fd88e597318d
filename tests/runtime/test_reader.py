"""One source and its losses: how long it is left alone, and what the log says."""

import logging
import time

import numpy as np
from videos import nothing

from runtime import Stream
from zsd_core.errors import ImageError


class Flapping:
    """A camera that gives some frames, each after a pause, and is gone."""

    rate, count, skipped = 25.0, None, 0

    def __init__(self, frames, seconds=0.0):
        self.left, self.seconds = frames, seconds

    def read(self):
        time.sleep(self.seconds)
        self.left -= 1
        return (0.0, np.zeros((4, 6, 3), np.uint8)) if self.left >= 0 else None

    def close(self):
        pass


def pauses_of(monkeypatch, caplog, cameras, retry, level=logging.DEBUG):
    """Pauses that a reader logs while its cameras are lost one after another."""
    caplog.set_level(level, "runtime.stream")
    cameras = iter(cameras)

    def opened(source, timeout, max_pixels):
        camera = next(cameras, None)
        if camera is None:
            stream.stop()
        if not isinstance(camera, Flapping):
            raise ImageError(f"{source.name}: {camera}")
        return camera

    monkeypatch.setattr("runtime.reader.open_capture", opened)
    stream = Stream(nothing, retry=retry, endless=True)
    stream.add("rtsp://cam/1", name="door")
    list(stream)
    stream.close()
    return caplog.messages


def test_a_camera_that_is_lost_at_once_is_left_alone_for_longer_and_longer(monkeypatch, caplog):
    cameras = [Flapping(1) for _ in range(4)] + [Flapping(4, 0.1), Flapping(1)]
    said = pauses_of(monkeypatch, caplog, cameras, (0.01, 0.08))
    pauses = [text.split()[-2] for text in said if "next attempt" in text]
    assert pauses[:6] == ["0.01", "0.02", "0.04", "0.08", "0.01", "0.02"]


def test_a_loss_that_stays_the_same_is_said_once_and_so_is_its_end(monkeypatch, caplog):
    cameras = [Flapping(1), "is off.", "is off.", "is off.", "is away.", Flapping(1), "is off."]
    said = pauses_of(monkeypatch, caplog, cameras, (0.01, 0.01), logging.WARNING)
    assert [text.partition(";")[0] for text in said if "None" not in text] == [
        "door: sends no more frames",
        "door: is off",
        "door: is away",
        "door: sends frames again",
        "door: sends no more frames",
        "door: is off",
    ]
