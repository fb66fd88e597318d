"""The parts of the proof, in order: a module each, and the seconds that it may take."""

from __future__ import annotations

import importlib
import random
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.report import Report, agreed, read_result

__all__ = ["PARTS", "Part", "carry_out", "gpu_name", "needed", "new_seed"]


class Part(NamedTuple):
    """A part of the proof.

    Attributes:
        seconds: it may take, at most.
        title: of its section on the page.
        about: what it proves, in a sentence.
    """

    seconds: int
    title: str
    about: str


PARTS = {
    "machine": Part(15, "The machine", "The GPU, its driver, and the versions of what ran on it."),
    "build": Part(120, "The build", "The kernels, built for this architecture alone."),
    "kernels": Part(
        75,
        "Kernels against their twins",
        "Every CUDA kernel at the sizes of the tests and at real ones, on fresh random inputs, "
        "arrays between guards, against float64.",
    ),
    "sanitizer": Part(
        85,
        "compute-sanitizer",
        "memcheck and racecheck over the cases of the tests, every array an allocation of its own.",
    ),
    "speed": Part(
        70,
        "Speed of kernels",
        "Medians by CUDA events, of graphs of many calls, so that no launch is in them; float32 "
        "without TF32. Shares are of a copy's bandwidth and of an 8192 x 8192 x 8192 product's "
        "rate in the same type, measured in the same run.",
    ),
    "pipeline": Part(
        60,
        "A whole detector on the GPU",
        "The device pipeline with its networks in PyTorch, float32, in a CUDA graph, against "
        "ONNX Runtime on the CPU: agreement is the same class within a pixel and 0.01 of score.",
    ),
    "training": Part(
        55,
        "Training",
        "configs/paper_coco_65_15.yaml from random weights, on pictures that are made up: the "
        "data loader and all losses of every step are in the time.",
    ),
}


def new_seed() -> int:
    """A seed that nobody chose."""
    return random.SystemRandom().randrange(1, 1 << 20)


def needed(folder: Path, part: str, *, dry: bool, again: bool) -> bool:
    """Whether a part is to run: it did not agree before, or it is asked for again."""
    return again or not agreed(read_result(folder, part), dry=dry)


def carry_out(folder: Path, part: str, seed: int, *, dry: bool) -> bool:
    """Run a part in this process; whether everything in it agreed.

    Whatever goes wrong becomes part of the result, with its traceback: nobody can go back and look.
    """
    gpu = None if dry else gpu_name()
    report = Report(folder, part, seed, gpu)
    report.say(f"{part} ...")
    try:
        module = importlib.import_module(f"benchmarks.gpu.{part}")
        (module.dry if dry else module.run)(report)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        report.say(f"  {type(error).__name__}: {error}"[:500])
        return report.end("".join(traceback.format_exception(error))[-6000:])
    return report.end()


def gpu_name() -> str:
    """Name of the GPU.

    Raises:
        RuntimeError: PyTorch finds none.
    """
    import torch

    return torch.cuda.get_device_name(0)
