"""The pages of docs/ as a site: they build, every link leads somewhere, and a reader is guided."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="mkdocs-material is not installed: pip install 'contrastzsd[docs]'",
)


def build(config: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@needs_mkdocs
def test_the_site_builds_strictly_and_has_every_page(tmp_path):
    result = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert result.returncode == 0, result.stderr[-3000:]
    for page in PAGES:
        assert (tmp_path / "site" / f"{page.stem}.html").is_file()
    text = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert 'href="https://github.com/OWNER/contrastzsd/blob/main/README.md"' in text
    assert "fonts.googleapis" not in text


@needs_mkdocs
def test_a_broken_link_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Page\n\n[nowhere](missing.md)\n")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: x\ntheme: {name: material, font: false}\n"
        "validation: {links: {not_found: warn, anchors: warn}}\n"
    )
    result = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert result.returncode == 1
    assert "missing.md" in result.stderr


@needs_mkdocs
def test_links_to_files_of_the_repository_lead_to_where_it_is_published(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    hook = importlib.import_module("docs_links").on_page_markdown
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    config = SimpleNamespace(repo_url="https://host/project/")
    text = hook("[a](../README.md#limits) [b](../configs) [c](other.md)", page=page, config=config)
    assert text == (
        "[a](https://host/project/blob/main/README.md#limits) "
        "[b](https://host/project/tree/main/configs) [c](other.md)"
    )
    with pytest.raises(Exception, match=r"docs/page\.md links \.\./nowhere\.md"):
        hook("[a](../nowhere.md)", page=page, config=config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_whom_it_is_for_and_ends_with_what_to_read_next(page):
    text = page.read_text(encoding="utf-8")
    title, first = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL).split("\n\n")[:2]
    assert title.startswith("# ")
    assert first.startswith("For "), f"{page.name}: {first[:60]!r} does not say whom it is for"
    heading, rest = text.rsplit("\n## ", 1)[1].split("\n", 1)
    assert heading == "Read next", f"{page.name} ends with {heading!r}"
    assert "](" in rest, f"{page.name}: no link"
