"""The line that makes similarities with examples probabilities."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
import tiny_given

pytest.importorskip("torch")

from export.calibrate_examples import choose_examples, fit_scale, main
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.calibration import IDENTITY
from zsd_core.errors import DataError
from zsd_core.learning.data.coco import read_coco


@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("curve", [IDENTITY, (0.6, 0.8, 0.4)], ids=["identity", "curve"])
def test_a_known_line_is_found_again(power, curve):
    slope, bias = 8.0, -3.0
    rng = np.random.default_rng(0)
    cosines, likely = rng.uniform(-0.2, 1, 10_000), rng.uniform(0.05, 1, 10_000)
    scores = likely**power / (1 + np.exp(-(slope * cosines + bias)))
    a, b, c = curve
    logits = a * np.log(scores) - b * np.log(1 - scores) + c
    right = rng.random(10_000) < 1 / (1 + np.exp(-logits))
    found = fit_scale(cosines, likely, right, power, curve)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [slope, bias], rtol=0.15)


@pytest.mark.parametrize("right", [True, False])
def test_nothing_right_and_nothing_wrong_are_refused(right):
    with pytest.raises(DataError, match="no detection is right, or none wrong"):
        fit_scale(np.ones(3), np.ones(3), np.full(3, right), 0.5, IDENTITY)


@pytest.fixture
def data(tmp_path):
    """Photographs, each with the boxes that a detector finds for "cup", and small ones of "nut"."""
    rng, notes = np.random.default_rng(5), []
    path = tiny_given.given_bundle(tmp_path / "bundle")
    with Detector(path, backend="onnxruntime", threads=1, score_threshold=0.0) as detector:
        for index in range(6):
            image = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(40, 0).repeat(40, 1)
            cv2.imwrite(str(tmp_path / f"{index}.png"), image[:, :, ::-1])
            detector.set_classes(["zebra"])
            x1, y1, x2, y2 = map(float, detector(image).boxes[0])
            for category, box in (("cup", [x1, y1, x2 - x1, y2 - y1]), ("nut", [5, 5, 20, 30])):
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": index,
                        "category_id": ["cup", "nut"].index(category),
                        "bbox": box,
                    }
                )
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 240, "height": 200} for i in range(6)
        ],
        "annotations": notes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(["cup", "nut"])],
    }
    (tmp_path / "truth.json").write_text(json.dumps(values))
    return tmp_path


def test_examples_are_large_boxes_of_categories_that_have_enough(data):
    dataset = read_coco(data / "truth.json", data)
    chosen = choose_examples(dataset, 3, seed=0)
    assert {name: len(examples) for name, examples in chosen.items()} == {"cup": 3}
    boxes = [tuple(example.box) for example in chosen["cup"]]
    assert len(set(boxes)) == 3
    assert boxes == [tuple(e.box) for e in choose_examples(dataset, 3, seed=0)["cup"]]
    with pytest.raises(DataError, match="no category has 7 boxes of at least 48 pixels in 6"):
        choose_examples(dataset, 7, seed=0)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--count", "-1"], "--count is -1, must be at least 1"),
        (["--count", "0"], "--count is 0, must be at least 1"),
        (["--seed", "-1"], "--seed is -1, must not be negative"),
    ],
)
def test_an_option_that_means_nothing_is_refused_before_the_bundle_opens(option, says, capsys):
    assert main(["nowhere", "--annotations", "none.json", "--images", ".", *option]) == 1
    assert says in capsys.readouterr().err


def test_the_command_changes_the_line_and_nothing_else(data, capsys, monkeypatch):
    path = data / "bundle"
    before = open_bundle(path).scorer_tensors()
    monkeypatch.setattr("export.calibrate_examples.SUBSETS", ("train", "validation"))
    monkeypatch.setattr(
        "export.calibrate_examples.read_dataset",
        lambda *_: read_coco(data / "truth.json", data),
    )
    args = ["--annotations", str(data / "truth.json"), "--images", str(data), "--count", "1"]
    assert main([str(path), *args]) == 0, capsys.readouterr().err
    assert "1 classes of 1 examples, 6 photographs" in capsys.readouterr().out
    after = open_bundle(path).scorer_tensors()
    assert not np.array_equal(before["example_scale"], after["example_scale"])
    for name in set(before) - {"example_scale"}:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_bundle_without_a_second_look_is_refused(fresh_bundle_path, data, capsys):
    args = ["--annotations", str(data / "truth.json"), "--images", str(data)]
    assert main([str(fresh_bundle_path), *args]) == 1
    assert "cannot learn a class from examples" in capsys.readouterr().err
    assert tiny.SEEN
