"""ContrastZSD: zero-shot object detection, from training to a device.

Importing this package is free. Its numpy half (``kernels``, ``semantics``, ``scoring``,
``pipeline``, ``config``, ``errors``) runs on an edge device; the rest needs torch.
"""
