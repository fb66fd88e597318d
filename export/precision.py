"""Former name of ``export.fp16``: ``python -m export.precision`` says so and runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from export import fp16
from zsd_core.commands import command

__all__ = ["main"]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run ``export.fp16``; 0 on success, 1 with a sentence on stderr."""
    print("export.precision is now export.fp16: python -m export.fp16", file=sys.stderr)
    return fp16.main(argv)


if __name__ == "__main__":
    sys.exit(main())
