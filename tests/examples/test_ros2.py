"""The ROS 2 example against doubles of its messages and node: no ROS has run it here.

The doubles have the fields of vision_msgs 4 (Humble and newer) and of sensor_msgs, and refuse any
other, and values of another type.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Message:
    """A generated message: fields of a type, all with a default, and no others."""

    FIELDS: ClassVar[dict[str, type]] = {}

    def __init__(self, **values):
        for name, kind in self.FIELDS.items():
            object.__setattr__(self, name, kind())
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        assert name in self.FIELDS, f"{type(self).__name__} has no field {name}"
        kind = self.FIELDS[name]
        assert type(value) is kind, f"{name} must be {kind.__name__}, is {type(value).__name__}"
        object.__setattr__(self, name, value)


def message(name: str, **fields: type) -> type[Message]:
    return type(name, (Message,), {"FIELDS": fields})


Header = message("Header", stamp=int, frame_id=str)
Point2D = message("Point2D", x=float, y=float)
Pose2D = message("Pose2D", position=Point2D, theta=float)
BoundingBox2D = message("BoundingBox2D", center=Pose2D, size_x=float, size_y=float)
ObjectHypothesis = message("ObjectHypothesis", class_id=str, score=float)
ObjectHypothesisWithPose = message("ObjectHypothesisWithPose", hypothesis=ObjectHypothesis)
Detection2D = message("Detection2D", header=Header, results=list, bbox=BoundingBox2D, id=str)
Detection2DArray = message("Detection2DArray", header=Header, detections=list)
Image = message("Image", header=Header, height=int, width=int, encoding=str, step=int, data=bytes)


@pytest.fixture
def example(monkeypatch):
    vision = SimpleNamespace(
        Detection2D=Detection2D,
        Detection2DArray=Detection2DArray,
        ObjectHypothesisWithPose=ObjectHypothesisWithPose,
    )
    for name, members in {
        "vision_msgs": {},
        "vision_msgs.msg": vars(vision),
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    path = ROOT / "examples" / "ros2_detections.py"
    spec = importlib.util.spec_from_file_location("ros2_detections", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def image_message(pixels, encoding, padding=0):
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return Image(
        header=Header(stamp=5, frame_id="camera"),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        data=rows.tobytes(),
    )


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_an_image_is_read_whatever_its_rows_end_in(example, photo, encoding, padding):
    pixels = photo[:, :, :1] if encoding == "mono8" else photo
    found, color = example.image_of(image_message(pixels, encoding, padding))
    np.testing.assert_array_equal(found, pixels)
    assert color == ("bgr" if encoding == "bgr8" else "rgb")


def test_an_encoding_that_is_not_read_is_named(example, photo):
    with pytest.raises(ValueError, match="'bayer_rggb8' is not one of rgb8, bgr8, mono8"):
        example.image_of(image_message(photo, "bayer_rggb8"))


def test_boxes_become_centres_and_sizes(example, detector, photo):
    found = detector(photo)
    array = example.to_vision_msgs(found, Header(stamp=5, frame_id="camera"))
    assert array.header.frame_id == "camera" and len(array.detections) == len(found) > 0
    for one, other in zip(array.detections, found, strict=True):
        (hypothesis,) = one.results
        assert hypothesis.hypothesis.class_id == other.class_name
        assert hypothesis.hypothesis.score == pytest.approx(other.score)
        assert one.header.stamp == 5
        center, (left, top, right, bottom) = one.bbox.center.position, other.box
        assert center.x - one.bbox.size_x / 2 == pytest.approx(left)
        assert center.x + one.bbox.size_x / 2 == pytest.approx(right)
        assert center.y - one.bbox.size_y / 2 == pytest.approx(top)
        assert center.y + one.bbox.size_y / 2 == pytest.approx(bottom)


def test_the_node_publishes_what_it_finds_in_what_it_hears(example, detector, photo, monkeypatch):
    published, asked = [], {}

    class Node:
        def __init__(self, name):
            asked["name"] = name

        def declare_parameter(self, name, default):
            return SimpleNamespace(value=["cat", "cup"])

        def create_publisher(self, kind, topic, depth):
            assert (kind, topic) == (Detection2DArray, "detections")
            return SimpleNamespace(publish=published.append)

        def create_subscription(self, kind, topic, callback, qos):
            assert (kind, topic, qos) == (Image, "image", "sensor data")
            asked["hear"] = callback

    def spin(node):
        asked["hear"](image_message(photo, "bgr8"))
        raise KeyboardInterrupt

    for name, members in {
        "rclpy": {"init": lambda args: None, "spin": spin},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": "sensor data"},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    opened = []
    monkeypatch.setattr(example, "Detector", lambda **options: opened.append(options) or detector)
    example.main([])
    assert opened == [{"classes": ["cat", "cup"]}]
    (array,) = published
    assert len(array.detections) == len(detector(photo, color="bgr")) > 0
