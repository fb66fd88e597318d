"""What the first page of a TIFF or BigTIFF file says of itself, by its tags."""

from __future__ import annotations

import struct

__all__ = ["TIFF_HEADS", "tiff_refusal", "tiff_sizes", "tiff_white", "tiff_without_alpha"]

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # a plus: BigTIFF
MOST = 4096  # entries of a page that libtiff reads
KINDS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # of an entry: whole numbers of 1, 2, 4, 8 bytes

WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = SIDES = (256, 257, 322, 323)
SUBFILE, BITS, COLOURS, TURN, SAMPLES, PLANES, EXTRA = FACTS = (254, 258, 262, 274, 277, 284, 338)
LAB = (8, 9, 10)  # of COLOURS: CIE L*a*b*, ICC L*a*b*, ITU L*a*b*
Place = tuple[int, int, str]  # of a tag's first number: the number, where it lies, its form


def tiff_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of the first page, then of its tiles where it has some.

    Empty where a size is missing, or comes twice: readers disagree on which one counts.

    Raises:
        struct.error: the file ends before its tags.
    """
    found = {tag: number for tag, (number, _, _) in _tags(data).items()}
    if not (found.get(WIDTH) and found.get(HEIGHT)):
        return []
    sizes = [(found[WIDTH], found[HEIGHT])]
    if TILE_WIDTH in found or TILE_HEIGHT in found:
        tile = found.get(TILE_WIDTH, found[WIDTH]), found.get(TILE_HEIGHT, found[HEIGHT])
        sizes.append(tile)
    return sizes


def tiff_refusal(data: bytes) -> str:
    """Why OpenCV would show other pixels than the file holds, in words; "" where it shows them.

    Raises:
        struct.error: the file ends before its tags.
    """
    found = {tag: number for tag, (number, _, _) in _tags(data).items()}
    deep = found.get(BITS, 1) > 8
    if found.get(SUBFILE, 0) & 1:
        return "is a TIFF whose first page is a thumbnail, such as the raw file of a camera"
    if deep and found.get(COLOURS) == 0:
        return "is a TIFF of more than 8 bits in which 0 is white"
    if deep and found.get(SAMPLES, 1) > 1 and found.get(PLANES) == 2:
        return "is a TIFF of more than 8 bits whose channels lie one behind the other"
    if TILE_WIDTH in found and found.get(TURN, 1) != 1:
        return "is a TIFF in tiles that asks to be turned"
    if found.get(COLOURS) in LAB:
        return "is a TIFF in Lab colours"
    return ""


def tiff_white(data: bytes) -> int | None:
    """The number that is white in OpenCV's pixels of a file with 10, 12 or 14 bits a channel.

    OpenCV moves such numbers up so that they fill 16 bits.

    Raises:
        struct.error: the file ends before its tags.
    """
    bits, _, _ = _tags(data).get(BITS, (1, 0, ""))
    return ((1 << bits) - 1) << (16 - bits) if bits in (10, 12, 14) else None


def tiff_without_alpha(data: bytes) -> bytes:
    """The file with its transparency as one that is multiplied in already.

    libtiff would multiply it into the pixels: what is transparent would become black.

    Raises:
        struct.error: the file ends before its tags.
    """
    number, at, form = _tags(data).get(EXTRA, (0, 0, ""))
    if number != 2:
        return data
    return data[:at] + struct.pack(form, 1) + data[at + struct.calcsize(form) :]


def _tags(data: bytes) -> dict[int, Place]:
    """The tags that count here; empty where one comes twice or is of a strange kind."""
    order = "<" if data[:1] == b"I" else ">"
    big = b"+" in data[2:4]
    form, count_form, place_form = (
        (order + "HHQ", order + "Q", order + "Q")
        if big
        else (order + "HHI", order + "H", order + "I")
    )
    (at,) = struct.unpack_from(place_form, data, 8 if big else 4)
    (count,) = struct.unpack_from(count_form, data, at)
    if count > MOST:
        return {}
    at += struct.calcsize(count_form)
    room = struct.calcsize(place_form)
    step = struct.calcsize(form) + room
    found: dict[int, Place] = {}
    for entry in range(at, at + count * step, step):
        tag, kind, numbers = struct.unpack_from(form, data, entry)
        if tag not in SIDES and tag not in FACTS:
            continue
        known = kind in KINDS and (big or kind != 16) and (kind != 1 or tag in FACTS)
        if tag in found or not known or not numbers or (tag in SIDES and numbers != 1):
            return {}
        one, place = order + KINDS[kind], entry + step - room
        if numbers * struct.calcsize(one) > room:
            (place,) = struct.unpack_from(place_form, data, place)
        (number,) = struct.unpack_from(one, data, place)
        found[tag] = (number, place, one)
    return found
