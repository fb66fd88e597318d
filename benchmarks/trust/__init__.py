"""Hostile input, faults and load: the numbers of ``docs/security.md``, part by part."""
