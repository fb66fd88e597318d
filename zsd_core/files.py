"""Files that are written after long work: whether they can be is known before it."""

from __future__ import annotations

import os
from pathlib import Path

from zsd_core.errors import ConfigError

__all__ = ["prepare_files"]


def prepare_files(*paths: Path | None) -> None:
    """Make the folders of files to be written later; None is a file nobody asked for.

    Raises:
        ConfigError: a file could not be written there.
    """
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"its folder cannot be made: {error.strerror}"
        else:
            problem = "it is a folder" if path.is_dir() else ""
            if not os.access(path if path.exists() else path.parent, os.W_OK):
                problem = "there is no permission to write there"
        if problem:
            raise ConfigError(f"cannot write {path}: {problem}; name another file.")
