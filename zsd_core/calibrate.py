r"""Put seen and unseen scores on one scale, from seen classes alone (GZSD calibration).

    python -m zsd_core.calibrate --checkpoint runs/first/last.pt --regions runs/first/regions.pt \
        --output runs/first/calibrated.pt --json calibration.json

A part of the seen classes plays the unseen ones: scoring is trained anew without them, on the
regions that cached training kept, and detects them in training photographs held out with them. Each
number is chosen by what it can change. The temperature of S at inference
(``scoring.similarity_temperature``) orders the regions of a class: the harmonic mean of seen and
unseen mAP decides. The factor of seen scores (``scoring.seen_scale``) does not, and mAP sees it
through the cap on detections only: the harmonic mean of seen and unseen F1 at one score threshold
decides. Both are stored in the new checkpoint, and in a bundle exported from it, with that
threshold (``detection.score_threshold``).

No annotation and no vector of an unseen class is read. Trunk, proposals and box regression are
those of the checkpoint, which has seen all of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError
from zsd_core.files import prepare_files
from zsd_core.scoring import check_method

__all__ = ["main", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("zsd_core.calibrate", __doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="what zsd_core.train wrote")
    add("--regions", type=Path, help="its kept regions (regions.pt beside the checkpoint)")
    add("--output", type=Path, help="the calibrated checkpoint to write")
    add("--method", help="fit for another scoring method over the same regions; --json only")
    add("--json", type=Path, help="also write what was measured to this file")
    add("--photographs", type=int, default=120, help="held out per draw (120)")
    add(
        "--steps", type=int, default=200, help="of training per draw; 0: the warm start alone (200)"
    )
    add("--draws", type=int, default=1, help="of pseudo-unseen classes (1)")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    if args.method and (args.output or not args.json):
        raise ConfigError(
            "calibrate: --method measures for another method and writes no checkpoint; give it "
            "--json and no --output."
        )
    if not (args.method or args.output):
        raise ConfigError("calibrate: give --output, the calibrated checkpoint to write.")
    from zsd_core.learning.balance import NUMBER, calibrated, fit, with_scoring
    from zsd_core.learning.checkpoint import load_checkpoint, save_checkpoint
    from zsd_core.learning.data.read import read_training_set
    from zsd_core.learning.data.splits import Split
    from zsd_core.learning.training.kept import load_regions

    prepare_files(args.output, args.json)
    checkpoint = load_checkpoint(args.checkpoint)
    if args.method:
        checkpoint = with_scoring(checkpoint, method=check_method(args.method))
    data = checkpoint.config.data
    # The split comes from the checkpoint without its unseen names' vectors or boxes.
    split = Split(name=data.split, seen=checkpoint.seen, unseen=checkpoint.unseen)
    training = read_training_set(data, split)
    kept = load_regions(args.regions or args.checkpoint.with_name("regions.pt"))
    result = fit(
        checkpoint,
        kept,
        training,
        split,
        photographs=args.photographs,
        steps=args.steps,
        draws=args.draws,
        seed=args.seed,
    )
    if not args.method:
        save_checkpoint(calibrated(checkpoint, result), args.output)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    before, after = result["before"], result["after"]
    print(
        f"seen scale {result['seen_scale']:.3g}, temperature of S "
        f"{result['similarity_temperature']:g}: on pseudo-unseen classes S {before['seen']:.1f} / "
        f"U {before['unseen']:.1f} / HM {before['hm']:.1f} become S {after['seen']:.1f} / "
        f"U {after['unseen']:.1f} / HM {after['hm']:.1f} ({NUMBER}), F1 {before['f1']:.1f} becomes "
        f"{after['f1']:.1f} at a score threshold of {result['score_threshold']:g}"
    )
    print(args.json if args.method else args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
