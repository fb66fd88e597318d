"""Every number by hand, against pycocotools, and apart from the wrong variants in circulation."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.matching import match
from zsd_core.learning.metrics import (
    AP_KINDS,
    compare,
    harmonic_mean,
    measure,
    report,
    resamples,
    table,
)

CLASSES = ("person", "cup", "cat", "dog")
SEEN = ("person", "cup")


def square(x, size=10):
    return (x, 0, x + size, size)


def photo(labels, boxes=None, name="a", **flags):
    boxes = [square(20 * i) for i in range(len(labels))] if boxes is None else boxes
    return image_record(
        where="test",
        path=Path(f"{name}.jpg"),
        id=name,
        width=1000,
        height=1000,
        boxes=boxes,
        labels=labels,
        **flags,
    )


def cats(hits, boxes):
    """One photograph of ``boxes`` cats, and detections by falling score that hit or miss."""
    image = photo(["cat"] * boxes)
    places, position = [], iter(range(boxes))
    for hit in hits:
        places.append(square(20 * next(position)) if hit else square(900))
    scores = np.linspace(0.9, 0.1, len(hits))
    return match([image], [(places, scores, [2] * len(hits))], CLASSES, SEEN)


def values(matches, key, column=2):
    return measure(matches)[key][0, ..., column]


def test_ap_by_hand():
    """Hit, miss, hit of 4 boxes: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4."""
    matches = cats([True, False, True], boxes=4)
    assert values(matches, "area") == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    # recalls 0, .1, .2 see precision 1; .3, .4, .5 see 2/3; the rest 0
    assert values(matches, "voc11") == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert values(matches, "coco101") == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert values(matches, "recall").tolist() == [0.5] * 3


def test_perfect_and_empty_results():
    for kind in AP_KINDS:
        assert values(cats([True] * 3, boxes=3), kind) == 1
        assert values(cats([], boxes=3), kind) == 0
        assert np.isnan(values(cats([False], boxes=0), kind))  # no truth: no number, not 0


def test_area_and_eleven_points_are_not_one_number():
    """FIELD's trap: the two are silently swapped."""
    matches = cats([True], boxes=20)
    assert values(matches, "area") == pytest.approx(1 / 20)
    assert values(matches, "voc11") == pytest.approx(1 / 11)


def test_eleven_points_reach_a_recall_that_is_exactly_on_a_point():
    matches = cats([True] * 3, boxes=10)  # recall .1, .2, .3
    assert values(matches, "voc11") == pytest.approx(4 / 11)


def test_recall_is_final_not_averaged_and_not_per_detection():
    """FIELD's traps: the mean of the cumulative curve, and dividing by the detections."""
    matches = cats([True, False, False, True], boxes=2)
    cumulative = np.cumsum([1, 0, 0, 1]) / 2
    assert values(matches, "recall")[1] == 1 == cumulative[-1]
    assert cumulative.mean() == 0.625 and 2 / 4 == 0.5  # what the wrong ones say


def test_recall_counts_the_best_hundred_of_an_image_over_all_classes():
    image = photo(["cat"])
    boxes = [square(900)] * 100 + [square(0)]
    columns, scores = [0] * 100 + [2], [0.9] * 100 + [0.8]
    matches = match([image], [(boxes, scores, columns)], CLASSES, SEEN)
    assert values(matches, "recall").tolist() == [0] * 3  # a cap per class would say 1
    apart = match([image], [(boxes, scores, columns)], CLASSES, SEEN, separate=True)
    assert values(apart, "recall").tolist() == [1] * 3
    assert list(report(apart, samples=0)["values"])[-1] == "Recall@100 + 100 IoU 0.6"


def test_means_run_over_classes_with_truth():
    """FIELD's traps: hard-coded class counts, and the first unseen class sliced away."""
    images = [photo(["person", "cat"])]
    predictions = [([square(0), square(20)], [0.9, 0.8], [0, 2])]
    found = report(match(images, predictions, CLASSES, SEEN), samples=0)["values"]["mAP@0.5 area"]
    assert found == {"seen": 100, "unseen": 100, "hm": 100, "all": 100}
    # over all declared classes it would be 50, without column 2 there would be no unseen class


def test_thresholds_are_told_apart():
    image = photo(["cat"], [(0, 0, 100, 100)])
    matches = match([image], [([(0, 0, 100, 55)], [0.9], [2])], CLASSES, SEEN)
    assert values(matches, "recall").tolist() == [1, 1, 0]


def test_crowd_and_difficult_are_no_misses_and_no_hits():
    image = photo(["cat"] * 3, crowd=[False, True, False], difficult=[False, False, True])
    boxes = [square(20), square(40), square(0)]  # the ignored ones score higher
    matches = match([image], [(boxes, [0.9, 0.8, 0.7], [2] * 3)], CLASSES, SEEN)
    assert matches.truths[0, 2] == 1
    assert values(matches, "area") == 1  # counted as misses: 1/3; as truth: 1 of 3 boxes


def test_harmonic_mean():
    np.testing.assert_allclose(
        harmonic_mean([42.1, 0, 10], [4.5, 0, 0]), [8.13090, 0, 0], rtol=1e-5
    )


def random_test(seed, images=25):
    """Truth with crowds, and detections near it or not, with ties in score."""
    generator = np.random.default_rng(seed)
    records, predictions = [], []
    for index in range(images):
        count = int(generator.integers(0, 6))
        corners = generator.integers(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + generator.integers(8, 40, (count, 2))], axis=1)
        labels = [CLASSES[i] for i in generator.integers(0, 3, count)]  # never a dog
        records.append(photo(labels, boxes, str(index), crowd=generator.random(count) < 0.15))
        near = np.repeat(boxes, 2, axis=0) + generator.normal(0, 3, (2 * count, 4))
        stray = generator.integers(0, 60, (3, 2))
        near = np.concatenate([near, np.concatenate([stray, stray + 20], axis=1)])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = np.round(generator.random(len(near)), 1)
        predictions.append((near, scores, generator.integers(0, 4, len(near))))
    return records, predictions


def coco_eval(records, predictions, thresholds, areas=(0, 1e10)):
    coco_module = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")
    notes, results = [], []
    for index, (record, (boxes, scores, columns)) in enumerate(
        zip(records, predictions, strict=True)
    ):
        for row, label in enumerate(record.labels):
            x1, y1, x2, y2 = map(float, record.boxes[row])
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": index + 1,
                    "category_id": CLASSES.index(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(record.crowd[row]),
                }
            )
        for box, score, column in zip(boxes, scores, columns, strict=True):
            x1, y1, x2, y2 = map(float, box)
            results.append(
                {
                    "image_id": index + 1,
                    "category_id": int(column) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {
            "images": [{"id": i + 1} for i in range(len(records))],
            "annotations": notes,
            "categories": [{"id": i + 1, "name": n} for i, n in enumerate(CLASSES)],
            "info": {},
        }
        truth.createIndex()
        judge = evaluator.COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.iouThrs = np.array(thresholds)
        judge.params.areaRng, judge.params.areaRngLbl = [list(areas)], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, :, 0, -1], judge.eval["recall"][:, :, 0, -1]


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed):
    """Same matching, same recall, same 101-point AP, where no image reaches the cap."""
    records, predictions = random_test(seed)
    thresholds = (0.4, 0.5, 0.6)
    precision, recall = coco_eval(records, predictions, thresholds)
    ours = match(records, predictions, CLASSES, SEEN, thresholds=thresholds)
    for at, threshold in enumerate(thresholds):
        found = measure(ours, threshold=threshold)
        absent = precision[at, 0] == -1
        np.testing.assert_array_equal(absent, [False, False, False, True])
        np.testing.assert_allclose(
            found["coco101"][0, :3], precision[at].mean(axis=0)[:3], atol=1e-12
        )
        np.testing.assert_allclose(found["recall"][0, at, :3], recall[at, :3], atol=1e-12)
        assert np.isnan(found["coco101"][0, 3])


@pytest.mark.parametrize("areas", [(0, 300), (300, 700), (700, 1e10)])
def test_sizes_are_those_of_pycocotools(areas):
    records, predictions = random_test(3)
    precision, recall = coco_eval(records, predictions, (0.5,), areas)
    ours = match(records, predictions, CLASSES, SEEN, thresholds=(0.5,), areas=areas)
    found, known = measure(ours), recall[0] > -1
    assert known.sum() == 3 and ours.ignored.any() and 0 < ours.truths.sum()
    np.testing.assert_allclose(
        found["coco101"][0, known], precision[0].mean(axis=0)[known], atol=1e-12
    )
    np.testing.assert_allclose(found["recall"][0, 0, known], recall[0, known], atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # of other people's packages, on import
def test_equal_to_torchmetrics():
    detection = pytest.importorskip("torchmetrics.detection", reason="needs torchmetrics")
    torch = pytest.importorskip("torch")
    records, predictions = random_test(9)
    metric = detection.MeanAveragePrecision(
        iou_thresholds=[0.5],
        rec_thresholds=np.linspace(0, 1, 101).tolist(),  # its own are float32: other exact ties
        class_metrics=True,
    )
    for record, (boxes, scores, columns) in zip(records, predictions, strict=True):
        metric.update(
            [
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float64),
                    "scores": torch.tensor(scores),
                    "labels": torch.tensor(columns),
                }
            ],
            [
                {
                    "boxes": torch.tensor(record.boxes, dtype=torch.float64),
                    "labels": torch.tensor([CLASSES.index(name) for name in record.labels]),
                    "iscrowd": torch.tensor(record.crowd.astype(int)),
                }
            ],
        )
    found = measure(match(records, predictions, CLASSES, SEEN))
    np.testing.assert_allclose(
        metric.compute()["map_per_class"][:3], found["coco101"][0, :3], atol=1e-6
    )


def test_weights_count_an_image_as_often_as_repeating_it():
    records, predictions = random_test(5, images=6)
    weights = np.array([[2, 0, 1, 3, 1, 0]])
    index = np.repeat(np.arange(6), weights[0])
    once = measure(match(records, predictions, CLASSES, SEEN), weights)
    repeated = measure(
        match([records[i] for i in index], [predictions[i] for i in index], CLASSES, SEEN)
    )
    np.testing.assert_allclose(once["recall"], repeated["recall"])
    for kind in AP_KINDS:
        assert np.isfinite(once[kind][0, :3]).any()
    # equal scores of repeated images interleave, so compare AP where scores do not tie
    unique = [
        (boxes, np.arange(len(scores)) / 100 + i / 1000, columns)
        for i, (boxes, scores, columns) in enumerate(predictions)
    ]
    once = measure(match(records, unique, CLASSES, SEEN), weights)
    repeated = measure(
        match([records[i] for i in index], [unique[i] for i in index], CLASSES, SEEN)
    )
    for kind in AP_KINDS:
        np.testing.assert_allclose(once[kind], repeated[kind])


def test_resamples_draw_as_many_images_and_repeat_with_the_seed():
    rows = np.concatenate(list(resamples(7, 130, seed=3, chunk=50)))
    assert rows.shape == (130, 7) and (rows.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(rows, np.concatenate(list(resamples(7, 130, seed=3, chunk=50))))
    assert rows.mean() == 1 and 0.8 < rows.var() < 0.95  # binomial: 1 - 1/7


def test_report_is_json_with_intervals_around_the_numbers():
    matches = match(*random_test(1), CLASSES, SEEN)
    result = report(matches, samples=200, seed=1)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["values"]) == [
        "mAP@0.5 area",
        "mAP@0.5 voc11",
        "mAP@0.5 coco101",
        "Recall@100 IoU 0.4",
        "Recall@100 IoU 0.5",
        "Recall@100 IoU 0.6",
    ]
    for name, groups in result["values"].items():
        assert list(groups) == ["seen", "unseen", "hm", "all"]
        for group, value in groups.items():
            low, high = result["intervals"][name][group]
            assert low <= value <= high and low < high
    dog = result["classes"][3]
    assert (dog["name"], dog["role"], dog["boxes"], dog["AP@0.5 area"]) == (
        "dog",
        "unseen",
        0,
        None,
    )
    assert result == report(matches, samples=200, seed=1)
    assert report(matches, samples=0)["intervals"] == {}


def test_a_test_of_one_role_has_no_harmonic_mean():
    matches = match([photo(["cat"])], [([square(0)], [0.5], [0])], ("cat", "dog"), ())
    result = report(matches, samples=0)
    assert result["values"]["mAP@0.5 area"] == {"unseen": 100}
    assert "hm" not in table(result)


def test_table_shows_conditions_means_and_classes_with_truth():
    text = table(report(match(*random_test(2), CLASSES, SEEN), samples=100))
    assert "25 images" in text and "best 100 per image" in text
    assert "95% interval, 100 bootstrap samples" in text
    assert "mAP@0.5 voc11" in text and "Recall@100 IoU 0.4" in text
    assert "\ncat " in text and "\ndog " not in text
    assert len({len(line) for line in text.split("\n\n")[1].splitlines()}) == 1


def test_paired_bootstrap_sees_what_two_intervals_do_not():
    """One system finds each cat that the other finds, and a few more."""
    images = [photo(["cat"], name=str(i)) for i in range(60)]

    def system(finds):
        return match(
            images,
            [([square(0 if f else 500)], [0.5], [2]) for f in finds],
            CLASSES,
            SEEN,
        )

    easy = np.arange(60) % 2 == 0
    better = easy | (np.arange(60) < 12)
    ours, theirs = system(better), system(easy)
    result = compare(ours, theirs)["Recall@100 IoU 0.5"]["unseen"]
    assert result["difference"] == pytest.approx(10)
    assert result["interval"][0] > 0 and result["above"] > 0.99
    apart = [report(m)["intervals"]["Recall@100 IoU 0.5"]["unseen"] for m in (ours, theirs)]
    assert apart[0][0] < apart[1][1]  # the two intervals overlap
    with pytest.raises(ConfigError, match="samples is 0, must be at least 1"):
        compare(ours, theirs, samples=0)
    with pytest.raises(DataError, match="different images or classes"):
        compare(ours, match(images[:1], [([], [], [])], CLASSES, SEEN))
    with pytest.raises(DataError, match="same cap"):
        compare(ours, match(images, [([], [], [])] * 60, CLASSES, SEEN, limit=10))


def test_bootstrap_samples_without_a_class_of_the_group_do_not_count():
    """One of two images shows an unseen class: a quarter of the samples hold it not at all."""
    images = [photo(["cat"], name="a"), photo(["person"], name="b")]

    def system(found):
        return match(
            images,
            [([square(0)], [0.5], [2])] * found + [([], [], [])] * (2 - found),
            CLASSES,
            SEEN,
        )

    result = compare(system(1), system(0), samples=200)["Recall@100 IoU 0.5"]["unseen"]
    assert result == {"difference": 100, "interval": [100, 100], "above": 1}


def test_a_threshold_that_was_not_matched_is_named():
    matches = match([photo(["cat"])], [([], [], [])], CLASSES, SEEN)
    with pytest.raises(ConfigError, match=r"matched at IoU 0.4, 0.5, 0.6, not 0.55"):
        measure(matches, threshold=0.55)
