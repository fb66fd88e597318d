from __future__ import annotations

from pathlib import Path

import pytest

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.dataset import Dataset, image_record
from zsd_core.learning.data.protocol import check_leakage, test_set, training_set
from zsd_core.learning.data.splits import Split, load_split

SPLIT = Split(name="small", seen=("person", "motorcycle"), unseen=("cat", "fire truck"))


def photo(name, *labels, scores=None, crowd=None, difficult=None):
    return image_record(
        where="test",
        path=Path(f"{name}.jpg"),
        id=name,
        width=10,
        height=10,
        boxes=[(0, 0, 5, 5)] * len(labels),
        labels=labels,
        scores=scores,
        crowd=crowd,
        difficult=difficult,
    )


def names(dataset):
    return {image.id: image.labels for image in dataset.images}


def test_training_images_hold_seen_classes_only():
    data = Dataset(
        images=(
            photo("seen", "person"),
            photo("voc spelling", "motorbike"),
            photo("with unseen", "person", "cat"),
            photo("with unlisted", "person", "toothbrush"),
            photo("crowd of unseen", "person", "Fire_Truck", crowd=[False, True]),
            photo("difficult unseen", "person", "cat", difficult=[False, True]),
            photo("empty"),
            photo("only a crowd", "person", crowd=[True]),
        ),
        counts={"images read": 8},
    )
    training = training_set(data, SPLIT)
    assert names(training) == {"seen": ("person",), "voc spelling": ("motorcycle",)}
    assert training.counts == {
        "images read": 8,
        "images dropped, unseen class": 3,
        "images dropped, unlisted class": 1,
        "images dropped, no object to learn": 2,
        "boxes of other classes removed": 0,
        "boxes ignored": 0,
        "images": 2,
        "boxes": 2,
    }
    assert training.categories == SPLIT.seen
    check_leakage(training, SPLIT, test_set(data, SPLIT, "gzsd"))


def test_machine_boxes_drop_images_by_score_and_never_come_out():
    data = Dataset(
        images=(
            photo("doubtful cat", "person", "cat", "fork", scores=[0.9, 0.14, 0.1]),
            photo("cat", "person", "cat", scores=[0.9, 0.15]),
            photo("weak", "person", scores=[0.34]),
            photo("mixed", "person", "person", "motorcycle", scores=[0.2, 0.35, 0.3]),
        )
    )
    training = training_set(data, SPLIT, drop_score=0.15, keep_score=0.35)
    assert names(training) == {
        "doubtful cat": ("person",),
        "mixed": ("person", "person", "motorcycle"),
    }
    assert [i.ignore.tolist() for i in training.images] == [[False], [True, False, True]]
    assert training.counts["boxes of other classes removed"] == 2
    assert training.counts["boxes ignored"] == 2
    with pytest.raises(DataError, match="leaves no image of 4"):
        training_set(data, SPLIT, keep_score=1.0)
    with pytest.raises(ConfigError, match="drop_score is 15"):
        training_set(data, SPLIT, drop_score=15)


def test_leak_is_loud():
    leaky = Dataset(images=(photo("ok", "person"), photo("bad", "cat", "person", "fork")))
    with pytest.raises(
        DataError,
        match=r"1 boxes of unlisted classes and 1 boxes of unseen classes, first 'cat' in bad.jpg",
    ):
        check_leakage(leaky, SPLIT)
    clean = Dataset(images=(photo("ok", "person"),))
    check_leakage(clean, SPLIT)
    with pytest.raises(DataError, match="1 images are in the training and the test data"):
        check_leakage(clean, SPLIT, held_out=leaky)


TEST = Dataset(
    images=(
        photo("unseen only", "cat"),
        photo("both", "cat", "motorbike", "fork"),
        photo("seen", "person", "fork"),
        photo("crowd of unseen", "person", "cat", crowd=[False, True]),
        photo("neither", "fork"),
    )
)


def test_zsd_truth_is_the_unseen_boxes_of_images_with_an_unseen_object():
    zsd = test_set(TEST, SPLIT, "zsd")
    assert names(zsd) == {"unseen only": ("cat",), "both": ("cat",)}
    assert zsd.categories == SPLIT.unseen
    assert (zsd.counts["images"], zsd.counts["boxes"]) == (2, 2)


def test_voc_reads_zsd_images_as_those_without_a_seen_object():
    voc = Split(name="v", seen=SPLIT.seen, unseen=SPLIT.unseen, zsd_images="only_unseen")
    assert names(test_set(TEST, voc, "zsd")) == {"unseen only": ("cat",)}
    assert names(test_set(TEST, voc, "gzsd")) == names(test_set(TEST, SPLIT, "gzsd"))


def test_gzsd_truth_is_every_listed_box_of_the_same_images():
    gzsd = test_set(TEST, SPLIT, "gzsd")
    assert names(gzsd) == {"unseen only": ("cat",), "both": ("cat", "motorcycle")}


def test_seen_images_have_no_unseen_object_not_even_a_crowd():
    assert names(test_set(TEST, SPLIT, "seen")) == {"seen": ("person",)}


def test_ignored_boxes_stay_ignored():
    data = Dataset(images=(photo("a", "cat", "cat", crowd=[True, False]),))
    assert test_set(data, SPLIT, "zsd").images[0].ignore.tolist() == [True, False]


def test_class_that_the_data_does_not_declare_is_an_error():
    data = Dataset(images=TEST.images, categories=("person", "motorbike", "cats", "fire truck"))
    with pytest.raises(DataError, match=r"names class 'cat', which .* did you mean 'cats'"):
        test_set(data, SPLIT, "zsd")


def test_no_image_left_and_unknown_task():
    with pytest.raises(DataError, match="no image of 1 suits 'zsd' of small"):
        test_set(Dataset(images=(photo("seen", "person"),)), SPLIT, "zsd")
    with pytest.raises(ConfigError, match="'zsd', 'gzsd' or 'seen'"):
        test_set(TEST, SPLIT, "unseen")


def test_coco_names_serve_the_voc_split():
    data = Dataset(images=(photo("a", "airplane", "tv", "person"), photo("b", "couch")))
    split = load_split("voc_16_4")
    assert names(training_set(data, split)) == {"a": ("aeroplane", "tvmonitor", "person")}
    assert names(test_set(data, split, "zsd")) == {"b": ("sofa",)}
