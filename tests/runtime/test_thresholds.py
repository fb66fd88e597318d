"""One threshold, one per role, one per class."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.thresholds import ROLES, Limits
from zsd_core.config import MOST_DETECTIONS, DetectionConfig
from zsd_core.errors import ClassError, ConfigError

DEFAULT = DetectionConfig(score_threshold=0.07, nms_threshold=0.4, max_detections=50)


def per_name(detector, score, mode="gzsd", classes=None):
    detector.set_classes(classes, mode=mode)
    detector.set_thresholds(score_threshold=dict.fromkeys(ROLES, 0.05))
    detector.set_thresholds(score_threshold=score)
    active = detector._state.active
    return dict(zip(active.class_set.names, detector._state.thresholds.tolist(), strict=True))


def test_none_takes_the_bundles_values():
    limits = Limits.of(DEFAULT, None, None, None)
    assert limits.by_role == {"seen": 0.07, "unseen": 0.07}
    assert (limits.nms_threshold, limits.max_detections) == (0.4, 50)


def test_unseen_classes_have_a_default_of_their_own_where_the_bundle_has_one():
    default = DetectionConfig(score_threshold=0.3, unseen_threshold=0.2)
    assert Limits.of(default, None, None, None).by_role == {"seen": 0.3, "unseen": 0.2}
    assert Limits.of(default, {"seen": 0.5}, None, None).by_role == {"seen": 0.5, "unseen": 0.2}
    assert Limits.of(default, {"unseen": 0.0}, None, None).by_role == {"seen": 0.3, "unseen": 0.0}
    assert Limits.of(default, 0.4, None, None).by_role == {"seen": 0.4, "unseen": 0.4}
    with pytest.raises(ConfigError, match="unseen_threshold"):
        DetectionConfig(unseen_threshold=1.5)


@pytest.mark.parametrize(
    ("score", "seen", "unseen", "cup"),
    [
        (0.25, 0.25, 0.25, 0.25),
        ((0.5, 0.25), 0.5, 0.25, 0.25),
        ([0.5, 0.25], 0.5, 0.25, 0.25),
        ({"seen": 0.5, "unseen": 0.25}, 0.5, 0.25, 0.25),
        ({"unseen": 0.25}, 0.05, 0.25, 0.25),
        ({"CUP": 0.75}, 0.05, 0.05, 0.75),
        ({"cup": 0.75, "unseen": 0.25, "seen": 0.5}, 0.5, 0.25, 0.75),
        (0, 0.0, 0.0, 0.0),
        (1, 1.0, 1.0, 1.0),
    ],
)
def test_every_form_reaches_every_column(detector, score, seen, unseen, cup):
    found = per_name(detector, score)
    expected = {"person": seen, "dining table": seen, "truck": seen, "cat": unseen, "cup": cup}
    assert found == pytest.approx(expected)


def test_mode_and_list_hide_columns_by_infinity(detector):
    assert per_name(detector, 0.0, "zsd")["person"] == np.inf
    assert per_name(detector, 0.0, "seen")["cat"] == np.inf
    only = per_name(detector, 0.0, classes=["truck", "cup"])
    assert only == {"person": np.inf, "dining table": np.inf, "truck": 0, "cup": 0}
    hidden = per_name(detector, {"cat": 0.5}, "seen")
    assert hidden["cat"] == np.inf  # a threshold of its own does not bring it back


def test_a_class_keeps_its_threshold_over_changes(detector):
    detector.set_thresholds(score_threshold={"cup": 0.75, "unseen": 0.5})
    detector.add_classes(["zebra"])
    detector.remove_classes(["cat"])
    active = detector._state.active
    found = dict(zip(active.class_set.names, detector._state.thresholds.tolist(), strict=True))
    assert found["cup"] == 0.75
    assert found["zebra"] == 0.5


NO_SHARES = (
    -0.1,
    1.1,
    50,
    float("nan"),
    "high",
    "0.5",
    True,
    pytest.param(10**400, id="large"),
    [[0.1], 0.2],
)


@pytest.mark.parametrize(
    "score",
    [
        *NO_SHARES,
        (0.1, 2),
        {"seen": None},
        (0.1, 0.2, 0.3),
        pytest.param({"cup": 10**400}, id="large of a class"),
        pytest.param(10**5000, id="more digits than Python writes"),
    ],
)
def test_what_is_no_share_is_refused(score):
    with pytest.raises(ConfigError, match="score_threshold"):
        Limits.of(DEFAULT, score, None, None)


@pytest.mark.parametrize("number", [0, -1, 2.5, "many", True, MOST_DETECTIONS + 1, 2**62, 10**30])
def test_max_detections_is_a_whole_number_that_every_part_can_hold(number):
    with pytest.raises(ConfigError, match=r"max_detections is .*from 1 to 1048576"):
        Limits.of(DEFAULT, None, None, number)


def test_the_largest_max_detections_runs(detector):
    detector.set_thresholds(score_threshold=0.0, max_detections=MOST_DETECTIONS)
    assert len(detector(np.zeros((60, 80, 3), np.uint8))) > 0


@pytest.mark.parametrize("number", NO_SHARES)
def test_what_is_no_share_is_no_nms_threshold(number):
    with pytest.raises(ConfigError, match="nms_threshold"):
        Limits.of(DEFAULT, None, number, None)


def test_nms_threshold_is_a_share():
    with pytest.raises(ConfigError, match=r"nms_threshold is 1\.5"):
        Limits.of(DEFAULT, None, 1.5, None)
    assert Limits.of(DEFAULT, None, 0, None).nms_threshold == 0


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({5: 0.1}, "5 is no class name"),
        ({" ": 0.1}, "' ' is no class name"),
        ({"cup": 0.1, "CUP": 0.2}, "'CUP' is given twice"),
        ({"Seen": 0.1}, "'Seen' is no name of a threshold: that of all seen classes"),
        ({" unseen": 0.1}, "' unseen' is no name of a threshold"),
        ({"SEEN": None}, "'SEEN' is no name of a threshold"),
    ],
)
def test_a_class_is_a_name_that_comes_once(score, message):
    with pytest.raises(ConfigError, match=f"score_threshold: {message}"):
        Limits.of(DEFAULT, score, None, None)


def test_a_setter_changes_what_it_names(detector):
    detector.set_thresholds(score_threshold={"cup": 0.75, "unseen": 0.5}, max_detections=7)
    before = detector.limits
    detector.set_thresholds()
    assert detector.limits == before
    detector.set_thresholds(nms_threshold=0.4)
    assert detector.limits == replace(before, nms_threshold=0.4)
    detector.set_thresholds(score_threshold={"seen": 0.3, "cat": 0.2})
    assert detector.limits.by_role == {"seen": 0.3, "unseen": 0.5}
    assert detector.limits.by_class == {"cup": 0.75, "cat": 0.2}
    detector.set_thresholds(score_threshold={"CUP": None})
    assert detector.limits.by_class == {"cat": 0.2}
    detector.set_thresholds(score_threshold=0.6)
    assert (detector.limits.by_role, detector.limits.by_class) == (dict.fromkeys(ROLES, 0.6), {})
    assert (detector.limits.nms_threshold, detector.limits.max_detections) == (0.4, 7)


def test_setting_limits_forgets_those_of_classes_that_are_gone(detector):
    detector.set_thresholds(score_threshold={"cup": 0.75, "cat": 0.5})
    detector.remove_classes(["cup"])
    detector.set_thresholds(nms_threshold=0.4)
    assert detector.limits.by_class == {"cat": 0.5}


def test_every_unknown_class_is_named(detector):
    with pytest.raises(ClassError) as raised:
        detector.set_thresholds(score_threshold={"cupp": 0.1, "cat": 0.2, "trukk": 0.3})
    assert "'cupp'" in str(raised.value) and "'trukk'" in str(raised.value)
    assert "'cat'," not in str(raised.value)


def test_a_misspelt_class_is_found(detector):
    with pytest.raises(ClassError, match="none of the 5 active classes; did you mean 'cup'"):
        detector.set_thresholds(score_threshold={"cupp": 0.1})
