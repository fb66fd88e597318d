"""Reads the PTX that nvcc writes: kernels, their parameters and their instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(slots=True)
class Instruction:
    """``@!%p1 ld.global.u32 %r1, [%rd1];`` as its parts."""

    text: str
    operation: str  # ld
    modifiers: list[str]  # global, u32
    arguments: list[str]  # %r1, [%rd1]
    predicate: str = ""  # %p1
    negated: bool = False


@dataclass(slots=True)
class Kernel:
    """One entry point; ``labels`` are positions in ``instructions``."""

    name: str
    parameters: list[tuple[str, int]]  # name and bytes
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> dict[str, Kernel]:
    """Every kernel of a PTX file, by its mangled name."""
    text = re.sub(r"//[^\n]*", "", text)
    kernels = {}
    for entry in re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{]*\{", text):
        name, parameters = entry.groups()
        kernels[name] = Kernel(name, [_parameter(p) for p in parameters.split(",") if p.strip()])
        depth = 1
        for brace in re.compile(r"[{}]").finditer(text, entry.end()):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                _read_body(kernels[name], text[entry.end() : brace.start()])
                break
    return kernels


def _parameter(declaration: str) -> tuple[str, int]:
    name, count = re.search(r"([\w$]+)(?:\[(\d+)\])?\s*$", declaration.strip()).groups()  # type: ignore[union-attr]
    bits = re.search(r"\.[bsuf](8|16|32|64)\b", declaration)[1]  # type: ignore[index]
    return name, SIZES[bits] * int(count or 1)


def _read_body(kernel: Kernel, body: str) -> None:
    # Inline assembly stands in braces of its own; a brace that opens a statement is one of those.
    statements = re.split(r";|(?<=:)\s", body)
    for statement in statements:
        statement = " ".join(statement.split())
        while statement.startswith(("{ ", "} ")) or statement in ("{", "}"):
            statement = statement[1:].strip()
        if statement.startswith(("{", "}")):
            statement = statement.lstrip("{} ")
        if re.fullmatch(r"[$\w]+:", statement):
            kernel.labels[statement[:-1]] = len(kernel.instructions)
        elif statement and not statement.startswith("."):
            kernel.instructions.append(_instruction(statement))
    kernel.instructions.append(Instruction("ret", "ret", [], []))


def _instruction(text: str) -> Instruction:
    guard = re.match(r"@(!?)(%\w+)\s+", text)
    rest = text[guard.end() :] if guard else text
    head, _, tail = rest.partition(" ")
    operation, *modifiers = re.split(r"\.|::", head)
    instruction = Instruction(text, operation, modifiers, _split(tail))
    if guard:
        instruction.predicate, instruction.negated = guard[2], guard[1] == "!"
    return instruction


def _split(arguments: str) -> list[str]:
    """At the commas outside braces and brackets."""
    return [a.strip() for a in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", arguments)]
