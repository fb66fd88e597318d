"""Measurements of this project: every number in its documents comes from a command in here."""
