"""Arguments that the CUDA module accepts and refuses, with the bindings built over the shim."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from cuda_proof import build
from cuda_proof.cases import mlp_arguments
from cuda_proof.engines import ShimEngine

from zsd_core.errors import ConfigError, DeviceError, MissingPackageError, ShapeError
from zsd_core.kernels import reference
from zsd_core.kernels.cuda import compiled_cuda


@pytest.fixture(scope="module")
def engine() -> ShimEngine:
    return ShimEngine(build.shim_module(), guards=False)  # which would copy what is not contiguous


class Interface:
    """An array that offers ``__cuda_array_interface__`` and nothing else."""

    def __init__(self, array: np.ndarray, **changes) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None,
            "version": 3,
        } | changes


def arguments() -> list:
    return [*mlp_arguments((3, 2, 8, 4), torch.float32), torch.zeros(3, 2)]


def test_arrays_come_by_cuda_array_interface(engine: ShimEngine):
    *inputs, output = (tensor.numpy() for tensor in arguments())
    engine.call("product_mlp", *map(Interface, inputs), Interface(output))
    np.testing.assert_allclose(output, reference.product_mlp(*inputs), rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_named_with_the_fix(engine: ShimEngine):
    def refused(kind: type[Exception], place: int, value: object, message: str) -> None:
        wrong = arguments()
        wrong[place] = value
        with pytest.raises(kind, match=message):
            engine.call("product_mlp", *wrong)

    refused(ShapeError, 1, torch.zeros(2, 9), r"prototypes has shape \(2, 9\), expected \(-1, 8\)")
    refused(ShapeError, 2, torch.zeros(4, 8).half(), "weight1 is float16, must be float32")
    refused(ShapeError, 0, torch.zeros(8, 3).T, "regions is not contiguous")
    refused(DeviceError, 3, [0.0] * 4, "bias1 is a .*list.*__dlpack__")
    strided = Interface(np.zeros((3, 2), np.float32), strides=(4, 12))
    refused(ShapeError, 6, strided, "output is not contiguous")
    swapped = Interface(np.zeros((3, 2), ">f4"))
    refused(ShapeError, 6, swapped, "must be little-endian")


def test_workspace_and_options_are_checked(engine: ShimEngine):
    room = engine.module.propose_workspace(0, 1, 2, 2, pre_nms_top=3, post_nms_top=3)
    assert room == 0
    needed = engine.module.propose_workspace(1, 1, 2, 2, pre_nms_top=3, post_nms_top=3)
    with pytest.raises(ShapeError, match=f"workspace has 8 bytes, needs {needed}"):
        engine.call(
            "propose",
            torch.zeros(1, 1, 2, 2),
            torch.zeros(1, 4, 2, 2),
            torch.zeros(1, 4),
            torch.ones(1, 2),
            torch.zeros(3, 4),
            torch.zeros(3, dtype=torch.int32),
            torch.zeros(3),
            torch.zeros(1, dtype=torch.int32),
            torch.zeros(8, dtype=torch.uint8),
            stride=16,
            pre_nms_top=3,
            post_nms_top=3,
            nms_threshold=0.5,
            min_size=1.0,
        )
    with pytest.raises(ConfigError, match="fuse: fusion is 'mean', must be 'softmax', 'sigmoid'"):
        engine.call(
            "fuse",
            torch.zeros(0, 2),
            torch.zeros(0, 0),
            torch.zeros(1, 0),
            torch.zeros(0, 1),
            fusion="mean",
        )
    with pytest.raises(ConfigError, match=r"preprocess: color is 'hsv'.*\(OpenCV reads 'bgr'\)"):
        engine.call(
            "preprocess",
            torch.zeros(2, 2, 3, dtype=torch.uint8),
            torch.zeros(3, 2, 2),
            size=(2, 2),
            mean=(0, 0, 0),
            std=(1, 1, 1),
            color="hsv",
        )


def test_missing_module_says_how_to_build_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zsd_core._compiled_cuda", None)
    with pytest.raises(MissingPackageError, match="ZSD_CUDA=ON"):
        compiled_cuda()


@pytest.mark.slow
@pytest.mark.skipif(not build.nvcc(), reason="nvcc is missing: there is no real module")
def test_real_module_loads_without_a_gpu():
    # In a process of its own: this one holds the shim's module, of the same name.
    program = "import sys; from cuda_proof import build; from pathlib import Path\n"
    program += "print(build.load(Path(sys.argv[1])).build_info()['architectures'])"
    paths = os.pathsep.join([str(build.ROOT), str(build.ROOT / "tests" / "helpers")])
    output = subprocess.check_output(
        [sys.executable, "-c", program, str(build.cuda_module())],
        env=os.environ | {"PYTHONPATH": paths},
        text=True,
    )
    assert output.strip() == "75 80 86 87 89 90 100 110 120"
