"""Estimate times on computers that nobody here has: operations over a published rate.

    python -m benchmarks.expect --peak 333 --markdown docs/benchmarks.md

Every number is an ESTIMATE: the operations of the networks are counted from their layers, the
computer's highest rate is its cores times their clock times the float32 operations of a cycle, as
published, and the share of that rate that a network reaches is taken from a measurement elsewhere:
``--speed``, what ``python -m benchmarks.speed --json`` wrote, and ``--peak``, the highest rate of
that processor, reckoned the same way (2 cores x 2.6 GHz x 64 operations are 333). Memory, heat and
the operating system are left out, so expect more time, not less. On the computer itself
``python -m benchmarks.speed --only classes`` replaces the estimate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import markdown
from benchmarks.speed.rows import read_rows
from export.checks.images import photographs
from export.graphs.inspect import STAGES, multiply_adds
from export.int8.calibration import calibration_inputs
from export.writing.markdown import fill_slot, find_slot
from runtime.bundle import default_bundle, open_bundle
from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError, require

__all__ = ["COMPUTERS", "Computer", "estimates", "main", "operations", "parse", "table"]

SLOT = "expect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Computer:
    """A computer by its published numbers.

    Attributes:
        name: as it is sold.
        cores: that run the networks.
        core: their design.
        gigahertz: highest clock of all cores together.
        operations: float32 operations of a core in a cycle: twice its fused multiply-adds.
    """

    name: str
    cores: int
    core: str
    gigahertz: float
    operations: int

    @property
    def gflops(self) -> float:
        """Highest rate, in 10^9 operations a second."""
        return self.cores * self.gigahertz * self.operations


# Two units of 128 bits multiply and add in each of these cores: 2 x 4 numbers x 2 operations.
COMPUTERS = (
    Computer(name="Raspberry Pi 5", cores=4, core="Cortex-A76", gigahertz=2.4, operations=16),
    Computer(
        name="Jetson Orin Nano, CPU only",
        cores=6,
        core="Cortex-A78AE",
        gigahertz=1.5,
        operations=16,
    ),
    Computer(name="Intel N100", cores=4, core="Gracemont", gigahertz=2.9, operations=16),
)


def operations() -> dict[str, float]:
    """10^9 operations of each network of the bundle that ships, for one image."""
    onnx, bundle = require("onnx", "export"), open_bundle(default_bundle())
    inputs = calibration_inputs(bundle, photographs()[:1], 300)
    return {
        stage: 2e-9
        * sum(multiply_adds(onnx.load(bundle.network(stage)), inputs[stage][0]).values())
        for stage in STAGES
    }


def estimates(
    gflop: Mapping[str, float], medians: Mapping[str, float], peak: float
) -> list[dict[str, Any]]:
    """Milliseconds of an image on every computer.

    Args:
        gflop: of each network, as ``operations`` counts.
        medians: milliseconds of "80 classes" and "81 classes" where they were measured.
        peak: highest rate of that processor, in 10^9 operations a second.
    """
    whole = {"80 classes": gflop["trunk"], "one more": gflop["trunk"] + gflop["head"]}
    measured = {"80 classes": medians["80 classes"], "one more": medians["81 classes"]}
    share = {name: whole[name] / measured[name] * 1e3 / peak for name in whole}
    return [
        {
            "computer": computer,
            "share": share,
            **{name: 1e3 * whole[name] / (share[name] * computer.gflops) for name in whole},
        }
        for computer in COMPUTERS
    ]


def table(rows: Sequence[Mapping[str, Any]], gflop: Mapping[str, float], peak: float) -> str:
    """The estimates in Markdown."""
    lines = [
        [
            row["computer"].name,
            f"{row['computer'].cores} x {row['computer'].core}, {row['computer'].gigahertz} GHz",
            f"{row['computer'].gflops:.0f}",
            f"about {row['80 classes']:.0f}",
            f"about {row['one more']:.0f}",
        ]
        for row in rows
    ]
    columns = ["*estimate* for", "cores", ">GFLOP/s at most", ">80 classes, ms", ">one more, ms"]
    share = {name: f"{100 * value:.0f} %" for name, value in rows[0]["share"].items()}
    return (
        f"{markdown(columns, lines)}\n\n"
        f"Counted: trunk {gflop['trunk']:.2f} GFLOP, head {gflop['head']:.2f} for four regions. "
        f"Assumed: the share of the highest rate that was measured where that rate is {peak:.0f} "
        f"GFLOP/s: {share['80 classes']} with 80 classes, {share['one more']} with one more."
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.expect", __doc__)
    add = parser.add_argument
    add("--speed", type=Path, default=Path("docs/measurements/speed.json"), metavar="FILE")
    add(
        "--peak",
        type=float,
        required=True,
        metavar="GFLOPS",
        help="highest rate of the processor of --speed, by its cores, clock and width",
    )
    add("--markdown", type=Path, metavar="FILE", help=f"fill the slot {SLOT!r} of this page")
    args = parser.parse_args(argv)
    if not args.peak > 0:
        parser.error("--peak must be above 0")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    if args.markdown:
        find_slot(args.markdown, SLOT)
    rows = read_rows(args.speed)
    medians = [row["medians"] for row in rows]
    whole = next((m for m in medians if "81 classes" in m), None)
    if whole is None:
        raise ConfigError(
            f"{args.speed} lacks the group 'classes'. Measure it: "
            f"python -m benchmarks.speed --only classes --json {args.speed}"
        )
    gflop = operations()
    text = table(estimates(gflop, whole, args.peak), gflop, args.peak)
    if args.markdown:
        fill_slot(args.markdown, SLOT, text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
