"""Test, validation and training photographs are drawn by a hash: pinned, so that they stay."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.dataset import Dataset, image_record
from zsd_core.learning.data.subsets import draw, select


def dataset(count):
    return Dataset(
        images=tuple(
            image_record(
                where="test",
                path=Path(f"{key}.jpg"),
                id=key,
                width=9,
                height=9,
                boxes=[],
                labels=[],
            )
            for key in range(count)
        ),
        categories=("cat",),
    )


def test_the_photographs_of_a_set_are_pinned():
    """A change of the rule would let test photographs train; this number must never change."""
    drawn = draw(range(1000))
    sizes = {name: list(drawn.values()).count(name) for name in ("test", "validation", "train")}
    assert sizes == {"test": 300, "validation": 200, "train": 500}
    for name, digest in (("test", "a4c53b0ba1abcb4b"), ("validation", "5b973ea5af930837")):
        ids = sorted(key for key, subset in drawn.items() if subset == name)
        assert hashlib.sha256(repr(ids).encode()).hexdigest()[:16] == digest, name


def test_the_order_in_the_file_and_the_type_of_an_id_do_not_matter():
    drawn = draw(range(700))
    assert draw(range(699, -1, -1)) == drawn
    assert draw([str(key) for key in range(700)]) == {str(k): v for k, v in drawn.items()}


def test_the_subsets_share_no_photograph_and_leave_none_out():
    whole = dataset(520)
    parts = {name: select(whole, name) for name in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 20,
        "validation": 200,
        "test": 300,
    }
    ids = [image.id for part in parts.values() for image in part.images]
    assert sorted(ids) == list(range(520))
    assert [image.id for image in parts["test"].images] == sorted(
        image.id for image in parts["test"].images
    )  # in the order of the data set
    assert parts["test"].counts == {"images of the subset test": 300}
    assert parts["test"].categories == ("cat",)


def test_errors_name_the_fix():
    with pytest.raises(ConfigError, match="must be 'train', 'validation' or 'test'"):
        select(dataset(600), "valid")
    with pytest.raises(DataError, match=r"500 photographs are not enough.*Leave the subset out"):
        draw(range(500))
    with pytest.raises(DataError, match="stands there twice"):
        draw([*range(600), "7"])
    with pytest.raises(DataError, match=r"image id '\\ud800' holds half of a character"):
        draw([*range(600), "\ud800"])
