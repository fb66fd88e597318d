"""Names against examples: draws, rankings, and the same numbers as one detector a draw."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import tiny
import tiny_given

from export.checks.examples import Draw, average_precision, boxed, draws, embed, pictures
from export.evaluate_examples import main, markdown, read_pictures
from runtime import Detector, Example
from runtime.bundle import open_bundle
from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.matching import match
from zsd_core.learning.metrics import measure

PHOTOGRAPHS = 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_given.given_bundle(tmp_path_factory.mktemp("given") / "bundle"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs with a square each, whose boxes are known, and a list of pictures."""
    folder, notes = tmp_path_factory.mktemp("data"), []
    rng = np.random.default_rng(3)
    for index in range(PHOTOGRAPHS):
        image = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(30, 0).repeat(30, 1)
        x, y = rng.integers(0, 60, 2)
        image[y : y + 60, x : x + 60] = (40 * index, 200, 30)
        cv2.imwrite(str(folder / f"{index}.png"), image)
        box = [int(x), int(y), 60, 60]
        notes.append({"id": index + 1, "image_id": index, "category_id": 7, "bbox": box})
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 180, "height": 150}
            for i in range(PHOTOGRAPHS)
        ],
        "annotations": notes,
        "categories": [{"id": 7, "name": "square"}],
    }
    (folder / "truth.json").write_text(json.dumps(values))
    names = ["zebra", "zebra", "zebra", "teapot", "teapot", "cloud"]
    labels = [{"file": f"{i}.png", "name": name} for i, name in enumerate(names)]
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "held_out.txt").write_text("zebra\nteapot\n")
    return folder


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 1, 1], 1.0),
        ([0.9, 0.8, 0.7], [0, 1, 0], 1 / 2),
        ([0.1, 0.8, 0.7], [1, 0, 1], (1 / 2 + 2 / 3) / 2),
        ([0.5, 0.5, 0.5], [1, 0, 0], 1 / 3),  # of equal scores the wrong ones come first
        ([0.5], [1], 1.0),
    ],
)
def test_average_precision_by_hand(scores, right, expected):
    found = average_precision(np.float64(scores), np.array(right, bool))
    assert found == pytest.approx(expected)


def test_draws_repeat_and_hold_no_example_twice():
    drawn = draws(5, (1, 4), 3, seed=1)
    assert drawn == draws(5, (1, 4), 3, seed=1) != draws(5, (1, 4), 3, seed=2)
    assert [(d.count, d.repeat) for d in drawn] == [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (4, 2)]
    assert all(len(set(d.places)) == d.count for d in drawn)
    with pytest.raises(DataError, match="5 candidates for 5 examples; at least one must be left"):
        draws(5, (1, 5), 1, seed=0)


def test_all_classes_in_one_pass_give_what_a_detector_for_each_gives(bundle, data):
    dataset = read_coco(data / "truth.json", data)
    result = boxed(
        bundle, dataset, "zebra", counts=(1, 2), repeats=2, backend="onnxruntime", threads=1
    )
    for entry in result["draws"]:
        for repeat, found in enumerate(entry["of each draw"]):
            draw = next(
                d
                for d in draws(PHOTOGRAPHS, (1, 2), 2, 0)
                if (d.count, d.repeat) == (entry["examples"], repeat)
            )
            examples = [
                Example(read_image(dataset.images[i]), dataset.images[i].boxes[0].tolist())
                for i in draw.places
            ]
            left = [r for i, r in enumerate(dataset.images) if i not in draw.places]
            with Detector(
                bundle,
                classes={**dict.fromkeys(tiny.SEEN), "square": examples},
                backend="onnxruntime",
                threads=1,
                score_threshold=0.0,
            ) as detector:
                seen = [detector(read_image(record)) for record in left]
            matches = match(
                left,
                [(d.boxes, d.scores, d.class_ids) for d in seen],
                [*tiny.SEEN, "square"],
                tiny.SEEN,
                thresholds=(0.5,),
            )
            assert found == pytest.approx(100 * measure(matches)["area"][0, 3], abs=0.01)
    assert result["photographs"] == result["boxes"] == PHOTOGRAPHS
    assert result["classes"] == 4


def test_a_seen_class_and_a_bundle_without_a_second_look_are_refused(bundle, data, bundle_path):
    dataset = read_coco(data / "truth.json", data)
    with pytest.raises(ConfigError, match="'Person' is a seen class"):
        boxed(bundle, dataset, "Person")
    with pytest.raises(ConfigError, match="it has no second look"):
        boxed(open_bundle(bundle_path), dataset, "zebra", counts=(1,), backend="onnxruntime")


def test_boxes_of_several_classes_are_refused(bundle, data):
    first, *rest = read_coco(data / "truth.json", data).images
    images = (dataclasses.replace(first, labels=("circle",)), *rest)
    with pytest.raises(DataError, match=r"boxes of 2 classes \('circle', 'square'\)"):
        boxed(bundle, Dataset(images=images, categories=("square", "circle")), "square")


@pytest.mark.parametrize("option", ["--seed", "--others"])
def test_a_negative_option_is_refused_before_the_bundle_opens(option, capsys):
    assert main(["nowhere", "--pictures", "no.json", "--held-out", "a", option, "-1"]) == 1
    assert f"{option} is -1, must not be negative" in capsys.readouterr().err


def test_a_class_is_the_mean_of_what_embed_gives(bundle, data):
    images = [data / f"{i}.png" for i in range(3)]
    rows = embed(bundle, [Example(image) for image in images], "onnxruntime", 1)
    with Detector(bundle, classes={"a": images}, backend="onnxruntime", threads=1) as detector:
        np.testing.assert_allclose(detector.class_vectors()["a"], rows.mean(axis=0), atol=1e-6)


def test_pictures_are_ranked_by_their_best_detection(bundle, data):
    files, labels = read_pictures(data / "labels.json")
    options = {"counts": (1,), "repeats": 2, "backend": "onnxruntime", "threads": 1}
    result = pictures(bundle, files, labels, ["zebra", "teapot"], **options)
    assert (result["names"], result["pictures"], result["of other names"]) == (2, 6, 1)
    with Detector(
        bundle, classes=["zebra"], backend="onnxruntime", threads=1, score_threshold=0.0
    ) as detector:
        best = [detector(file).scores.max(initial=0) for file in files]
    expected = average_precision(np.array(best), np.array([label == "zebra" for label in labels]))
    assert result["per name"]["zebra"]["name alone"] == pytest.approx(100 * expected)
    fewer = pictures(bundle, files, labels, ["zebra", "teapot"], others=0, **options)
    assert fewer["pictures"] == 5
    twice = pictures(bundle, files, labels, ["zebra", "teapot", "Zebra"], **options)
    assert twice == result
    with pytest.raises(DataError, match="the list of held-out names is empty"):
        pictures(bundle, files, labels, [], **options)
    with pytest.raises(DataError, match="2 candidates for 2 examples"):
        pictures(bundle, files, labels, ["teapot"], **(options | {"counts": (2,)}))


def test_the_command_writes_its_table_and_its_numbers(bundle, data, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- numbers: examples -->\nold\n<!-- /numbers -->\nafter\n")
    args = ["--annotations", data / "truth.json", "--images", data, "--name", "zebra"]
    args += ["--pictures", data / "labels.json", "--held-out", data / "held_out.txt"]
    args += ["--counts", 1, "--repeats", 2, "--json", tmp_path / "result.json"]
    args += ["--markdown", page, "--backend", "onnxruntime", "--threads", 1]
    assert main([str(bundle.path), *map(str, args)]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    table = markdown(result)
    assert table.count("\n") == 3
    assert "among 4 classes" in table
    assert "2 held-out names, 6 pictures" in table
    assert table in page.read_text()
    assert "old" not in page.read_text()
    assert table in capsys.readouterr().out


def test_a_list_that_is_none_and_half_a_test_are_sentences(data, tmp_path, capsys):
    (tmp_path / "labels.json").write_text('[{"file": "a.png"}]')
    with pytest.raises(DataError, match="must be a JSON list of objects with 'file' and 'name'"):
        read_pictures(tmp_path / "labels.json")
    for wrong in (["--name", "cat"], ["--pictures", "labels.json"], []):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "nothing to measure" in capsys.readouterr().err
    assert Draw(3, 1, (0, 2, 4)).label("cup") == "cup from 3, draw 1"
