"""Graphs that become ONNX, and the one toolbox that reads graphs."""
