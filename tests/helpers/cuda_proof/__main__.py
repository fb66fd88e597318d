"""Run cases in a process of its own: ``python -m cuda_proof MODULE SCHEDULE PREFIX [bare]``.

For builds that may crash (planted bugs, AddressSanitizer). The schedule ``all`` runs each; ``bare``
leaves out the guards around arrays, for AddressSanitizer's. Exit 0: every case agreed with its
twin under each of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cuda_proof.cases import all_cases
from cuda_proof.engines import SCHEDULES, ShimEngine


def main() -> int:
    path, schedule, prefix, *bare = sys.argv[1:]
    assert bare in ([], ["bare"]), sys.argv
    chosen = {name: run for name, run in all_cases().items() if name.startswith(prefix)}
    assert chosen, f"no case is called {prefix}"
    for order in SCHEDULES if schedule == "all" else [schedule]:
        engine = ShimEngine(Path(path), order, guards=not bare)
        for name, run in chosen.items():
            try:
                run(engine)
            except Exception as error:
                print(f"{order}: {name}: {error}")
                return 1
    print(f"{len(chosen)} cases agree")
    return 0


sys.exit(main())
