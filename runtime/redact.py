"""Text that may be shown: addresses without their credentials, names that any terminal can print.

Addresses of cameras carry passwords. Every message, state and file name of this package that holds
an address passes through ``hide_credentials``, so that a log can be shown to anybody.
"""

from __future__ import annotations

import os
import re

__all__ = ["hide_credentials", "printable"]

HIDDEN = "***"
# A password may hold any character, even "@", "/" or a blank that its owner forgot to escape.
# Hiding up to the last "@" may hide more than the password, never less.
_WHOLE = re.compile(r"^(?P<scheme>\w[\w+.-]*:/{1,2})[^\s/?#@:]*:.*@", re.DOTALL)
_USER = re.compile(r"(?P<scheme>\w[\w+.-]*:/{1,2})(?:[^\s/?#@:]*:\S*|[^\s/?#]*)@")
_USER_ALONE = re.compile(r"(?<![\w/])[^\s/:@]+:[^\s/][^\s]*@")
# Cameras also take credentials as name=value, in the query or, some recorders, in the path.
_SECRET = re.compile(
    r"(?P<name>\b[\w.-]*(?:pass|pwd|psw|token|secret|key|auth|sig|cred|user|usr|login)[\w.-]*)="
    r"[^&\s;/?#'\"]*",
    re.IGNORECASE,
)


def hide_credentials(text: str) -> str:
    """Return the text with every user name, password and token of an address replaced by ``***``.

    Hidden are ``user:password@`` and the values of names such as ``password``, ``token`` and
    ``user``. A secret that is part of the path, such as the key of an RTMP stream, cannot be told
    from a path and stays.
    """
    for pattern in (_WHOLE, _USER):
        text = pattern.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _USER_ALONE.sub(f"{HIDDEN}@", text)
    return _SECRET.sub(rf"\g<name>={HIDDEN}", text)


def printable(name: str) -> str:
    """Return a file name that can be printed and stored as UTF-8.

    Names on Linux are bytes. Those that are no UTF-8 get U+FFFD where they cannot be read.
    """
    return os.fsencode(name).decode("utf-8", "replace")
