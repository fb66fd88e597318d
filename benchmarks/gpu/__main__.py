"""Prove and time everything on an NVIDIA GPU, in parts; ``scripts/gpu-proof`` is this.

    scripts/gpu-proof                       # all parts, into out/gpu-proof
    scripts/gpu-proof speed --again         # one part, once more
    scripts/gpu-proof --dry-run             # what a CPU can do of it
    scripts/gpu-proof --pack ../carried     # the files to bring to a machine, 64 MiB at most

A part's result is written at once, as JSON; a part that agreed is not run again. A part that fails
stops no other. The exit status is 0 if every part agreed, 1 if one did not, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu.build import ROOT
from benchmarks.gpu.kernels import paths
from benchmarks.gpu.pack import pack, unpack
from benchmarks.gpu.parts import PARTS, carry_out, needed, new_seed
from benchmarks.gpu.report import DRY, read_result, write_json
from zsd_core.commands import command, new_parser

__all__ = ["has_gpu", "main", "page", "parse", "run_part"]

LIMIT = 480.0  # seconds, all parts together
LEAST = 5.0  # seconds: with fewer left no part is begun
NO_GPU = 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.gpu", __doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    add("--output", type=Path, default=Path("out/gpu-proof"), metavar="DIR", help="(%(default)s)")
    add("--again", action="store_true", help="run parts that agreed before once more")
    add("--limit", type=float, default=LIMIT, metavar="S", help="seconds in all (%(default)g)")
    add("--seed", type=int, help="of the random inputs (a new one each time)")
    add("--dry-run", action="store_true", help="without a GPU: what a CPU can do of each part")
    add("--pack", type=Path, metavar="DIR", help="copy the files that a machine needs, and end")
    add("--here", action="store_true", help=argparse.SUPPRESS)  # a part, in this process
    args = parser.parse_args(argv)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}, only {', '.join(PARTS)}")
    if args.limit <= 0 or (args.seed is not None and args.seed < 0):
        parser.error("--limit must be above 0, --seed not below")
    args.parts = args.parts or list(PARTS)
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are needed, each in a process of its own, and write the page."""
    args = parse(argv)
    if args.pack:
        print(f"{args.pack}: {pack(args.pack) / 2**20:.1f} MiB")
        return 0
    unpack()
    seed = new_seed() if args.seed is None else args.seed
    if args.here:
        done = [carry_out(args.output, part, seed, dry=args.dry_run) for part in args.parts]
        return 0 if all(done) else 1
    if not args.dry_run and not has_gpu():
        print(
            "error: there is no NVIDIA GPU here: CUDA's driver does not start. "
            "scripts/gpu-proof --dry-run runs what a CPU can.",
            file=sys.stderr,
        )
        return NO_GPU
    say = (lambda line: print(f"{DRY}: {line}", flush=True)) if args.dry_run else print
    begun = time.monotonic()
    for part in args.parts:
        if not needed(args.output, part, dry=args.dry_run, again=args.again):
            say(f"{part}: agreed before; --again runs it once more")
            continue
        left = args.limit - (time.monotonic() - begun)
        allowed = min(PARTS[part].seconds, left) if not args.dry_run else left
        if left < LEAST:
            say(f"{part}: not begun, {args.limit:g} s are over; run the same command again")
            continue
        run_part(args, part, seed, allowed)
        page(args.output)
    say(f"{page(args.output)}")
    results = [read_result(args.output, part) for part in args.parts]
    good = all(result and result["agreed"] for result in results)
    say("every part agreed" if good else "NOT every part agreed")
    return 0 if good else 1


def run_part(args: argparse.Namespace, part: str, seed: int, seconds: float) -> None:
    """Run a part in a process, and end it with all that it began when its time is up."""
    (args.output / f"{part}.json").unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.gpu", part, "--here", "--seed", str(seed)]
    words += ["--output", str(args.output.resolve()), *(["--dry-run"] if args.dry_run else [])]
    process = subprocess.Popen(words, cwd=ROOT, env=paths(), start_new_session=True)
    why = ""
    try:
        status = process.wait(timeout=seconds)
        if status not in (0, 1):
            why = f"its process ended with status {status}"
    except subprocess.TimeoutExpired:
        why = f"stopped after its {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):  # what it began may outlive it, and keep the GPU busy
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    result = read_result(args.output, part)
    if result is None or why:
        ended = {"part": part, "ran_on": DRY if args.dry_run else "no result", "seed": seed}
        ended |= {"seconds": seconds, "facts": {}, "rows": [], "failures": [], "not_checked": []}
        ended |= result or {}
        ended |= {"finished": False, "agreed": False, "error": why or "it wrote no result"}
        write_json(args.output / f"{part}.json", ended)
        print(f"{DRY + ': ' if args.dry_run else ''}{part}: {ended['error']}", flush=True)


def page(folder: Path) -> Path:
    """Write the page of what there is."""
    from benchmarks.gpu.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    return write_page(folder, ROOT / "docs" / "gpu.md")


def has_gpu() -> bool:
    """Whether CUDA's driver starts and finds a GPU."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return False
    started = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return bool(started and count.value > 0)


if __name__ == "__main__":
    sys.exit(main())
