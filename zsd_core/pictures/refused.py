"""Files that are not decoded: what they are, and what to do with them.

Some are of no format that is read. Others OpenCV decodes without an error to other pixels than
they hold: channels exchanged, a negative, tiles turned one by one. Each kind was found by
comparison with what the file holds; see ``tests/core/test_picture_formats.py``.
"""

from __future__ import annotations

import struct

from zsd_core.pictures.avif import brands, is_avif, is_sequence
from zsd_core.pictures.jpeg import jpeg_refusal
from zsd_core.pictures.size import DAMAGED, FORMATS, SUN_RASTER, tells_size
from zsd_core.pictures.tiff import TIFF_HEADS, tiff_refusal

__all__ = ["is_heic", "refusal"]

HEIC = (b"heic", b"heix", b"heim", b"heis")
HEIC_SEQUENCES = (b"hevc", b"hevx", b"hevm", b"hevs")
FLOATS = (b"PF", b"Pf", b"#?RADIANCE", b"#?RGBE", b"v/1\x01")  # PFM, Radiance HDR, OpenEXR
PAM = b"P7\n"
BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)  # red, green, blue, as without masks
WHOLE_BYTES = {0xFF << shift for shift in (0, 8, 16, 24)}
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
        misread = _misread(data)
    except DAMAGED:
        return ""  # its size is not known either
    return f"{misread}. {SAVE}" if misread else ""


def _in_container(data: bytes) -> str:
    """AVIF's container holds pictures and films of other kinds too."""
    if is_avif(data):
        if is_sequence(data):
            return "is an AVIF sequence; save one of its pictures, or pass it as a video."
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
