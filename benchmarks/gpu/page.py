"""The page of results, ``gpu.md``, made from the parts' JSON: docs/gpu.md with its slot filled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.report import DRY, read_result
from benchmarks.measure import markdown

__all__ = ["filled", "sections", "write_page"]

SLOT = re.compile(r"(<!-- numbers: gpu -->\n).*?(<!-- /numbers -->)", re.DOTALL)


def write_page(folder: Path, template: Path) -> Path:
    """Write ``gpu.md`` beside the results that there are."""
    results = {part: read_result(folder, part) for part in PARTS}
    page = folder / "gpu.md"
    text = filled(template.read_text(encoding="utf-8"), sections(results))
    page.write_text(text, encoding="utf-8")
    return page


def filled(template: str, text: str) -> str:
    """The template with a text in its slot.

    Raises:
        ValueError: it has no slot.
    """
    made, count = SLOT.subn(lambda match: f"{match[1]}{text}\n{match[2]}", template)
    if count != 1:
        raise ValueError(f"docs/gpu.md has {count} slots 'numbers: gpu', must have one.")
    return made


def sections(results: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A section for every part, whatever became of it."""
    ran_on = {str(result["ran_on"]) for result in results.values() if result}
    lines = ["`scripts/gpu-proof` wrote this; its JSON is beside it.", ""]
    lines += [f"Ran on: {', '.join(sorted(ran_on)) or 'nothing yet'}.", ""]
    if DRY in ran_on:
        lines += [f"**{DRY}: nothing below was measured or proved on a GPU.**", ""]
    for part, (_, title, about) in PARTS.items():
        lines += [f"### {title}", "", about, ""]
        lines += _section(results.get(part))
    return "\n".join(lines).rstrip()


def _section(result: Mapping[str, Any] | None) -> list[str]:
    if result is None:
        return ["**Not run.**", ""]
    prefix = f"{DRY}: " if result["ran_on"] == DRY else ""
    verdict = "all agreed" if result["agreed"] else "**not everything agreed**"
    lines = [f"{prefix}{verdict}; {result['seconds']:.0f} s, seed {result['seed']}.", ""]
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for row in result["rows"]:
        shown = {k: v for k, v in row.items() if k != "kind"}
        tables.setdefault(tuple(shown), []).append([_cell(v) for v in shown.values()])
    facts = {k: v for k, v in result["facts"].items() if k != "output"}
    if facts:
        tables[("fact", "value")] = [[k, _cell(v)] for k, v in facts.items()]
    for columns, rows in tables.items():
        lines += [markdown([prefix + columns[0], *columns[1:]], rows), ""]
    for kind in ("failures", "not_checked"):
        title = kind.replace("_", " ")
        lines += [f"- {prefix}**{title}**: {_line(sentence)}" for sentence in result[kind]]
    if result["error"]:
        lines += ["```text", result["error"].strip(), "```"]
    return [*lines, ""]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return _line(str(value))


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:1500]
