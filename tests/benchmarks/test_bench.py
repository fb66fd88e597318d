"""Every system of the paper on one bench: chosen, trained, compared, resumed, checked by others."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapes
import torch

from benchmarks.paper import bench, bundles, causes, described, outside, shipped, trials, words
from benchmarks.paper.report import read_conclusions, read_results, report
from benchmarks.paper.runs import with_options
from benchmarks.paper.systems import OWN, SYSTEMS
from benchmarks.paper.trials import EVALUATED
from export.checks.images import NamedImage
from export.onnx import export_bundle
from runtime.bundle import open_bundle
from zsd_core.errors import DataError
from zsd_core.learning import balance
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.experiment import Config, load_config
from zsd_core.learning.models.efficientnet_lite import EfficientNetLite
from zsd_core.learning.training.kept import describe_photographs, load_regions
from zsd_core.train import main as train

ROOT = Path(__file__).parents[2]


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
    split, logs = result["split"], tmp_path / "work" / result["split"]
    told = [json.loads((logs / f"blc-seed{s}.json").read_text()) for s in (0, 1)]
    name, (boxes, *_) = next(iter(told[0]["results"]["gzsd"]["classes"].items()))
    recalls = [log["results"]["gzsd"]["classes"][name][2] for log in told]
    blc = next(row for row in result["systems"] if row["name"] == "blc")
    found = blc["classes"]["gzsd"][name]
    assert found["boxes"] == boxes
    expected = [np.mean(recalls), np.std(recalls, ddof=1)]
    assert found["recall"] == pytest.approx(expected, abs=0.006)
    page = report(read_results([tmp_path / "all.json"]), None, read_conclusions(None))
    assert f"| {split} |" in page and page.count("| BLC |") == 2 and result["bundles"] is None

    def never(*_, **__):
        raise AssertionError("nothing is trained twice")

    monkeypatch.setattr(trials, "train_scoring", never)
    (tmp_path / "all.json").rename(tmp_path / "before.json")
    assert bench.main(command) == 0
    assert (tmp_path / "all.json").read_text() == (tmp_path / "before.json").read_text()
    with pytest.raises(AssertionError, match="trained twice"):  # other conditions, other runs
        bench.main([*command, "--steps", "3"])
    capsys.readouterr()


@pytest.mark.slow
def test_a_system_becomes_a_detector(world, few, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    monkeypatch.setattr(bench, "sample_images", lambda: [NamedImage("noise", noise)])
    made = tmp_path / "bundles"
    command = [*arguments(world, tmp_path / "work"), "--only", "blc", "--bundles", str(made)]
    assert bench.main(command) == 0
    (row,) = json.loads((made / bundles.AGREEMENT).read_text())
    assert row["name"] == "blc" and row["passed"] and row["detections"] > 50
    for other in ("PyTorch", "detector.onnx"):
        assert row[other]["matched"] >= 0.99 * row["detections"]
        assert 0 <= row[other]["largest"] < 1e-4
    assert row["added"] > 0
    (told,) = (tmp_path / "work").glob("*/systems.json")
    result = json.loads(told.read_text())
    assert result["bundles"] == {"images": 1, "rows": [row]}
    bundle = open_bundle(made / "blc")
    assert bundle.model_config.scoring.method == "blc"
    assert "trains it: 2 steps" in bundle.file("MODEL_CARD.md").read_text().replace("\n", " ")

    def wrong(*_, **__):
        return {"passed": False}

    monkeypatch.setattr(bundles, "check_bundle", wrong)
    monkeypatch.setattr(bundles, "export_bundle", lambda *_, **__: None)
    assert bench.main(command) == 1


@pytest.mark.slow
def test_a_bundle_gives_checkpoint_and_regions_for_the_bench(tmp_path, capsys):
    torch.manual_seed(0)
    network = EfficientNetLite()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    for name, buffer in network.named_buffers():
        if name.endswith("bias"):  # the export stores equal tensors once, under one name
            torch.nn.init.normal_(buffer, std=0.1)
    torch.save(network.state_dict(), tmp_path / "lite0.pth")
    config = shapes.write_config(tmp_path, 8, shapes.SMALL, size=64)
    lite = [
        "model.backbone.name=efficientnet_lite0",
        f"model.backbone.weights={tmp_path / 'lite0.pth'}",
        "model.proposals={levels: [8, 16, 32], merge: topdown, stride: 8, channels: 8, depth: 1, "
        "anchor_sizes: [16, 32], aspect_ratios: [1], objectness: quality, post_nms_top: 20}",
        "model.regions={stride: 1, output_size: [32, 32], sampling_ratio: 1}",
    ]
    assert train([str(config), *lite, "--output", str(tmp_path), "--max-steps", "1"]) == 0
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    base = load_checkpoint(tmp_path / "last.pt")
    export_bundle(base, tmp_path / "bundle", images=[NamedImage("noise", noise)])
    command = [str(tmp_path / "bundle"), "--config", str(config), *lite]
    command += ["--output", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "CHUNK", 3)
        assert shipped.main([*command, "--part", "1/2"]) == 0
        assert "another part" in capsys.readouterr().out
        assert not (tmp_path / "out/regions.pt").exists()
        assert shipped.main([*command, "--part", "2/2"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["last.pt", "regions.pt"]
    again = load_checkpoint(tmp_path / "out/last.pt")
    for part in ("trunk", "head"):
        ours = getattr(again.model, part).state_dict()
        for name, tensor in getattr(base.model, part).state_dict().items():
            torch.testing.assert_close(ours[name], tensor)
    kept, theirs = (load_regions(folder / "regions.pt") for folder in (tmp_path / "out", tmp_path))
    assert kept.features.shape[1] == theirs.features.shape[1]
    assert set(kept.owners.tolist()) == set(theirs.owners.tolist())
    assert set(kept.labels.tolist()) == set(theirs.labels.tolist())
    means = [float(one.features.float().mean()) for one in (kept, theirs)]
    assert means[0] == pytest.approx(means[1], rel=0.2)  # other regions are drawn
    assert shipped.main([*command, "model.proposals.nms_threshold=0.31"]) == 1
    assert "that the bundle was trained with" in capsys.readouterr().err


def test_causes_change_one_thing_and_resume(world, few, tmp_path, capsys):
    command = [
        *("--checkpoint", str(world / "last.pt"), "--work", str(tmp_path)),
        *("--held-out", str(world / "held/annotations.json"), str(world / "held/images")),
        *("--steps", "2", "--json", str(tmp_path / "causes.json")),
        *("--only", "own", "no-evidence", "ridge"),
    ]
    assert causes.main(command) == 0
    result = json.loads((tmp_path / "causes.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert [rows[name]["steps"] for name in ("own", "ridge", "no-evidence")] == [2, 0, 2]
    for row in rows.values():
        (draw,) = row["draws"]
        for name in ("regions", "human boxes"):
            assert 0 <= draw[name]["mAP"] <= 100 and 0 <= draw[name]["recall"] <= 100
    losses = [rows[name]["draws"][0]["losses"] for name in ("own", "no-evidence")]
    assert losses[0] == losses[1] and set(losses[0]) == {"seen", "unseen", "contrast"}
    found = rows["ridge"]["draws"][0]
    assert found["human boxes"]["recall"] >= found["regions"]["recall"]

    def never(*_, **__):
        raise AssertionError("nothing is trained twice")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causes, "trained", never)
        assert causes.main(command) == 0
    capsys.readouterr()


def test_every_cause_is_an_option_of_the_recipe_that_it_is_for():
    recipe, rows = load_config(ROOT / "configs/coco48.yaml"), causes.causes(["glove"])
    names = [one.name for one in rows]
    assert len(set(names)) == len(names) and "vectors-glove" in names
    for one in rows:
        with_options(recipe, one.system.options)


def test_systems_whose_data_are_missing_are_left_out_or_refused(world, tmp_path, capsys):
    left = bench._systems(bench.parse(arguments(world, tmp_path)))
    assert {s.name for s in SYSTEMS} - {s.name for s in left} == {"dses", "td"}
    assert "TD is left out: it needs --vectors glosses=SOURCE" in capsys.readouterr().err
    assert bench.main([*arguments(world, tmp_path), "--only", "dses"]) == 1
    assert "dses needs --words" in capsys.readouterr().err


# Options whose default is that of the recipe coco48.
OF_RECIPE = ("model.scoring.similarity_temperature", "training.learning_rate")


def test_what_a_system_tries_exists_and_starts_with_its_default():
    for system in SYSTEMS:
        own = with_options(Config(), system.options) if system.options else Config()
        for key, values in system.tried.items():
            tried = [with_options(own, {key: value}) for value in values]
            assert len(values) > 1 and all(a != b for a, b in pairwise(tried))
            if key not in OF_RECIPE:
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
