"""Every system of the paper on one bench: chosen, trained, compared, resumed, checked by others."""

import dataclasses
import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
import shapes
import torch

from benchmarks.paper import bench, described, outside, trials, words
from benchmarks.paper.runs import with_options
from benchmarks.paper.systems import OWN, SYSTEMS
from benchmarks.paper.trials import EVALUATED
from zsd_core.errors import DataError
from zsd_core.learning import balance
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.experiment import Config
from zsd_core.learning.training.kept import describe_photographs
from zsd_core.train import main as train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A trained detector, test photographs, held-out ones, words and descriptions."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bench")
    config = shapes.write_config(folder, 8, shapes.SMALL, size=64)
    shapes.write_shapes(folder / "test", shapes.CLASSES, 8, 3, size=64)
    shapes.write_shapes(folder / "held", shapes.SEEN, 8, 4, size=64)
    wide = "model.scoring.joint_dim=32"  # room for the ridge regression
    assert train([str(config), wide, "--output", str(folder), "--max-steps", "1"]) == 0
    listed = [{"file": f"{name}.png", "name": name} for name in ("red dot", "grey square")]
    (folder / "pictures").mkdir()
    for one in listed:
        picture = np.full((64, 64, 3), 128, np.uint8)
        shapes.draw(picture, "red disc" if "red" in one["name"] else "blue square", 12, 12, 40)
        cv2.imwrite(str(folder / "pictures" / one["file"]), picture)
    (folder / "words.json").write_text(json.dumps(listed))
    vectors = np.eye(6, dtype=np.float32)[:2]
    np.savez(folder / "words.npz", names=np.array([o["name"] for o in listed]), vectors=vectors)
    rows = np.random.default_rng(0).normal(size=(len(shapes.CLASSES), 16)).astype(np.float32)
    np.savez(folder / "glosses.npz", names=np.array(shapes.CLASSES), vectors=rows)
    return folder


def arguments(world, work):
    return [
        *("--checkpoint", str(world / "last.pt"), "--work", str(work)),
        *("--annotations", str(world / "test/annotations.json")),
        *("--images", str(world / "test/images")),
        *("--held-out", str(world / "held/annotations.json"), str(world / "held/images")),
        *("--seeds", "0", "1", "--draws", "1", "--steps", "2", "--samples", "5"),
    ]


@pytest.fixture
def few(monkeypatch):
    """Few photographs may hold the classes that play unseen ones; few factors are tried."""
    monkeypatch.setattr(balance, "LEAST", 1)
    monkeypatch.setattr(balance, "MOST", 1.0)
    monkeypatch.setattr(trials, "SCALES", (0.5, 1.0))


def test_every_system_runs_and_the_bench_resumes(world, few, tmp_path, monkeypatch, capsys):
    command = [
        *arguments(world, tmp_path / "work"),
        *("--words", str(world / "words.json"), str(world / "pictures")),
        *("--word-vectors", str(world / "words.npz")),
        *("--vectors", f"glosses={world / 'glosses.npz'}"),
        *("--json", str(tmp_path / "all.json"), "--outside"),
    ]
    assert bench.main(command) == 0
    result = json.loads((tmp_path / "all.json").read_text())
    assert [row["name"] for row in result["systems"]] == [system.name for system in SYSTEMS]
    assert set(result["chosen"]) == {system.name for system in SYSTEMS if not system.like}
    key = "zsd|mAP@0.5 voc11|unseen"
    for row in result["systems"]:
        low, high = row["values"][key]["interval"]
        assert 0 <= low <= high <= 100
        assert bool(row["against"]) == (row["name"] != OWN)
        assert row["options"]["model.scoring.seen_scale"] in (0.5, 1.0)
    for task in ("zsd", "gzsd"):
        ours, theirs, third = (
            result["outside"]["tasks"][task][n] for n in ("ours", "pycocotools", "torchmetrics")
        )
        assert theirs["mAP"] == pytest.approx(ours["mAP"], abs=0.1)
        assert theirs["recall"] == pytest.approx(ours["recall"], abs=0.1)
        assert third["mAP"] == pytest.approx(ours["mAP"], abs=0.1)

    def never(*_, **__):
        raise AssertionError("nothing is trained twice")

    monkeypatch.setattr(trials, "train_scoring", never)
    (tmp_path / "all.json").rename(tmp_path / "before.json")
    assert bench.main(command) == 0
    assert (tmp_path / "all.json").read_text() == (tmp_path / "before.json").read_text()
    with pytest.raises(AssertionError, match="trained twice"):  # other conditions, other runs
        bench.main([*command, "--steps", "3"])
    capsys.readouterr()


def test_systems_whose_data_are_missing_are_left_out_or_refused(world, tmp_path, capsys):
    left = bench._systems(bench.parse(arguments(world, tmp_path)))
    assert {s.name for s in SYSTEMS} - {s.name for s in left} == {"dses", "td"}
    assert "TD is left out: it needs --vectors glosses=SOURCE" in capsys.readouterr().err
    assert bench.main([*arguments(world, tmp_path), "--only", "dses"]) == 1
    assert "dses needs --words" in capsys.readouterr().err


def test_what_a_system_tries_exists_and_starts_with_its_default():
    for system in SYSTEMS:
        own = with_options(Config(), system.options) if system.options else Config()
        for key, values in system.tried.items():
            tried = [with_options(own, {key: value}) for value in values]
            assert len(values) > 1 and all(a != b for a, b in pairwise(tried))
            if key != "model.scoring.similarity_temperature":  # its default is the recipe's
                assert tried[0] == own
    assert {"loss.sb_margin"}.isdisjoint(EVALUATED)


def test_described_regions_are_those_of_pytorch_and_are_kept(world, tmp_path):
    model = load_checkpoint(world / "last.pt").model
    test = read_dataset("coco", [world / "test/annotations.json"], [world / "test/images"])
    few = dataclasses.replace(test, images=test.images[:2])
    found = described.described(model, few, tmp_path)
    for ours, theirs in zip(found, describe_photographs(model, few), strict=True):
        assert ours.originals == theirs.originals and len(ours.rois) > 3
        np.testing.assert_allclose(ours.rois, theirs.rois, atol=1e-2)
        np.testing.assert_allclose(ours.embeddings, theirs.embeddings, rtol=2e-3, atol=1e-4)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 2
    before = [file.stat().st_mtime_ns for file in files]
    described.described(model, few, tmp_path)
    assert [file.stat().st_mtime_ns for file in files] == before
    files[0].write_bytes(b"no regions")
    with pytest.raises(DataError, match=r"is damaged .* delete it"):
        described.described(model, few, tmp_path)


def test_words_lie_behind_the_seen_classes(world, tmp_path):
    own = words.Words(torch.ones(2, 3), np.full((2, 4), 7, np.float32))
    features, labels, vectors = own.beside(
        torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0]), np.zeros((5, 4), np.float32), 3
    )
    assert labels.tolist() == [0, 1, 2, 3, 0, 4, 5] and features[5:].eq(1).all()
    assert vectors[:, 0].tolist() == [0, 0, 0, 7, 7, 0, 0]
    (tmp_path / "bad.json").write_text('[{"name": "a"}]')
    model = load_checkpoint(world / "last.pt").model
    with pytest.raises(DataError, match=r"scripts\.vocabulary\.others"):
        words.load_words(model, tmp_path / "bad.json", tmp_path, "minilm", tmp_path)


def test_results_in_cocos_format_hold_boxes_by_corner_and_size(world):
    test = read_dataset("coco", [world / "test/annotations.json"], [world / "test/images"])
    one = dataclasses.replace(test, images=test.images[:1])
    truth, results = outside.coco_results(one, [([[1, 2, 5, 9]], [0.25], [3])])
    assert results == [{"image_id": 1, "category_id": 4, "bbox": [1, 2, 4, 7], "score": 0.25}]
    assert len(truth["annotations"]) == len(one.images[0].labels)
