"""Image files that decode to more pixels than a careless reader of their header sees."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np

__all__ = ["SHOWN", "hidden_sizes"]

SHOWN = 10  # the side that is shown
Entry = tuple[int, int]  # tag and value of a TIFF


def hidden_sizes(side: int) -> dict[str, bytes]:
    """Files by name: each hides a square of ``side``, or shows it where few readers look.

    Args:
        side: at least 40, which OpenCV's JPEG 2000 needs.
    """
    import cv2

    black = np.zeros((side, side, 3), np.uint8)
    files = {"BigTIFF": _tiff(_page(side), side, big=True)}
    for name, suffix in (("JPEG 2000", ".jp2"), ("Radiance HDR", ".hdr"), ("PFM", ".pfm")):
        picture = black if suffix == ".jp2" else black.astype(np.float32)
        files[name] = cv2.imencode(suffix, picture)[1].tobytes()
    files["Sun raster"] = struct.pack(">8I", 0x59A66A95, side, side, 24, 0, 1, 0, 0) + bytes(
        side * (3 * side + side % 2)
    )
    size = b"%d %d\n" % (side, side)
    files["PBM"] = b"P4\n#" + b"1 1 " * 5 + b"\n" + size + bytes(side * (side // 8 + 1))
    files["PPM"] = b"P6\n" + size + b"255\n" + black.tobytes()
    pam = b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
    files["PAM"] = pam % (side, side) + black.tobytes()
    lossless = cv2.imencode(".webp", black, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    files["WebP without RIFF"] = lossless[lossless.index(b"VP8L") + 8 :]
    core = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, side, side, 1, 24)
    files["BMP of OS/2"] = core + bytes(side * -(-3 * side // 4) * 4)
    return files | _jpegs(side) | _tiffs(side) | _others(side)


def _jpegs(side: int) -> dict[str, bytes]:
    """Frame headers where a reader that follows lengths does not look."""
    import cv2

    whole = cv2.imencode(".jpg", np.zeros((side, side, 3), np.uint8))[1].tobytes()
    start, inner = whole[:2], whole[2:]
    frame = struct.pack(">HBHHB9x", 17, 8, SHOWN, SHOWN, 3)
    shown = b"\xff\xc0" + frame + b"\xff\xd9"
    length = struct.pack(">H", min(2 + len(inner), 65535))
    return {
        "JPEG in a stuffed zero": start + b"\xff\x00" + length + inner + shown,
        "JPEG behind stray bytes": start + b"\0\xff\0" + inner + shown,
        "JPEG behind a segment of no length": start + b"\xff\xe1\0\0" + inner + shown,
        "JPEG with two frame headers": start + b"\xff\xc0" + frame + inner,
        "JPEG in an unknown segment": start + b"\xff\x02" + length + inner + shown,
    }


def _page(side: int) -> list[Entry]:
    grey = [(258, 8), (259, 8), (262, 1), (277, 1)]
    return [(256, side), (257, side), *grey, (278, side)]


def _tiffs(side: int) -> dict[str, bytes]:
    twice = [*_page(side), (256, SHOWN), (257, SHOWN)]
    tiles = [(322, side), (323, side), *_page(SHOWN)[:-1]]
    return {"TIFF with sizes twice": _tiff(twice, side), "TIFF in one tile": _tiff(tiles, side)}


def _tiff(entries: Iterable[Entry], side: int, big: bool = False) -> bytes:
    """A grey page whose only strip or tile is a square of ``side``."""
    strip = zlib.compress(bytes(side * side), 9)
    strip += bytes(-len(strip) % 8)
    head, entry = (16, "<HHQQ") if big else (8, "<HHII")
    places = (324, 325) if dict(entries).get(322) else (273, 279)
    listed = sorted([*entries, (places[0], head), (places[1], len(strip))], key=lambda e: e[0])
    page = b"".join(struct.pack(entry, tag, 4, 1, value) for tag, value in listed)
    if big:
        start = struct.pack("<4sHHQ", b"II+\0", 8, 0, head + len(strip))
        return start + strip + struct.pack("<Q", len(listed)) + page + bytes(8)
    start = struct.pack("<4sI", b"II*\0", head + len(strip))
    return start + strip + struct.pack("<H", len(listed)) + page + bytes(4)


def _others(side: int) -> dict[str, bytes]:
    """A second header of a PNG, a small canvas of a WebP or GIF, a small item of an AVIF."""
    import cv2

    black = np.zeros((side, side, 3), np.uint8)
    png, webp, gif, avif = (
        cv2.imencode(suffix, black)[1].tobytes() for suffix in (".png", ".webp", ".gif", ".avif")
    )
    chunk = b"IHDR" + struct.pack(">IIBBBBB", SHOWN, SHOWN, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    kind = b"prVt" + chunk[4:]
    before = struct.pack(">I", 13) + kind + struct.pack(">I", zlib.crc32(kind))
    canvas = struct.pack("<4sII", b"VP8X", 10, 0) + 2 * (SHOWN - 1).to_bytes(3, "little")
    item = avif.index(b"ispe") + 8
    return {
        "PNG with a chunk before its header": png[:8] + before + png[8:],
        "PNG with two headers": png[:8] + header + png[8:],
        "PNG with a second header": png[:33] + header + png[33:],
        "WebP larger than its canvas": webp[:12] + canvas + webp[12:],
        "GIF larger than its screen": gif[:6] + struct.pack("<HH", SHOWN, SHOWN) + gif[10:],
        "AVIF larger than its item": avif[:item]
        + struct.pack(">II", SHOWN, SHOWN)
        + avif[item + 8 :],
    }
