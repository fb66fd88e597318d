"""The vector paths this CPU cannot run: NEON, cross-compiled and run in an emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc" / "kernels" / "cpu"
COMPILER = "aarch64-linux-gnu-g++"
FLAGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which("qemu-aarch64")),
    reason="needs apt-get install g++-aarch64-linux-gnu qemu-user",
)
def test_neon_agrees_with_plain_loops_in_an_emulator(tmp_path):
    own = ("simd_avx", "simd_neon")  # with flags of their own
    sources = [path for path in sorted(KERNELS.glob("*.cpp")) if not path.name.startswith(own)]
    sources += [Path(__file__).with_name("check_simd.cpp")]
    dot = tmp_path / "simd_neon_dot.o"
    dot_flags = ["-march=armv8.2-a+dotprod", "-c", KERNELS / "simd_neon_dot.cpp", "-o", dot]
    subprocess.run([COMPILER, *FLAGS, *dot_flags], check=True)
    program = tmp_path / "check"
    subprocess.run(
        [COMPILER, *FLAGS, "-static", *sources, dot, "-o", program, "-lpthread"], check=True
    )
    for cpu, paths in (("max", ["neon_dot", "neon"]), ("cortex-a53", ["neon"])):
        run = subprocess.run(
            ["qemu-aarch64", "-cpu", cpu, program], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert list(dict.fromkeys(line.split()[0] for line in run.stdout.splitlines())) == paths
