"""ContrastZSD: zero-shot object detection, from training to a device.

Importing this package is free. Its root, the device half, needs numpy only and runs on an edge
device; ``learning`` needs torch, and the commands import it when they run.
"""
