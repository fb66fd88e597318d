from __future__ import annotations

import time

import numpy as np
import pytest

from zsd_core.errors import DataError
from zsd_core.learning.data.voc import read_voc

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
</object>"""


def xml(*objects, size="<size><width>50</width><height>40</height></size>"):
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def thing(name="dog", box=(1, 1, 50, 40), difficult=0):
    return OBJECT.format(name=name, box=box, difficult=difficult)


@pytest.fixture
def devkit(tmp_path):
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        (tmp_path / folder).mkdir()

    def write(text, ids="000005\n"):
        (tmp_path / "JPEGImages" / "000005.jpg").touch()
        (tmp_path / "Annotations" / "000005.xml").write_text(text)
        (tmp_path / "ImageSets" / "train.txt").write_text(ids)
        return tmp_path / "ImageSets" / "train.txt", tmp_path / "JPEGImages"

    return write


def test_one_based_inclusive_corners_become_edges(devkit):
    dataset = read_voc(*devkit(xml(thing(), thing("tvmonitor", (11, 6, 11, 20), difficult=1))))
    (image,) = dataset.images
    np.testing.assert_array_equal(image.boxes, [[0, 0, 50, 40], [10, 5, 11, 20]])
    assert image.labels == ("dog", "tvmonitor")
    assert image.difficult.tolist() == image.ignore.tolist() == [False, True]
    assert (image.id, image.width, image.height) == ("000005", 50, 40)
    assert dataset.counts == {"images read": 1, "boxes read": 2}


def test_an_image_set_of_an_editor_with_marks_is_read(devkit):
    assert read_voc(*devkit(xml(), "\ufeff000005\r\n")).images[0].id == "000005"


def test_second_column_of_an_image_set_is_not_an_id(devkit):
    assert len(read_voc(*devkit(xml(), "000005  1\n\n"))) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (xml(thing(box=(9, 1, 3, 4))), "must be finite, with x1 <= x2"),
        (xml(thing(box=("a", 1, 3, 4))), "<bndbox/xmin> is 'a', must be a number"),
        (xml(thing(box=("1_0", 1, 30, 4))), "<bndbox/xmin> is '1_0', must be a number"),
        (xml(thing(difficult="yes")), "<difficult> is 'yes', must be 0 or 1"),
        (xml().replace("<width>50", "<width>50.5"), "size 50.5 x 40.0; both must be positive"),
        (xml(thing(name="")), "<object> has no <name>"),
        (xml(thing(name="dgo")), "unknown class 'dgo'; did you mean 'dog'"),
        (xml(size=""), "<annotation> has no <size/width>"),
        (xml().replace("<width>50", "<width>nan"), "size nan x 40.0; both must be positive"),
        ("<annotation>", "not valid XML"),
    ],
)
def test_malformed_annotation_is_a_sentence(devkit, text, says):
    with pytest.raises(DataError, match=says):
        read_voc(*devkit(text), categories=["dog", "tvmonitor"])


def test_missing_files_are_named(devkit, tmp_path):
    image_set, images = devkit(xml())
    with pytest.raises(DataError, match="cannot read image set"):
        read_voc(tmp_path / "none.txt", images)
    for name in ("a\0b", "\ud800", "x" * 300):
        with pytest.raises(DataError, match="cannot read image set"):
            read_voc(name, images)
        image_set.write_text(name, errors="replace")
        with pytest.raises(DataError, match=r"cannot read annotation|train\.txt is no text"):
            read_voc(image_set, images)
    image_set.write_bytes(b"\xff\xd8")
    with pytest.raises(DataError, match=r"image set \S+train\.txt is no text"):
        read_voc(image_set, images)
    image_set.write_text("000005\n000006\n")
    with pytest.raises(DataError, match=r"cannot read annotation .*000006.xml"):
        read_voc(image_set, images)
    image_set.write_text("000005\n000005\n")
    with pytest.raises(DataError, match="image '000005' stands there twice"):
        read_voc(image_set, images)
    image_set.write_text("000005\n")
    (images / "000005.jpg").unlink()
    with pytest.raises(DataError, match="1 of 1 image files are missing"):
        read_voc(image_set, images)


def test_a_photograph_without_a_mark_is_not_difficult(devkit):
    for mark in ("", "<difficult></difficult>"):
        text = xml(thing()).replace("<difficult>0</difficult>", mark)
        assert not read_voc(*devkit(text)).images[0].difficult.any()


@pytest.mark.parametrize(
    ("mark", "difficult"),
    [("False", False), ("0.0", False), ("true", True), ("1.0", True), (" 1 ", True)],
)
def test_difficult_may_be_a_boolean_or_a_float(devkit, mark, difficult):
    (image,) = read_voc(*devkit(xml(thing(difficult=mark)))).images
    assert image.difficult.tolist() == [difficult]


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG"])
def test_photographs_may_have_another_suffix(devkit, suffix):
    image_set, folder = devkit(xml())
    (folder / "000005.jpg").rename(folder / f"000005{suffix}")
    assert read_voc(image_set, folder).images[0].path == folder / f"000005{suffix}"
    (folder / "000005.jpg").touch()  # VOC's own comes first
    assert read_voc(image_set, folder).images[0].path == folder / "000005.jpg"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("a.jpg", "a"),
        ("a.jpg", "a.jpg"),
        ("2008.5", "2008.5"),
        ("a 1", "a 1"),
        ("a  -1", "a"),
        ('"my photo"', "my photo"),
        ('"my photo" 0', "my photo"),
        ("my photo.png", "my photo"),
        ("sub/a", "sub/a"),
        ("000012     2", "000012"),  # ImageSets/Layout
        ("000012  1 -1", "000012"),  # ImageSets/Action
        ("000012\tfoo", "000012"),
        ("a.jpg a.xml", "a"),
        ("JPEGImages/a.jpg", "a"),
        ("./VOC/JPEGImages/a.png ./VOC/Annotations/a.xml", "a"),
        ("JPEGImages/my photo.png", "my photo"),
        ("JPEGImages/a", "JPEGImages/a"),
        ("# ours\na", "a"),
        ("# ours", "# ours"),
    ],
)
def test_a_line_of_an_image_set_is_an_id_or_the_name_of_a_file(tmp_path, line, name):
    for folder, file in (("JPEGImages", f"{name}.jpg"), ("Annotations", f"{name}.xml")):
        path = tmp_path / folder / file
        path.parent.mkdir(parents=True)
        path.write_text(xml())
    (tmp_path / "train.txt").write_text(f"{line}\n")
    (image,) = read_voc(tmp_path / "train.txt", tmp_path / "JPEGImages").images
    assert (image.id, image.path) == (name, tmp_path / "JPEGImages" / f"{name}.jpg")


@pytest.mark.parametrize("line", ["sub/000005", "xJPEGImages/000005", "#000005"])
def test_an_id_without_an_annotation_is_named(devkit, line):
    with pytest.raises(DataError, match=f"cannot read annotation .*{line}"):
        read_voc(*devkit(xml(), f"{line}\n"))


def test_what_is_no_suffix_of_a_photograph_stays_in_the_id(devkit):
    with pytest.raises(DataError, match=r"cannot read annotation .*000005\.v2\.xml"):
        read_voc(*devkit(xml(), "000005.v2\n"))


def test_annotations_may_lie_among_the_photographs(devkit, tmp_path):
    image_set, folder = devkit(xml(thing()))
    (tmp_path / "Annotations" / "000005.xml").rename(folder / "000005.xml")
    with pytest.raises(DataError, match=r"cannot read annotation .*Annotations/000005\.xml"):
        read_voc(image_set, folder)
    (tmp_path / "Annotations").rmdir()
    assert read_voc(image_set, folder).images[0].labels == ("dog",)


def test_a_long_image_set_with_a_repeated_photograph_takes_linear_time(tmp_path):
    """20,000 lines took eight seconds: every line was counted in all of them."""
    path = tmp_path / "train.txt"
    path.write_text("\n".join(f"i{i}" for i in (*range(50_000), 49_999)))
    start = time.process_time()
    with pytest.raises(DataError, match="image 'i49999' stands there twice"):
        read_voc(path, tmp_path)
    assert time.process_time() - start < 5


def test_boxes_of_many_classes_take_linear_time(devkit):
    """Each of 5,000 boxes was looked for in a list of 20,000 classes."""
    names = [f"n{i}" for i in range(20_000)]
    files = devkit(xml(*(thing(name) for name in names[-5000:])))
    start = time.process_time()
    assert len(read_voc(*files, categories=names).images[0].labels) == 5000
    assert time.process_time() - start < 1.5
