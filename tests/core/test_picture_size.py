"""The size that a file's header tells."""

import io
import random
import struct

import cv2
import numpy as np
import pytest
from colour_detector import jpeg, picture

from benchmarks.trust.hidden_sizes import SHOWN, hidden_sizes
from benchmarks.trust.mutate import mutated_bytes
from zsd_core.errors import ImageError
from zsd_core.pictures.boxes import item_streams
from zsd_core.pictures.decode import decode_pixels
from zsd_core.pictures.size import largest_part, picture_size

IMAGE = picture(37, 23)


def file_of(suffix, *options):
    return cv2.imencode(suffix, IMAGE, list(options))[1].tobytes()


GOOD = {
    "png": file_of(".png"),
    "jpeg": file_of(".jpg"),
    "progressive": file_of(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "bmp": file_of(".bmp"),
    "bmp of OS/2": struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, 37, 23, 1, 24) + bytes(112 * 23),
    "webp": file_of(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless": file_of(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "gif": file_of(".gif"),
    "tiff": file_of(".tiff"),
    "avif": file_of(".avif"),
    "ppm": b"P6 # a b\n37\n# 5 5\n23 255\n" + IMAGE.tobytes(),
    "plain pgm": b"P2\n37 23\n255\n" + b"7 " * 37 * 23,
    "sun raster": struct.pack(">8I", 0x59A66A95, 37, 23, 24, 0, 1, 0, 0) + bytes(112 * 23),
}
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_the_header_tells_the_size_and_a_short_file_does_not_harm(data):
    assert picture_size(data) == largest_part(data) == (37, 23)
    assert decode_pixels(data, AS_STORED, "x").shape == (23, 37, 3)
    for length in range(min(len(data), 700)):
        assert picture_size(data[:length]) in (None, (37, 23))


def test_a_thumbnail_in_exif_is_not_the_picture():
    inner = jpeg(picture(8, 8))
    segment = b"\xff\xe1" + (len(inner) + 8).to_bytes(2, "big") + b"Exif\0\0" + inner
    data = jpeg(IMAGE)
    assert picture_size(data[:2] + segment + data[2:]) == (37, 23)


def test_a_jpeg_is_followed_as_libjpeg_follows_it():
    """Stuffed zeros, stray bytes and segments of no length are stepped over, others refused."""
    hidden = hidden_sizes(70)
    for name in ("in a stuffed zero", "behind stray bytes", "behind a segment of no length"):
        assert picture_size(hidden[f"JPEG {name}"]) == (70, 70)
    data = GOOD["jpeg"]
    for marker in (*range(0x02, 0xC0), 0xC5, 0xC8, 0xCD, 0xD8, 0xD9, 0xDA, 0xDE, 0xF0, 0xFD):
        segment = bytes((0xFF, marker, 0, 4, 0, 0))
        assert picture_size(data[:2] + segment + data[2:]) is None
    for marker in (0xC4, 0xDB, 0xDC, 0xDD, 0xE0, 0xEF, 0xFE):
        segment = bytes((0xFF, 0xFF, marker, 0, 6, 0xFF, 0xC0, 0xFF, 0xD9))
        assert picture_size(data[:2] + segment + data[2:]) == (37, 23)
    assert picture_size(data[:2] + b"\xff\x01\xff\xd3" + data[2:]) == (37, 23)


def test_an_avif_with_two_tables_of_one_kind_has_no_size():
    data = GOOD["avif"]
    start, pitm = data.index(b"meta") - 4, data.index(b"pitm") - 4
    table = data[pitm : pitm + int.from_bytes(data[pitm : pitm + 4], "big")]
    length = int.from_bytes(data[start : start + 4], "big") + len(table)
    twice = data[:start] + length.to_bytes(4, "big") + data[start + 4 : pitm] + table + data[pitm:]
    assert picture_size(twice) is None


def test_an_extended_webp_tells_its_canvas():
    head = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (299).to_bytes(3, "little")
    assert picture_size(head + (199).to_bytes(3, "little")) == (300, 200)


def test_a_jpeg_2000_file_tells_its_size_in_its_codestream():
    boxed = cv2.imencode(".jp2", np.zeros((230, 370, 3), np.uint8))[1].tobytes()
    for data in (boxed, boxed[boxed.index(b"\xff\x4f\xff\x51") :]):
        assert decode_pixels(data, AS_STORED, "x").shape == (230, 370, 3)
        assert picture_size(data) == (370, 230)
        channels = data.index(b"\xff\x4f\xff\x51") + 40
        many = data[:channels] + struct.pack(">H", 16384) + data[channels + 2 :]
        assert picture_size(many) is None


def test_the_largest_part_of_an_avif_and_of_a_tiled_tiff_is_told():
    hidden = hidden_sizes(70)
    for name in ("TIFF in one tile", "AVIF larger than its item"):
        assert picture_size(hidden[name]) == (SHOWN, SHOWN)
        assert largest_part(hidden[name]) == (70, 70)
    assert largest_part(file_of(".avif")) == largest_part(file_of(".tiff")) == (37, 23)
    avif = hidden["AVIF larger than its item"]
    assert largest_part(avif[: avif.index(b"mdat") + 8]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg>",
        b"II*\0",
        b"II+\0\x08\0\0\0" + b"\xff" * 8,  # its page lies nowhere
        b"GIF8",
        b"P5 3",
        b"P5\n\x9d\x01\x2a3 4 255 ",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\x40",  # no height: DNL would tell it
        b"\0\0\0\x0cftyp",
    ],
)
def test_others_are_none(data):
    assert picture_size(data) is None
    assert largest_part(data) is None


@pytest.mark.parametrize("name", hidden_sizes(200))
def test_a_hidden_size_is_refused_before_anything_is_decoded(monkeypatch, name):
    """Or OpenCV refuses the file itself."""
    data, decode = hidden_sizes(200)[name], cv2.imdecode

    def refused(*given):
        assert decode(*given) is None
        return None

    monkeypatch.setattr(cv2, "imdecode", refused)
    with pytest.raises(ImageError, match="x: "):
        decode_pixels(data, cv2.IMREAD_COLOR, "x", max_pixels=200 * 200 - 1)


def test_a_header_and_a_decoder_never_tell_two_sizes():
    """Damaged and crafted files of every format: one size, or no picture."""
    rng = random.Random(0)
    good = [*GOOD.values(), *hidden_sizes(64).values()]
    agreed = 0
    for _ in range(6000):
        data = mutated_bytes(rng.choice(good), rng, 3)
        if rng.random() < 0.3:  # a piece of the header once more, elsewhere
            first, second = rng.randrange(100), rng.randrange(100)
            data = (
                data[:second] + data[first : first + rng.choice((2, 4, 8, 20, 40))] + data[second:]
            )
        size = picture_size(data)
        if size is None or size[0] * size[1] > 100_000:
            continue
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED)
        except cv2.error:
            continue
        if image is not None:
            assert (image.shape[1], image.shape[0]) == size, data
            agreed += 1
    assert agreed > 1000


def test_a_png_whose_chunks_lie_outside_the_file_is_not_decoded(monkeypatch):
    """OpenCV makes room for a chunk before it reads it."""
    png = GOOD["png"]
    assert decode_pixels(png + b"what a camera appended", AS_STORED, "x").shape == (23, 37, 3)
    monkeypatch.setattr(cv2, "imdecode", None)
    long, over = struct.pack(">I", 3 << 30), struct.pack(">I", len(png))
    for data in (png[:33] + long + png[37:], png[:33] + over + png[37:], png[:-1], png[:8]):
        with pytest.raises(ImageError, match="x: the PNG ends early or is damaged"):
            decode_pixels(data, AS_STORED, "x")


def test_a_decoder_that_gives_another_size_is_an_error(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *given: np.zeros((50, 40, 3), np.uint8))
    with pytest.raises(
        ImageError, match="its header says 37 x 23 pixels, but it decodes to 40 x 50"
    ):
        decode_pixels(GOOD["png"], cv2.IMREAD_COLOR, "x")


def test_a_film_in_avif_is_no_picture():
    pillow = pytest.importorskip("PIL.Image")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this PIL has no AVIF")
    frame, file = pillow.fromarray(IMAGE), io.BytesIO()
    frame.save(file, "AVIF", save_all=True, append_images=[frame.rotate(90)])
    assert picture_size(file.getvalue()) is None
    with pytest.raises(ImageError, match="x: is an AVIF sequence"):
        decode_pixels(file.getvalue(), cv2.IMREAD_COLOR, "x")


def test_what_is_refused_says_which_formats_are_read():
    for data in (b"hello", b"SIMPLE  =  T", hidden_sizes(64)["WebP without RIFF"]):
        with pytest.raises(
            ImageError, match=r"x: is damaged or not .* read: JPEG, PNG.*PNM or Sun"
        ):
            decode_pixels(data, cv2.IMREAD_COLOR, "x")


def test_items_of_a_file_that_overlap_do_not_ask_for_more_memory_than_it_has():
    """6 bytes a part, each of them the whole file: 65,535 copies of it."""
    iloc = struct.pack(">IBBHHHH", 0, 0, 0, 1, 1, 0, 65535)
    with pytest.raises(IndexError, match="items overlap"):
        list(item_streams(iloc + bytes(10_000), (0, len(iloc)), None))


def located(*places):
    """``iloc`` of items at places, and 100 bytes behind it."""
    entries = [struct.pack(">HHHII", item, 0, 1, at, n) for item, (at, n) in enumerate(places, 1)]
    iloc = struct.pack(">IBBH", 0, 0x44, 0, len(places)) + b"".join(entries)
    return iloc + bytes(range(100)), (0, len(iloc))


def test_cells_of_a_grid_may_lie_in_one_place():
    """An encoder stores cells that look alike once."""
    data, places = located(*[(100, 60)] * 50)
    streams = dict(item_streams(data, places, None))
    assert list(streams) == list(range(1, 51))
    assert set(streams.values()) == {data[100:160]}
    data, places = located((100, 60), (99, 60), (98, 60), (97, 60))
    with pytest.raises(IndexError, match="items overlap"):
        dict(item_streams(data[:160], places, None))
    data, places = located((1000, 5))
    with pytest.raises(IndexError, match="an item lies outside the file"):
        dict(item_streams(data, places, None))
