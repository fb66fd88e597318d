from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from zsd_core import kernels
from zsd_core.errors import ConfigError, ImageError, ShapeError
from zsd_core.kernels import reference

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

# image size, size after resizing, padded size
CASES = [
    ((1, 1), (1, 1), (1, 1)),
    ((1, 1), (5, 7), (8, 8)),
    ((1, 50), (3, 20), (32, 32)),
    ((31, 17), (31, 17), (32, 32)),
    ((31, 17), (64, 40), (64, 64)),
    ((31, 17), (20, 9), (32, 32)),
    ((101, 203), (25, 40), (32, 64)),  # whole blocks and a partial one
    ((64, 64), (16, 32), (16, 32)),
    ((7, 500), (7, 3), (7, 3)),
]


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_float64_twin(case, color):
    shape, size, padded = case
    options = {"size": size, "padded": padded, "color": color, **NORMAL}
    result = kernels.preprocess(image_of(*shape), **options)
    exact = reference.preprocess(image_of(*shape), **options, dtype=np.float64)
    assert result.dtype == np.float32
    assert result.shape == (3, *padded)
    np.testing.assert_allclose(result, exact, atol=2e-5)
    assert not result[:, size[0] :].any()
    assert not result[:, :, size[1] :].any()


@pytest.mark.parametrize("size", [(300, 451), (400, 600), (200, 300)], ids=str)
def test_is_plain_bilinear_above_half_size(size):
    image = skimage.data.chelsea()  # 300 x 451
    result = kernels.preprocess(image, size=size, padded=size, **PLAIN)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    expected = torch.nn.functional.interpolate(tensor, size, mode="bilinear", antialias=False)
    np.testing.assert_allclose(result, expected[0].numpy(), atol=1e-5)


def test_a_block_of_more_rows_than_32_bits_can_sum():
    image = np.full((8_421_505, 1, 3), 255, np.uint8)  # its sum is 2 ** 31 + 127
    result = kernels.preprocess(image, size=(1, 1), padded=(1, 1), **PLAIN)
    np.testing.assert_allclose(result, 1, rtol=1e-6)


def test_is_the_mean_of_blocks_where_they_divide():
    image = image_of(60, 90)
    result = kernels.preprocess(image, size=(20, 30), padded=(20, 30), **PLAIN)
    expected = image.reshape(20, 3, 30, 3, 3).mean(axis=(1, 3)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_bgr_and_strided_images_mean_the_same():
    image = skimage.data.chelsea()[::2, 3:200]
    options = {"size": (50, 66), "padded": (64, 96), **NORMAL}
    expected = kernels.preprocess(np.ascontiguousarray(image), **options)
    assert np.array_equal(kernels.preprocess(image, **options), expected)
    swapped = kernels.preprocess(image[:, :, ::-1], **options, color="bgr")
    assert np.array_equal(swapped, expected)


def test_does_not_depend_on_threads():
    image, threads = skimage.data.chelsea(), kernels.get_threads()
    options = {"size": (320, 481), "padded": (320, 512), **NORMAL}
    results = []
    for count in (1, 2, 3):
        kernels.set_threads(count)
        results.append(kernels.preprocess(image, **options))
    kernels.set_threads(threads)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=lambda a: f"{a.shape}-{a.dtype}",
)
def test_what_is_no_image_is_an_error(image):
    with pytest.raises(ImageError, match=r"must be \(H, W, 3\) uint8"):
        kernels.preprocess(image, size=(4, 4), padded=(4, 4), **NORMAL)


def test_the_channel_order_is_one_of_two():
    with pytest.raises(
        ConfigError, match=r"preprocess: color is 'GBR', must be 'rgb' or 'bgr' \(Op"
    ):
        kernels.preprocess(
            np.zeros((4, 4, 3), np.uint8), size=(4, 4), padded=(4, 4), color="GBR", **NORMAL
        )


def test_size_must_fit_into_padded():
    with pytest.raises(ShapeError, match="must be at least"):
        kernels.preprocess(image_of(4, 4), size=(5, 4), padded=(4, 4), **NORMAL)


def test_the_mean_of_sixteen_million_pixels_does_not_overflow():
    white = np.full((4000, 4000, 3), 255, np.uint8)
    got = kernels.preprocess(white, size=(1, 1), padded=(1, 1), mean=(0, 0, 0), std=(1, 1, 1))
    assert got.ravel().tolist() == [1, 1, 1]
