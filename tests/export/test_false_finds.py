"""``export.false_finds``: how often names are found where they are not, and the threshold by it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
from tiny_detector import detector_bundle

from export import false_finds as command
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.errors import DataError

NAMES = [*tiny.UNSEEN, "zebra"]
PHOTOGRAPHS = 4
CALIBRATED = {
    "photographs": 9,
    "boxes": 9,
    "roles": {},
    "expected calibration error, percent": {"detections above": 0.05, "bins of [0, 1]": 20},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = detector_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
    return amend_bundle(path, scores=CALIBRATED)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs of noise; the first one has a box of the first name."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(PHOTOGRAPHS):
        coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), coarse.repeat(30, axis=0).repeat(30, axis=1))
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 180, "height": 120}
            for i in range(PHOTOGRAPHS)
        ],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [9, 9, 50, 50]}],
        "categories": [{"id": 1, "name": NAMES[0].upper()}],
    }
    (folder / "truth.json").write_text(json.dumps(values))
    return folder


def arguments(path, data, *more):
    words = [path, "--annotations", data / "truth.json", "--images", data, "--threads", 1, *more]
    return [*map(str, words), "--backend", "onnxruntime", "--names", *NAMES]


def test_shares_leave_out_the_photographs_that_show_a_name():
    found = np.array([[np.nan, 0.2], [0.5, 0.1], [0.3, 0], [0, 0]])
    np.testing.assert_allclose(command.shares(found, 0.25), [2 / 3, 0])
    np.testing.assert_allclose(command.shares(found, 0.1), [2 / 3, 1 / 4])  # above, not at
    np.testing.assert_array_equal(command.shares(np.full((2, 1), np.nan), 0.1), [0])


@pytest.mark.parametrize(("share", "threshold"), [(1 / 3, 0.2), (0.34, 0.2), (0.2, 0.3), (0, 0.5)])
def test_the_lowest_threshold_that_keeps_to_the_share(share, threshold):
    found = np.array([[np.nan, 0.2], [0.5, 0.1], [0.3, 0], [0, 0]])
    assert command.lowest_threshold(found, share) == threshold
    assert command.shares(found, threshold).mean() <= share
    assert command.shares(found, threshold - 0.01).mean() > share


def test_no_threshold_keeps_to_the_share_of_what_is_certain():
    with pytest.raises(DataError, match="no threshold below 1"):
        command.lowest_threshold(np.ones((3, 2)), 0.5)


def test_the_threshold_is_written_and_is_what_a_detector_uses(path, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main(arguments(path, data, "--share", 0.3, "--output", out)) == 0
    printed = capsys.readouterr().out
    bundle = open_bundle(out)
    threshold = bundle.model_config.detection.unseen_threshold
    assert f"above {threshold:.2f}" in printed and printed.endswith(f"{out}\n")
    assert bundle.manifest["scores"]["false finds"]["threshold"] == threshold
    assert "| found falsely above that |" in bundle.file("MODEL_CARD.md").read_text()
    assert open_bundle(path).model_config.detection.unseen_threshold is None
    falsely = []
    with Detector(out, backend="onnxruntime", threads=1, classes=NAMES) as detector:
        for index in range(PHOTOGRAPHS):
            names = {found.class_name for found in detector(str(data / f"{index}.png"))}
            falsely.append([name in names for name in NAMES])
    falsely = np.array(falsely)
    falsely[0, 0] = False  # it is there
    absent = np.full(len(NAMES), PHOTOGRAPHS)
    absent[0] -= 1
    share = (falsely.sum(axis=0) / absent).mean()
    assert 0 < threshold < 1 and share <= 0.3


def test_it_only_prints_unless_it_is_told_to_write(path, data, capsys):
    before = (path / "manifest.json").read_bytes()
    assert command.main(arguments(path, data, "--share", 0.3)) == 0
    assert "<- the threshold" in capsys.readouterr().out
    assert (path / "manifest.json").read_bytes() == before


def test_in_place(path, data, tmp_path):
    own = amend_bundle(path, output=tmp_path / "own")
    assert command.main(arguments(own, data, "--share", 0.3, "--write")) == 0
    assert open_bundle(own).model_config.detection.unseen_threshold is not None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--share", "0"], "--share is 0.0, must lie between 0 and 1"),
        (["--share", "nan"], "--share is nan"),
        (["--subset", "validation"], "4 photographs are not enough"),
    ],
)
def test_errors_are_sentences(path, data, capsys, more, sentence):
    assert command.main(arguments(path, data, *more)) == 1
    assert sentence in capsys.readouterr().err


def test_a_class_that_boxes_taught_has_another_threshold(path, data, capsys):
    assert command.main([*arguments(path, data), tiny.SEEN[0]]) == 1
    assert f"'{tiny.SEEN[0]}' is a class that boxes taught" in capsys.readouterr().err


def test_scores_must_be_probabilities(data, tmp_path, capsys):
    path = detector_bundle(tmp_path / "bundle")
    assert command.main(arguments(path, data)) == 1
    assert "run export.calibrate first" in capsys.readouterr().err
