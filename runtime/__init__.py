"""Run a bundle: ``Detector`` finds any classes in images, and its classes change while it runs.

    from runtime import Detector

    detector = Detector(classes=["cat", "cup"])
    print(detector("photo.jpg"))

Needs numpy, OpenCV, safetensors and one backend; never torch.
"""

from runtime.bundle import bundled, default_bundle
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.examples import Example
from runtime.stream import Stream

__all__ = ["Detections", "Detector", "Example", "Stream", "bundled", "default_bundle"]
