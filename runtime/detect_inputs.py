"""Search the inputs of a command one after another; one that fails does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtime.capture import open_capture
from runtime.console import Stop, say
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.frames import Frame, SourceState
from runtime.images import read_image
from runtime.recording import VideoWriter, has_h264
from runtime.redact import printable, shown_place
from runtime.results import Lines, StageTimes, explain, write_picture
from runtime.sources import Source
from runtime.stream import Stream
from runtime.tracking import byte_tracker
from zsd_core.commands import print_error
from zsd_core.errors import ImageError

__all__ = ["Outcome", "Search", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a search.

    Attributes:
        folder: for the pictures, videos and JSON; it is there.
        max_frames: after which a video or stream is left, or None.
        timeout: seconds for a live source to open or to send a frame.
        retry: pauses before a lost live source is tried again, or None: a loss is an error.
        track: whether objects are numbered through a video.
        lines: where every image and frame becomes a line of JSON, or None.
    """

    folder: Path
    max_frames: int | None = None
    timeout: float = 5.0
    retry: tuple[float, float] | None = (0.5, 30.0)
    track: bool = False
    lines: Lines | None = None

    def say(self, text: str) -> None:
        """Print a result for people: on standard error where standard output is for JSON."""
        say(text, file=sys.stderr if self.lines and self.lines.on_output else sys.stdout)


@dataclass(slots=True)
class Outcome:
    """Outcome of a search, input by input.

    Attributes:
        done: inputs that gave results.
        failed: inputs that could not be read, or whose results could not be written.
        skipped: frames of videos that could not be read.
        unfinished: whether a file was left before its end.
        times: of the stages, per image.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    unfinished: bool = False
    times: StageTimes = field(default_factory=StageTimes)

    def status(self, signal: int | None) -> int:
        """Exit status of the command; ``signal`` is what stopped it, or None."""
        if signal is not None and self.unfinished:
            return 128 + signal
        return 1 if self.failed else 3 if self.skipped else 0


class Search:
    """Searches images one by one, then videos one by one, then all live sources together.

    Args:
        detector: what finds.
        settings: what to do.
        stop: asked after every frame; it ends a search like the end of its inputs.
    """

    def __init__(self, detector: Detector, settings: Settings, stop: Stop) -> None:
        self._detector, self._settings, self._stop = detector, settings, stop
        self._outcome = Outcome()

    def run(self, sources: Sequence[Source]) -> Outcome:
        """Search every source, and report each as it is done."""
        if not has_h264() and any(s.kind != "image" for s in sources):
            say(
                "note: videos are written as MPEG-4 Part 2, which browsers do not play; "
                "pip install 'contrastzsd[video]' for H.264",
                file=sys.stderr,
            )
        files = [source for source in sources if source.kind != "live"]
        live = [source for source in sources if source.kind == "live"]
        for source in files:
            if self._stop.signal:
                self._outcome.unfinished = True
                break
            if source.kind == "image":
                self._search_image(source)
            else:
                self._search_together([source])
        if live and not self._stop.signal:
            self._search_together(live)
        if self._settings.lines:
            self._settings.lines.close()
        return self._outcome

    def _search_image(self, source: Source) -> None:
        folder = self._settings.folder
        try:
            if "://" in source.place:
                address = replace(source, name=_shown(source))
                most = self._detector.max_pixels
                with closing(open_capture(address, self._settings.timeout, most)) as capture:
                    _, image = capture.read() or (0.0, None)
            else:
                image = read_image(source.place, "bgr", self._detector.max_pixels)
            assert image is not None
            found = self._detector(image, color="bgr")
            self._outcome.times.add(found)
            self._write_line(source, found, frame=0, seconds=0.0)
            picture = write_picture(folder, source.name, image, found)
        except ImageError as error:
            self._fail(error)
            return
        self._outcome.done += 1
        self._settings.say(f"{printable(str(picture))}: {explain(found)}")

    def _search_together(self, sources: Sequence[Source]) -> None:
        """Search videos or live sources side by side, each with files of its own."""
        settings = self._settings
        tracker = byte_tracker(self._detector) if settings.track else None
        jobs: dict[str, _Job] = {}
        for source in sources:  # messages are to name the file or address, not the output
            label = _shown(source)
            jobs[f"{label} ({source.name})" if label in jobs else label] = _Job(source)
        try:
            stream = Stream(
                self._detector,
                {label: job.source for label, job in jobs.items()},
                timeout=settings.timeout,
                retry=settings.retry,
                tracker=tracker,
            )
        except ImageError as error:
            self._fail(error)
            return
        self._stop.tells(stream.stop)
        try:
            while True:
                try:
                    for frame, found in stream:
                        self._keep(stream, jobs[frame.source], frame, found)
                    break
                except ImageError as error:  # of one source; the others go on
                    self._fail(error)
        finally:
            self._stop.tells(lambda: None)
            say("", file=sys.stderr)
            states = stream.states
            stream.close()
            for label, job in jobs.items():
                self._finish(job, states.get(label, job.state))

    def _keep(self, stream: Stream, job: _Job, frame: Frame, found: Detections) -> None:
        """Write one frame; a source whose results cannot be written is left."""
        settings, name = self._settings, frame.source
        job.state = stream.states.get(name, job.state)
        self._outcome.times.add(found)
        try:
            if job.writer is None:
                live, rate = job.source.kind == "live", job.state.rate if job.state else 25.0
                job.writer = VideoWriter(settings.folder, job.source.name, rate, live=live)
            job.writer.add(frame.index, frame.seconds, frame.image, found)
            times = {"captured": round(frame.captured, 3)} if job.source.kind == "live" else {}
            seconds = round(frame.seconds, 3)
            self._write_line(job.source, found, frame=frame.index, seconds=seconds, **times)
        except ImageError as error:
            self._fail(error)
            job.broken = True
            stream.remove(name)
            return
        job.objects += len(found)
        written = job.writer.frames
        of = f"/{job.expected(settings.max_frames)}" if job.expected(settings.max_frames) else ""
        say(f"{job.source.name}: frame {written}{of}", start="\r", end="", file=sys.stderr)
        if written == settings.max_frames:  # the file's own count may be an estimate
            job.enough = True
            stream.remove(name)

    def _finish(self, job: _Job, state: SourceState | None) -> None:
        """Complete the files of a source and report on it."""
        if job.source.kind == "video" and not (job.enough or job.broken):
            self._outcome.unfinished |= self._stop.signal is not None
        if job.writer is None:
            if job.source.kind == "live" and state is not None and not (state.frames or job.broken):
                place = _shown(job.source)
                self._fail(ImageError(f"{place}: gave no frame; the warnings above say why."))
            return
        try:
            job.writer.close()
        except ImageError as error:
            if not job.broken:
                self._fail(error)
                job.broken = True
        if job.broken:
            return
        self._outcome.done += 1
        notes = [f"{job.objects} object{'s' * (job.objects != 1)} in {job.writer.frames} frame"]
        notes[0] += "s" * (job.writer.frames != 1)
        if state is not None:
            notes += _remarks(state)
            if job.source.kind == "video" and not job.enough:
                self._outcome.skipped += state.skipped
        self._settings.say(f"{printable(str(job.writer.path))}: {', '.join(notes)}")

    def _write_line(self, source: Source, found: Detections, **record: Any) -> None:
        if self._settings.lines:
            place = _shown(source)
            self._settings.lines.write({"source": place, **record, "detections": found.to_list()})

    def _fail(self, error: Exception) -> None:
        self._outcome.failed += 1
        print_error(error)


@dataclass(slots=True)
class _Job:
    """The results of one video or live source."""

    source: Source
    writer: VideoWriter | None = None
    state: SourceState | None = None
    objects: int = 0
    enough: bool = False
    broken: bool = False

    def expected(self, max_frames: int | None) -> int | None:
        """Number of frames that will be written, as far as is known."""
        known = [n for n in (self.state.count if self.state else None, max_frames) if n is not None]
        return min(known, default=None)


def _shown(source: Source) -> str:
    """The path or address of a source, fit to be printed."""
    address = "://" in source.place or " ! " in source.place
    return shown_place(source.place) if address else printable(source.place)


def _remarks(state: SourceState) -> list[str]:
    """Further remarks about a source."""
    remarks = []
    if state.dropped:
        remarks.append(f"{state.dropped} dropped to keep up")
    if state.losses:
        remarks.append(f"lost {state.losses} time{'s' * (state.losses != 1)}")
    if state.skipped:
        were = "s were" if state.skipped != 1 else " was"
        remarks.append(f"though {state.skipped} frame{were} not readable: is the file whole?")
    return remarks
