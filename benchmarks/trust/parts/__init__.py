"""Parts of ``python -m benchmarks.trust``: every module here defines ``PARTS``, a tuple of parts.

A new part is a ``Part`` in a module of this folder; nothing else needs to know of it.
"""
