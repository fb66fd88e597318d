"""Classes from examples, beside names, phrases and vectors: between two frames, saved, refused."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import tiny_given
import tiny_text

from runtime import Detector, Example
from runtime.examples import with_examples
from zsd_core.errors import BundleError, ClassError, ConfigError, ImageError

# Without a contest of roles, which test_given.py tests: classes do not change each other's scores.
ALONE = dataclasses.replace(
    tiny_given.MODEL, scoring=dataclasses.replace(tiny_given.SCORING, contest=0.0, rivalry=0.0)
)


@pytest.fixture(scope="module")
def given_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return tiny_text.with_text(tiny_given.given_bundle(folder / "bundle", ALONE))


@pytest.fixture
def shown(given_path):
    with Detector(
        given_path, classes=["person"], backend="onnxruntime", threads=1, score_threshold=0.0
    ) as detector:
        yield detector


def same(one, other):
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.class_names == other.class_names


VECTOR = tiny.unit_vectors(1, 51)[0]
KINDS = {
    "a name": lambda photo: ["zebra"],
    "a phrase": lambda photo: ["dent red pallet"],
    "a vector": lambda photo: {"mine": VECTOR},
    "an example": lambda photo: {"mine": Example(photo, (20, 30, 100, 90))},
}


@pytest.mark.parametrize("kind", KINDS)
def test_adding_it_changes_the_next_frame(shown, photo, kind):
    before = shown(photo)
    classes = KINDS[kind](photo)
    (name,) = classes
    shown.add_classes(classes)
    after = shown(photo)
    assert set(before.class_names) == {"person"}
    assert set(after.class_names) == {"person", name}
    assert after.class_set_version == before.class_set_version + 1
    same(after[np.array([n == "person" for n in after.class_names])], before)
    shown.remove_classes([name])
    same(shown(photo), before)


def by_hand(detector, image, box):
    """The embedding of a box: stretched, cut with RoIAlign, through the head."""
    from zsd_core import kernels
    from zsd_core.kernels import reference

    height, width = image.shape[:2]
    square = kernels.preprocess(
        image, size=(64, 64), padded=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)
    )
    scale = np.array([64 / width, 64 / height] * 2)
    patch = reference.roi_align(
        square[None].astype(np.float64),
        np.array([box]) * scale,
        np.zeros(1, np.int32),
        output_size=(8, 8),
        spatial_scale=1.0,
        sampling_ratio=0,
    )
    weights = tiny_given.look_weights()
    found = patch.reshape(-1) @ weights["features"].astype(np.float64)
    return found / np.linalg.norm(found)


def test_a_class_is_the_mean_embedding_of_its_examples(shown, photo):
    boxes = [(20, 30, 100, 90), (0, 0, 60, 60), (90.5, 20.25, 170, 118)]
    shown.add_classes({"mine": [Example(photo, box) for box in boxes]})
    expected = np.mean([by_hand(shown, photo, box) for box in boxes], axis=0)
    np.testing.assert_allclose(shown.class_vectors()["mine"], expected, atol=1e-5)


def test_an_image_alone_and_an_example_without_a_box_are_the_whole_image(shown, photo, tmp_path):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "crop.png")
    whole = (0, 0, photo.shape[1], photo.shape[0])
    shown.add_classes(
        {
            "array": photo,
            "list": [photo],
            "example": Example(photo),
            "box": Example(photo, whole),
            "path": tmp_path / "crop.png",
            "picture": Image.fromarray(photo),
        }
    )
    vectors = shown.class_vectors()
    for name in ("list", "example", "box", "path", "picture"):
        np.testing.assert_array_equal(vectors[name], vectors["array"], err_msg=name)


def test_a_list_may_begin_with_any_kind_of_example(shown, photo, tmp_path):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "crop.png")
    kinds = {
        "path": tmp_path / "crop.png",
        "text": str(tmp_path / "crop.png"),
        "array": photo,
        "example": Example(str(tmp_path / "crop.png")),
        "picture": Image.fromarray(photo),
    }
    lists = {
        " ".join(order): [kinds[kind] for kind in order]
        for order in [*itertools.permutations(kinds, 2), *((kind,) for kind in kinds)]
    }
    shown.add_classes({"alone": kinds["text"], "tuple": (kinds["text"],) * 2} | lists)
    vectors = shown.class_vectors()
    for name in ("tuple", *lists):
        np.testing.assert_allclose(vectors[name], vectors["alone"], atol=1e-6, err_msg=name)


def test_the_channels_of_an_example_lie_as_it_says(shown, photo, tmp_path):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "crop.png")
    box, swapped = (20, 30, 100, 90), photo[:, :, ::-1]
    shown.add_classes(
        {
            "rgb": Example(photo, box),
            "bgr": Example(swapped, box, color="bgr"),
            "path": Example(tmp_path / "crop.png", box, color="bgr"),
            "picture": Example(Image.fromarray(photo), box, color="bgr"),
            "pickled": pickle.loads(pickle.dumps(Example(swapped, box, color="bgr"))),
            "wrong": Example(swapped, box),
        }
    )
    vectors = shown.class_vectors()
    for name in ("bgr", "path", "picture", "pickled"):
        np.testing.assert_array_equal(vectors[name], vectors["rgb"], err_msg=name)
    assert abs(vectors["wrong"] - vectors["rgb"]).max() > 0.01
    with pytest.raises(ConfigError, match="Example: color is 'RGB', must be 'rgb' or 'bgr'"):
        Example(photo, color="RGB")


def test_a_box_that_reaches_out_of_the_image_is_cut_at_its_edge(shown, photo):
    height, width = photo.shape[:2]
    shown.add_classes(
        {
            "out": Example(photo, (-30, 40, width + 9, height + 1)),
            "in": Example(photo, (0, 40, width, height)),
        }
    )
    vectors = shown.class_vectors()
    np.testing.assert_array_equal(vectors["out"], vectors["in"])


@pytest.mark.parametrize(
    "box",
    [
        (200, 10, 260, 50),  # beside the image
        (50, 50, 20, 90),  # corners the other way
        (10, 10, 10, 40),  # no width
        (1, 2, 3),
        (np.nan, 0, 10, 10),
        "1 2 3 4",
        ("1", "2", "30", "40"),
        [[1, 2], [3]],
        {"x1": 1},
        (1j, 2, 30, 40),
        (10**400, 2, 30, 40),
        object(),
        np.ones((2, 4)),
    ],
)
def test_a_box_outside_the_image_is_refused_and_nothing_changes(shown, photo, box):
    version = shown.class_set_version
    with pytest.raises(ClassError, match=r"must be x1 y1 x2 y2 .* which is 180 x 120"):
        shown.add_classes({"zebra": None, "mine": Example(photo, box)})
    assert shown.class_set_version == version
    assert shown.classes == ("person",)


@pytest.mark.parametrize(
    ("box", "cure"),
    [
        ((0.1, 0.1, 0.8, 0.9), r"0\.7 x 0\.8 pixels .* multiplied by its width and height\.$"),
        ((0, 0, 1, 1), r"1 x 1 pixels are too few"),
        ((178.5, 20, 240, 90), r"1\.5 x 70 pixels are too few"),
        ((100, 60, 150, 110), None),
        ((120, 80, 300, 200), r"most of it lies outside.* \(x, y, x \+ width, y \+ height\)\.$"),
        ((-1e300, -1e300, 1e300, 1e300), "most of it lies outside"),
        ((0, 0, np.inf, np.inf), "most of it lies outside"),
        ((-70, -2, 181.5, 121), None),  # drawn beyond the border
    ],
)
def test_a_box_in_other_units_is_refused(shown, photo, box, cure):
    if cure is None:
        shown.add_classes({"mine": Example(photo, box)})
        assert shown.classes == ("person", "mine")
        return
    with pytest.raises(ClassError, match=rf"must be x1 y1 x2 y2 .* which is 180 x 120; {cure}"):
        shown.add_classes({"mine": Example(photo, box)})
    assert shown.classes == ("person",)


def test_a_box_beside_its_image_is_told_to_be_an_example(shown, photo):
    for value in ((photo, (1, 2, 100, 200)), [(photo, (1, 2, 100, 200))], [photo, [1, 2, 3, 4]]):
        with pytest.raises(ClassError, match=r"example [01] of class 'mine' .* Example\(image, \("):
            shown.add_classes({"mine": value})


class Elsewhere:
    """A vector that numpy cannot read, such as a tensor of a GPU."""

    shape = (16,)

    def __array__(self, *_, **__):
        raise RuntimeError("copy it to the host first")


@pytest.mark.parametrize("vector", [[0.5, (1, 2)], [1, "a"], [1j], Elsewhere()])
def test_what_is_no_vector_is_refused(shown, vector):
    with pytest.raises(ClassError, match=r"the vector of class 'mine' has shape .* numbers from"):
        shown.add_classes({"mine": vector})


def test_an_empty_list_and_what_is_no_image_are_refused(shown, photo):
    with pytest.raises(ClassError, match="'mine' has an empty list of examples"):
        shown.add_classes({"mine": []})
    with pytest.raises(ImageError, match="example 1 of class 'mine'"):
        shown.add_classes({"mine": [photo, photo[:, :, :1].astype(np.float32)]})
    with pytest.raises(ClassError, match="'mine' has shape"):
        shown.add_classes({"mine": np.ones(7)})
    assert shown.classes == ("person",)


def test_names_phrases_vectors_and_examples_of_one_call_keep_their_order(shown, photo):
    example = Example(photo, (20, 30, 100, 90))
    mixed = {
        "zebra": None,
        "one": example,
        "truck": None,
        "dent red pallet": None,
        "two": VECTOR,
        "three": [photo, example],
        "teapot": None,
    }
    shown.add_classes(mixed)
    assert shown.classes == ("person", *mixed)
    assert shown.roles == tuple("seen" if n in tiny.SEEN else "unseen" for n in shown.classes)
    together = shown(photo)
    for name, value in mixed.items():  # every one scores as it does alone
        shown.set_classes({name: value})
        alone = shown(photo)
        own = together[np.array([n == name for n in together.class_names])]
        np.testing.assert_array_equal(own.scores, alone.scores, err_msg=name)
        np.testing.assert_array_equal(own.boxes, alone.boxes, err_msg=name)


def test_saved_vectors_give_identical_detections(shown, photo, given_path, tmp_path):
    shown.add_classes(
        {"one": Example(photo, (20, 30, 100, 90)), "dent red pallet": None, "two": VECTOR}
    )
    shown.add_classes(["zebra", "truck"])
    vectors = shown.class_vectors()
    assert list(vectors) == list(shown.classes)
    assert vectors["person"] is vectors["truck"] is None
    assert vectors["one"].shape == (tiny_given.VISUAL,)
    assert vectors["zebra"].shape == vectors["two"].shape == (tiny.VECTOR,)
    np.savez(tmp_path / "classes.npz", **{k: v for k, v in vectors.items() if v is not None})
    saved = np.load(tmp_path / "classes.npz")
    classes = {name: saved[name] if name in saved else None for name in vectors}
    with Detector(
        given_path, classes=classes, backend="onnxruntime", threads=1, score_threshold=0.0
    ) as other:
        same(shown(photo), other(photo))
        again = other.class_vectors()
    assert list(again) == list(vectors)
    for name, vector in vectors.items():
        np.testing.assert_array_equal(vector, again[name])


def test_a_saved_vector_is_a_copy(shown):
    shown.add_classes({"mine": VECTOR})
    shown.class_vectors()["mine"][:] = 0
    assert shown.class_vectors()["mine"].any()


def test_a_bundle_without_a_second_look_refuses_examples(detector, photo):
    before = detector.classes
    with pytest.raises(ConfigError, match=r"'mine' is given by examples, .* it has no second look"):
        detector.add_classes({"mine": [photo]})
    assert detector.classes == before


def test_what_is_no_mapping_is_left_as_it_is(shown):
    names = ["zebra", "teapot"]
    assert with_examples(names, None, tiny_given.MODEL, None) is names
    assert with_examples(None, None, tiny_given.MODEL, None) is None


def test_examples_may_be_added_while_frames_run(shown, photo):
    """Every frame is that of one set of classes, before or after a change."""
    expected, version = {}, shown.class_set_version
    additions = [{f"class {i}": Example(photo, (i, i, 100 + i, 90 + i))} for i in range(8)]
    with Detector(
        shown.bundle, classes=["person"], backend="onnxruntime", threads=1, score_threshold=0.0
    ) as other:
        expected[version] = other(photo)
        for addition in additions:
            other.add_classes(addition)
            expected[other.class_set_version] = other(photo)
    found, errors, finished = [], [], threading.Event()

    def frames():
        try:
            while not finished.is_set():
                found.append(shown(photo))
            found.append(shown(photo))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=frames) for _ in range(2)]
    for thread in threads:
        thread.start()
    for addition in additions:
        shown.add_classes(addition)
    finished.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert found[-1].class_set_version == version + len(additions)
    for one in found:
        same(one, expected[one.class_set_version])


def test_an_embedding_that_is_no_number_is_no_class():
    class Broken:
        def head(self, patches):
            return np.full((len(patches), 8), np.nan, np.float32), np.zeros((1, 4), np.float32)

    scorer = SimpleNamespace(example_width=8)
    picture = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(BundleError, match="the head gives numbers that are not finite"):
        with_examples({"mine": [picture]}, Broken(), tiny_given.MODEL, scorer)
