"""Run cases of the CUDA kernels in a process of its own: ``python -m benchmarks.gpu.cases``.

    echo '["fuse-raw-0"]' | python -m benchmarks.gpu.cases --engine shim

Names come as a JSON list on standard input. A line of JSON is printed before and after each case,
so that the reader knows which one a process died in. A kernel that fails on a GPU spoils its
process for all that follow: it ends there with status 3, and the reader starts another.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from zsd_core.commands import command

__all__ = ["cases_of", "engine_of", "main", "names_of", "tell", "works"]

SPOILED = 3


def cases_of(seed: int) -> dict[str, Callable[[Any], None]]:
    """The cases of the tests, then the large ones."""
    from cuda_proof.cases import all_cases

    from benchmarks.gpu.large import large_cases

    return {**all_cases(seed), **large_cases(seed)}


def names_of(kind: str) -> list[str]:
    """Names of the cases of a kind: "small" are those of the tests, "large" real sizes."""
    return [name for name in cases_of(0) if name.startswith("large-") == (kind == "large")]


def engine_of(kind: str, bare: bool) -> Any:
    """The engine: "gpu", or "shim", which has a CPU run the kernels' sources."""
    from cuda_proof.engines import GpuEngine, ShimEngine

    if kind == "shim":
        from cuda_proof.build import shim_module

        return ShimEngine(shim_module(), guards=not bare)
    from zsd_core.kernels.cuda import compiled_cuda

    return GpuEngine(compiled_cuda(), guards=not bare)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases that standard input names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.cases")
    parser.add_argument("--engine", choices=("gpu", "shim"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", action="store_true", help="no guards around arrays")
    args = parser.parse_args(argv)
    names = json.load(sys.stdin)
    engine, cases = engine_of(args.engine, args.bare), cases_of(args.seed)
    for name in names:
        tell(case=name)
        try:
            cases[name](engine)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            tell(case=name, error=f"{type(error).__name__} at {where}: {error}"[:600])
            if args.engine == "gpu" and not works():
                return SPOILED
        else:
            tell(case=name, error=None)
    return 0


def works() -> bool:
    """Whether the GPU still does anything for this process."""
    import torch

    try:
        torch.zeros(1, device="cuda").cpu()
    except RuntimeError:
        return False
    return True


def tell(**values: Any) -> None:
    """Print a line of JSON at once."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())
