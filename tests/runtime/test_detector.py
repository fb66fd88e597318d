"""The detector: classes that change, images of every kind, threads, and errors that help."""

import re
import threading

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runtime.classes
from runtime import Detections, Detector
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from runtime.bundle import open_bundle
from zsd_core.errors import ClassError, ConfigError, DataError, DeviceError, ImageError
from zsd_core.scoring import ContrastScorer


def same(one, two):
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    assert one.class_names == two.class_names
    assert one.roles == two.roles
    return True


def opened(path, **arguments):
    return Detector(
        path, **{"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0} | arguments
    )


# Classes ----------------------------------------------------------------------------------------


def test_no_classes_means_the_bundles_table(detector):
    assert detector.classes == tiny.SEEN + tiny.UNSEEN
    assert detector.roles == ("seen",) * 3 + ("unseen",) * 2
    assert detector.mode == "gzsd"


def test_names_of_the_table_keep_their_role_and_others_are_unseen(detector):
    detector.set_classes(["zebra", "TRUCK", "dining_table", "cat"])
    assert detector.classes == ("zebra", "TRUCK", "dining_table", "cat")
    assert detector.roles == ("unseen", "seen", "seen", "unseen")


def test_results_refer_to_the_callers_list(detector, photo):
    detector.set_classes(["zebra", "truck", "cat"])
    found = detector(photo)
    assert found
    assert set(found.class_names) <= {"zebra", "truck", "cat"}
    for one in found:
        assert detector.classes[one.class_id] == one.class_name
        assert detector.roles[one.class_id] == one.role
    assert found.class_set_version == detector.class_set_version


@pytest.mark.parametrize(
    ("mode", "roles"), [("zsd", {"unseen"}), ("seen", {"seen"}), ("gzsd", {"seen", "unseen"})]
)
def test_mode_says_what_is_reported(detector, photo, mode, roles):
    detector.set_classes(None, mode=mode)
    detector.set_thresholds(score_threshold=0.0, max_detections=1000)
    assert set(detector(photo).roles) == roles


def test_what_is_not_asked_for_still_competes(detector, photo):
    """The softmax runs over all seen classes, so a lone class does not win every region."""
    detector.set_thresholds(score_threshold=0.0, max_detections=1000)
    detector.set_classes(["truck", "cat", "cup"])
    some = detector(photo)
    detector.set_classes(None)
    everything = detector(photo)
    for name in ("truck", "cat", "cup"):
        mine = np.array(some.class_names) == name
        theirs = np.array(everything.class_names) == name
        np.testing.assert_array_equal(some[mine].scores, everything[theirs].scores)


def test_a_byte_order_mark_is_no_part_of_the_first_name(detector):
    """Python leaves it there when a Windows file is read as UTF-8."""
    detector.set_classes("\ufeffcat\r\ntruck\r\n".split("\n")[:2])
    assert detector.classes == ("cat", "truck")
    roles = detector.roles
    detector.set_classes(["cat", "truck"])
    assert detector.roles == roles
    detector.remove_classes(["\ufeffcat"])
    assert detector.classes == ("truck",)


def test_adding_changes_the_next_image_and_equals_opening(detector, bundle_path, photo):
    detector.set_classes(["cat", "truck"])
    before = detector(photo)
    detector.add_classes(["zebra", "person"])
    after = detector(photo)
    with opened(bundle_path, classes=["cat", "truck", "zebra", "person"]) as fresh:
        assert same(after, fresh(photo))
        assert fresh.classes == detector.classes
    assert "zebra" in after.class_names
    assert "zebra" not in before.class_names
    assert after.class_set_version > before.class_set_version


WORDS = sorted(set(tiny.WORDS) - {"cat", "truck"} | set(tiny.SEEN + tiny.UNSEEN))


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_way_to_a_class_list_gives_the_same_result(bundle_path, detector, photo, data):
    detector.set_classes(["cup", "truck"])
    expected = ["cup", "truck"]
    for _ in range(data.draw(st.integers(0, 5))):
        free = [word for word in WORDS if word not in expected]
        if len(expected) > 2 and data.draw(st.booleans()):
            gone = data.draw(st.lists(st.sampled_from(expected[2:]), min_size=1, unique=True))
            detector.remove_classes(gone)
            expected = [name for name in expected if name not in gone]
        elif free:
            new = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True))
            detector.add_classes(new)
            expected += new
    grown = detector(photo)
    assert detector.classes == tuple(expected)
    detector.set_classes(expected)
    built = detector(photo)
    assert same(grown, built)


def counted(monkeypatch):
    """Number of rows of every call of p_s from now on."""
    rows, project = [], ContrastScorer.prototypes_of
    monkeypatch.setattr(
        ContrastScorer, "prototypes_of", lambda s, v: rows.append(len(v)) or project(s, v)
    )
    return rows


def test_adding_computes_the_new_class_only(detector, monkeypatch):
    def forbidden(*_):
        raise AssertionError("everything was computed again")

    monkeypatch.setattr(type(detector._scorer), "class_set", forbidden)
    rows = counted(monkeypatch)
    detector.add_classes(["zebra"])
    assert rows == [1]


def sets(detector):
    active = detector._state.active
    return active.class_set.prototypes, active.class_set.seen_similarity, active.ids


def test_a_prepared_vocabulary_gives_the_same_classes_without_a_layer(
    bundle_path, photo, monkeypatch
):
    lists = [[*WORDS], ["cat", WORDS[-1], "cup"], None, [WORDS[1]]]
    with opened(bundle_path) as plain, opened(bundle_path) as ready:
        ready.prepare_vocabulary()
        rows = counted(monkeypatch)
        for classes in lists:
            ready.set_classes(classes)
            assert rows == []
            plain.set_classes(classes)
            for a, b in zip(sets(ready), sets(plain), strict=True):
                np.testing.assert_array_equal(a, b)
            assert same(ready(photo), plain(photo))
            rows.clear()
        ready.add_classes([WORDS[0].upper()])
        assert rows == []
        ready.prepare_vocabulary()
        assert rows == []  # once is enough


def test_a_prepared_vocabulary_leaves_vectors_and_errors_as_they_are(bundle_path):
    vector = tiny.unit_vectors(1, 77)[0]
    with opened(bundle_path) as plain, opened(bundle_path) as ready:
        ready.prepare_vocabulary()
        for detector in (plain, ready):
            detector.set_classes({WORDS[0]: vector, WORDS[1]: None})  # its own vector counts
            with pytest.raises(ClassError, match="is not in the vocabulary"):
                detector.add_classes([WORDS[2] + "x"])
        for a, b in zip(sets(ready), sets(plain), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_word_without_direction_is_an_error_only_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.classes.BLOCK", 2)
    vectors = np.concatenate([tiny.unit_vectors(5, 9), np.zeros((1, tiny.VECTOR), np.float32)])
    words = tuple(f"word {i}" for i in range(len(vectors)))
    with opened(tiny.tiny_bundle(tmp_path / "b", vocabulary=(words, vectors))) as detector:
        detector.prepare_vocabulary()
        rows = counted(monkeypatch)
        detector.set_classes(words[:4])
        assert rows == []
        detector.set_classes(words[:5])  # the last of them shares a block with the bad one
        assert rows == [5]
        with pytest.raises(DataError, match="length 0"):
            detector.set_classes(words)


def test_a_class_can_be_a_vector(detector, photo):
    vector = tiny.unit_vectors(1, 77)[0]
    detector.set_classes({"cat": None, "gadget": 5 * vector, "cup": vector})
    assert detector.roles == ("unseen",) * 3
    assert "gadget" in detector(photo).class_names
    detector.add_classes({"widget": vector.tolist()})
    assert detector.classes[-1] == "widget"


def test_a_table_name_means_the_same_vector_as_the_vocabulary_or_the_tables(detector):
    """cat is in the table and in the vocabulary; the table's vector counts."""
    bundle = detector.bundle
    detector.set_classes(["cat"])
    by_name = detector._state.active.class_set.prototypes[-1].copy()
    detector.set_classes({"cat": bundle.class_vectors[3]})
    np.testing.assert_array_equal(by_name, detector._state.active.class_set.prototypes[-1])


def test_removing_moves_ids_and_keeps_names(detector, photo):
    detector.remove_classes(["Dining Table", "cat"])
    assert detector.classes == ("person", "truck", "cup")
    assert set(detector(photo).class_names) <= {"person", "truck", "cup"}
    detector.add_classes(["cat", "dining table"])
    assert detector.roles == ("seen", "seen", "unseen", "unseen", "seen")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.set_classes([]), "no classes are given"),
        (lambda d: d.set_classes({}), "no classes are given"),
        (lambda d: d.add_classes([]), "no classes are given"),
        (lambda d: d.set_classes("cat, cup"), "must be a list"),
        (
            lambda d: d.set_classes({"cat", "cup"}),
            "of type set, must be a list of names, whose order",
        ),
        (lambda d: d.add_classes(5), "of type int, must be a list of names"),
        (lambda d: d.add_classes(None), "of type NoneType, must be a list of names"),
        (lambda d: d.set_classes(["cat", " "]), "not blank"),
        (lambda d: d.set_classes({"\ud800": [0.1] * 8}), r"'\\ud800' holds U\+D800"),
        (lambda d: d.add_classes({"a\0b\u202e": [0.1] * 8}), r"holds U\+0000, a control"),
        (lambda d: d.remove_classes(["\udfff"]), r"holds U\+DFFF"),
        (lambda d: d.set_classes(["cat", 3]), "must be a text"),
        (lambda d: d.set_classes(["\ufeffcat", "cat"]), "given twice"),
        (lambda d: d.set_classes(["cat", "CAT"]), "given twice"),
        (lambda d: d.set_classes(["zebr"]), "did you mean 'zebra'"),
        (lambda d: d.add_classes(["zebra", "cat"]), "'cat' is already active"),
        (lambda d: d.add_classes({"cat": tiny.unit_vectors(1)[0]}), "already active"),
        (lambda d: d.add_classes({"x": [1.0, 2.0]}), r"shape \(2,\).*must be \(8,\)"),
        (
            lambda d: d.add_classes({"x": np.array(["a"] * 8)}),
            "numbers from the bundle's encoder, random",
        ),
        (lambda d: d.add_classes({"x": np.zeros(8)}), "class 'x' has length 0"),
        (lambda d: d.set_classes({"truck": np.ones(8)}), "is a seen class"),
        (lambda d: d.remove_classes(["zebra"]), "'zebra' is not active"),
        (lambda d: d.remove_classes(["trucks"]), "did you mean 'truck'"),
        (lambda d: d.remove_classes(list(d.classes)), "needs at least one class"),
        (lambda d: d.set_classes(["truck"], mode="zsd"), "at least one unseen class"),
        (lambda d: d.set_classes(["cat"], mode="seen"), "at least one seen class"),
    ],
)
def test_a_refused_change_says_why_and_changes_nothing(detector, change, message):
    state = detector._state
    with pytest.raises(ClassError, match=message):
        change(detector)
    assert detector._state is state


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda d: d.set_classes(["catt", "zebr", "cat", "fire truk"]), "catt zebr fire_truk"),
        (lambda d: d.remove_classes(["catt", "truck", "zebr"]), "catt zebr"),
        (lambda d: d.add_classes(["cat", "zebra", "TRUCK"]), "cat TRUCK"),
        (lambda d: d.set_classes(["cat", "zebra", "_x", "Cat", "CAT", 3, ["b c"]]), "Cat CAT"),
        (lambda d: d.set_classes({"truck": np.ones(8), "person": np.ones(8)}), "truck person"),
        (
            lambda d: d.set_classes({"a": np.ones(3), "b": np.ones(8), "c": np.array(["x"] * 8)}),
            "a c",
        ),
        (lambda d: d.add_classes({"a": np.zeros(8), "b": np.ones(8), "c": [np.inf] * 8}), "a c"),
    ],
)
def test_an_error_tells_all_that_is_wrong(detector, change, wrong):
    with pytest.raises(ClassError) as raised:
        change(detector)
    for name in ("cat", "zebra", "TRUCK", "b", *wrong.split()):
        said = re.sub(r"did you mean .*?\?", "", f"{raised.value} ")
        named = f"{name.replace('_', ' ')!r} " in said
        assert named == (name in wrong.split()), f"{name}: {raised.value}"


def test_an_unknown_mode_is_refused(detector):
    with pytest.raises(ConfigError, match="did you mean 'gzsd'"):
        detector.set_classes(None, mode="gzds")


def test_search_covers_table_and_vocabulary(detector):
    assert detector.search("truk", 3) == ["truck", "trunk", "fire truck"]
    assert detector.search("dinning")[0] == "dining table"


# Images -----------------------------------------------------------------------------------------


def test_kinds_of_images_that_show_the_same_give_the_same(detector, photo, tmp_path):
    import cv2

    expected = detector(photo)
    assert len(expected) > 0
    bgr = np.ascontiguousarray(photo[:, :, ::-1])
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), bgr)
    rgba = np.dstack([photo, np.full(photo.shape[:2], 9, np.uint8)])
    for image, color in [
        (bgr, "bgr"),
        (path, "rgb"),
        (str(path), "bgr"),
        (rgba, "rgb"),
        (photo[:, ::-1].copy()[:, ::-1], "rgb"),
    ]:
        assert same(detector(image, color=color), expected)


def test_grey_is_its_three_channel_twin(detector, photo):
    grey = photo[:, :, 0]
    assert same(detector(grey), detector(np.dstack([grey] * 3)))
    assert same(detector(grey[:, :, None]), detector(grey))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (2, 3), (1, 1, 4)])
def test_images_of_any_shape_are_ordinary_input(detector, shape):
    found = detector(np.full(shape, 128, np.uint8))
    assert isinstance(found, Detections)
    assert (found.boxes <= [shape[1], shape[0]] * 2).all()


def test_a_list_is_a_batch_of_anything(detector, photo, tmp_path):
    images = [photo, photo[:50, :20], photo[:, :, 0], photo[:1, :1]]
    batch = detector(images, max_batch=2)
    assert isinstance(batch, list)
    for found, image in zip(batch, images, strict=True):
        alone = detector(image)
        assert found.class_names == alone.class_names
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-6)
        np.testing.assert_allclose(found.boxes, alone.boxes, rtol=1e-5, atol=1e-4)
    assert detector([]) == []


def test_a_bad_image_of_a_batch_is_named(detector, photo):
    with pytest.raises(ImageError, match="image 1 has dtype float64"):
        detector([photo, photo / 255])


def test_nothing_found_is_an_ordinary_result(detector, photo):
    detector.set_thresholds(score_threshold=1.0)
    found = detector(photo)
    assert not found
    assert found.boxes.shape == (0, 4)
    name, score = found.near_miss
    assert name in detector.classes
    assert 0 < score < 1
    assert found.to_list() == []


def test_stage_times_come_with_every_result(detector, photo):
    times = detector(photo).times_ms
    assert list(times) == ["preprocess", "trunk", "propose", "roi_align", "head", "score", "detect"]
    assert all(value > 0 for value in times.values())


# Limits, life, threads --------------------------------------------------------------------------


def test_limits_are_arguments_and_can_change(bundle_path, photo):
    with opened(bundle_path, max_detections=2, nms_threshold=0.3) as detector:
        assert len(detector(photo)) == 2
        detector.set_thresholds(max_detections=tiny.MODEL.detection.max_detections)
        assert len(detector(photo)) == tiny.MODEL.detection.max_detections
        assert detector.limits.nms_threshold == 0.3


def test_thresholds_split_seen_from_unseen(bundle_path, photo):
    with opened(bundle_path, score_threshold=(1.0, 0.0)) as detector:
        assert set(detector(photo).roles) == {"unseen"}
    with opened(bundle_path, score_threshold={"cup": 0.0, "seen": 1.0, "unseen": 1.0}) as detector:
        assert set(detector(photo).class_names) == {"cup"}


def test_an_unknown_class_of_a_threshold_is_refused_when_opening(bundle_path):
    with pytest.raises(ClassError, match="did you mean 'cat'"):
        opened(bundle_path, score_threshold={"catt": 0.1})


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_stops_the_opening_frees_the_networks(bundle_path, monkeypatch, error):
    closed = []

    def pipeline(*_):
        raise error

    monkeypatch.setattr(OnnxRuntimeBackend, "pipeline", pipeline)
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda self: closed.append(self))
    with pytest.raises(error):
        opened(bundle_path)
    assert len(closed) == 1


def test_warmup_runs_every_stage_and_prepares_the_vocabulary(bundle_path, monkeypatch):
    rows = counted(monkeypatch)
    with opened(bundle_path) as detector:
        detector.warmup(48, 64)
        assert rows[-1] == len(tiny.UNSEEN) + len(tiny.WORDS)
        with pytest.raises(ConfigError, match="at least 1"):
            detector.warmup(0, 64)


def test_a_closed_detector_says_so_and_may_be_closed_again(bundle_path, photo):
    with opened(bundle_path) as detector:
        detector.close()
    with pytest.raises(DeviceError, match="open the detector again"):
        detector(photo)


def test_an_opened_bundle_or_a_zip_is_as_good_as_a_path(tmp_path, bundle_path, detector, photo):
    expected = detector(photo)
    with opened(open_bundle(bundle_path)) as other:
        assert same(other(photo), expected)
    with opened(tiny.tiny_bundle(tmp_path / "t.zip")) as zipped:
        assert same(zipped(photo), expected)
        assert "tiny on onnxruntime" in repr(zipped)


def test_an_image_in_flight_keeps_the_classes_it_started_with(detector, photo, monkeypatch):
    detector.set_classes(["cat", "truck"])
    expected = detector(photo)
    run = runtime.classes.ActiveClasses.detections

    def change_then_name(active, result):
        if detector.classes == ("cat", "truck"):
            detector.set_classes(["zebra"])
        return run(active, result)

    monkeypatch.setattr(runtime.classes.ActiveClasses, "detections", change_then_name)
    assert same(detector(photo), expected)
    assert set(detector(photo).class_names) == {"zebra"}


def test_threads_may_share_a_detector_while_its_classes_change(detector, photo):
    lists = [("cat", "truck"), ("zebra", "person", "cup"), ("teapot",)]
    expected = {}
    for names in lists:
        detector.set_classes(names)
        expected[names] = detector(photo)
    by_version = {detector.class_set_version: lists[-1]}
    errors, stop = [], threading.Event()

    def look():
        try:
            last = False
            while not last:
                last = stop.is_set()  # one more frame then: no reader sees nothing
                found = detector(photo)
                assert same(found, expected[by_version[found.class_set_version]])
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(60):
        names = lists[turn % 3]
        by_version[detector.class_set_version + 1] = names
        detector.set_classes(names)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_changes_from_many_threads_are_all_kept(detector):
    vectors = tiny.unit_vectors(40, 3)
    version = detector.class_set_version
    threads = [
        threading.Thread(target=detector.add_classes, args=({f"new {i}": vectors[i]},))
        for i in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"new {i}" for i in range(40)} <= set(detector.classes)
    assert detector.class_set_version == version + 40


def test_a_setting_that_is_none_is_refused(detector):
    with pytest.raises(AttributeError, match="score_threshold"):
        detector.score_threshold = 0.1
