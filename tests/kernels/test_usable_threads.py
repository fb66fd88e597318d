"""How many threads: by OMP_NUM_THREADS, affinity and the quota of a cgroup, one answer for all."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import Detector
from zsd_core import kernels
from zsd_core.kernels._load import compiled

ROOT = Path(__file__).parents[2]


def quota(tmp_path, groups, files):
    """Cores of the quota in a made-up /proc and /sys."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return compiled().quota_cores(str(tmp_path))


V1 = "11:cpu,cpuacct:/docker/ab\n10:cpuset:/\n1:name=systemd:/docker/ab\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 50000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {"cpu.max": "50000 0"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("", {"cpu.max": "50000 100000\n"}, math.inf),
        (
            V1,
            {
                "cpu/docker/ab/cpu.cfs_quota_us": "50000",
                "cpu/docker/ab/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        (
            "3:cpuset:/\n",
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            math.inf,
        ),
    ],
)
def test_the_quota_is_the_least_of_the_group_and_those_above(tmp_path, groups, files, cores):
    assert quota(tmp_path, groups, files) == cores


@pytest.fixture
def no_limit(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("wanted", "limit"),
    [("3", 3), ("1,4", 1), (" 2 ", 2), ("", 0), ("0", 0), ("-2", 0), ("x", 0), ("5000", 1024)],
)
def test_openmp_says_how_many(no_limit, monkeypatch, wanted, limit):
    usual = kernels.thread_limit()
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert kernels.thread_limit() == (limit or usual)
    assert kernels.usable_threads() == (limit or usual or os.cpu_count())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core is the whole machine")
def test_affinity_is_a_limit(no_limit):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert (kernels.thread_limit(), kernels.usable_threads()) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_keep_the_limit_unless_told_otherwise(bundle_path, monkeypatch, backend):
    pytest.importorskip(backend)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Detector(bundle_path, backend=backend) as detector:
        assert detector.description.endswith("1 thread")
    before = kernels.get_threads()
    try:
        with Detector(bundle_path, backend=backend, threads=2) as detector:
            assert detector.description.endswith("2 threads")
    finally:
        kernels.set_threads(before)


def test_the_kernels_begin_with_the_limit():
    code = "from zsd_core import kernels; print(kernels.get_threads())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "3\n"
