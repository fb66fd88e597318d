"""The GStreamer example under Debian's Python: boxes drawn, and regions seen by what follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = Path("/usr/bin/python3")
NEEDS = """
import sys, gi
for name in ("Gst", "GstApp", "GstVideo"):
    gi.require_version(name, "1.0")
print(*sys.version_info[:2])
"""


@pytest.fixture(scope="module")
def debian() -> Path:
    """Debian's Python with GStreamer; our packages come from this environment.

    A user makes an environment with --system-site-packages, and installs ours there. That would be
    downloads in a test; the same version of Python can read both places without.
    """
    if not SYSTEM.exists():
        pytest.skip(f"{SYSTEM} is not here")
    asked = subprocess.run([SYSTEM, "-c", NEEDS], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("Debian's python3-gi and gir1.2-gst-plugins-base-1.0 are not installed")
    if asked.stdout.split() != [str(n) for n in sys.version_info[:2]]:
        pytest.skip(f"{SYSTEM} is Python {asked.stdout.strip()}, these tests run on another")
    return SYSTEM


def test_objects_are_drawn_and_seen_downstream(debian, bundle_path):
    places = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    result = subprocess.run(
        [debian, Path(__file__).with_name("gstreamer_probe.py"), bundle_path],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    frames = answer["frames"]
    assert answer["count"] == len(frames) == 5
    assert [frame["pts"] for frame in frames] == [100_000_000 * n for n in range(5)]
    for frame in frames:
        assert len(frame["before"]) == 3
        assert frame["drawn"] > 100
        for before, behind in zip(frame["before"], frame["behind"], strict=True):
            assert (
                before["class"]
                == behind["class"]
                in ("person", "dining table", "truck", "cat", "cup")
            )
            assert before["place"] == behind["place"]
            assert 0 <= before["score"] <= 1
            left, top, width, height = before["place"]
            assert 0 <= left < left + width <= 322 and 0 <= top < top + height <= 250
        scores = [region["score"] for region in frame["before"]]
        assert scores == sorted(scores, reverse=True)
    assert answer["error"]  # a first half that cannot begin is an error, and no endless wait
