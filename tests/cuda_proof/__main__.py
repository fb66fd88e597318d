"""Run cases in a process of its own: ``python -m cuda_proof MODULE SCHEDULE PREFIX...``.

For builds that may crash (planted bugs, AddressSanitizer). Exit 0: every case agreed with its twin.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cuda_proof.cases import all_cases
from cuda_proof.engines import ShimEngine


def main() -> int:
    path, schedule, *prefixes = sys.argv[1:]
    engine = ShimEngine(Path(path), schedule)
    chosen = {n: run for n, run in all_cases().items() if n.startswith(tuple(prefixes))}
    assert chosen, f"no case is called {prefixes}"
    for name, run in chosen.items():
        try:
            run(engine)
        except AssertionError as error:
            print(f"{name}: {error}")
            return 1
    print(f"{len(chosen)} cases agree")
    return 0


sys.exit(main())
