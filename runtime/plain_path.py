"""Paths for libraries that take UTF-8 only and read "10:30.mp4" as an address."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.redact import printable

__all__ = ["plain_path"]


@contextmanager
def plain_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give an absolute path to the same file in UTF-8, for as long as it is being opened.

    A path that is no UTF-8 is reached through a symbolic link in a temporary folder, whether the
    file is there already or is to be written.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, "video" + printable(Path(whole).suffix))
            os.symlink(whole, link)
            yield link
    else:
        yield whole
