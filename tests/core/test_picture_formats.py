"""Files of every kind of every format are decoded to what they hold, or refused with the cure."""

import io
import os

import cv2
import numpy as np
import picture_files as made
import pytest

from zsd_core.errors import ImageError
from zsd_core.pictures.avif import brands
from zsd_core.pictures.decode import decode_image, file_bytes
from zsd_core.pictures.refused import refusal
from zsd_core.pictures.size import ENDINGS, FORMATS, SUFFIXES

BMPS, STRANGE_BMPS = made.bmp_files()
TIFFS, STRANGE_TIFFS = made.tiff_files()
SUNS, STRANGE_SUNS = made.sun_files()
EXACT = {
    f"{form}: {name}": file
    for form, files in {
        "PNM": made.pnm_files(),
        "BMP": BMPS,
        "PNG": made.png_files(),
        "TIFF": TIFFS,
        "Sun raster": SUNS,
    }.items()
    for name, file in files.items()
}
STRANGE = {
    f"{form}: {name}": (data, words)
    for form, words, files in (
        ("PAM", "is a PAM picture", made.pam_files()),
        ("BMP", "is a BMP with unusual masks", STRANGE_BMPS),
        (
            "TIFF",
            "is a TIFF (of more than 8 bits|in (tiles|Lab)|whose first page is a)",
            STRANGE_TIFFS,
        ),
        ("Sun raster", "is a Sun raster file of 1 bit", STRANGE_SUNS),
    )
    for name, data in files.items()
}


@pytest.mark.parametrize("name", EXACT)
def test_a_file_is_decoded_to_what_it_holds(name):
    data, truth = EXACT[name]
    found = decode_image(data, "rgb", name)
    np.testing.assert_allclose(found.astype(int), truth, atol=1)  # of rounding, in PNM's text
    np.testing.assert_array_equal(decode_image(data, "bgr", name)[..., ::-1], found)


@pytest.mark.parametrize("name", STRANGE)
def test_what_opencv_would_show_otherwise_is_refused_with_the_cure(monkeypatch, name):
    data, words = STRANGE[name]
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ImageError, match=rf"^x: {words}.* Save it as PNG"):
        decode_image(data, "rgb", "x")


def pillow_file(form, image, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_jpeg_is_what_pillow_sees(mode, options):
    pillow = pytest.importorskip("PIL.Image")
    smooth = np.kron(made.RGB[:4, :5], np.ones((8, 8, 1), np.uint8))
    picture = pillow.fromarray(smooth).convert(mode)
    data = pillow_file("JPEG", picture, quality=95, **options)
    expected = np.asarray(pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert abs(decode_image(data, "rgb", "x") - expected).mean() < 2


def test_a_jpeg_in_cmyk_must_say_whether_its_inks_are_inverted():
    pillow = pytest.importorskip("PIL.Image")
    data = pillow_file("JPEG", pillow.fromarray(made.RGB).convert("CMYK"))
    at = data.index(b"\xff\xeeXAdobe".replace(b"X", b"\0\x0e"))
    assert refusal(data) == ""
    with pytest.raises(ImageError, match=r"x: is a JPEG in CMYK that .* as JPEG in RGB"):
        decode_image(data[:at] + data[at + 16 :], "rgb", "x")


@pytest.mark.parametrize("sampling", ["4:0:0", "4:2:0", "4:4:4"])
@pytest.mark.parametrize("reach", ["full", "limited"])
def test_black_and_white_of_an_avif_are_those_of_its_range(reach, sampling):
    pillow = pytest.importorskip("PIL.Image")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this PIL has no AVIF")
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    options = {"subsampling": sampling, "range": reach, "quality": 100}
    data = pillow_file("AVIF", pillow.fromarray(made.three(grey)), **options)
    np.testing.assert_allclose(decode_image(data, "rgb", "x"), made.three(grey), atol=1)


LOSSLESS = {
    "WebP": ("WEBP", "RGB", {"lossless": True}),
    "WebP with alpha": ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    "GIF": ("GIF", "P", {}),
    "GIF, interlaced": ("GIF", "P", {"interlace": 1}),
    "TIFF, LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "TIFF, palette": ("TIFF", "P", {}),
    "TIFF, CMYK": ("TIFF", "CMYK", {}),
    "TIFF, fax": ("TIFF", "1", {"compression": "group4"}),
    "TIFF with alpha": ("TIFF", "RGBA", {}),
    "JPEG 2000": ("JPEG2000", "RGB", {}),
    "JPEG 2000 with alpha": ("JPEG2000", "RGBA", {}),
    "JPEG 2000, grey": ("JPEG2000", "L", {}),
    "JPEG 2000, bare": ("JPEG2000", "RGB", {"no_jp2": True}),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_is_what_pillow_sees(name):
    pillow = pytest.importorskip("PIL.Image")
    form, mode, options = LOSSLESS[name]
    pixels = np.tile(np.dstack([made.RGB, made.ALPHA]), (4, 3, 1))
    picture = pillow.fromarray(pixels if mode == "RGBA" else pixels[..., :3]).convert(mode)
    try:
        data = pillow_file(form, picture, **options)
    except (OSError, KeyError):
        pytest.skip(f"this PIL writes no {name}")
    expected = np.asarray(pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert abs(decode_image(data, "rgb", "x") - expected).max() <= 1


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_of_the_list_is_one_that_is_decoded(suffix):
    form = {".j2k": "JPEG2000", ".jfif": "JPEG"}.get(suffix)
    if form:  # OpenCV does not write by this name
        white = pytest.importorskip("PIL.Image").new("RGB", (64, 40), "white")
        data = pillow_file(form, white, no_jp2=True)
    else:
        white = np.full((40, 64) if suffix in (".pbm", ".pgm") else (40, 64, 3), 255, np.uint8)
        data = cv2.imencode(suffix, white)[1].tobytes()
    assert decode_image(data, "rgb", "x").min() >= 250  # a GIF's palette has no pure white


def test_the_list_of_suffixes_names_every_format():
    assert set(SUFFIXES) == {suffix for endings in ENDINGS.values() for suffix in endings}
    assert FORMATS.replace(" or ", ", ").split(", ") == list(ENDINGS)
    assert SUFFIXES.isdisjoint((".hdr", ".pic", ".pfm", ".pxm", ".pam", ".exr", ".heic"))


def container(major, *others):
    length = 16 + len(b"".join(others))
    return length.to_bytes(4, "big") + b"ftyp" + major + bytes(4) + b"".join(others)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (container(b"heic", b"mif1"), "is a HEIC picture, .* save it as JPEG"),
        (container(b"mif1", b"miaf", b"heic"), "is a HEIC picture, .* save it as JPEG"),
        (container(b"hevc", b"msf1"), "is a HEIC sequence, .* one of its pictures as JPEG"),
        (container(b"msf1", b"hevc") + b"\0\0\0\x08moov", "is a HEIC sequence"),
        (container(b"avis", b"msf1") + b"\0\0\0\x08moov", "is an AVIF sequence"),
        (container(b"isom", b"mp41") + b"\0\0\0\x08moov", r"but a file of kind 'isom', .*\.mp4"),
        (container(b"qt  "), "but a file of kind 'qt', "),
        (container(b"crx ", b"isom"), "but a file of kind 'crx', .*raw file of a camera"),
        (container(b"mif1", b"avif"), "is damaged or ends early"),
        (b"\0\0\0\x08ftyp", "no picture"),
        (b"v/1\x01", "numbers of type float32"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(data, words):
    with pytest.raises(ImageError, match=f"^x: .*{words}"):
        decode_image(data, "rgb", "x")


def test_a_huge_box_of_kinds_is_not_read_whole():
    many = b"".join(number.to_bytes(4, "big") for number in range(300_000))
    assert len(brands(container(b"heic", many) + b"avif")) < 300


def test_a_pipe_is_read_only_where_a_shell_hands_it_over(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for place in (tmp_path / "a.jpg", "/dev/zero", tmp_path):
        with pytest.raises(ImageError, match="cannot be read: it is a pipe, a device"):
            file_bytes(place)
    reader, writer = os.pipe()
    os.write(writer, b"picture")
    os.close(writer)
    assert file_bytes(f"/dev/fd/{reader}") == b"picture"
    os.close(reader)


ANIMATIONS = {"GIF": "GIF", "WEBP": "WebP", "PNG": "PNG"}


@pytest.mark.parametrize("form", ANIMATIONS)
def test_an_animation_is_refused_and_a_still_of_its_format_is_read(form):
    pillow = pytest.importorskip("PIL.Image")
    stills = [pillow.fromarray(np.roll(made.RGB, step, 1)) for step in range(3)]
    moving = pillow_file(form, stills[0], save_all=True, append_images=stills[1:], duration=90)
    with pytest.raises(ImageError, match=rf"^x: is an animated {ANIMATIONS[form]}; save one of .*"):
        decode_image(moving, "rgb", "x")
    still = pillow_file(form, stills[0], save_all=True)
    assert decode_image(still, "rgb", "x").shape == made.RGB.shape


def gif(*parts):
    return b"GIF89a\x08\0\x08\0\x80\0\0" + bytes(6) + b"".join(parts)


GIF_STILL = b"\x2c" + bytes(4) + b"\x08\0\x08\0\x81" + bytes(12) + b"\x02\x01\x2c\0"


def test_pictures_of_a_gif_are_counted_by_its_blocks():
    comment = b"\x21\xfe\x02\x2c\x2c\0"
    for one in (gif(comment, GIF_STILL, comment, b";"), gif(GIF_STILL), gif(b"\xff" * 99)):
        assert refusal(one) == ""
    assert "is an animated GIF" in refusal(gif(GIF_STILL, comment, GIF_STILL))
    for end in range(len(gif(GIF_STILL))):
        assert "animated" not in refusal(gif(GIF_STILL)[:end])


def test_a_gif_of_many_blocks_costs_little(monkeypatch):
    """Blocks of a byte each are passed over up to a number, and then it counts as a still one."""
    monkeypatch.setattr("zsd_core.pictures.refused.GIF_PARTS", 1000)
    assert refusal(gif(b"\x21\xfe\0" * 998, GIF_STILL, GIF_STILL)) == ""
