"""The command ``contrastzsd``: one entry point for every command of this project.

``contrastzsd NAME ...`` is ``python -m MODULE ...`` with the module of ``COMMANDS``. A new command
is a module, or a package with a ``__main__``, with ``main(argv) -> int``, and a line in that table.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from contrastzsd._installation import own_package

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """One command.

    Attributes:
        module: what ``python -m`` runs; its ``main(argv)`` returns the exit status.
        extra: of ``contrastzsd``, with the packages that the command needs.
        line: what it does.
    """

    module: str
    extra: str
    line: str


COMMANDS = {
    "detect": Command("runtime.detect", "cpu", "find any classes in images, videos and streams"),
    "serve": Command("runtime.serve", "serve", "answer over HTTP, with a live page"),
    "batch": Command("runtime.batch", "batch", "search folders of any size; resumable"),
    "demo": Command("runtime.demo", "demo", "search the photographs that ship with scikit-image"),
    "export": Command("export.onnx", "export", "write a checkpoint as a bundle, and compare both"),
    "quantize": Command("export.quantize", "export", "add int8 networks to a bundle"),
    "fp16": Command("export.fp16", "export", "add float16 networks to a bundle"),
    "engine": Command("export.engine", "tensorrt", "add TensorRT engines to a bundle"),
    "sign": Command("export.sign", "sign", "sign a bundle, or check its signature"),
    "verify": Command("export.verify", "export", "check a bundle on every backend installed here"),
    "evaluate": Command("export.evaluate", "train", "measure a bundle on labelled photographs"),
    "calibrate": Command("export.calibrate", "train", "make the scores of a bundle probabilities"),
    "train": Command("zsd_core.train", "train", "train a detector"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by name, or list them all; return the exit status."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_listing())
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"error: contrastzsd has no command {name!r}{hint}\n\n{_listing()}", file=sys.stderr)
        return 1
    command = COMMANDS[name]
    try:
        own_package(command.module.partition(".")[0])
        run = importlib.import_module(_runnable(command.module)).main
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)  # our own errors are whole sentences
        install = f". Install it: pip install 'contrastzsd[{command.extra}]'" if missing else ""
        print(f"error: contrastzsd {name}: {error}{install}", file=sys.stderr)
        return 1
    return int(run(rest))


def _runnable(module: str) -> str:
    """Module that ``python -m`` runs: the module itself, or the ``__main__`` of a package."""
    spec = importlib.util.find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return f"{module}.__main__" if is_package else module


def _listing() -> str:
    """Every command with its line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.line}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: contrastzsd COMMAND ...", "", *lines, "", "contrastzsd COMMAND --help says more."]
    )
