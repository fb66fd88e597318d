"""Commands and Python that README and docs/ tell a reader to type, in the order of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SHELL, OTHER = ("sh", "bash"), ("cmake", "cpp", "ini", "json", "mermaid", "nginx", "text")


class Item(NamedTuple):
    """One thing to type.

    Attributes:
        page: name of the file.
        kind: "sh" or "python".
        text: one command on one line without comments, or a whole block of Python.
    """

    page: str
    kind: str
    text: str


def items(page: Path) -> Iterator[Item]:
    """Commands and blocks of Python of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if kind == "python":
            yield Item(page.name, kind, block)
        elif kind in SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*$", "", line)).strip()
                if command:
                    yield Item(page.name, "sh", command)
        elif kind not in OTHER:
            raise AssertionError(f"{page.name}: a block is called {kind!r}; name its language")
