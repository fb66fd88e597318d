"""Every small size, since what a block leaves over is where loops go wrong."""

from __future__ import annotations

import numpy as np
import pytest

from zsd_core import kernels
from zsd_core.kernels import reference

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(params=kernels.build_info()["simd_paths"])
def _path(request):
    best = kernels.build_info()["simd"]
    kernels.set_simd(request.param)
    yield
    kernels.set_simd(best)


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("axis", ["rows", "outputs", "inputs"])
def test_linear(axis):
    rows, weight = normal(70, 70), normal(70, 70)
    for size in range(1, 71):
        x = rows[: size if axis == "rows" else 3, : size if axis == "inputs" else 5]
        w = weight[: size if axis == "outputs" else 3, : x.shape[1]]
        exact = x.astype(np.float64) @ w.T.astype(np.float64)
        np.testing.assert_allclose(kernels.PackedLinear(w)(x), exact, atol=2e-5, err_msg=str(size))


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("axis", ["regions", "classes", "joint", "hidden"])
def test_product_mlp(axis, precision):
    for size in (*range(1, 40), 63, 64, 65):
        shape = {"regions": 3, "classes": 2, "joint": 5, "hidden": 4} | {axis: size}
        regions, classes, joint, hidden = shape.values()
        arguments = (
            abs(normal(regions, joint)),
            abs(normal(classes, joint)),
            normal(hidden, joint) / np.sqrt(joint),
            normal(hidden),
            normal(hidden) / np.sqrt(hidden),
            normal(1),
        )
        found = kernels.PackedMlp(*arguments[2:], precision=precision)(*arguments[:2])
        twin = getattr(reference, "product_mlp" + "_int8" * (precision == "int8"))
        exact = twin(*(a.astype(np.float64) for a in arguments))
        step = 0.02 if precision == "int8" else 2e-4  # a product next to a half may round otherwise
        np.testing.assert_allclose(found, exact, atol=step, err_msg=f"{axis} {size}")


def test_preprocess_of_every_size():
    image = RNG.integers(0, 256, (40, 40, 3), np.uint8)
    statistics = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "color": "rgb"}
    for size in range(1, 41):
        own = np.ascontiguousarray(image[:size, : 41 - size])
        sizes = {"size": (41 - size, size), "padded": (48, 48)}
        found = kernels.preprocess(own, **sizes, **statistics)
        exact = reference.preprocess(own, **sizes, **statistics, dtype=np.float64)
        np.testing.assert_allclose(found, exact, atol=1e-5, err_msg=str(size))


def test_nms_of_every_count():
    corners = RNG.uniform(0, 40, (130, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + RNG.uniform(5, 30, (130, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), RNG.random(130).astype(np.float32)
    for count in range(131):
        found = kernels.nms(boxes[:count], scores[:count], threshold=0.4)
        exact = reference.nms(boxes[:count], scores[:count], threshold=0.4)
        np.testing.assert_array_equal(found, exact, err_msg=str(count))


def test_scores_of_every_count():
    for count in range(1, 40):
        scores = RNG.random((5, count)).astype(np.float32)
        curves = (abs(normal(count, 3)) * [1, 1, 0.5]).astype(np.float32)
        exact = reference.calibrate_scores(scores.astype(np.float64), curves.astype(np.float64))
        np.testing.assert_allclose(kernels.calibrate_scores(scores, curves), exact, atol=1e-6)
        logits = 4 * normal(5, 1 + 2 * count)
        unseen = RNG.random((5, count)).astype(np.float32)
        similarity = RNG.dirichlet(np.ones(count), count).T.astype(np.float32)
        for fusion in ("softmax", "sigmoid"):
            arrays = (logits, unseen, similarity)
            exact = reference.fuse(*(a.astype(np.float64) for a in arrays), fusion=fusion)
            np.testing.assert_allclose(kernels.fuse(*arrays, fusion=fusion), exact, atol=2e-5)
