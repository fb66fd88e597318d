"""Errors of an export."""

from __future__ import annotations

from zsd_core.errors import ZsdError

__all__ = ["ExportError"]


class ExportError(ZsdError, RuntimeError):
    """A model cannot be exported, or what was exported does not do what the model does."""
