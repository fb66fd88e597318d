"""From a checkpoint to a bundle, each command a module: ``python -m export.onnx``."""
