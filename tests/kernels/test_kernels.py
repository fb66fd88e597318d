"""Common to all kernels: the API's errors, build information, threads, instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import zsd_core.kernels as kernels
from zsd_core.errors import ConfigError, MissingPackageError, ShapeError
from zsd_core.kernels import _load, reference

OPERATORS = [
    "PackedLinear",
    "calibrate_scores",
    "detect",
    "fuse",
    "nms",
    "preprocess",
    "product_mlp",
    "propose",
    "roi_align",
    "roi_align_backward",
]


def test_every_operator_has_a_twin():
    for name in OPERATORS:
        assert name in kernels.__all__
        assert name in reference.__all__
    assert kernels.__all__ == sorted(kernels.__all__)
    assert reference.__all__ == sorted(reference.__all__)


def test_build_info_names_what_runs():
    info = kernels.build_info()
    assert info["simd"] in info["simd_paths"]
    assert info["threads"] >= 1
    assert isinstance(info["cuda"], bool)
    assert info["compiler"]


@pytest.mark.parametrize(
    ("paths", "exact"),
    [
        (["avx512_vnni", "avx512", "avx2", "sse2"], True),
        (["avx2_vnni", "avx2", "sse2"], True),
        (["avx512", "avx2", "sse2"], False),
        (["neon"], True),
    ],
)
def test_which_cpus_sum_int8_products_exactly(monkeypatch, paths, exact):
    monkeypatch.setattr("zsd_core.kernels.info.build_info", lambda: {"simd_paths": paths})
    assert kernels.sums_int8_exactly() is exact


def test_missing_module_is_an_error_that_says_how_to_build(monkeypatch):
    monkeypatch.setattr(_load, "_module", None)
    monkeypatch.setitem(sys.modules, "zsd_core._compiled", None)
    with pytest.raises(MissingPackageError, match="scripts/build"):
        kernels.nms(np.zeros((1, 4)), np.zeros(1), threshold=0.5)


def test_importing_the_kernels_loads_neither_the_module_nor_torch():
    code = (
        "import sys, zsd_core.kernels; "
        "assert not {'torch', 'zsd_core._compiled'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_and_instruction_sets_are_checked():
    for count in (0, -1, 1025, 2**40, float("inf"), float("nan"), 2.5, "2"):
        with pytest.raises(ConfigError, match="must be a whole number from 1 to 1024"):
            kernels.set_threads(count)
    with pytest.raises(ConfigError, match="must be one of"):
        kernels.set_simd("mmx")


def test_a_wrong_shape_is_a_sentence():
    with pytest.raises(ShapeError, match=r"rois has shape \(3, 5\), expected \(R, 4\)"):
        kernels.roi_align(
            np.zeros((1, 2, 4, 4)), np.zeros((3, 5)), [0, 0, 0], output_size=(2, 2), spatial_scale=1
        )
    with pytest.raises(ShapeError, match=r"batch_indices lie in \[0, 1\], must lie in \[0, 1\)"):
        kernels.roi_align(
            np.zeros((1, 2, 4, 4)), np.zeros((2, 4)), [0, 1], output_size=(2, 2), spatial_scale=1
        )


def arguments():
    rng = np.random.default_rng(0)
    regions = rng.random((64, 48), np.float32)
    weights = rng.standard_normal((40, 48), np.float32), rng.standard_normal(40, np.float32)
    return regions, rng.random((9, 48), np.float32), *weights, weights[1], np.ones(1, np.float32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_threads_of_its_own():
    expected = kernels.product_mlp(*arguments())  # the parent's threads exist now
    child = os.fork()
    if child == 0:
        same = False
        try:
            same = np.array_equal(kernels.product_mlp(*arguments()), expected)
        finally:  # whatever happens, the child does not go on with the other tests
            os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_callers_in_many_threads_do_not_disturb_each_other():
    expected, wrong = kernels.product_mlp(*arguments()), []

    def call():
        for _ in range(5):
            if not np.array_equal(kernels.product_mlp(*arguments()), expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_threads_that_the_system_does_not_give_are_done_without():
    code = (
        "import os, pathlib, resource, numpy as np\n"
        "from zsd_core import kernels\n"
        "run = lambda: kernels.preprocess(np.full((999, 99, 3), 9, np.uint8), size=(999, 99),"
        " padded=(1024, 128), mean=(0, 0, 0), std=(1, 1, 1)).sum()\n"
        "kernels.set_threads(1); alone = run()\n"
        "if not os.getuid(): os.setuid(65534)\n"  # the limit is not for root
        "def threads(process):\n"
        "    try: mine = process.stat().st_uid == os.getuid()\n"
        "    except OSError: return 0\n"  # it has ended meanwhile
        "    return len(list(process.glob('task/*'))) if mine else 0\n"
        "some = 50 + sum(map(threads, pathlib.Path('/proc').glob('[0-9]*')))\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (some, some))\n"
        "kernels.set_threads(1000); assert run() == alone\n"
        "some = kernels.get_threads(); assert 1 < some < 1000, some\n"
        "assert run() == alone and kernels.get_threads() == some\n"
        "kernels.set_threads(2); assert run() == alone and kernels.get_threads() == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("index", [2**32, 0.5, float("nan"), -(2**33)])
def test_indices_that_would_become_others_are_refused(index):
    with pytest.raises(ShapeError, match="whole numbers of 32 bits"):
        kernels.roi_align(
            np.zeros((1, 1, 4, 4)), np.zeros((1, 4)), [index], output_size=(1, 1), spatial_scale=1.0
        )
    same = kernels.roi_align(
        np.ones((1, 1, 4, 4)), [[0, 0, 2, 2]], [0.0], output_size=(1, 1), spatial_scale=1.0
    )
    assert same == 1


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan"), float("inf"), "0.5", None])
def test_an_overlap_is_a_share(threshold):
    one = np.float32([[0, 0, 9, 9]])
    scores, images = np.ones(1, np.float32), np.zeros(1, np.int32)
    limit = {"nms_threshold": threshold, "min_size": 0.0}
    detect = one[None, 0, :1] + 1, one * 0, one, images, [[9, 9]], [0.0]
    propose = np.ones((1, 1, 1, 1)), np.zeros((1, 4, 1, 1)), one, [[9, 9]]
    few = {"stride": 1, "pre_nms_top": 1, "post_nms_top": 1}
    calls = [
        lambda k: k.nms(one, scores, threshold=threshold),
        lambda k: k.detect(*detect, max_detections=1, **limit),
        lambda k: k.propose(*map(np.float32, propose), **few, **limit),
        lambda k: k.second_look(one, images, scores, count=1, nms_threshold=threshold),
        lambda k: k.spoken_for(one, images, np.array([0]), threshold=threshold),
    ]
    for call in calls:
        for module in (kernels, reference):
            with pytest.raises(ConfigError, match=r"must be a number in \[0, 1\]; it is a box's"):
                call(module)


@pytest.mark.parametrize(
    "boxes",
    [[[1j, 0, 1, 1]], [["0", "0", "1", "1"]], [[None] * 4], np.zeros((1, 4), "M8[s]")],
    ids=["complex", "texts", "objects", "dates"],
)
def test_what_is_no_real_number_is_refused(boxes):
    with pytest.raises(ShapeError, match=r"has dtype .*, must hold real numbers"):
        kernels.nms(boxes, [1.0], threshold=0.5)
    index = np.asarray(boxes).ravel()[:1]
    with pytest.raises(ShapeError, match=r"has dtype .*, must hold real numbers"):
        kernels.roi_align(
            np.zeros((1, 1, 4, 4)), np.zeros((1, 4)), index, output_size=(1, 1), spatial_scale=1.0
        )
    assert kernels.nms([[False, 0, 1, 1]], np.float16([1]), threshold=0.5) == 0
