from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from zsd_core import kernels
from zsd_core.errors import ShapeError
from zsd_core.kernels import reference

# B, C, H, W, R, output size, sampling ratio
CASES = [
    (1, 3, 8, 8, 0, (7, 7), 2),
    (1, 1, 1, 1, 1, (1, 1), 2),
    (2, 5, 9, 13, 7, (3, 2), 2),
    (2, 16, 24, 24, 11, (7, 7), 2),
    (1, 37, 38, 50, 13, (14, 14), 2),
    (2, 19, 9, 13, 5, (3, 7), 2),  # whole blocks of channels, and as few as an image has
    (3, 4, 10, 7, 9, (2, 3), 1),
    (1, 4, 20, 20, 9, (2, 3), 3),
    (1, 4, 20, 20, 9, (4, 3), 0),
]


def roi_arguments(batch, channels, height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((batch, channels, height, width)).astype(np.float32)
    limit = np.array([width, height, width, height]) * 16
    corners = rng.uniform(-0.1, 1.1, (count, 4)) * limit  # some reach outside the map
    rois = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    return features, rois.astype(np.float32), rng.integers(0, batch, count).astype(np.int32)


def torchvision_rois(rois, batch_indices):
    columns = np.concatenate([batch_indices[:, None].astype(rois.dtype), rois], axis=1)
    return torch.from_numpy(columns)


def ours(case, arguments, module=kernels):
    return module.roi_align(
        *arguments, output_size=case[5], spatial_scale=1 / 16, sampling_ratio=case[6]
    )


def theirs(case, arguments, dtype=torch.float32):
    features, rois, indices = arguments
    return torchvision.ops.roi_align(
        torch.from_numpy(features).to(dtype),
        torchvision_rois(rois, indices).to(dtype),
        case[5],
        1 / 16,
        case[6],
        aligned=True,
    )


def max_abs(array):
    return float(np.abs(array).max(initial=0))


@pytest.fixture(params=kernels.build_info()["simd_paths"])
def simd(request):
    best = kernels.build_info()["simd"]
    kernels.set_simd(request.param)
    yield request.param
    kernels.set_simd(best)


def test_every_number_of_channels(simd):
    features, rois, indices = roi_arguments(2, 36, 6, 7, 5)
    whole = ours((2, 36, 6, 7, 5, (3, 2), 2), (features, rois, indices), reference)
    for channels in range(1, 37):
        part = np.ascontiguousarray(features[:, :channels])
        result = ours((2, channels, 6, 7, 5, (3, 2), 2), (part, rois, indices))
        np.testing.assert_allclose(result, whole[:, :channels], atol=2e-6, err_msg=str(channels))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_as_close_to_float64_as_torchvision(simd, case):
    arguments = roi_arguments(*case[:5])
    exact = theirs(case, arguments, torch.float64).numpy()
    result = ours(case, arguments)
    assert result.shape == exact.shape
    error = max_abs(theirs(case, arguments).numpy() - exact)
    assert max_abs(result - exact) <= 2 * error + np.finfo("f4").eps


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin_is_torchvision_in_float64(case):
    features, rois, indices = roi_arguments(*case[:5])
    arguments = (features.astype(np.float64), rois.astype(np.float64), indices)
    exact = theirs(case, arguments, torch.float64).numpy()
    np.testing.assert_allclose(ours(case, arguments, reference), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_is_as_close_to_float64_as_torchvision(simd, case):
    features, rois, indices = roi_arguments(*case[:5])
    gradient = np.random.default_rng(1).standard_normal((case[4], case[1], *case[5]))

    def grad(dtype):
        leaf = torch.from_numpy(features).to(dtype).requires_grad_()
        boxes = torchvision_rois(rois, indices).to(dtype)
        pooled = torchvision.ops.roi_align(leaf, boxes, case[5], 1 / 16, case[6], aligned=True)
        pooled.backward(torch.from_numpy(gradient.astype(np.float32)).to(dtype))
        return leaf.grad.numpy()

    options = {"spatial_scale": 1 / 16, "sampling_ratio": case[6]}
    arguments = (gradient.astype(np.float32), rois, indices, features.shape)
    exact = grad(torch.float64)
    result = kernels.roi_align_backward(*arguments, **options)
    assert max_abs(result - exact) <= 2 * max_abs(grad(torch.float32) - exact) + 1e-6
    double = (gradient.astype(np.float32).astype(np.float64), rois.astype(np.float64))
    twin = reference.roi_align_backward(*double, *arguments[2:], **options)
    np.testing.assert_allclose(twin, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("read", [[4], [3, 1, 3], [0, 4, 2, 1, 3]])
def test_images_that_no_region_reads_change_nothing(simd, read):
    """Regions of some images of a batch, in any order, as a part of a larger call asks."""
    random = np.random.default_rng(2)
    features = random.standard_normal((5, 19, 9, 7), np.float32)
    rois = np.sort(random.uniform(0, 112, (len(read), 2, 2)), axis=1).reshape(-1, 4)
    options = {"output_size": (3, 3), "spatial_scale": 1 / 16}
    found = kernels.roi_align(features, rois, np.array(read), **options)
    alone = [
        kernels.roi_align(features[image, None], roi[None], np.zeros(1, int), **options)
        for image, roi in zip(read, rois, strict=True)
    ]
    assert np.array_equal(found, np.concatenate(alone))
    unread = sorted(set(range(5)) - set(read))
    features[unread] = np.nan
    again = kernels.roi_align(features, rois, np.array(read), **options)
    assert np.array_equal(found, again)


def test_does_not_depend_on_threads():
    case = CASES[4]
    arguments = roi_arguments(*case[:5])
    gradient = np.random.default_rng(1).standard_normal((case[4], case[1], *case[5]))
    threads = kernels.get_threads()
    results = []
    for count in (1, 2, 3):
        kernels.set_threads(count)
        backward = kernels.roi_align_backward(
            gradient, *arguments[1:], arguments[0].shape, spatial_scale=1 / 16
        )
        results.append((ours(case, arguments), backward))
    kernels.set_threads(threads)
    for forward, backward in results[1:]:
        assert np.array_equal(forward, results[0][0])
        assert np.array_equal(backward, results[0][1])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize(
    "roi",
    [
        (np.nan, 0, 32, 32),
        (0, 0, np.inf, 32),
        (-np.inf, 0, 32, 32),
        (0, 0, 1e30, 1e30),
        (32, 32, 0, 0),
        (5, 5, 5, 5),
        (9000, 9000, 9900, 9900),
    ],
    ids=str,
)
def test_boxes_that_are_no_boxes_do_not_crash(roi, ratio):
    features = np.ones((1, 2, 4, 4), np.float32)
    rois = np.array([roi, (0, 0, 32, 32)], np.float32)
    arguments = (features, rois, np.zeros(2, np.int32))
    case = (0, 0, 0, 0, 0, (2, 2), ratio)
    result = ours(case, arguments)
    np.testing.assert_allclose(result[1], 1, rtol=1e-6)
    np.testing.assert_allclose(result, ours(case, arguments, reference), atol=1e-6)


def test_an_infinity_of_the_map_stays_where_it_is_read():
    features = np.ones((1, 1, 8, 8), np.float32)
    features[0, 0, 7, 7] = np.inf
    rois = np.array([(0, 0, 48, 48), (64, 64, 128, 128)], np.float32)
    result = ours((0, 0, 0, 0, 0, (2, 2), 2), (features, rois, np.zeros(2, np.int32)))
    assert np.isfinite(result[0]).all()
    assert np.isinf(result[1, 0, 1, 1])


@pytest.mark.parametrize("module", [kernels, reference], ids=["compiled", "reference"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("step", [2, 3, 20])
def test_a_bin_step_leaves_bins_out_and_changes_none(case, step, module):
    arguments = roi_arguments(*case[:5])
    result = module.roi_align(
        *arguments, output_size=case[5], spatial_scale=1 / 16, sampling_ratio=case[6], bin_step=step
    )
    assert np.array_equal(result, ours(case, arguments, module)[:, :, ::step, ::step])


def test_a_bin_step_below_one_is_a_sentence():
    features, rois, indices = roi_arguments(1, 2, 4, 4, 1)
    with pytest.raises(ShapeError, match="bin_step is 0, must be positive"):
        kernels.roi_align(
            features, rois, indices, output_size=(2, 2), spatial_scale=1 / 16, bin_step=0
        )


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_a_map_without_cells_is_refused(size):
    box = [[0.0, 0, 1, 1]]
    with pytest.raises(ShapeError, match="at least 1 x 1"):
        kernels.roi_align(np.zeros((1, 3, *size)), box, [0], output_size=(2, 2), spatial_scale=1.0)
    with pytest.raises(ShapeError, match="at least 1 x 1"):
        kernels.roi_align_backward(
            np.ones((1, 3, 2, 2)), box, [0], (1, 3, *size), spatial_scale=1.0
        )
