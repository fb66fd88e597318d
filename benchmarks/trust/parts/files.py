"""Hostile files beside bundles: checkpoints, configurations, annotations and lists."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import NAMES, mutated_bytes, mutated_json, written_json
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.arguments import parse_classes
from runtime.bundle import open_bundle
from runtime.classes import ClassTable
from zsd_core.errors import ConfigError
from zsd_core.scoring import scorer_for

__all__ = ["PARTS", "Planted", "checkpoint", "configuration", "labels", "names"]


class Planted:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


def checkpoint(folder: Path) -> Attempt:
    """Checkpoints: bytes, other values and tensors, and pickles that would run a function."""
    import torch

    from zsd_core.config import BackboneConfig, ModelConfig, ProposalConfig, ScoringConfig
    from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from zsd_core.learning.experiment import Config
    from zsd_core.learning.models import ContrastZSD

    model = ModelConfig(
        backbone=BackboneConfig(name="mobilenet_v2", frozen="none"),
        proposals=ProposalConfig(channels=8),
        scoring=ScoringConfig(vector_dim=6, joint_dim=8, hidden_dim=8, contrast_dim=8),
    )
    path, planted = folder / "last.pt", folder / "planted"
    save_checkpoint(
        Checkpoint(
            config=Config(model=model),
            model=ContrastZSD(model),
            seen=("a", "b"),
            unseen=("c",),
            vectors=np.eye(3, 6, dtype=np.float32),
        ),
        path,
    )
    torch.set_num_threads(1)  # threads that start once memory is limited would wait for ever
    load_checkpoint(path)  # the first takes seconds
    whole = torch.load(path, weights_only=True)
    small = {**whole, "model": {"trunk.x": torch.zeros(3)}}  # most inputs fail before the weights

    def packed(values: Any, zipped: bool) -> bytes:
        buffer = io.BytesIO()
        torch.save(values, buffer, _use_new_zipfile_serialization=zipped)
        return buffer.getvalue()

    good = [packed(small, zipped) for zipped in (True, True, True, True, False)]

    def other_values(rng: random.Random) -> Any:
        base = whole if rng.random() < 0.02 else small
        plain = {key: base[key] for key in ("format", "config", "seen", "unseen", "training")}
        changed = mutated_json(json.loads(json.dumps(plain)), rng)
        values = {**base, **changed} if isinstance(changed, dict) else changed
        if isinstance(values, dict) and rng.random() < 0.3:
            key = rng.choice(["model", "vectors", "state", "config", "seen"])
            odd: tuple[Any, ...] = (
                None,
                3,
                "x",
                [],
                {},
                torch.zeros(2),
                torch.full((3, 6), torch.nan),
            )
            values[key] = rng.choice(odd)
        if isinstance(values, dict) and rng.random() < 0.2:
            values.pop(rng.choice(list(values)), None)
        return values

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.1:
            data = pickle.dumps({"format": 1, "model": Planted(planted)}, rng.randrange(6))
        elif kind < 0.2:
            odd = {**small, rng.choice(list(small)): Planted(planted)}
            data = packed(odd, rng.random() < 0.5)
        else:
            data = rng.choice(good) if kind < 0.5 else packed(other_values(rng), rng.random() < 0.8)
        path.write_bytes(mutated_bytes(data, rng) if kind < 0.5 and rng.random() < 0.7 else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_checkpoint(path)
        if planted.exists():
            raise WrongResultError("a pickle ran")

    return attempt


def configuration(folder: Path) -> Attempt:
    """Configurations: bytes, and other values, names and structure, in YAML and in overrides."""
    import yaml

    from zsd_core.learning.experiment import Config, load_config

    path = folder / "experiment.yaml"
    good = json.loads(json.dumps(dataclasses.asdict(Config())))
    text = yaml.safe_dump(good).encode()
    snippets = (b"&a [*a]", b"2026-99-99", b"!!python/object/apply:os.system [ls]", b"? [x]\n: 1")

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.3:
            data = mutated_bytes(text, rng)
        elif kind < 0.5:
            at = rng.choice([i for i, byte in enumerate(text) if byte == ord(":")])
            snippet = rng.choice((*snippets, b"9" * 5000, b"[" * 500, b"{a: " * 500))
            data = text[: at + 2] + snippet + text[at + 2 :]
        else:
            section = rng.choice(list(good))  # YAML is slow to read: one section at a time
            data = written_json(mutated_json({section: good[section]}, rng), rng)
        path.write_bytes(data)
        key = rng.choice(("training.epochs", "model.backbone.name", "data", "x.y", "", "data."))
        load_config(path, [f"{key}={rng.choice(('3', '[', '*a', 'null'))}"] if kind < 0.1 else [])

    return attempt


def labels(folder: Path) -> Attempt:
    """Annotations in COCO's JSON and in VOC's XML, and splits."""
    from zsd_core.learning.data.coco import read_coco
    from zsd_core.learning.data.splits import load_split
    from zsd_core.learning.data.voc import read_voc

    coco = {
        "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 20, 30, 40], "score": 0.5},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }
    split = {"name": "x", "seen": ["dog"], "unseen": ["cat"], "zsd_images": "any_unseen"}
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir()
    voc = (
        b"<annotation><size><width>100</width><height>80</height></size><object><name>dog</name>"
        b"<difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>50</xmax>"
        b"<ymax>60</ymax></bndbox></object></annotation>"
    )
    lines = b"".join(
        b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10 if n else b"dog") for n in range(12)
    )
    bomb = b"<!DOCTYPE a [" + lines + b"]>" + voc.replace(b"dog", b"&e11;")
    (folder / "a.jpg").touch()
    (folder / "JPEGImages" / "a.jpg").touch()

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.6:
            (folder / "coco.json").write_bytes(written_json(mutated_json(coco, rng), rng))
            dataset = read_coco(folder / "coco.json", folder)
        elif kind < 0.8:
            file = folder / rng.choice(("split.json", "split.yaml"))
            file.write_bytes(written_json(mutated_json(split, rng), rng))
            load_split(file)
            return
        else:
            xml = bomb if rng.random() < 0.01 else mutated_bytes(voc, rng)
            for mark in (b"3", b"100", b"dog"):
                if rng.random() < 0.2:
                    xml = xml.replace(mark, rng.choice((b"nan", b"1e400", b"-1", b"", b"9" * 500)))
            names = mutated_bytes(b"a\n", rng) if rng.random() < 0.2 else b"a\n"
            (folder / "list.txt").write_bytes(names)
            (folder / "Annotations" / "a.xml").write_bytes(xml)
            dataset = read_voc(folder / "list.txt", folder / "JPEGImages")
        for image in dataset.images:
            if not np.isfinite(image.boxes).all() or min(image.width, image.height) < 1:
                raise WrongResultError(f"an image of {image.width} x {image.height}, {image.boxes}")

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
        checkpoint, "checkpoint", "bytes, values, tensors, pickles that run", 1_000_000, 40
    ),
    loader_part(
        configuration, "configuration", "YAML: bytes, values, names, aliases", 1_000_000, 60
    ),
    loader_part(
        labels, "annotations", "COCO, VOC and splits: bytes, values, bombs", 1_000_000, 500
    ),
    loader_part(names, "class-names", "bytes, encodings, look-alike names", 1_000_000, 1_500),
)
