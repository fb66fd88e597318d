"""``export.calibrate``: a bundle whose scores become probabilities, in all that it holds."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
from tiny_detector import detector_bundle

from export import calibrate as command
from export.checks.differences import Limits
from export.checks.evaluation import by_name_alone
from export.checks.images import NamedImage
from export.checks.parity import compare_with_detector
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import DataError
from zsd_core.learning.data.coco import read_coco

PHOTOGRAPHS = 8


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return detector_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def data(path, tmp_path_factory):
    """Photographs whose truth is every second box that the detector finds, best first."""
    folder, names, notes = tmp_path_factory.mktemp("data"), [*tiny.SEEN, *tiny.UNSEEN], []
    rng = np.random.default_rng(0)
    with Detector(
        path, backend="onnxruntime", score_threshold=0.0, max_detections=40, threads=1
    ) as detector:
        for index in range(PHOTOGRAPHS):
            coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
            image = coarse.repeat(30, axis=0).repeat(30, axis=1)
            cv2.imwrite(str(folder / f"{index}.png"), image[:, :, ::-1])
            for place, found in enumerate(detector(image)):
                if place % 2 == 0 and place < 24:
                    x1, y1, x2, y2 = map(float, found.box)
                    notes.append(
                        {
                            "id": len(notes) + 1,
                            "image_id": index,
                            "category_id": names.index(found.class_name),
                            "bbox": [x1, y1, x2 - x1, y2 - y1],
                        }
                    )
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 180, "height": 120}
            for i in range(PHOTOGRAPHS)
        ],
        "annotations": notes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (folder / "truth.json").write_text(json.dumps(values))
    split = {"name": "tiny", "seen": list(tiny.SEEN), "unseen": list(tiny.UNSEEN)}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def arguments(path, data, *more):
    return [
        str(path),
        "--annotations",
        str(data / "truth.json"),
        "--images",
        str(data),
        "--threads",
        "1",
        "--backend",
        "onnxruntime",
        *map(str, more),
    ]


def test_manifest_card_graph_and_detector_say_the_same(path, data, tmp_path, capsys, photo):
    out, report = tmp_path / "calibrated", tmp_path / "fit.json"
    assert command.main(arguments(path, data, "--output", out, "--json", report)) == 0
    assert str(out) in capsys.readouterr().out
    fitted, bundle = json.loads(report.read_text()), open_bundle(out)
    config = bundle.model_config
    assert list(config.calibration.seen) == fitted["roles"]["seen"]["curve"]
    assert list(config.calibration.unseen) == fitted["roles"]["unseen"]["curve"]
    assert config.detection.score_threshold == fitted["score threshold"]
    assert bundle.manifest["scores"] == fitted
    errors = fitted["expected calibration error, percent"]
    assert errors["after"] < 20 and errors["detections above"] == 0.05
    assert "## Scores" in bundle.file("MODEL_CARD.md").read_text()
    with Detector(out, backend="onnxruntime", threads=1, score_threshold=0.0) as detector:
        assert compare_with_detector(detector, [NamedImage("photo", photo)], Limits()).passed
    assert not open_bundle(path).model_config.calibration  # the source is as it was


def test_in_place_and_again_gives_the_same(path, data, tmp_path):
    """Calibrating a calibrated bundle starts from the raw scores, so it changes nothing."""
    first, second = tmp_path / "first", tmp_path / "second.json"
    assert command.main(arguments(path, data, "--output", first)) == 0
    before = open_bundle(first).model_config
    assert command.main(arguments(first, data, "--json", second)) == 0
    assert open_bundle(first).model_config == before


def test_a_split_reads_no_unseen_box_and_the_other_role_takes_the_curve(path, data, tmp_path):
    def without_unseen(values):
        names = {c["id"]: c["name"] for c in values["categories"]}
        keep = [n for n in values["annotations"] if names[n["category_id"]] in tiny.SEEN]
        return {**values, "annotations": keep}

    truth = json.loads((data / "truth.json").read_text())
    (tmp_path / "seen.json").write_text(json.dumps(without_unseen(truth)))
    out = tmp_path / "calibrated"
    words = arguments(path, data, "--split", data / "split.json", "--output", out)
    words[2] = str(tmp_path / "seen.json")
    assert command.main(words) == 0
    bundle = open_bundle(out)
    assert bundle.model_config.calibration.seen == bundle.model_config.calibration.unseen
    assert not bundle.manifest["scores"]["roles"]["unseen"]["fitted"]


def test_roles_fits_what_it_names(path, data, tmp_path):
    out = tmp_path / "calibrated"
    assert command.main(arguments(path, data, "--roles", "unseen", "--output", out)) == 0
    calibration = open_bundle(out).model_config.calibration
    assert calibration.seen is None and calibration.unseen is not None


def test_the_threshold_can_be_given(path, data, tmp_path):
    out = tmp_path / "calibrated"
    assert command.main(arguments(path, data, "--score-threshold", "0.25", "--output", out)) == 0
    assert open_bundle(out).model_config.detection.score_threshold == 0.25


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--score-threshold", "30"], "--score-threshold is 30.0, must lie in"),
        (["--subset", "validation"], "8 photographs are not enough"),
        (["--also", "cat"], "'cat' of --also is a category"),
        (["--limit", "0"], "--limit is 0"),
    ],
)
def test_errors_are_sentences_and_nothing_is_written(path, data, tmp_path, capsys, more, sentence):
    out = tmp_path / "calibrated"
    assert command.main(arguments(path, data, "--output", out, *more)) == 1
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_graph_that_disagrees_is_not_written(data, tmp_path, capsys):
    """The bundle's own graph differs from its manifest before: no calibration hides that."""
    wrong = detector_bundle(tmp_path / "wrong", wrong=True)
    assert command.main(arguments(wrong, data)) == 1
    assert "does not find what Detector finds" in capsys.readouterr().err
    assert open_bundle(wrong).model_config.calibration == CalibrationConfig()


def test_as_unseen_asks_for_the_categories_by_their_names_alone(path, data):
    bundle, dataset = open_bundle(path), read_coco(data / "truth.json", data)
    options = {"backend": "onnxruntime", "threads": 1}
    found = command.fit_bundle(bundle, dataset, roles=("unseen",), as_unseen=True, **options)
    roles = found.report["roles"]
    assert roles["unseen"]["fitted"]
    assert not roles.get("seen", {}).get("fitted")
    assert found.calibration.seen == bundle.model_config.calibration.seen
    ordinary = command.fit_bundle(bundle, dataset, **options)
    assert ordinary.report["roles"]["seen"]["fitted"]


def test_a_name_alone_is_its_word_in_the_vocabulary_or_its_vector_in_the_table(path):
    bundle = open_bundle(path)
    vectors = by_name_alone(bundle, ["truck", "person"])
    assert list(vectors) == ["truck (by its name alone)", "person (by its name alone)"]
    word = bundle.vocabulary.unit_vectors(np.array([bundle.vocabulary.rows["truck"]]))[0]
    np.testing.assert_array_equal(vectors["truck (by its name alone)"], word)
    person = bundle.class_vectors[bundle.seen.index("person")]
    np.testing.assert_array_equal(vectors["person (by its name alone)"], person)
    with pytest.raises(DataError, match="neither table nor vocabulary has a vector of 'gnu'"):
        by_name_alone(bundle, ["gnu"])
