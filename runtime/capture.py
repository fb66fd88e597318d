"""One opened source: an image, a video file, or a camera; frames with their times, in order."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from runtime.containers import is_whole
from runtime.images import MAX_PIXELS, decode_image, read_image
from runtime.mp4 import presented_seconds
from runtime.plain_path import plain_path
from runtime.redact import hide_credentials, printable, shown_place
from runtime.sources import Source
from zsd_core.errors import ImageError

__all__ = ["Capture", "open_capture"]

Image = NDArray[np.uint8]
EXACT = {".avi", ".m4v", ".mov", ".mp4"}  # files whose headers count the frames; others estimate
PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443, "ftp": 21}
LONGEST = (2**31 - 1) / 1e3  # seconds of a time-out, which OpenCV takes as milliseconds of 32 bits
LARGEST_DOWNLOAD = 64 << 20  # bytes of an image behind an address


class Capture(Protocol):
    """Protocol of an opened source, as a reader uses it.

    Attributes:
        rate: frames per second, as announced; 25 where nothing is.
        count: frames that a file announces; None where it does not, and for live sources.
        skipped: frames of a file that could not be read so far.
    """

    rate: float
    count: int | None
    skipped: int

    def read(self) -> tuple[float, Image] | None:
        """Return the next frame: seconds since the start, and ``(H, W, 3)`` uint8 BGR.

        Returns None at the end of a file, and when a live source is lost.
        """

    def close(self) -> None:
        """Free the file or the camera."""


def open_capture(source: Source, timeout: float, max_pixels: int = MAX_PIXELS) -> Capture:
    """Open a source.

    Args:
        source: what to open.
        timeout: seconds for opening, and for a read; 24 days at most.
        max_pixels: largest width times height of an image; a video's frames are not measured.

    Raises:
        ImageError: it cannot be opened; the message never holds credentials.
    """
    timeout = min(timeout, LONGEST)
    if source.kind == "image":
        return _Still(source, timeout, max_pixels)
    capture = _open(source, timeout)
    if source.kind == "video":
        return _File(source, capture, timeout)
    return _Live(capture)


class _Still:
    """An image as a video of one frame."""

    def __init__(self, source: Source, timeout: float, max_pixels: int) -> None:
        self.rate, self.skipped = 25.0, 0
        self.count: int | None = 1
        self._image: Image | None = _read_image(source, timeout, max_pixels)

    def read(self) -> tuple[float, Image] | None:
        image, self._image = self._image, None
        return None if image is None else (0.0, image)

    def close(self) -> None:
        self._image = None


class _Live:
    """A camera or a stream."""

    def __init__(self, capture: Any) -> None:
        self._capture, self._start = capture, time.monotonic()
        self.rate, self.skipped = _rate(capture), 0
        self.count: int | None = None

    def read(self) -> tuple[float, Image] | None:
        there, picture = self._capture.read()
        return (time.monotonic() - self._start, np.asarray(picture, np.uint8)) if there else None

    def close(self) -> None:
        self._capture.release()


class _File:
    """A video file: a frame that cannot be read is counted, and the next one is tried."""

    def __init__(self, source: Source, capture: Any, timeout: float) -> None:
        import cv2

        self._capture, self._timeout, self._place = capture, timeout, source.place
        self.rate, self.skipped = _rate(capture), 0
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < 2**31 else None
        self._frames, self._last = 0, -1.0
        self._ended = False

    def read(self) -> tuple[float, Image] | None:
        failed, start = 0, time.monotonic()
        while not self._ended:
            there, picture = self._capture.read()
            if there:
                self.skipped += failed
                self._frames += 1
                return self._next_time(), np.asarray(picture, np.uint8)
            failed += 1
            # A bad frame is not the end; the announced end is. Network files may wait at each try.
            rest = (self.count or 0) - self._frames - self.skipped
            if failed > max(rest, 25) or time.monotonic() - start > self._timeout:
                self._ended = True
                self.skipped += self._missing()
        return None

    def close(self) -> None:
        self._capture.release()

    def _next_time(self) -> float:
        """Seconds of the frame just read: the file's own, or by the rate where it has none."""
        import cv2

        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if not seconds > self._last:
            seconds = self._last + 1 / self.rate if self._frames > 1 else 0.0
        self._last = seconds
        return float(seconds)

    def _missing(self) -> int:
        """Number of frames missing at the end, by the announced duration."""
        if self.count is None or self.count - self._last * self.rate <= 2.5:
            return 0
        if whole := is_whole(self._place):  # the duration is that of another track, or of a part
            return 0
        exact = Path(urlsplit(self._place).path).suffix.lower() in EXACT and whole is None
        seconds, last = self.count / self.rate, self._last
        if not exact:
            last = max(last, self._time_in_file())
        elif (presented := presented_seconds(self._place)) is not None:
            seconds = min(seconds, presented)
        # Where nothing is known to be cut, the duration may be an estimate, or a sound track's.
        slack = max(1.0, 0.05 * seconds) if not exact and whole is None else 1.5 / self.rate
        missing = seconds - (last + 1 / self.rate)
        rest = self.count - self._frames - self.skipped
        return max(0, min(rest, round(missing * self.rate))) if missing > slack else 0

    def _time_in_file(self) -> float:
        """Seconds of the last frame as the file counts them: those of a part may begin late.

        0 where OpenCV is too old to tell.
        """
        import cv2

        return float(self._capture.get(getattr(cv2, "CAP_PROP_PTS", -1)) / self.rate)


def _rate(capture: Any) -> float:
    """Frames per second that a capture announces, or 25."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    return float(rate) if 1e-3 <= rate <= 1e4 else 25.0


def _open(source: Source, timeout: float) -> Any:
    """An opened ``cv2.VideoCapture``.

    Raises:
        ImageError: it cannot be opened.
    """
    # FFmpeg's own messages may repeat an address. It reads this once, when it first opens a file.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    place, milliseconds = source.place, max(1, round(timeout * 1e3))
    keys = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    limits = [number for key in keys for number in (key, milliseconds)]
    try:
        if place.isdecimal():
            capture = cv2.VideoCapture(int(place))
        elif " ! " in place:
            capture = cv2.VideoCapture(place, cv2.CAP_GSTREAMER)
        elif place.startswith("/dev/"):
            capture = cv2.VideoCapture(place)
        else:  # never by OpenCV's reader of numbered images, which prints what it cannot open
            capture = _open_by_name(place, limits)
    except (cv2.error, OverflowError):  # no number that a camera could have; no such backend
        capture = None
    if capture is None or not capture.isOpened():
        raise ImageError(f"{source.name}: cannot be opened; {_why(source, timeout)}")
    return capture


def _open_by_name(place: str, limits: list[int]) -> Any:
    import cv2

    backends = [cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER]
    known = cv2.videoio_registry.getStreamBackends()
    api = next((backend for backend in backends if backend in known), cv2.CAP_ANY)
    if "://" in place:
        return cv2.VideoCapture(place, api, limits)
    with plain_path(place) as path:
        return cv2.VideoCapture(path, api, limits)


def _why(source: Source, timeout: float) -> str:
    """The likely reason, found by asking the machine behind an address for a connection."""
    if source.kind == "video" and "://" not in source.place:
        return "is it whole, and of a codec OpenCV reads? Try: ffmpeg -i FILE new.mp4"
    if " ! " in source.place:
        return "is this OpenCV built with GStreamer, and does the pipeline end in appsink?"
    if "://" not in source.place:
        return "is it connected, and free of other programs?"
    try:
        parts = urlsplit(shown_place(source.place))  # nothing of a password is taken for a host
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme.lower())
    except ValueError:
        return "the address is malformed."
    if not host or not port:
        return "is the address right?"
    try:
        socket.create_connection((host, port), timeout=min(timeout, 2.0)).close()
    except socket.gaierror:
        return "its host is not known; is the address right?"
    except TimeoutError:
        return f"nothing answers at port {port}; is it switched on and connected?"
    except OSError as error:
        return f"port {port} cannot be reached: {error.strerror or 'no connection'}."
    return f"port {port} answers, but sends no video; are path, user and password right?"


def _read_image(source: Source, timeout: float, max_pixels: int) -> Image:
    """An image file, or the image behind an address; BGR.

    Raises:
        ImageError: it cannot be read.
    """
    if "://" not in source.place:
        return read_image(source.place, "bgr", max_pixels)
    return decode_image(_download(source, timeout), "bgr", source.name, max_pixels)


def _download(source: Source, timeout: float) -> bytes:
    """The bytes behind an address, with its user and password where it asks for them."""
    from http.client import HTTPException, InvalidURL
    from urllib import request
    from urllib.error import HTTPError

    class Basic(request.HTTPBasicAuthHandler):
        def http_error_401(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
            fp.close()  # the first answer, which urllib would leave open
            return super().http_error_401(req, fp, code, msg, headers)

    class Digest(request.HTTPDigestAuthHandler):
        def http_error_401(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
            fp.close()
            return super().http_error_401(req, fp, code, msg, headers)

    try:
        parts = urlsplit(source.place)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        known = request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            login = unquote(parts.username), unquote(parts.password or "")
            known.add_password(None, plain, *login)
        opener = request.build_opener(Basic(known), Digest(known))
        with opener.open(plain, timeout=timeout) as answer:
            data: bytes = answer.read(LARGEST_DOWNLOAD + 1)
    except (HTTPException, OSError, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()
        if isinstance(error, (InvalidURL, ValueError)):  # their messages repeat parts of it
            reason = (
                "the address is malformed; write a blank as %20, and / ? # of a password as "
                "%2F %3F %23"
            )
        else:  # the server's own words may be in it
            reason = printable(hide_credentials(str(getattr(error, "reason", None) or error)))
        raise ImageError(f"{source.name}: cannot be fetched: {reason}.") from None
    if len(data) > LARGEST_DOWNLOAD:
        raise ImageError(f"{source.name}: is larger than {LARGEST_DOWNLOAD >> 20} MiB.")
    return data
