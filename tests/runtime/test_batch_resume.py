"""A batch that is killed goes on, and ends as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.batch.__main__ import _interrupted_by

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("jsonl", "coco", "parquet")


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,000 small images, two of them damaged."""
    folder = tmp_path_factory.mktemp("thousand")
    noise = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)
    for number in range(1000):
        place = folder / f"{number % 10}"
        place.mkdir(exist_ok=True)
        picture = np.roll(noise, number, axis=1)[: 24 + number % 3 * 8, :32]
        cv2.imwrite(str(place / f"{number:04d}.png"), picture)
    (folder / "3" / "0123.png").write_bytes(b"")
    whole = (folder / "7" / "0777.png").read_bytes()
    (folder / "7" / "0777.png").write_bytes(whole[:40])
    return folder


@pytest.fixture
def command(bundle_path):
    """The arguments of a run in a process of its own, and its environment."""

    def arguments(folder, output, *more):
        formats = FORMATS if "--ray" in more or has_pyarrow() else FORMATS[:2]
        return [
            sys.executable,
            "-m",
            "runtime.batch",
            folder,
            "--output",
            output,
            "--bundle",
            bundle_path,
            "--threads",
            "1",
            "--backend",
            "onnxruntime",
            "--score-threshold",
            "0",
            "--max-detections",
            "3",
            "--format",
            *formats,
            *more,
        ]

    return arguments


def has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


def shards(output: Path) -> list[Path]:
    return sorted((output / "shards").glob("[0-9]*.jsonl"))


def start(command) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Ray's processes give way to all others, which on a busy machine is for minutes.
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        start_new_session=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def end_at(command, output: Path, count: int, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send it a signal when ``count`` shards are there; its status and errors."""
    process = start(command)
    try:
        deadline = time.monotonic() + 110
        while len(shards(output)) < count and process.poll() is None:
            assert time.monotonic() < deadline, "no shard was finished in time"
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, err


def finish(command, timeout: float = 110) -> str:
    """Run to the end; two images are damaged, so that the status is 3. Return stderr."""
    process = start(command)
    _, err = process.communicate(timeout=timeout)
    assert process.returncode == 3, err
    return err


def results(output: Path) -> dict[str, bytes]:
    """Every file that must be the same: all but run.json, which tells when the run began."""
    return {
        p.relative_to(output).as_posix(): p.read_bytes()
        for p in output.rglob("*")
        if p.is_file() and p.name not in ("run.json", ".lock")
    }


@pytest.mark.slow
def test_a_run_killed_three_times_equals_one_left_alone(command, thousand, tmp_path):
    more = ("--shard-size", "20")
    left_alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(command(thousand, left_alone, *more))
    done: dict[Path, int] = {}
    for count in (8, 21, 37):  # of 50 shards
        status, _ = end_at(command(thousand, killed, *more), killed, count, signal.SIGKILL)
        assert status == -signal.SIGKILL
        assert count <= len(shards(killed)) < 50
        times = {path: path.stat().st_mtime_ns for path in shards(killed)}
        assert done.items() <= times.items(), "a finished shard was searched again"
        done = times
    err = finish(command(thousand, killed, *more))
    assert f"({20 * len(done)} are done)" in err
    assert done.items() <= {path: path.stat().st_mtime_ns for path in shards(killed)}.items()
    assert results(killed) == results(left_alone)
    rows = results(killed)["detections.jsonl"].decode().splitlines()
    assert len(rows) == 1000
    damaged = [row for row in rows if '"error": null' not in row]
    assert len(damaged) == 2
    assert "0123.png: the file is empty" in damaged[0] and "0777.png" in damaged[1]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
def test_a_signal_ends_a_run_with_a_sentence_and_whole_files(
    command, thousand, tmp_path, number, expected
):
    output = tmp_path / "run"
    run = command(thousand / "3", output, "--shard-size", "2", "--batch", "1")
    status, err = end_at(run, output, 3, number)
    assert status == expected
    assert f"stopped; the same command goes on with {output}" in err
    assert "Traceback" not in err
    assert list(output.rglob("*.part")) == [] and not (output / "detections.jsonl").exists()


def test_signals_that_are_ignored_stay_so():
    """As SIGHUP does under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _interrupted_by(signal.SIGTERM, signal.SIGHUP, into=[]):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_ray_gives_the_rows_of_a_local_run_and_goes_on_after_its_driver_was_killed(
    command, thousand, tmp_path
):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'contrastzsd[cluster]'")
    inputs = tmp_path / "list.txt"
    inputs.write_text("\n".join(str(p) for n in "37" for p in sorted((thousand / n).iterdir())))
    more = ("--shard-size", "10")
    local, spread = tmp_path / "local", tmp_path / "ray"
    finish(command(inputs, local, *more))
    on_ray = command(inputs, spread, *more, "--ray", "local")
    status, _ = end_at(on_ray, spread, 3, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert 3 <= len(shards(spread)) < 20
    wait_until_quiet(spread)
    done = {path: path.stat().st_mtime_ns for path in shards(spread)}
    finish(on_ray)
    assert done.items() <= {path: path.stat().st_mtime_ns for path in shards(spread)}.items()
    assert results(spread) == results(local)


def wait_until_quiet(output: Path) -> None:
    """Ray's processes end themselves after their driver; wait until none writes any more."""
    count = -1
    while count != (count := len(shards(output))):
        time.sleep(3)
