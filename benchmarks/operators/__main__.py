"""The CPU kernels against PyTorch, torchvision and OpenCV, and against the machine's own GEMM.

    python -m benchmarks.operators --json operators.json
    python -m benchmarks.operators --only scoring    a part of it
    python -m benchmarks.operators --static          what is known of the CUDA kernels with no GPU

Ours and the reference are called in turn, so that both see the same machine: medians of wall time.
Use an idle machine; the load that it began with is printed. Every row says which bars it has to
keep and whether it does.

parts
  scoring   product_mlp at R = 300, D = 2048, M = 1024 and 96 or 1,203 classes, random arrays. The
            reference is torch's GEMM of as many operations (int8: PyTorch eager; shortlist: ours
            with 80 classes, exact), measured on 96 classes' worth and scaled to 1,203. The ceiling
            is the best GEMM of torch, oneDNN and ONNX Runtime.
  shipped   the same operator in the model that ships, on regions of scikit-image's photographs,
            for its own classes and 1,203 of its vocabulary: what int8 and a shortlist change in
            the softmax over classes and in the detections.
  classes   PackedLinear, what a class's vector goes through when it is added: the second layer of
            p_s in the model that ships (512) and in the paper's (2048), for 1 to 1,203 classes.
  vision    roi_align, propose, detect and preprocess.

extra MB is the peak of resident memory in a first call, packing included, less its result.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import static
from benchmarks.measure import write_rows
from benchmarks.operators.scoring import Sizes, linear_rows, scoring_rows
from benchmarks.operators.shipped import Shipped, shipped_rows
from benchmarks.operators.table import Row, table
from benchmarks.operators.timing import Bench
from benchmarks.operators.vision import box_rows, preprocess_rows, roi_align_rows
from zsd_core import kernels
from zsd_core.commands import command, new_parser
from zsd_core.errors import require
from zsd_core.files import prepare_files

__all__ = ["main"]

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    # First, while memory is fresh: its outputs are large, and a first touch is dear.
    "vision": lambda bench: roi_align_rows(bench) + box_rows(bench) + preprocess_rows(bench),
    "scoring": lambda bench: scoring_rows(bench, Sizes(300, 2048, 1024), (96, 1203)),
    "classes": lambda bench: linear_rows(bench, (512, 2048), (1, 96, 1203)),
    "shipped": lambda bench: shipped_rows(bench, Shipped.open()),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status, which says nothing about the bars."""
    parser = new_parser("benchmarks.operators", __doc__)
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write the rows as a JSON list to this file")
    add("--only", choices=PARTS, nargs="+", metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--calls", type=int, default=7, help="timed calls of each (default 7; long ones at most 3)")
    add("--threads", type=int, help="threads of all (default: one per core)")
    add("--static", action="store_true", help="print what is known of CUDA instead")
    args = parser.parse_args(argv)
    if args.calls < 1:
        parser.error("--calls must be at least 1")
    if args.static:
        print(static.table())
        return 0
    prepare_files(args.json)
    if args.threads:
        kernels.set_threads(args.threads)
    torch = require("torch", "train")
    torch.set_num_threads(kernels.get_threads())
    print(
        f"{platform.processor() or platform.machine()}, {kernels.build_info()}, torch "
        f"{torch.__version__}, load {os.getloadavg()[0]:.1f}, medians of {args.calls} calls"
    )
    rows: list[Row] = []
    for part in args.only or PARTS:
        rows += PARTS[part](Bench(args.calls))
    print(table(rows))
    if args.json:
        write_rows(args.json, [row.record() for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
