"""Proofs and times on an NVIDIA GPU, in parts of a minute: ``scripts/gpu-proof``."""
