from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from zsd_core import kernels, stages
from zsd_core.config import (
    BackboneConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import DataError
from zsd_core.evaluate import main
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.protocol import test_set as make_test
from zsd_core.learning.data.splits import Split
from zsd_core.learning.evaluation import check_split, checkpoint_predictor, evaluate, render
from zsd_core.learning.experiment import Config
from zsd_core.learning.limits import measure_limits
from zsd_core.learning.models import ContrastZSD, TorchNetworks, kernels_for
from zsd_core.learning.objective import Objective, Regions
from zsd_core.semantics import unit_rows

SPLIT = Split(name="small", seen=("person", "cup"), unseen=("cat", "dog"))
CLASSES = ("background noise", *SPLIT.classes)  # a detector may know more, in any order
TRUTH = [  # image: (label, box)
    [("person", (0, 0, 20, 20)), ("cat", (30, 30, 60, 60))],
    [("dog", (5, 5, 25, 25)), ("dog", (40, 0, 60, 20))],
    [("cup", (0, 0, 10, 10))],
]


@pytest.fixture
def folder(tmp_path):
    notes = []
    for index, truth in enumerate(TRUTH):
        # the first pixel says which image it is, so that a fake detector can know the truth
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((80, 70, 3), index, np.uint8))
        for label, (x1, y1, x2, y2) in truth:
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": index,
                    "category_id": SPLIT.classes.index(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    values = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 70, "height": 80} for i in range(3)],
        "annotations": notes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(SPLIT.classes)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(values))
    (tmp_path / "split.json").write_text(json.dumps({"seen": SPLIT.seen, "unseen": SPLIT.unseen}))
    return tmp_path


@pytest.fixture
def dataset(folder):
    return read_coco(folder / "truth.json", folder)


def oracle(image, mode):
    """Finds what is there, of the classes the mode asks for."""
    wanted = {"zsd": SPLIT.unseen, "seen": SPLIT.seen, "gzsd": SPLIT.classes}[mode]
    found = [(label, box) for label, box in TRUTH[image[0, 0, 0]] if label in wanted]
    boxes = np.array([box for _, box in found], np.float32).reshape(-1, 4)
    return boxes, np.full(len(found), 0.5), [CLASSES.index(label) for label, _ in found]


@pytest.mark.parametrize("separate", [False, True])
def test_an_oracle_gets_everything(dataset, separate):
    result = evaluate(oracle, CLASSES, dataset, SPLIT, samples=10, separate=separate)
    zsd, gzsd = result["tasks"]["zsd"], result["tasks"]["gzsd"]
    assert zsd["values"]["mAP@0.5 area"] == {"unseen": 100}
    assert gzsd["values"]["mAP@0.5 area"] == {"seen": 100, "unseen": 100, "hm": 100, "all": 100}
    assert (zsd["images"], zsd["boxes"], gzsd["images"], gzsd["boxes"]) == (2, 3, 2, 4)
    assert gzsd["cap"] == ("100 + 100" if separate else "100") and zsd["cap"] == "100"
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_cap_is_kept_per_role_when_separate(dataset):
    """One detection per image: jointly the seen person displaces the cat."""

    def seen_first(image, mode):
        boxes, _, columns = oracle(image, mode)
        scores = [0.9 if CLASSES[c] in SPLIT.seen else 0.5 for c in columns]
        return boxes, scores, columns

    recall = {
        separate: evaluate(
            seen_first,
            CLASSES,
            dataset,
            SPLIT,
            tasks=["gzsd"],
            limit=1,
            separate=separate,
            samples=0,
        )["tasks"]["gzsd"]["values"][f"Recall@{'1 + 1' if separate else '1'} IoU 0.5"]
        for separate in (False, True)
    }
    assert recall[False] == {"seen": 100, "unseen": 25, "hm": 40, "all": 50}
    assert recall[True]["seen"] == 100 and recall[True]["unseen"] == 75  # a dog of two is lost


def test_a_detector_may_find_nothing_of_one_role(dataset):
    def seen_only(image, mode):
        return oracle(image, mode) if mode == "seen" else ([], [], [])

    result = evaluate(seen_only, CLASSES, dataset, SPLIT, tasks=["gzsd"], separate=True, samples=0)
    assert result["tasks"]["gzsd"]["values"]["mAP@0.5 area"]["seen"] == 100


def test_detector_that_ignores_the_mode_is_found_out(dataset):
    with pytest.raises(DataError, match=r"in 'zsd' the detector returned 'person'"):
        evaluate(lambda image, _: oracle(image, "gzsd"), CLASSES, dataset, SPLIT)


def test_detector_without_a_class_of_the_split_is_found_out(dataset):
    with pytest.raises(DataError, match=r"no class 'cat' of split small \(1 are missing\)"):
        evaluate(oracle, ("person", "cup", "dog"), dataset, SPLIT, tasks=["zsd"])


def test_text_has_conditions_beside_numbers(dataset):
    result = evaluate(
        oracle, CLASSES, dataset, SPLIT, samples=0, conditions={"score threshold": 0.05}
    )
    text = render(result)
    assert "split small: 2 seen, 2 unseen classes" in text
    assert "score threshold: 0.05" in text and "detections per image: 100" in text
    assert "== ZSD ==" in text and "== GZSD ==" in text and "images read 3" in text
    assert "mAP@0.5 area" in text and "hm" in text


@pytest.fixture
def checkpoint(folder):
    torch.manual_seed(0)
    config = ModelConfig(
        preprocess=PreprocessConfig(shorter_edge=64, longer_edge=96),
        backbone=BackboneConfig(name="resnet18"),
        proposals=ProposalConfig(channels=8, anchor_sizes=(16.0, 32.0), post_nms_top=20),
        regions=RegionConfig(output_size=(4, 4)),
        scoring=ScoringConfig(vector_dim=6, joint_dim=16, hidden_dim=8),
    )
    vectors = unit_rows(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    save_checkpoint(
        Checkpoint(
            config=Config(model=config),
            model=ContrastZSD(config),
            seen=SPLIT.seen,
            unseen=SPLIT.unseen,
            vectors=vectors,
        ),
        folder / "last.pt",
    )
    return folder / "last.pt"


def arguments(folder, checkpoint):
    return [
        *("--checkpoint", str(checkpoint), "--annotations", str(folder / "truth.json")),
        *("--images", str(folder), "--split", str(folder / "split.json"), "--samples", "20"),
    ]


def test_checkpoint_from_the_command_line(folder, checkpoint, capsys):
    out = folder / "result.json"
    assert main([*arguments(folder, checkpoint), "--json", str(out), "--tasks", "zsd", "seen"]) == 0
    text = capsys.readouterr().out
    assert "score threshold: 0.0" in text and "detector: last.pt" in text
    result = json.loads(out.read_text())
    assert set(result["tasks"]) == {"zsd", "seen"}
    assert result["conditions"]["proposals per image"] == 20
    for task, role in (("zsd", "unseen"), ("seen", "seen")):
        assert set(result["tasks"][task]["values"]["mAP@0.5 area"]) == {role}


def test_checkpoint_is_a_detector_that_honours_mode_limit_and_threshold(checkpoint):
    predict, classes, conditions = checkpoint_predictor(checkpoint, SPLIT, limit=7)
    assert classes == SPLIT.classes and conditions["score threshold"] == 0
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    for mode, columns in (("zsd", {2, 3}), ("seen", {0, 1}), ("gzsd", {0, 1, 2, 3})):
        boxes, scores, found = predict(image, mode)
        assert 0 < len(boxes) == len(scores) <= 7  # every score of a softmax is above 0
        assert set(found.tolist()) <= columns
        assert (boxes >= 0).all() and (boxes <= [70, 80, 70, 80]).all()
    silent, _, _ = checkpoint_predictor(checkpoint, SPLIT, score_threshold=1.0)
    assert len(silent(image, "gzsd")[0]) == 0


def test_errors_of_the_command_line_are_sentences(folder, checkpoint, capsys):
    wrong = arguments(folder, folder / "none.pt")
    assert main(wrong) == 1
    assert capsys.readouterr().err.startswith("error: cannot read checkpoint")
    assert main([*arguments(folder, checkpoint), "--split", "coco_4817"]) == 1
    assert "did you mean 'coco_48_17'" in capsys.readouterr().err


def test_unseen_class_that_was_trained_on_is_found_out(folder, checkpoint, capsys):
    leaky = folder / "leaky.json"
    leaky.write_text(json.dumps({"seen": ["cup"], "unseen": ["Person", "cat"]}))
    assert main([*arguments(folder, checkpoint), "--split", str(leaky)]) == 1
    assert "'Person' is unseen in split leaky but was trained on" in capsys.readouterr().err


def test_a_trained_class_is_found_out_under_the_spelling_of_another_data_set():
    split = Split(name="voc", seen=("person",), unseen=("sofa", "cat"))
    with pytest.raises(DataError, match=r"'sofa' is unseen in split voc .*1 such classes"):
        check_split("last.pt", ["person", "couch"], split)
    check_split("last.pt", ["person", "sofa bed", "tv"], split)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--limit", "0", "limit is 0, must be at least 1"),
        ("--samples", "-1", "samples is -1, must not be negative"),
        ("--seed", "-1", "seed is -1, must not be negative"),
        ("--score-threshold", "nan", "score_threshold is nan, must be 0 or more"),
        ("--nms-threshold", "3", r"nms_threshold is 3.0, must lie in [0, 1]"),
    ],
)
def test_an_option_that_means_nothing_is_refused(folder, checkpoint, capsys, option, value, says):
    assert main([*arguments(folder, checkpoint), option, value]) == 1
    assert says in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_known_before_the_work(folder, checkpoint, capsys):
    for bad in (folder, folder / "truth.json/result.json"):
        assert main([*arguments(folder, checkpoint), "--json", str(bad)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: cannot write {bad}") and "evaluate" not in error
    new = folder / "deep/er/result.json"
    assert main([*arguments(folder, checkpoint), "--json", str(new), "--tasks", "zsd"]) == 0
    assert json.loads(new.read_text())["tasks"]


def test_regions_are_cut_as_they_were_in_training(checkpoint):
    """``pooling: pool`` reaches the pipeline: what the head sees is what training showed it."""
    model = load_checkpoint(checkpoint).model
    config = dataclasses.replace(
        model.config, regions=dataclasses.replace(model.config.regions, pooling="pool")
    )
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    networks = TorchNetworks(model)
    found = {
        regions.pooling: stages.describe(networks, config, [image], kernels=kernels_for(regions))
        for regions in (config.regions, model.config.regions)
    }
    height, width = (int(side) for side in found["pool"].image_sizes[0])
    pixels = kernels.preprocess(
        image,
        size=(height, width),
        padded=config.preprocess.padded(height, width),
        mean=config.preprocess.mean,
        std=config.preprocess.std,
    )
    regions = Regions(
        torch.from_numpy(found["pool"].rois),
        torch.from_numpy(found["pool"].batch_indices),
        torch.zeros(0),
        torch.zeros(0),
    )
    objective = Objective(model, Config(model=config), torch.eye(2, 6), torch.eye(2, 6))
    with torch.inference_mode():
        features, *_ = model.trunk(torch.from_numpy(pixels)[None])
        expected, _ = model.head(objective.region_features(features, regions))
    np.testing.assert_allclose(found["pool"].embeddings, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found["pool"].embeddings - found["align"].embeddings).max() > 1e-3


def test_a_checkpoint_with_roi_pooling_is_tested_with_it(folder, checkpoint):
    pooled, earlier = folder / "pooled.pt", load_checkpoint(checkpoint)
    regions = dataclasses.replace(earlier.config.model.regions, pooling="pool")
    model = dataclasses.replace(earlier.config.model, regions=regions)
    save_checkpoint(
        dataclasses.replace(earlier, config=dataclasses.replace(earlier.config, model=model)),
        pooled,
    )
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    scores = [checkpoint_predictor(p, SPLIT)[0](image, "gzsd")[1] for p in (checkpoint, pooled)]
    assert not np.allclose(scores[0][:10], scores[1][:10], rtol=1e-4)


@pytest.mark.parametrize("edge", [16.0, 400.0])
def test_limits_are_those_of_regions_and_of_recognition(folder, checkpoint, capsys, edge):
    """Regions that are all too large hold no object, whatever their class."""
    earlier = load_checkpoint(checkpoint)
    model = earlier.config.model
    proposals = dataclasses.replace(model.proposals, anchor_sizes=(edge,) * 2, nms_threshold=0.99)
    changed = dataclasses.replace(model, proposals=proposals)
    save_checkpoint(
        dataclasses.replace(earlier, config=dataclasses.replace(earlier.config, model=changed)),
        checkpoint,
    )
    out = folder / "limits.json"
    options = arguments(folder, checkpoint)[: -len(["--samples", "20"])]
    assert main([*options, "--limits", "--json", str(out)]) == 0
    found, text = json.loads(out.read_text()), capsys.readouterr().out
    assert found["human boxes"]["Recall@100"] == 100  # every box is a region there
    assert 0 < found["human boxes"]["mAP@0.5"] <= 100
    shares = found["regions"]
    assert shares["20"] <= shares["100"] <= shares["300"]
    assert (shares["300"] > 0) == (edge < 100)
    assert (found["right classes"]["mAP@0.5"] > 0) == (edge < 100)
    assert f"{found['human boxes']['mAP@0.5']:.1f}" in text


@pytest.mark.parametrize("own", [{"post_nms_top": 12, "pre_nms_top": 12}, {"post_nms_top": 50}])
def test_limits_are_those_of_the_regions_that_the_detector_has(
    folder, dataset, checkpoint, monkeypatch, own
):
    earlier = load_checkpoint(checkpoint)
    model = earlier.config.model
    proposals = dataclasses.replace(model.proposals, min_size=1, **own)
    config = dataclasses.replace(model, proposals=proposals)
    save_checkpoint(
        dataclasses.replace(earlier, config=dataclasses.replace(earlier.config, model=config)),
        checkpoint,
    )
    offered = []

    def spy(found, record, names):
        offered.append(found)
        return np.zeros((len(found.rois), len(names)), np.float32)

    monkeypatch.setattr("zsd_core.learning.limits._truth", spy)
    monkeypatch.setattr("zsd_core.learning.limits.COUNTS", (2, 5, 8))
    measure_limits(checkpoint, dataset, SPLIT)
    networks = TorchNetworks(load_checkpoint(checkpoint).model)
    images = [read_image(record) for record in make_test(dataset, SPLIT, "zsd").images]
    for image, found in zip(images, offered, strict=True):
        expected = stages.describe(networks, config, [image], kernels=kernels_for(config.regions))
        assert 0 < len(expected.rois) < 12 or len(expected.rois) > 8
        np.testing.assert_array_equal(found.rois, expected.rois)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", "-1"], "limit is -1, must be at least 1"),
        (["--tasks", "gzsd"], "--limits does not use --tasks; leave that out"),
        (["--samples", "5", "--seed", "1"], "does not use --samples, --seed;"),
        (["--score-threshold", "0.5", "--separate"], "not use --score-threshold, --separate;"),
        (["--nms-threshold", "0.5"], "does not use --nms-threshold;"),
    ],
)
def test_an_option_that_limits_do_not_use_is_refused(folder, checkpoint, capsys, options, says):
    assert main([*arguments(folder, checkpoint)[:-2], "--limits", *options]) == 1
    assert says in capsys.readouterr().err
