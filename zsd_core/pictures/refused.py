"""Files that are not decoded: what they are, and what to do with them.

Some are of no format that is read. Of an animation nobody knows which picture is meant. Others
OpenCV decodes without an error to other pixels than they hold: channels exchanged, a negative,
tiles turned one by one. Each kind was found by comparison with what the file holds; see
``tests/core/test_picture_formats.py``.
"""

from __future__ import annotations

import struct
from itertools import takewhile

from zsd_core.pictures.avif import brands, is_avif, is_sequence
from zsd_core.pictures.jpeg import jpeg_refusal
from zsd_core.pictures.png import png_chunks
from zsd_core.pictures.size import DAMAGED, FORMATS, SUN_RASTER, tells_size
from zsd_core.pictures.tiff import TIFF_HEADS, tiff_refusal

__all__ = ["is_heic", "refusal"]

HEIC = (b"heic", b"heix", b"heim", b"heis")
HEIC_SEQUENCES = (b"hevc", b"hevx", b"hevm", b"hevs")
FLOATS = (b"PF", b"Pf", b"#?RADIANCE", b"#?RGBE", b"v/1\x01")  # PFM, Radiance HDR, OpenEXR
PAM = b"P7\n"
GIF_PICTURE, GIF_EXTENSION = 0x2C, 0x21
GIF_PARTS = 1_000_000  # that are looked at, mostly of 255 bytes
BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)  # red, green, blue, as without masks
WHOLE_BYTES = {0xFF << shift for shift in (0, 8, 16, 24)}
FEW = "save one of its pictures, or save it as a video (.mp4)."
SAVE = "OpenCV may show other pixels than it holds. Save it as PNG, or as JPEG in RGB."


def is_heic(data: bytes) -> bool:
    """Whether a file says that it is a picture as telephones take them, and no AVIF too."""
    return not is_avif(data) and not brands(data).isdisjoint((*HEIC, *HEIC_SEQUENCES))


def refusal(data: bytes) -> str:
    """Why a file is not decoded, and the cure, in words; "" where it is decoded."""
    if data[4:8] == b"ftyp":
        return _in_container(data)
    if data.startswith(PAM):
        return f"is a PAM picture. {SAVE}"
    if data.startswith(FLOATS):
        return (
            "holds numbers of type float32, and nothing says what white is; scale them to 0 to 255 "
            "and save the picture with 8 bits a channel."
        )
    if not tells_size(data):
        return f"is damaged or not an image of a format that is read: {FORMATS}."
    try:
        if form := _animated(data):
            return f"is an animated {form}; {FEW}"
        misread = _misread(data)
    except DAMAGED:
        return ""  # its size is not known either, or the decoder sees that it ends early
    return f"{misread}. {SAVE}" if misread else ""


def _in_container(data: bytes) -> str:
    """AVIF's container holds pictures and films of other kinds too."""
    if is_avif(data):
        if is_sequence(data):
            return f"is an AVIF sequence; {FEW}"
        return ""
    if not brands(data).isdisjoint(HEIC_SEQUENCES):
        return "is a HEIC sequence, which is not read; save one of its pictures as JPEG."
    if is_heic(data):
        return "is a HEIC picture, which is not read; save it as JPEG."
    kind = data[8:12].decode("ascii", "replace").strip()
    return (
        f"is no picture that is read, but a file of kind {kind!r}, such as a video or the raw file "
        "of a camera; save a picture as JPEG, give a video a name that ends in .mp4."
    )


def _animated(data: bytes) -> str:
    """The format of a file of several pictures that follow each other; "" of any other."""
    if data.startswith(b"GIF") and _gif_moves(data):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and data[20] & 2:
        return "WebP"
    if data.startswith(b"\x89PNG"):
        for kind, at, _ in takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data)):
            if kind == b"acTL" and struct.unpack_from(">I", data, at)[0] > 1:
                return "PNG"
    return ""


def _gif_moves(data: bytes) -> bool:
    """Whether a second picture follows the first one.

    Raises:
        IndexError: the file ends early.
    """
    at, within, pictures = 13 + _palette(data[10]), False, 0
    for _ in range(GIF_PARTS):
        head = data[at]
        if within:
            at += 1 + head  # bytes; a part of none is the last one
            within = head > 0
        elif head == GIF_PICTURE:
            pictures += 1
            if pictures > 1:
                return True
            at, within = at + 11 + _palette(data[at + 9]), True
        elif head == GIF_EXTENSION:
            at, within = at + 2, True
        else:
            break
    return False


def _palette(flags: int) -> int:
    """Bytes of a GIF's palette."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _misread(data: bytes) -> str:
    if data.startswith(b"\xff\xd8"):
        return jpeg_refusal(data)
    if data.startswith(TIFF_HEADS):
        return tiff_refusal(data)
    if data.startswith(b"BM"):
        length, bits, packing = struct.unpack_from("<I10xHI", data, 14)
        if length >= 40 and (bits, packing) == (32, 3):
            masks = struct.unpack_from("<III", data, 54)
            if masks != BMP_MASKS and not (length >= 56 and WHOLE_BYTES.issuperset(masks)):
                return "is a BMP with unusual masks of colours"
    if data.startswith(SUN_RASTER):
        depth, _, _, palette = struct.unpack_from(">IIII", data, 12)
        if depth == 1 and not palette:
            return "is a Sun raster file of 1 bit without a palette"
    return ""
