r"""Train a detector.

    python -m zsd_core.train configs/mobilenetv2_coco_48_17.yaml --output runs/first \
        'data.annotations=[instances.json]' 'data.images=[photographs]' \
        model.backbone.weights=mobilenet_v2.pt
    python -m zsd_core.train CONFIG ... --output runs/first --resume
    python -m zsd_core.train CONFIG ... --output runs/short training.epochs=2
    python -m zsd_core.train CONFIG ... --output runs/second --from runs/first/proposals.pt \
        training.head_epochs=4
    torchrun --nproc_per_node 8 -m zsd_core.train CONFIG ... --output runs/cluster

Writes ``last.pt`` after every epoch, a checkpoint named after each phase that another follows,
``config.json``, ``losses.jsonl`` and TensorBoard events under ``--output``. ``python -m export.onnx
--checkpoint runs/first/last.pt`` turns it into a bundle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zsd_core.commands import command, new_parser

__all__ = ["main", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("zsd_core.train", __doc__)
    parser.add_argument("config", help="a YAML file of configs/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.field=value",
        help="change one option, such as training.epochs=3",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from OUTPUT/last.pt")
    start.add_argument(
        "--from",
        type=Path,
        dest="proposals",
        metavar="RUN/CHECKPOINT.pt",
        help="train the heads alone, over the proposal network and the kept regions of another run",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument(
        "--max-steps",
        type=int,
        default=0,
        metavar="N",
        help="stop each phase after N steps, for a smoke test",
    )
    return parser.parse_intermixed_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    # here, so that --help needs no torch
    from zsd_core.learning.experiment import load_config
    from zsd_core.learning.training.run import train

    config = load_config(args.config, args.overrides)
    path = train(
        config,
        args.output,
        resume=args.resume,
        proposals=args.proposals,
        max_steps=args.max_steps,
        device=args.device,
    )
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
