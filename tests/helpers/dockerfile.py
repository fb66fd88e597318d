"""Read a Dockerfile: its instructions, comments and continued lines joined."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    name: str
    text: str


def read(path: Path) -> list[Instruction]:
    lines = [x for x in path.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [re.fullmatch(r"([A-Z]+)\s+(.*)", line) for line in joined.splitlines() if line.strip()]
    assert all(found), f"{path}: a line is no instruction"
    return [Instruction(match[1], match[2].strip()) for match in found if match]


def stages(path: Path) -> list[list[Instruction]]:
    """Instructions of every stage; each begins with FROM."""
    result: list[list[Instruction]] = []
    for instruction in read(path):
        if instruction.name == "FROM":
            result.append([])
        if result:
            result[-1].append(instruction)
    return result


def copied(stage: list[Instruction]) -> list[tuple[list[str], str]]:
    """Sources and destination of what a stage copies from the project."""
    words = [i.text.split() for i in stage if i.name == "COPY" and "--from" not in i.text]
    return [(paths[:-1], paths[-1]) for paths in words]
