"""Whatever a caller passes becomes (H, W, 3) uint8, or an error that says what to do."""

import cv2
import numpy as np
import pytest

from runtime.images import as_image, read_image
from zsd_core.errors import ConfigError, ImageError


@pytest.fixture
def rgb(photo):
    return photo


def test_a_proper_array_is_not_copied(rgb):
    assert np.shares_memory(as_image(rgb, "rgb"), rgb)
    assert as_image(rgb, "bgr") is not None


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_becomes_three_equal_channels(shape):
    grey = np.arange(35, dtype=np.uint8).reshape(shape)
    image = as_image(grey, "rgb")
    assert image.shape == (5, 7, 3)
    for channel in range(3):
        np.testing.assert_array_equal(image[:, :, channel], grey.reshape(5, 7))


def test_alpha_is_dropped_and_crops_become_contiguous(rgb):
    rgba = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    np.testing.assert_array_equal(as_image(rgba, "rgb"), rgb)
    crop = as_image(rgb[3:50, 4:9], "rgb")
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, rgb[3:50, 4:9])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), r"float64.*uint8.*255.* \(image \* 255\)\.round\(\)\.astype"),
        (np.full((4, 4, 3), 200.0), r"image\.clip\(0, 255\)\.round\(\)\.astype"),
        (np.full((4, 4, 3), np.nan), "float64"),
        (np.zeros((4, 4, 3), np.uint16), r"uint16.* \(image // 257\)\.astype"),
        (np.zeros((4, 4, 3), np.int64), r"int64.* image\.clip\(0, 255\)\.astype"),
        (np.zeros((4, 4, 3), bool), r"bool.* \(image \* 255\)\.astype"),
        (np.zeros((40, 50, 2), np.uint8), r"\(H, W, 4\) with alpha\.$"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 0), np.uint8), "empty"),
        (np.zeros((3, 40, 50), np.uint8), r"channels last: image.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"detector\(list\(images\)\)"),
        (np.zeros(4, np.uint8), r"\(H, W, 3\)"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ([[1, 2]], "list"),
        ((x for x in "ab"), "generator.* a batch is a list of these"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_with_the_fix(image, message):
    with pytest.raises(ImageError, match=message):
        as_image(image, "rgb")


def test_the_channel_order_is_one_of_two(rgb):
    with pytest.raises(ConfigError, match=r"image 3: color is 'RGB', must be 'rgb' or 'bgr' \(Op"):
        as_image(rgb, "RGB", "image 3")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "LA", "1", "YCbCr", "HSV"])
def test_a_pillow_image_is_what_it_shows_whatever_its_mode(rgb, mode):
    picture = pytest.importorskip("PIL.Image").fromarray(rgb).convert(mode)
    shown = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(as_image(picture, "rgb"), shown)
    np.testing.assert_array_equal(as_image(picture, "bgr"), shown[:, :, ::-1])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_pillow_image_of_unknown_range_is_refused(dtype):
    picture = pytest.importorskip("PIL.Image").fromarray(np.full((4, 5), 40, dtype))
    with pytest.raises(ImageError, match=f"mode '{picture.mode}'.*convert it to mode 'L'"):
        as_image(picture, "rgb")


def test_a_pillow_image_that_ends_early_or_is_empty_is_an_error(tmp_path, rgb):
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "x.png"
    path.write_bytes(encoded(".png", rgb)[:3000])
    with pillow.open(path) as picture, pytest.raises(ImageError, match=r"image 2 .* converted: "):
        as_image(picture, "rgb", "image 2")
    with pytest.raises(ImageError, match="empty"):
        as_image(pillow.new("RGB", (0, 5)), "rgb")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg", ".tiff"])
def test_files_are_read_in_the_order_asked_for(tmp_path, rgb, suffix):
    path = tmp_path / f"pïcture{suffix}"
    path.write_bytes(cv2.imencode(suffix, rgb[:, :, ::-1])[1].tobytes())
    image = read_image(path, "rgb")
    assert image.shape == rgb.shape
    np.testing.assert_array_equal(read_image(str(path), "bgr"), image[:, :, ::-1])
    if suffix in (".png", ".bmp"):
        np.testing.assert_array_equal(image, rgb)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_any_depth_have_three_channels_of_8_bits(tmp_path, dtype, channels):
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.full((6, 5, channels), np.iinfo(dtype).max, dtype))
    image = read_image(path, "rgb")
    assert image.shape == (6, 5, 3)
    assert image.dtype == np.uint8
    assert (image == 255).all()


def encoded(suffix, image):
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early_is_an_error(tmp_path, photo, suffix, share, capfd):
    data = encoded(suffix, photo)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"x{suffix}"):
        read_image(path, "rgb")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path, photo):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(".jpg", photo) + b"\xff\xda a film that a telephone appended")
    assert read_image(path, "rgb").shape == photo.shape


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"hello", "not an image"), (b"\xff\xd8\xff\xe0", "ends early")],
)
def test_what_is_no_image_file_is_said(tmp_path, data, message):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read_image(path, "rgb")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ImageError, match=r"nothing\.png: cannot be read: No such file"):
        read_image(tmp_path / "nothing.png", "rgb")
    for path in (tmp_path, "a\0b", "x" * 300):
        with pytest.raises(ImageError, match="cannot be read: "):
            read_image(path, "rgb")
