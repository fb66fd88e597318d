"""Links from docs/ to files of the repository, for ``make docs`` (a hook of mkdocs.yml).

On the site such a link leads to the file where the project is published. A link to a file that does
not exist ends the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite every link that begins with ``../``; mkdocs calls this for each page."""

    def published(match: re.Match[str]) -> str:
        path, _, fragment = match[1].partition("#")
        file = ROOT / path
        if not file.exists():
            raise PluginError(
                f"docs/{page.file.src_uri} links ../{path}, which does not exist; "
                "correct the link or add the file."
            )
        kind = "tree" if file.is_dir() else "blob"
        anchor = f"#{fragment}" if fragment else ""
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{path}{anchor})"

    return re.sub(r"\]\(\.\./([^)\s]+)\)", published, markdown)
