"""Hostile files beside bundles: configurations and lists of names."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import NAMES, mutated_bytes, mutated_json, written_json
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.arguments import parse_classes
from runtime.bundle import open_bundle
from runtime.classes import ClassTable
from zsd_core.errors import ConfigError
from zsd_core.scoring import scorer_for

__all__ = ["PARTS", "Planted", "configuration", "names"]


# Values of YAML that a reader may stumble over, or take for another value.
YAML = (
    *(b"&a [*a]", b"2026-99-99", b"!!python/object/apply:os.system [ls]", b"? [x]\n: 1"),
    *(b"9" * 5000, b"[" * 500, b"{a: " * 500, b"0x" + b"f" * 4000, b"-0b" + b"1" * 20_000),
    *(b"1:" * 200 + b"1", b"1:" * 200 + b"1.5", b"1:" * 2000 + b"1", b"190:20:30", b"0o17", b"017"),
    *(b"!!int ''", b"!!int '-'", b"!!int x", b"!!float ''", b"!!float x", b"!!bool x"),
    *(b"!!timestamp x", b"!!binary \xc3\xa9", b"!!null x", b"!!set {a, b}", b"!!omap [a: 1]"),
    *(b"!!pairs [a: 1]", b"!!str 1", b"!!seq {}", b"!!map []", b"!x y", b"=", b"<<: 1"),
    *(b".nan", b"-.inf", b"1e400", b"1_000", b"yes", b"~", b"{1: 2}", b"{~: 2}", b"{true: 1}"),
    *(b"{0x" + b"f" * 4000 + b": 1}", b"'a\\0'", b'"\\0"', b'"\\ud800"', b"|\n x", b"%TAG ! x"),
    *(b"2001-12-14t21:59:43.10-05:00", b"0001-01-01 00:00:00+23:59", b"9999-12-31"),
)


class Planted:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


def configuration(folder: Path) -> Attempt:
    """Configurations: bytes, and other values, names and structure, in YAML and in overrides."""
    import yaml

    from zsd_core.learning.experiment import Config, load_config

    path = folder / "experiment.yaml"
    good = json.loads(json.dumps(dataclasses.asdict(Config())))
    text = yaml.safe_dump(good).encode()

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.3:
            data = mutated_bytes(text, rng)
        elif kind < 0.5:
            at = rng.choice([i for i, byte in enumerate(text) if byte == ord(":")])
            snippet = rng.choice(YAML)
            data = text[: at + 2] + snippet + text[at + 2 :]
        else:
            section = rng.choice(list(good))  # YAML is slow to read: one section at a time
            data = written_json(mutated_json({section: good[section]}, rng), rng)
        path.write_bytes(data)
        key = rng.choice(("training.epochs", "model.backbone.name", "data", "x.y", "", "data."))
        load_config(path, [f"{key}={rng.choice(('3', '[', '*a', 'null'))}"] if kind < 0.1 else [])

    return attempt


def names(folder: Path) -> Attempt:
    """Files of class names, and names that are not what they seem."""
    bundle = open_bundle(helper("tiny").tiny_bundle(folder / "bundle"))
    table = ClassTable(bundle, scorer_for(bundle.model_config.scoring, bundle.scorer_tensors()))
    path = folder / "classes.txt"
    good = "cat\n# a comment\n'fire truck' # another\nzebra\n"
    odd = [*NAMES, "c\u0430t", "ca\u0301t", "\ufb01re truck", "\u202etac", "cat\u0000", "CAT ", "'"]

    def attempt(rng: random.Random) -> None:
        text = good
        for _ in range(rng.randrange(3)):
            text += rng.choice(odd) + rng.choice("\n\r\x0b\x85,#\"'")
        data = text.encode(rng.choice(("utf-8", "utf-16", "utf-8-sig")), "surrogatepass")
        path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.5 else data)
        try:
            found = parse_classes(f"@{path}")
        except argparse.ArgumentTypeError as error:  # the command line prints it as it is
            raise ConfigError(str(error)) from error
        active = table.activate(found, "gzsd", 1)
        if len(active.names) != len(found):
            raise WrongResultError(f"{len(found)} names became {len(active.names)} classes")

    return attempt


PARTS = (
    loader_part(
        configuration, "configuration", "YAML: bytes, values, names, aliases", 1_000_000, 60
    ),
    loader_part(names, "class-names", "bytes, encodings, look-alike names", 1_000_000, 1_500),
)
