"""Text that may be shown: addresses without their credentials, names that any terminal can print.

Addresses of cameras carry passwords. Every message, state and file name of this package that holds
an address passes through ``hide_credentials`` or, where the text is one address or pipeline and
nothing else, through ``shown_place``, so that a log can be shown to anybody.

Cameras know many names for a password, ``p`` and ``loginpas`` among them. So the values of an
address are hidden unless their name is known to be harmless, and not the other way round.
"""

from __future__ import annotations

import os
import re

from zsd_core.files import visible

__all__ = ["hide_credentials", "printable", "shown_place"]

HIDDEN = "***"
CLOSING = ")]>\"',.:;"  # marks after an address, which are the message's
# Names of an address or a pipeline whose values tell cameras apart, or say how they send.
HARMLESS = frozenset(
    "action audio buffer buffer-size camera caps ch chan channel channelid cmd codec compression "
    "device draw drop fps format framerate height index is-live latency leaky localport location "
    "max-buffers mode num-buffers pattern profile proto protocol protocols quality rate res "
    "resolution rotation sensor-id size speed stream streamtype subtype sync timeout track trackid "
    "transport transportmode type unicast uri url version video videocodec width".split()
)
_PLAIN = re.compile(r"[\w.:/+-]*(?:\(\w+\)[\w.:/+-]*)?")  # a value with no room for another name
_PLACE = re.compile(r"(?<![\w+.-])([\w+.-]{2,}:/{1,2})(.*)", re.DOTALL)
# As part of a name, such as "apikey" or "user-pw"; but not of "compass", "monkey" or "design".
_SECRET = re.compile(
    r"""(?<!com)(?<!by)pass(?!age|eng|ion|ive|port) | pwd | psw | pw$ | token(?!iz) | secret(?!ar)
      | (?<!don|his|hoc|joc|mon|tur)key(?!board|frame|hole|note|pad|point|stone|word)
      | auth(?!or(?!i[sz])) | sig(?![a-z]) | signature | (?<!sa)cred(?!ib|it) | user | usr | login
      | cookie
    """,
    re.IGNORECASE | re.VERBOSE,
)
# The beginning of an address without credentials: with digits alone behind the colon.
_HOST = re.compile(r"(?:\[[^]]*\]|[\w.-]+)(?::\d{1,5})?/")
_DRIVE = re.compile(r"/[A-Za-z]:(?=[\\/])")  # of file:///C:/film.mp4
_SECTION = re.compile(r"([^/?#&;=]*(?:/[^?#&;=:%]*)?)(#[\w.-]*)")  # of a page, which no camera has
# In a path, such a word stands before the name of a film; any other may be a user's name.
_FILM = re.compile(r"(?:amlst|flv|mp3|mp4|ngrp|raw|sample|smil):")
# The parts of a message that may hold credentials. A password may hold any character, even "@",
# "/" or a blank that its owner forgot to escape: it ends at the last "@".
_PARTS = re.compile(
    r"""(?P<scheme> (?<![\w+.-]) [\w+.-]{2,}:/{1,2})
            (?P<address> (?:[^\s/?\#@:]*:(?:(?!:/)[^\n])*@)? \S*)
      | (?P<local> (?<!\S)["'(]* (?:[A-Za-z]:|~|\.{1,2})?[\\/] [^\s?&;\#"']* (?=[\s"']|\Z))
      | (?P<open> (?<!\S)["'(]*) [^\s:@/"'(]+:[^\s/]\S*@
      | (?P<name> (?<![\w.:-]) [\w.:-]+) (?P<equals> \s*=\s*)
            (?P<value> \\?"(?:[^"\\]|\\.)*"? | \\?'(?:[^'\\]|\\.)*'? | (?:\\.|[^\s&;?\#'"\\])*)
    """,
    re.VERBOSE | re.DOTALL,
)


def hide_credentials(text: str) -> str:
    """Return a message with every user name, password and token in it replaced by ``***``.

    Hidden are ``user:password@``; the values in an address or a GStreamer pipeline, except harmless
    ones such as ``channel=1``; and elsewhere the values of names such as ``password``, ``token``
    and ``user``. A secret that is part of the path, such as the key of an RTMP stream, cannot be
    told from a path and stays.
    """
    pipeline = " ! " in text

    def hidden(match: re.Match[str]) -> str:
        if match["scheme"]:
            address = match["address"].rstrip(CLOSING)
            end = match["address"][len(address) :]
            return match["scheme"] + _without_secrets(address) + end
        if match["local"]:
            return "".join(map(_named_folder, re.split(r"([\\/])", match["local"])))
        if match["name"] is None:
            return f"{match['open']}{HIDDEN}@"
        name, value = match["name"], match["value"].strip("\\\"'")
        place = _PLACE.fullmatch(value)
        if place and not _SECRET.search(name):
            value = place[1] + _without_secrets(place[2])
        elif _SECRET.search(name) or "@" in value:
            value = HIDDEN
        elif pipeline and not _harmless(f"{name}={value}"):
            value = HIDDEN
        else:
            return match[0]
        return f"{name}{match['equals']}{value}"

    return _PARTS.sub(hidden, text)


def shown_place(place: str) -> str:
    """Return the name of an address, a pipeline or a path, with nothing secret in it.

    Other than in a message, all of the text belongs to the address, blanks and full stops too.
    """
    address = _PLACE.search(place)
    if address is None or (" ! " in place and place[: address.start()].strip()):
        return printable(hide_credentials(place))
    before = hide_credentials(place[: address.start()])  # FFmpeg takes some protocols as ffmpeg:...
    return printable(before + address[1] + _without_secrets(address[2]))


def printable(name: str) -> str:
    """Return a file name that can be printed and stored as UTF-8.

    Names on Linux are bytes. U+FFFD stands for what is no UTF-8, and for control characters, which
    would change the colors of a terminal or what was printed before, or end a line of a log.
    """
    text = visible(os.fsencode(name).decode("utf-8", "replace"))
    return text.replace("\n", "\ufffd").replace("\t", "\ufffd")


def _without_secrets(address: str) -> str:
    """What follows ``rtsp://``, its credentials hidden."""
    if drive := _DRIVE.match(address):
        return drive[0] + _without_secrets(address[drive.end() :])
    path = re.split("[?=]", address)[0]
    before, at, place = path.rpartition("@")
    if not _HOST.match(place):  # else an "@" of a value that follows is that value's
        before, at, place = address.rpartition("@")
    if at and (":" in before or "/" not in before):
        shown, rest = f"{HIDDEN}@", address[len(before) + 1 :]
    else:
        shown, rest = "", address
    page = _SECTION.fullmatch(rest)
    rest, section = page.groups() if page else (rest, "")
    host, *parts = re.split(r"([/?#&;])", rest)
    shown, query = shown + host, False
    for mark, part in zip(parts[::2], parts[1::2], strict=True):
        query = query or mark in "?#" or "=" in part
        shown += mark + (_shown_value(part) if query else _shown_folder(part))
    return shown + section


def _named_folder(part: str) -> str:
    """One folder of a path of this machine: what follows the name of a secret is hidden."""
    names = re.finditer(r"(?<![\w.-])([\w.-]+)=", part)
    end = next((match.end() for match in names if _SECRET.search(match[1])), None)
    return part if end is None else part[:end] + HIDDEN


def _shown_folder(part: str) -> str:
    """One folder of a path: some cameras take ``user:password`` as one, others ``user%3D...``."""
    named = ":" in part and not _FILM.match(part)
    return HIDDEN if named or "%3d" in part.lower() else part


def _shown_value(part: str) -> str:
    """One ``name=value`` of an address; what has no name may be a token."""
    name, equals, _ = part.partition("=")
    if _harmless(part):
        return part
    if equals and _SECRET.search(name) and re.fullmatch(r"[\w.-]+", name):
        return f"{name}={HIDDEN}"
    return HIDDEN if part else ""  # what looks like a name may be a token, such as "c2VjcmV0=="


def _harmless(pair: str) -> bool:
    """Whether ``name=value`` may be shown; GStreamer writes several, with commas."""
    pairs = [part.partition("=") for part in pair.split(",")]
    named = (
        name.lower() in HARMLESS if equals else _PLAIN.fullmatch(name) for name, equals, _ in pairs
    )
    return bool(pairs[0][1]) and all(named) and all(_PLAIN.fullmatch(value) for *_, value in pairs)
