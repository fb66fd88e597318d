"""The documents keep their word: links lead somewhere, commands exist, the code in them runs."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from contrastzsd import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


OTHERS = {"--system-site-packages"}  # options of other programs that pages name


def links(text: str) -> set[str]:
    """Targets of Markdown links and of HTML src/href, web addresses left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return {t for t in targets if not re.match(r"[a-z]+:", t)}


def anchor(heading: str) -> str:
    """The fragment a Markdown viewer gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def modules(text: str) -> set[str]:
    """Every module of ours that a page runs with ``python -m``."""
    return set(re.findall(r"-m ((?:zsd_core|runtime|export|benchmarks)(?:\.\w+)+)", text))


@pytest.mark.parametrize("page", TEXTS)
def test_relative_links_lead_somewhere(page):
    for target in links(TEXTS[page]):
        path, _, fragment = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page} links {target}"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(h) for h in headings}, f"{page} links {target}"


@cache
def help_of(module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize("module", sorted(set().union(*map(modules, TEXTS.values()))))
def test_a_command_named_in_a_document_exists_and_explains_itself(module):
    result = help_of(module)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "usage:" in result.stdout


@pytest.mark.parametrize("page", TEXTS)
def test_options_shown_with_a_command_are_options_it_has(page):
    """``--x`` after ``python -m module`` on a line of a document appears in that command's help."""
    text = TEXTS[page].replace("\\\n", " ")
    for module, rest in re.findall(r"-m ((?:zsd_core|runtime|export|benchmarks)[\w.]*)(.*)", text):
        options = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest.split("`")[0]))
        if options:
            unknown = {option for option in options if option not in help_of(module).stdout}
            assert not unknown, f"{page}: {module}"


@pytest.mark.parametrize("page", TEXTS)
def test_commands_of_contrastzsd_exist_and_have_the_options_shown(page):
    """In code only: ``contrastzsd serve --port 80`` at the start of a line or of a span."""
    code = "\n".join(
        re.findall(r"```.*?```|`[^`\n]+`", TEXTS[page].replace("\\\n", " "), re.DOTALL)
    )
    for name, rest in re.findall(r"(?:^|`)contrastzsd ([a-z]+)(.*)", code, re.MULTILINE):
        assert name in cli.COMMANDS, f"{page}: contrastzsd {name}"
        options = set(re.findall(r"(?<!\S)--[a-z][\w-]*", re.split("[`#]", rest)[0]))
        if options:
            known = help_of(cli.COMMANDS[name].module).stdout
            unknown = {option for option in options if option not in known}
            assert not unknown, f"{page}: contrastzsd {name}"


def test_options_named_alone_exist():
    """``--x`` in a span of its own is an option of some command that the pages name."""
    named = set().union(*map(modules, TEXTS.values())) | {c.module for c in cli.COMMANDS.values()}
    files = [p for p in (ROOT / "scripts").iterdir() if p.is_file() and p.suffix != ".py"]
    scripts = "".join(path.read_text("utf-8") for path in files)
    known = "".join(help_of(module).stdout for module in sorted(named)) + scripts
    for page, text in TEXTS.items():
        if page != "CHANGELOG.md":
            options = set(re.findall(r"`(--[a-z][\w-]+)", text))
            assert {option for option in options if option not in known} <= OTHERS, page


def test_make_targets_named_in_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, page


def test_number_slots_are_closed():
    """Measured numbers stand between ``<!-- numbers: NAME -->`` and ``<!-- /numbers -->``."""
    for page, text in TEXTS.items():
        marks = re.findall(r"<!-- (numbers: [\w-]+|/numbers) -->", text)
        assert all(m.startswith("numbers: ") for m in marks[::2]), page
        assert marks[1::2] == ["/numbers"] * (len(marks) // 2) and len(marks) % 2 == 0, page
