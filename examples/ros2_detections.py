"""A ROS 2 node: images in, ``vision_msgs/Detection2DArray`` out, classes as a parameter.

    python3 examples/ros2_detections.py \
        --ros-args -r image:=/camera/image_raw -p classes:="['person', 'cup']"

Needs ROS 2 Humble or newer with ros-humble-vision-msgs, and contrastzsd in the same Python. No ROS
is in this project's tests: they run this file against doubles of the messages and of the node.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrastzsd import Detections, Detector

COLORS = {"rgb8": "rgb", "bgr8": "bgr", "mono8": "rgb"}  # encodings of sensor_msgs/Image


def image_of(message: Any) -> tuple[NDArray[np.uint8], str]:
    """Pixels ``(H, W, C)`` of a ``sensor_msgs/Image``, and the order of their channels.

    Raises:
        ValueError: the encoding is not one of ``COLORS``.
    """
    if message.encoding not in COLORS:
        raise ValueError(f"encoding {message.encoding!r} is not one of {', '.join(COLORS)}")
    channels = 1 if message.encoding == "mono8" else 3
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : channels * message.width]  # a row may end in padding
    return pixels.reshape(message.height, message.width, channels), COLORS[message.encoding]


def to_vision_msgs(found: Detections, header: Any) -> Any:
    """``vision_msgs/Detection2DArray``: one hypothesis per box, boxes by their centre, in pixels.

    Args:
        found: of one image.
        header: of the image, so that time and frame are those of the camera.
    """
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    array = Detection2DArray(header=header)
    for detection in found:
        left, top, right, bottom = detection.box
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = detection.class_name
        hypothesis.hypothesis.score = float(detection.score)
        message = Detection2D(header=header, results=[hypothesis])
        message.bbox.center.position.x = (left + right) / 2
        message.bbox.center.position.y = (top + bottom) / 2
        message.bbox.size_x = right - left
        message.bbox.size_y = bottom - top
        array.detections.append(message)
    return array


def main(arguments: list[str] | None = None) -> None:
    """Run the node until it is stopped."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Detection2DArray

    class Detect(Node):  # type: ignore[misc]
        """Searches the newest image; sensor QoS drops the others."""

        def __init__(self) -> None:
            super().__init__("contrastzsd")
            names = self.declare_parameter("classes", ["person"]).value
            self.detector = Detector(classes=list(names))
            self.found = self.create_publisher(Detection2DArray, "detections", 1)
            self.create_subscription(Image, "image", self.search, qos_profile_sensor_data)

        def search(self, message: Any) -> None:
            image, color = image_of(message)
            found = self.detector(image, color=color)
            self.found.publish(to_vision_msgs(found, message.header))

    rclpy.init(args=arguments)
    try:
        rclpy.spin(Detect())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(sys.argv)
