"""Parts of a request: its body, its parameters, and the format of its answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from runtime.serve.errors import RequestError
from zsd_core.errors import did_you_mean, join_first
from zsd_core.files import shown

__all__ = [
    "JSON_BYTES",
    "parameter",
    "read_body",
    "read_box",
    "read_choice",
    "read_count",
    "read_fields",
    "read_flag",
    "read_query",
    "wanted_format",
]

JSON_BYTES = 4 * 2**20  # a few hundred class vectors
# Most of these bytes in a JSON body, those in names too: what 5000 classes and such vectors need.
# Parsing holds up everybody, and millions of small values take the longest.
MOST_OF = {b"[": 10_000, b"{": 10_000, b'"': 40_000, b",": 500_000}
T = TypeVar("T")
LONGEST = 100  # characters of a field that is compared with the known ones
FORMATS = {"application/json": "json", "image/jpeg": ".jpg", "image/png": ".png"}


async def read_body(request: Request, most: int, came: Callable[[int], None]) -> bytes:
    """The whole body.

    Args:
        request: whose body.
        most: bytes.
        came: called with the bytes of every part.

    Raises:
        RequestError: it is longer than ``most`` bytes (413), ends early (400), or is compressed or
            a form (415).
    """
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise RequestError(
            415,
            "the body is a form; send the bytes themselves: curl --data-binary @photo.jpg instead "
            "of curl -F.",
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise RequestError(
            415, f"the body is compressed ({shown(coding)}); send it without Content-Encoding."
        )
    declared = request.headers.get("content-length", "")
    digits = len(str(most))  # a client may write more than Python makes a number of
    if declared.isdecimal() and (len(declared.lstrip("0")) > digits or int(declared) > most):
        raise _too_long(most)
    body = bytearray()
    try:
        async for part in request.stream():
            if len(body) + len(part) > most:
                raise _too_long(most)
            came(len(part))
            body += part
    except ClientDisconnect as error:
        raise RequestError(400, "the request ended before its body was whole.") from error
    return bytes(body)


def _too_long(most: int) -> RequestError:
    """The refusal, of which no variable beside the body knows: both would stay until collected."""
    return RequestError(
        413, f"the body has more than {most / 2**20:.3g} MiB, the most that is taken."
    )


async def read_fields(
    request: Request, known: tuple[str, ...], came: Callable[[int], None]
) -> dict[str, Any]:
    """The fields of a JSON object; ``came`` as in ``read_body``.

    Raises:
        RequestError: the body is too large or holds too many values (413), is no JSON object, or
            has a field that is not known (400).
    """
    body = await read_body(request, JSON_BYTES, came)
    for byte, most in MOST_OF.items():
        if body.count(byte) > most:
            raise RequestError(
                413,
                f"the body has more than {most:,} times {byte.decode()}, the most that is taken; "
                "send the classes in several requests.",
            )
    try:
        fields = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise RequestError(400, f"the body must be a JSON object with {', '.join(known)}.")
    strange = [name for name in fields if name not in known]
    if strange:
        sentences = (
            f"there is no field {shown(name)}, only {', '.join(known)}"
            f"{did_you_mean(name[:LONGEST], known)}"
            for name in strange
        )
        raise RequestError(400, join_first(sentences, len(strange)))
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, none of whose keys stands there twice: which one was meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} stands there twice")
    return found


def read_choice(fields: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; left out or null, it is false.

    Raises:
        RequestError: it is neither (400).
    """
    value = fields.get(name)
    if not isinstance(value, (bool, type(None))):
        raise RequestError(400, f"{name} is {shown(value)}, must be true or false.")
    return value is True


def read_query(request: Request, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The values of every parameter after the question mark.

    Args:
        request: whose query.
        known: schemas of the parameters, by name; one that is no array stands there once at most.

    Raises:
        RequestError: a parameter is not known, stands there twice, or is no UTF-8 (400).
    """
    found: dict[str, list[str]] = {}
    try:
        text = request.scope["query_string"].decode()
        for name, value in parse_qsl(text, keep_blank_values=True, errors="strict"):
            found.setdefault(name, []).append(value)
    except UnicodeDecodeError as error:
        raise RequestError(
            400, "what stands after the ? is no UTF-8; write é as %C3%A9."
        ) from error
    names = ", ".join(known) or "none"
    wrong = [
        f"there is no parameter {shown(name)} here, only {names}"
        f"{did_you_mean(name[:LONGEST], known)}"
        if name not in known
        else f"the parameter {name} stands there {len(values)} times, must stand there once"
        for name, values in found.items()
        if name not in known or (len(values) > 1 and known[name]["type"] != "array")
    ]
    if wrong:
        raise RequestError(400, join_first(wrong, len(wrong)))
    return found


def parameter(request: Request, name: str, default: T) -> str | T:
    """A parameter of a query that ``read_query`` has read."""
    values: list[str | T] = request.state.query.get(name, [default])
    return values[0]


def read_count(request: Request, name: str, default: int, most: int) -> int:
    """A parameter that is a whole number from 1 to ``most``.

    Raises:
        RequestError: it is not (400).
    """
    text = parameter(request, name, str(default))
    if not (
        text.isascii()
        and text.isdecimal()
        and len(text) <= len(str(most))
        and 1 <= int(text) <= most
    ):
        raise RequestError(
            400, f"{name} is {shown(text)}, must be a whole number from 1 to {most}."
        )
    return int(text)


def read_box(request: Request, name: str) -> tuple[float, float, float, float] | None:
    """A parameter that is a box ``x1,y1,x2,y2``; None where it is left out.

    Raises:
        RequestError: it is not four numbers (400).
    """
    text = parameter(request, name, None)
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = map(_number, text.split(","))
    except ValueError as error:
        raise RequestError(
            400, f"{name} is {shown(text)}, must be four numbers x1,y1,x2,y2."
        ) from error
    return x1, y1, x2, y2


def read_flag(request: Request, name: str, default: bool) -> bool:
    """A parameter that is true or false.

    Raises:
        RequestError: it is neither (400).
    """
    text = parameter(request, name, str(default))
    if text.lower() not in ("true", "false", "1", "0"):
        raise RequestError(400, f"{name} is {shown(text)}, must be true or false.")
    return text.lower() in ("true", "1")


def _number(text: str) -> float:
    """A number; Python's own parser also takes ``1_0``, ``nan`` and the digits of any script."""
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", text.strip().lower()):
        raise ValueError(text)
    return float(text)


def wanted_format(accept: str) -> str:
    """Format that an ``Accept`` header likes best: "json", ".jpg" or ".png".

    Raises:
        RequestError: none of them (406).
    """
    ranges = []
    for part in (accept or "*/*").split(","):
        name, *parameters = (piece.strip() for piece in part.lower().split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = _number(value)
                except ValueError:
                    quality = 0.0
        ranges.append((name, quality))

    def liking(media: str) -> float:
        kind = media.partition("/")[0]
        for pattern in (media, f"{kind}/*", "*/*"):  # the most specific decides
            found = [quality for name, quality in ranges if name == pattern]
            if found:
                return max(found)
        return 0.0

    best = max(FORMATS, key=liking)  # the first of equals
    if liking(best) <= 0:
        raise RequestError(406, f"no answer is {shown(accept)}; accept {', '.join(FORMATS)}.")
    return FORMATS[best]
