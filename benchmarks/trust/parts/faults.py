"""A disk that fills, a home that cannot be written to, no home, and a clock that jumps."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.trust.small import HELPERS, helper
from benchmarks.trust.table import Advance, Part, Result
from runtime.bundle import open_bundle
from runtime.detector import Detector

__all__ = ["PARTS", "faults"]

ROOT = HELPERS.parents[1]
# Python ignores SIGXFSZ: writing fails, as on a full disk.
LIMITED = """
import resource, runpy, sys
largest = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
JUMPING = """
import random, time
real, rng = time.time, random.Random(0)
time.time = lambda: real() + rng.choice((-86400.0, 0.0, 0.0, 3600.0, 31536000.0))
"""
HOMELESS = """
import pwd
def nobody(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
"""
Check = Callable[[Path, random.Random], str | None]  # what is wrong, or None


def faults(budget: float, seed: int, advance: Advance) -> Result:
    """Go through the checks ``budget`` times in all, each time with other numbers."""
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="trust-") as work:
        for index in range(int(budget)):
            name, check = list(CHECKS.items())[index % len(CHECKS)]
            folder = Path(work) / str(index)
            folder.mkdir()
            said = check(folder, random.Random(f"{seed} {index}"))
            if said:
                found.append(f"{name}: {said}")
            advance(1)
    return Result(inputs=int(budget), load=", ".join(CHECKS), faults=found)


def _run(
    command: Sequence[str | Path],
    environment: dict[str, str] | None = None,
    without: Sequence[str] = (),
    largest: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command; ``largest`` is what the disk takes of a file, in bytes."""
    known = {name: value for name, value in os.environ.items() if name not in without}
    module = ["-m"] if largest is None else ["-c", LIMITED, str(largest)]
    return subprocess.run(
        [sys.executable, *module, *map(str, command)],
        cwd=ROOT,
        env=known | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
    )


def _sentence(run: subprocess.CompletedProcess[str], status: int = 1) -> str | None:
    """The fault, where a command did not fail with a sentence."""
    good = run.returncode == status and "error: " in run.stderr and "Traceback" not in run.stderr
    return None if good else f"status {run.returncode}: {run.stderr[-300:]}"


def _detect(folder: Path) -> list[str | Path]:
    """A command that searches three pictures with the tiny bundle."""
    import cv2

    bundle, pictures = folder / "bundle", folder / "pictures"
    if not bundle.exists():
        helper("tiny").tiny_bundle(bundle)
        pictures.mkdir()
        for i in range(3):
            noise = np.random.default_rng(i).integers(0, 256, (200, 300, 3), np.uint8)
            cv2.imwrite(str(pictures / f"{i}.png"), noise)
    return ["runtime.detect", pictures, "--bundle", bundle, "--score-threshold", "0"]


def _film(path: Path) -> None:
    """20 frames of noise."""
    import cv2

    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 120))
    for _ in range(20):
        video.write(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    video.release()


def _disk_of_pictures(folder: Path, rng: random.Random) -> str | None:
    command = [*_detect(folder), "--output", folder / "out"]
    wrong = _sentence(_run(command, largest=rng.randrange(1000, 20_000)))
    if wrong:
        return wrong
    if _run(command).returncode or len(list((folder / "out").glob("*.jpg"))) != 3:
        return "once there is room, it does not do all"
    return None


def _disk_of_lines(folder: Path, rng: random.Random) -> str | None:
    return _sentence(_run([*_detect(folder), "--output", folder / "out", "--jsonl", "/dev/full"]))


def _disk_of_video(folder: Path, rng: random.Random) -> str | None:
    """By PyAV, and by OpenCV alone, which does not say that it cannot write."""
    detect, name = _detect(folder), rng.choice(("av", "no_module"))
    _film(folder / "v.mp4")
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(f"import sys; sys.modules[{name!r}] = None")
    paths = {"PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT)))}
    command = [detect[0], folder / "v.mp4", *detect[2:], "--output", folder / "out"]
    wrong = _sentence(_run(command, paths, largest=rng.randrange(100, 30_000)))
    if wrong:
        return wrong
    done = _run(command, paths)
    return None if done.returncode == 0 else f"once there is room: {done.stderr[-300:]}"


def _disk_of_batch(folder: Path, rng: random.Random) -> str | None:
    detect = _detect(folder)
    command = ["runtime.batch", *detect[1:], "--output", folder / "run", "--threads", "1"]
    wrong = _sentence(_run(command, largest=rng.randrange(100, 3000)))
    if wrong:
        return wrong
    done = _run(command)
    shards = [path.read_text() for path in (folder / "run/shards").iterdir()]
    rows = [json.loads(line) for text in shards for line in text.splitlines()]
    return None if done.returncode == 0 and len(rows) == 3 else f"resumed: {done.stderr[-300:]}"


def _disk_of_zip(folder: Path, rng: random.Random) -> str | None:
    helper("tiny").tiny_bundle(folder / "b.zip")
    detect = [folder / "b.zip" if part == folder / "bundle" else part for part in _detect(folder)]
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [*detect, "--output", folder / "out"]
    with zipfile.ZipFile(folder / "b.zip") as archive:
        largest = max(info.file_size for info in archive.infolist())
    run = _run(command, cache, largest=rng.randrange(100, largest))  # one does not fit
    if wrong := _sentence(run):
        return wrong
    if "Set XDG_CACHE_HOME" not in run.stderr:
        return f"no cure: {run.stderr[-300:]}"
    left = [path for path in (folder / "cache/contrastzsd/bundles").iterdir() if path.is_dir()]
    if left:
        return f"{left} are left behind"
    return None if _run(command, cache).returncode == 0 else "once there is room, it does not run"


def _disk_of_training(folder: Path, rng: random.Random) -> str | None:
    config = helper("shapes").write_config(folder, images=8)
    options = ["--max-steps", "1", "--device", "cpu", "training.epochs=1"]
    command = ["zsd_core.train", config, "--output", folder / "run", *options]
    wrong = _sentence(_run(command, largest=rng.randrange(10_000, 1_000_000)))
    if wrong:
        return wrong
    if (folder / "run/last.pt").exists():
        return "a part of a checkpoint is left behind"
    return None if _run(command).returncode == 0 else "once there is room, it does not run"


def _no_home(folder: Path, rng: random.Random, home: str | None) -> str | None:
    """A bundle and help need no home; a zip and a cache of builds say what they need one for."""
    environment, without = {"HOME": home} if home else {}, ["XDG_CACHE_HOME"]
    if not home:  # as in a container whose user is a number without an entry
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(HOMELESS)
        environment["PYTHONPATH"] = os.pathsep.join((str(folder / "site"), str(ROOT)))
        without.append("HOME")
    command = [*_detect(folder), "--output", folder / "out"]
    homeless: list[Sequence[str | Path]] = [command, ["export.engine", "--help"]]
    for needless in homeless:
        if (done := _run(needless, environment, without)).returncode:
            return done.stderr[-300:]
    helper("tiny").tiny_bundle(folder / "b.zip")
    zipped = [folder / "b.zip" if part == folder / "bundle" else part for part in command]
    cures: list[Sequence[str | Path]] = [zipped]
    if not home:
        cures.append(["export.engine", folder / "bundle"])
    for needing in cures:
        run = _run(needing, environment, without)
        if wrong := _sentence(run):
            return wrong
        if "Set XDG_CACHE_HOME" not in run.stderr:
            return f"no cure: {run.stderr[-300:]}"
    return None


def _clock(folder: Path, rng: random.Random) -> str | None:
    """A video and a run of a batch, while the clock jumps by hours, days and a year."""
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(JUMPING)
    jumps = {"PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT)))}
    detect = _detect(folder)
    _film(folder / "v.mp4")
    begun = time.monotonic()
    lines = folder / "lines.jsonl"
    watched = [detect[0], folder / "v.mp4", *detect[2:], "--jsonl", lines]
    done = _run([*watched, "--output", folder / "out"], jumps)
    if done.returncode or len(lines.read_text().splitlines()) != 20:
        return f"a video: {done.stderr[-300:]}"
    done = _run(["runtime.batch", *detect[1:], "--output", folder / "run"], jumps)
    if done.returncode:
        return f"a batch: {done.stderr[-300:]}"
    return None if time.monotonic() - begun < 120 else "it took more than two minutes"


def _closed_files(folder: Path, rng: random.Random) -> str | None:
    """No more files may be opened: a sentence, and all is well once some are closed."""
    bundle = helper("tiny").tiny_bundle(folder / "bundle")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held, said = [], "it opened a bundle without a file"
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    try:
        try:
            while True:
                held.append(os.open(bundle / "manifest.json", os.O_RDONLY))
        except OSError:
            pass
        try:
            open_bundle(bundle)
        except ValueError as error:  # a BundleError is one
            said = "" if "cannot be read" in str(error) else f"it says {error}"
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if said:
        return said
    with Detector(bundle, backend="onnxruntime", threads=1) as detector:
        detector(np.zeros((40, 40, 3), np.uint8))
    return None


CHECKS: dict[str, Check] = {
    "full disk: pictures": _disk_of_pictures,
    "lines": _disk_of_lines,
    "video": _disk_of_video,
    "batch": _disk_of_batch,
    "zip bundle": _disk_of_zip,
    "read-only home": partial(_no_home, home="/proc"),
    "no home": partial(_no_home, home=None),
    "jumping clock": _clock,
    "no more files": _closed_files,
    "full disk: checkpoint": _disk_of_training,
}
PARTS = (
    Part(
        name="faults",
        tried="a full disk, a home that is read-only or missing, no more files, a clock that jumps",
        unit="inputs",
        full=90,
        short=len(CHECKS) - 1,  # without training, which takes half of the time
        run=faults,
    ),
)
