"""Slots of a Markdown file that commands fill with measured numbers."""

from __future__ import annotations

from pathlib import Path

from zsd_core.errors import ConfigError

__all__ = ["fill_slot", "find_slot"]


def fill_slot(path: Path, name: str, text: str) -> None:
    """Put measured numbers between ``<!-- numbers: NAME -->`` and ``<!-- /numbers -->``.

    Raises:
        ConfigError: the file cannot be read, or has no such place.
    """
    before, after = find_slot(path, name)
    path.write_text(f"{before}{text}\n{after}", encoding="utf-8")


def find_slot(path: Path, name: str) -> tuple[str, str]:
    """Return the text before and after the numbers, marks included; see :func:`fill_slot`."""
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be filled with numbers: {error}") from error
    begin, end = f"<!-- numbers: {name} -->\n", "<!-- /numbers -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ConfigError(f"{path} has no line {begin.strip()!r} with {end!r} behind it.")
    return before + begin, end + after
