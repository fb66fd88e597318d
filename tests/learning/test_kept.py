"""What is kept between runs is made anew after every change that matters to it."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch

from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.experiment import Config, TrainingConfig
from zsd_core.learning.training.cached import CachedProposals, CachedRegions


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    os.utime(path, ns=(10, 10))
    boxes = [[0, 0, 10, 10], [5, 5, 40, 40]]
    return image_record(
        where="test", path=path, id=1, width=50, height=50, boxes=boxes, labels=["cup", "cat"]
    )


def fingerprints(record, **training):
    """Of maps and of regions."""
    model = torch.nn.ModuleDict({"trunk": torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)})})
    model.requires_grad_(False)["trunk"]["backbone"].weight.fill_(1)
    model["trunk"]["backbone"].bias.fill_(1)
    both = SimpleNamespace(trunk=model["trunk"], state_dict=model.state_dict)
    both.trunk.backbone = model["trunk"]["backbone"]
    proposals = SimpleNamespace(
        objective=SimpleNamespace(model=both),
        images=SimpleNamespace(records=[record], labels={"cup": 1}),
        config=Config(training=TrainingConfig(**training)),
    )
    regions = SimpleNamespace(
        objective=proposals.objective, config=proposals.config, proposals=proposals
    )
    return CachedProposals._fingerprint(proposals), CachedRegions._fingerprint(regions)


def in_place(record, content, time):
    record.path.write_bytes(content)
    os.utime(record.path, ns=(time, time))
    return record


CHANGES = {
    "a score": lambda r: dataclasses.replace(r, scores=r.scores / 2),
    "a box": lambda r: dataclasses.replace(r, boxes=r.boxes + 1),
    "a label": lambda r: dataclasses.replace(r, labels=("cup", "cup")),
    "the size of the file": lambda r: in_place(r, b"other pixels", 10),
    "the content of the file": lambda r: in_place(r, b"PIXELS", 11),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_photograph_that_changes_is_kept_anew(record, what):
    before = fingerprints(record)
    assert before == fingerprints(record)
    after = fingerprints(CHANGES[what](record))
    assert before[0] != after[0] and before[1] != after[1]


def test_another_precision_is_kept_anew_and_a_file_that_is_gone_is_no_error(record):
    before, after = fingerprints(record), fingerprints(record, bfloat16=True)
    assert before[0] != after[0] and before[1] != after[1]
    record.path.unlink()
    assert fingerprints(record) != before
