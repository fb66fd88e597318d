"""Inputs that a caller names, sorted: image files, folders of them, videos, cameras, streams."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from runtime.redact import printable, shown_place
from zsd_core.errors import ImageError
from zsd_core.pictures.size import SUFFIXES

__all__ = ["IMAGES", "VIDEOS", "Kind", "Place", "Source", "find_sources", "resolve", "source_of"]

IMAGES = SUFFIXES  # a file of another name is an image where its content says so
VIDEOS = {
    ".3gp",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
}
FILE_SCHEMES = {"http", "https", "ftp"}  # of addresses that may lead to a file

Kind = Literal["image", "video", "live"]
Place = str | int | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        kind: "image", "video" (a file, which has an end) or "live" (a camera or a stream).
        place: path, camera number as text, address, or GStreamer pipeline. It may hold a password;
            never print it.
        name: for output files and messages: without credentials, unique among the sources.
    """

    kind: Kind
    place: str = field(repr=False)
    name: str


def source_of(place: Place | Source, name: str | None = None) -> Source:
    """Sort out one input of a stream.

    Args:
        place: a path, a camera number, an address, or a GStreamer pipeline (with " ! ").
            ``file://`` and addresses of files (``http://host/clip.mp4``) are files. A ``Source``
            is taken as it is.
        name: what to call it; by default the place without its credentials.

    Raises:
        ImageError: nothing is there, or it is neither image nor video.
    """
    if isinstance(place, Source):
        return place if name is None else Source(place.kind, place.place, name)
    text = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
    shown = shown_place(text) if name is None else name
    path = _local_path(text)
    if path is None:
        return Source(_address_kind(text), text, shown)
    if os.path.isfile(path):
        return Source(_file_kind(path), path, printable(path) if name is None else name)
    if path.isdecimal():
        return Source("live", path, shown)
    if path.startswith("/dev/") and os.path.exists(path):
        return Source("live", path, shown)
    if os.path.isdir(path):
        raise ImageError(f"{printable(path)}: is a folder; name the files in it.")
    raise ImageError(
        f"{shown_place(text)}: no such file or folder; a camera is a number, a "
        "stream an address such as rtsp://host/path."
    )


def resolve(place: Place) -> str:
    """The place of a source as ``source_of`` gives it: ``file:///x.mp4`` is ``/x.mp4``.

    Raises:
        ImageError: the address of a file is malformed.
    """
    text = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
    path = _local_path(text)
    return text if path is None else path


def find_sources(arguments: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Sort out what a command line names; a folder stands for the images in it.

    Returns:
        The sources, and one sentence for every folder in which something was passed over.

    Raises:
        ImageError: something is not there, or is neither image nor video.
    """
    sources: list[Source] = []
    notes: list[str] = []
    taken: set[str] = set()

    def add(source: Source, name: str) -> None:
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        sources.append(Source(source.kind, source.place, unique))

    for argument in arguments:
        path = _local_path(argument)
        if path is not None and os.path.isdir(path):  # pathlib's raises where a name is too long
            files, passed = _images_of(path)
            for file in files:
                add(Source("image", file, file), _stem(file))
            if passed:
                notes.append(f"{printable(path)}: passed over {passed}.")
            continue
        source = source_of(argument)
        if path is None:
            file = re.split("[?#]", source.name)[0].replace("*", "_")
            add(source, "stream" if source.kind == "live" else _stem(file))
        elif source.kind == "live":
            add(source, f"camera{Path(path).name.removeprefix('video')}")
        else:
            add(source, _stem(path))
    return sources, notes


def _local_path(text: str) -> str | None:
    """Path of what lies on this machine; None for an address or a pipeline."""
    if text.lower().startswith("file://"):
        try:
            return url2pathname(urlsplit(text).path)
        except ValueError:
            raise ImageError(
                f"{shown_place(text)}: is malformed; give the path without file://."
            ) from None
    return None if "://" in text or " ! " in text else text


def _stem(path: str) -> str:
    """Name of the outputs of a file."""
    name = printable(Path(path).stem) or "stream"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # a system whose file names are ASCII
        return name.encode("ascii", "replace").decode().replace("?", "_")
    return name


def _address_kind(address: str) -> Kind:
    """Kind of what an address leads to, by its scheme and the suffix of its path."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as an open bracket: OpenCV is to say whether it can be opened
        return "live"
    suffix = Path(parts.path).suffix.lower()
    if parts.scheme.lower() not in FILE_SCHEMES:
        return "live"
    return "image" if suffix in IMAGES else "video" if suffix in VIDEOS else "live"


def _file_kind(path: str) -> Kind:
    """Kind of a file, by its suffix or its content."""
    suffix = Path(path).suffix.lower()
    if suffix in VIDEOS:
        return "video"
    if suffix in IMAGES or _is_image(path):
        return "image"
    raise ImageError(
        f"{printable(path)}: {suffix or 'no suffix'} is neither an image "
        f"({', '.join(sorted(IMAGES))}) nor a video ({', '.join(sorted(VIDEOS))})."
    )


def _is_image(path: str) -> bool:
    """Whether a file holds a picture, whatever it is called; a HEIC, to be told what to do."""
    import cv2

    from zsd_core.pictures.refused import is_heic

    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return False
    try:
        return is_heic(head) or bool(cv2.haveImageReader(path))
    except (cv2.error, UnicodeError):  # a name that is no UTF-8
        return False


def _images_of(folder: str) -> tuple[list[str], str]:
    """Paths of the images in a folder, by name, and what else there is in words."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ImageError(f"{printable(folder)}: cannot be listed: {error.strerror}.") from error
    images: list[str] = []
    passed: dict[str, list[str]] = {"hidden": [], "folders": [], "videos": [], "no images": []}
    for entry in entries:
        suffix = Path(entry.name).suffix.lower()
        if entry.name.startswith("."):
            passed["hidden"].append(entry.name)
        elif os.path.isdir(entry.path):  # the entry's own raises where a link leads to itself
            passed["folders"].append(entry.name)
        elif suffix in VIDEOS:
            passed["videos"].append(entry.name)
        elif os.path.isfile(entry.path) and (suffix in IMAGES or _is_image(entry.path)):
            images.append(entry.path)
        else:
            passed["no images"].append(entry.name)
    words = ", ".join(f"{_some(names)} ({what})" for what, names in passed.items() if names)
    if not images:
        raise ImageError(
            f"{printable(folder)}: the folder holds no image ({', '.join(sorted(IMAGES))})"
            f"{f'; it holds {words}' if words else ''}."
        )
    return images, words


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = " ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
