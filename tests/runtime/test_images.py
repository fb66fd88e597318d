"""Whatever a caller passes becomes (H, W, 3) uint8, or an error that says what to do."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from runtime.images import as_image, decode_image, read_image
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
        (np.full((4, 4, 3), 60_000, np.uint16), r"uint16.* \(image // 257\)\.astype"),
        (np.full((4, 4, 3), 4095, np.uint16), r"uint16.* \(image // 16\)\.astype"),
        (np.zeros((4, 4, 3), np.uint32), r"uint32.* \(image // 257\)\.astype"),
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


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
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
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"\xff\xd8\xff\xe0", "ends early"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, .* save it as JPEG"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\n", "is a PAM picture.* Save it as PNG"),
    ],
)
def test_what_is_no_image_file_is_said(tmp_path, data, message):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read_image(path, "rgb")


@pytest.mark.parametrize(
    ("shape", "call"), [((3, 4, 5), r"\.permute\(1, 2, 0\)\.numpy"), ((4, 5, 3), r"\.numpy")]
)
def test_a_tensor_is_told_how_it_becomes_an_array(shape, call):
    class Tensor:
        def __init__(self, array):
            self.numpy, self.shape = lambda: array, array.shape

    with pytest.raises(ImageError, match=rf"a Tensor, .* pass tensor{call}\(\)\.$"):
        as_image(Tensor(np.zeros(shape, np.uint8)), "rgb")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ImageError, match=r"\*\.png: cannot be read: .* glob\.glob"):
        read_image(tmp_path / "*.png", "rgb")
    with pytest.raises(ImageError, match=r"nothing\.png: cannot be read: No such file"):
        read_image(tmp_path / "nothing.png", "rgb")
    for path in (tmp_path, "a\0b", "x" * 300):
        with pytest.raises(ImageError, match="cannot be read: "):
            read_image(path, "rgb")


# One rule, whatever the entry ------------------------------------------------------------------


def stored_with_turn(form, orientation):
    """A file whose pixels lie as they are stored and whose tag asks for a turn."""
    pillow = pytest.importorskip("PIL.Image")
    if form in ("AVIF", "WEBP") and not pytest.importorskip("PIL.features").check(form.lower()):
        pytest.skip(f"this PIL has no {form}")
    exif, file = pillow.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture = pillow.fromarray(corner())
    tag = {"tiffinfo": {0x0112: orientation}} if form == "TIFF" else {"exif": exif}
    picture.save(file, form, **tag)
    return file.getvalue()


def corner():
    """Red above and to the left, green below it, and black."""
    image = np.zeros((40, 64, 3), np.uint8)
    image[:20, :32], image[20:, :32] = (255, 0, 0), (0, 255, 0)
    return image


# By the EXIF standard: where row 0 and column 0 of the stored pixels are to be shown.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_upright_by_path_bytes_and_pillow(tmp_path, form, orientation):
    data = stored_with_turn(form, orientation)
    path = tmp_path / f"x.{form.lower()}"
    path.write_bytes(data)
    expected = UPRIGHT[orientation](corner()).astype(int)
    picture = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    by_bytes = decode_image(data, "rgb", "x")
    for image in (read_image(path, "rgb"), by_bytes, as_image(picture, "rgb")):
        assert image.shape == expected.shape
        assert image.flags.c_contiguous
        assert np.median(abs(image - expected)) <= 2
        assert (abs(image - expected) > 120).mean() < 0.02  # but for blurred borders
    np.testing.assert_array_equal(decode_image(data, "bgr", "x")[:, :, ::-1], by_bytes)


def test_an_avif_is_not_turned_by_its_exif_too():
    """Encoders write the turn of EXIF into ``irot`` and keep EXIF; OpenCV may turn by it."""
    if not hasattr(cv2, "imencodeWithMetadata"):
        pytest.skip("this OpenCV writes no EXIF")
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = np.frombuffer(b"MM\0*\0\0\0\x08\0\1" + tag + bytes(4), np.uint8)
    pixels = np.ascontiguousarray(corner()[..., ::-1])
    data = cv2.imencodeWithMetadata(".avif", pixels, [cv2.IMAGE_METADATA_EXIF], [exif])[1].tobytes()
    assert b"irot" in data
    difference = abs(decode_image(data, "rgb", "x").astype(int) - UPRIGHT[6](corner()))
    assert (difference > 120).mean() < 0.02


def test_a_pillow_image_is_turned_once():
    pillow = pytest.importorskip("PIL.Image")
    picture = pillow.open(io.BytesIO(stored_with_turn("PNG", 6)))
    turned = pytest.importorskip("PIL.ImageOps").exif_transpose(picture)
    np.testing.assert_array_equal(as_image(turned, "rgb"), as_image(picture, "rgb"))


RAMP = np.linspace(0, 1, 40 * 64).reshape(40, 64)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".jp2"])
def test_two_bytes_are_scaled_by_the_bits_in_use(suffix, bits):
    data = encoded(suffix, (RAMP * ((1 << bits) - 1)).round().astype(np.uint16))
    image = decode_image(data, "rgb", "x")
    np.testing.assert_allclose(image, np.dstack([RAMP * 255] * 3), atol=1)
    if suffix in (".png", ".tiff"):
        picture = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
        assert picture.mode.startswith("I;16")
        np.testing.assert_array_equal(as_image(picture, "rgb"), image)


def test_a_file_that_says_what_white_is_counts_more_than_its_brightest_pixel():
    dark = (RAMP * 200).astype(np.uint16)
    assert decode_image(encoded(".png", dark), "rgb", "x").max() == round(200 / 1023 * 255)
    chunk = b"sBIT\x0c"
    png = encoded(".png", dark)
    at = png.index(b"IDAT") - 4
    said = png[:at] + b"\0\0\0\1" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[at:]
    assert decode_image(said, "rgb", "x").max() == round(200 / 4095 * 255)
    full = (RAMP * 65535).astype(np.uint16)  # a camera of 12 bits, its numbers spread over 16
    png = encoded(".png", full)
    at = png.index(b"IDAT") - 4
    spread = png[:at] + b"\0\0\0\1" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[at:]
    np.testing.assert_array_equal(decode_image(spread, "rgb", "x"), decode_image(png, "rgb", "x"))
    for head in (
        b"P5\n# a camera\n64 40\n4095\n",
        b"P5\n64 40\n#c\n4095\n",
        b"P5 64\n#c\n40 4095\n",
    ):
        pgm = head + dark.astype(">u2").tobytes()
        assert decode_image(pgm, "rgb", "x").max() == round(200 / 4095 * 255)


def test_the_name_of_a_chunk_within_another_says_nothing():
    png = encoded(".png", (RAMP * 200).astype(np.uint16))
    at, chunk = png.index(b"IDAT") - 4, b"tEXtx\0\0\0\0\1sBIT\x10"
    length, checksum = (len(chunk) - 4).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
    said = png[:at] + length + chunk + checksum + png[at:]
    np.testing.assert_array_equal(decode_image(said, "rgb", "x"), decode_image(png, "rgb", "x"))


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_an_avif_of_any_depth_has_the_same_white(depth):
    white = np.full((40, 64, 3), (1 << depth) - 1, np.uint8 if depth == 8 else np.uint16)
    data = cv2.imencode(".avif", white, [cv2.IMWRITE_AVIF_DEPTH, depth])[1].tobytes()
    assert decode_image(data, "rgb", "x").min() >= 254
    grey = cv2.imencode(".avif", white // 2, [cv2.IMWRITE_AVIF_DEPTH, depth])[1].tobytes()
    assert abs(decode_image(grey, "rgb", "x").astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".tiff", np.float32), (".pfm", np.float32), (".tiff", np.int8)]
)
def test_numbers_without_a_white_are_refused(suffix, dtype):
    with pytest.raises(ImageError, match=f"{np.dtype(dtype)}, and nothing says what white is"):
        decode_image(encoded(suffix, np.dstack([RAMP * 100] * 3).astype(dtype)), "rgb", "x")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SyntaxError("not a TIFF file"), "SyntaxError: not a TIFF file."),
        (AssertionError(), "AssertionError: it gives no reason."),
        (RuntimeError("could not load"), "RuntimeError: could not load."),
        (struct.error("unpack requires"), "error: unpack requires."),
        (MemoryError(), "MemoryError: it gives no reason."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero."),
    ],
)
def test_whatever_pillow_raises_becomes_our_error(rgb, error, said):
    class Picture(pytest.importorskip("PIL.Image").Image):
        mode, size = "RGB", (3, 4)

        def load(self):
            raise error

    with pytest.raises(ImageError, match="image 4 is a PIL image that cannot be") as raised:
        as_image(Picture(), "rgb", "image 4")
    assert str(raised.value).endswith(said)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff", ".avif"])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch, suffix):
    data = encoded(suffix, corner())
    path = tmp_path / "x"
    path.write_bytes(data)
    assert as_image(path, "rgb", max_pixels=40 * 64).shape == (40, 64, 3)
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ImageError, match=r"x: has 64 x 40 pixels, more than 2,559.*max_pixels"):
        as_image(path, "rgb", max_pixels=40 * 64 - 1)


def test_a_pillow_image_that_grows_when_it_is_loaded_is_refused():
    """A file of icons is as large as its largest one only once it is read."""
    pillow = pytest.importorskip("PIL.Image")

    class Icons(pillow.Image):
        def load(self):
            self._size = (64, 40)

    small = pillow.new("RGB", (8, 8))
    icons = Icons()
    icons.im, icons._mode, icons._size = small.im, small.mode, (8, 8)
    with pytest.raises(ImageError, match="image: has 64 x 40 pixels"):
        as_image(icons, "rgb", max_pixels=1000)


def test_a_huge_pillow_image_or_file_of_another_format_is_refused(tmp_path):
    picture = pytest.importorskip("PIL.Image").new("RGB", (64, 40))
    with pytest.raises(ImageError, match="image: has 64 x 40 pixels"):
        as_image(picture, "rgb", max_pixels=1000)
    with pytest.raises(ImageError, match="x: has 64 x 40 pixels"):
        decode_image(encoded(".ppm", corner()), "rgb", "x", max_pixels=1000)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif", ".tiff", ".avif", ".bmp"])
def test_a_header_without_a_size_is_refused_before_anything_is_decoded(monkeypatch, suffix):
    data = encoded(suffix, corner())
    hidden = data.replace(b"ispe", b"xspe") if suffix == ".avif" else data[:8]
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ImageError, match=r"x: .*is damaged"):
        decode_image(hidden, "rgb", "x")


def test_a_damaged_avif_is_said():
    data = bytearray(stored_with_turn("AVIF", 6))
    data[data.index(b"ipma") + 8 :] = b""
    with pytest.raises(ImageError, match="x: "):
        decode_image(bytes(data), "rgb", "x")
