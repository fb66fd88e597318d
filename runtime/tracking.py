"""Tracks: the same object in one frame after another, by a tracker of supervision's kind.

The trackers come from the ``trackers`` package; nothing here follows an object.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.detections import Detections
from runtime.detector import Detector
from runtime.frames import Frame
from zsd_core.errors import ConfigError, require

__all__ = ["Tracks", "byte_tracker"]


def byte_tracker(detector: Detector, *, frame_rate: float = 25.0, **options: Any) -> Any:
    """Return a ``trackers.ByteTrackTracker`` whose thresholds are the detector's own.

    The tracker's defaults, 0.6 and 0.7, are made for another detector: where they lie above the
    scores that a detector gives, no track begins. What this detector reports has passed its
    ``score_threshold``, so everything it reports may begin a track.

    Args:
        detector: whose ``limits`` are taken, as they are now.
        frame_rate: frames per second that the tracker will see, for how long it keeps a lost track.
        options: further arguments of ``ByteTrackTracker``, such as ``lost_track_buffer``; they win.

    Raises:
        MissingPackageError: ``trackers`` is not installed.
    """
    limits = detector.limits
    lowest = min([*limits.by_role.values(), *limits.by_class.values()])
    thresholds = {"track_activation_threshold": lowest, "high_conf_det_threshold": lowest}
    trackers = require("trackers", "track")
    return trackers.ByteTrackTracker(frame_rate=frame_rate, **{**thresholds, **options})


class Tracks:
    """The tracks of one source.

    Args:
        tracker: an object with ``update(sv.Detections)``, which is copied, or a function without
            arguments that makes such an object. The times of frames are passed too where
            ``update`` takes a ``timestamp``.

    Raises:
        ConfigError: it is neither, or cannot be copied.
    """

    def __init__(self, tracker: Any) -> None:
        self._make = _maker(tracker)
        self._connection, self._first, self._highest = -1, 0, -1
        self._update: Callable[..., Any] = lambda found: found

    def follow(self, frame: Frame, found: Detections) -> Detections:
        """Return the detections of the next frame with ``track_ids``; -1 is "no track yet".

        When a live source comes back after a loss, all its tracks are new.

        Raises:
            ConfigError: the tracker does not hand on what it is given.
        """
        if frame.connection != self._connection:
            self._connection, self._first = frame.connection, self._highest + 1
            self._update = _with_times(self._make())
        given = found.to_supervision()
        given.data["row"] = np.arange(len(found))
        tracked = self._update(given, frame.seconds)
        ids = np.full(len(found), -1, np.int64)
        if len(tracked):
            rows, numbers = tracked.data.get("row"), tracked.tracker_id
            if rows is None or numbers is None:
                raise ConfigError(
                    "Stream: the tracker gives back detections without tracker_id, or without the "
                    "data it was given; trackers of the package 'trackers' do both."
                )
            numbers = np.asarray(numbers, np.int64)
            ids[np.asarray(rows, int)] = np.where(numbers < 0, -1, numbers + self._first)
        self._highest = max(self._highest, int(ids.max(initial=-1)))
        return dataclasses.replace(found, track_ids=ids)


def _maker(tracker: Any) -> Callable[[], Any]:
    """A function that makes trackers, each with a state of its own."""
    if isinstance(tracker, type) or not hasattr(tracker, "update"):
        if callable(tracker):
            return lambda: tracker()
        raise ConfigError(
            f"Stream: tracker is a {type(tracker).__name__}, must have update(detections), or be a "
            "function that makes such an object. ByteTrack of supervision has moved to the package "
            "'trackers': pip install 'contrastzsd[track]'"
        )
    try:
        untouched = copy.deepcopy(tracker)
    except Exception as error:
        raise ConfigError(
            f"Stream: the tracker cannot be copied, and every source needs its own ({error}). Pass "
            "a function that makes one: tracker=lambda: ..."
        ) from error
    return lambda: copy.deepcopy(untouched)


def _with_times(tracker: Any) -> Callable[[Any, float], Any]:
    """The tracker's update, with the time of the frame where it takes one."""
    try:
        timed = "timestamp" in inspect.signature(tracker.update).parameters
    except (TypeError, ValueError):  # a built-in function has no signature
        timed = False
    if timed:
        return lambda given, seconds: tracker.update(given, timestamp=seconds)
    return lambda given, _: tracker.update(given)
