"""Data sets, splits and the zero-shot protocol."""
