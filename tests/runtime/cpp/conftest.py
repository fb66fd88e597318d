"""The C++ library, built without Python and installed once, and a conversation with it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = "g++ libssl-dev libutf8proc-dev nlohmann-json3-dev"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def tool(name: str) -> str | None:
    """A program beside this Python, or on the PATH."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def run(*command: object) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def openvino_options() -> list[str]:
    """Options by which CMake finds OpenVINO: its wheel brings headers and CMake files."""
    spec = importlib.util.find_spec("openvino")
    folder = Path(spec.origin).parent / "cmake" if spec and spec.origin else None
    return [f"-DOpenVINO_DIR={folder}"] if folder and folder.is_dir() else []


def onnxruntime_options(folder: Path) -> list[str]:
    """Options by which CMake finds ONNX Runtime: the wheel has the library, but no headers."""
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE_DIR", "/usr/include/onnxruntime"))
    spec = importlib.util.find_spec("onnxruntime")
    if not (headers / "onnxruntime_cxx_api.h").is_file() or not (spec and spec.origin):
        return []
    (library,) = Path(spec.origin).parent.glob("capi/libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    return [
        f"-Donnxruntime_INCLUDE_DIR={headers}",
        f"-Donnxruntime_LIBRARY={folder / 'libonnxruntime.so'}",
    ]


@pytest.fixture(scope="session")
def cmake() -> str:
    """The program, where a compiler and the headers are there too."""
    program, compiler = tool("cmake"), tool("c++")
    if program is None or compiler is None:
        pytest.skip(f"no CMake or C++ compiler here: apt-get install cmake {PACKAGES}")
    includes = "#include <nlohmann/json.hpp>\n#include <openssl/evp.h>\n#include <utf8proc.h>\n"
    check = [compiler, "-E", "-x", "c++", "-", "-o", os.devnull]
    if subprocess.run(check, input=includes, text=True, capture_output=True).returncode:
        pytest.skip(f"headers are missing: apt-get install {PACKAGES}")
    return program


@pytest.fixture(scope="session")
def built(cmake: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed library (prefix/), the example and the probe."""
    folder = tmp_path_factory.mktemp("cpp")
    openvino, onnxruntime = openvino_options(), onnxruntime_options(folder)
    if not openvino and not onnxruntime:
        pytest.skip("no backend has C++ headers here: pip install openvino")
    common = ["-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *openvino, *onnxruntime]
    if tool("ninja"):
        common += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]

    def build(name: str, source: Path, *options: str) -> Path:
        place = folder / name
        run(cmake, "-S", source, "-B", place, *common, *options)
        run(cmake, "--build", place, "--parallel", "2")
        return place

    library = build(
        "library",
        ROOT,
        "-DZSD_PYTHON=OFF",
        "-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON",
        "-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON",
        f"-DZSD_OPENVINO={'ON' if openvino else 'OFF'}",
        f"-DZSD_ONNXRUNTIME={'ON' if onnxruntime else 'OFF'}",
    )
    run(cmake, "--install", library, "--prefix", folder / "prefix")
    library.rename(folder / "gone")  # what is installed must stand alone
    for name, source in (("example", ROOT / "examples/cpp"), ("probe", Path(__file__).parent)):
        build(name, source, f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}")
    return folder


class Probe:
    """A conversation with the probe; an error it answers with is raised."""

    class Refused(Exception):
        """Exception of the library: the name of its type, and the message."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __call__(self, do: str, **arguments: object):
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise self.Refused(answer["kind"], answer["error"])
        return answer["result"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="session")
def probe(built: Path) -> Iterator[Probe]:
    conversation = Probe(built / "probe" / "probe")
    yield conversation
    conversation.close()


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest, probe: Probe) -> str:
    if request.param not in probe("backends"):
        pytest.skip(
            f"{request.param} has no C++ headers here: pip install openvino, or Debian 13's "
            "libonnxruntime-dev (ONNXRUNTIME_INCLUDE_DIR names another place)"
        )
    return request.param


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, Path]]:
    """CC0 and public-domain photographs of scikit-image, as arrays and as PPM."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photographs")
    return {
        name: (array := getattr(data, name)(), ppm(folder / f"{name}.ppm", array))
        for name in PHOTOGRAPHS
    }


@pytest.fixture
def photo_path(photo: np.ndarray, tmp_path: Path) -> Path:
    """The made-up ``photo`` as a PPM."""
    return ppm(tmp_path / "photo.ppm", photo)


def ppm(path: Path, image: np.ndarray) -> Path:
    """Write an image ``(H, W, 3)`` as a PPM."""
    path.write_bytes(b"P6 %d %d 255\n" % image.shape[1::-1] + image.tobytes())
    return path
