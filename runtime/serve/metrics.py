"""Numbers for Prometheus, of bounded variety: clients choose class names, not how many series."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runtime.detections import Detections

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_CLASSES = 100  # series; later names count as OTHER
OTHER = "(other)"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        depth: pictures that wait or are searched.
        version: of the class set.
        viewers: open streams.
    """

    def __init__(
        self,
        depth: Callable[[], float],
        version: Callable[[], float],
        viewers: Callable[[], float],
    ) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "contrastzsd_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "contrastzsd_request_seconds",
            "Seconds to the answer; streams count to their first byte.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "contrastzsd_stage_seconds",
            "Seconds of one picture in one stage of the detector.",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.found = Counter(
            "contrastzsd_detections",
            f"Objects found; the first {MOST_CLASSES} class names have a series of their own.",
            ("class",),
            registry=self.registry,
        )
        self.pictures = Counter(
            "contrastzsd_pictures",
            "Pictures searched, by where they came from.",
            ("source",),
            registry=self.registry,
        )
        self.up = Gauge(
            "contrastzsd_source_up",
            "1 where a source gives frames.",
            ("source",),
            registry=self.registry,
        )
        for name, text, value in (
            ("queue_depth", "Pictures that wait or are searched.", depth),
            ("class_set_version", "Rises with every change of the classes.", version),
            ("viewers", "Open streams.", viewers),
        ):
            Gauge(f"contrastzsd_{name}", text, registry=self.registry).set_function(value)
        self._names: set[str] = set()

    def picture(self, source: str, found: Detections) -> None:
        """Count one searched picture; called in the event loop."""
        self.pictures.labels(source).inc()
        for stage, milliseconds in found.times_ms.items():
            self.stages.labels(stage).observe(milliseconds / 1e3)
        for name, count in Tally(found.class_names).items():
            self.found.labels(self._label(name)).inc(count)

    def states(self, sources: Sequence[Mapping[str, Any]]) -> None:
        """Note which sources give frames."""
        for source in sources:
            self.up.labels(source["name"]).set(source["state"] == "running")

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)

    def _label(self, name: str) -> str:
        if name in self._names or len(self._names) < MOST_CLASSES:
            self._names.add(name)
            return name
        return OTHER
