"""Picture files of every kind that a format has, byte by byte, beside the pixels that they hold."""

from __future__ import annotations

import struct
import zlib

import numpy as np

RGB = np.random.default_rng(0).integers(0, 256, (11, 21, 3), np.uint8)  # sides that divide nothing
H, W = RGB.shape[:2]
GREY = RGB[..., 0].copy()
BLACK_WHITE = GREY > 110
ALPHA = np.where(GREY > 60, 200, 0).astype(np.uint8)[..., None]
PALETTE = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
INDEX = GREY // 16
COLOURS = PALETTE[INDEX]


def three(grey):
    return np.dstack([np.asarray(grey).astype(np.uint8)] * 3)


def scaled(pixels, white):
    """What a file stores where ``white`` is white."""
    return np.round(pixels.astype(float) * white / 255).astype(int)


def seen(stored, white):
    """What is seen of it."""
    return np.round(stored.astype(float) * 255 / white).astype(np.uint8)


def pnm_files():
    size, files = b"%d %d\n" % (W, H), {}

    def text(rows):
        return b"\n".join(b" ".join(b"%d" % v for v in np.ravel(row)) for row in rows) + b"\n"

    files["P1"] = b"P1\n" + size + text(~BLACK_WHITE), three(BLACK_WHITE * 255)
    packed = np.packbits(~BLACK_WHITE, axis=1).tobytes()
    files["P4"] = b"P4\n" + size + packed, three(BLACK_WHITE * 255)
    for white in (1, 15, 100, 254, 255, 256, 1000, 4095, 65535):
        form = ">u2" if white > 255 else "u1"
        grey, colour = scaled(GREY, white), scaled(RGB, white)
        head = size + b"%d\n" % white
        files[f"P2 to {white}"] = b"P2\n" + head + text(grey), three(seen(grey, white))
        files[f"P3 to {white}"] = b"P3\n" + head + text(colour), seen(colour, white)
        files[f"P5 to {white}"] = (
            b"P5\n" + head + grey.astype(form).tobytes(),
            three(seen(grey, white)),
        )
        files[f"P6 to {white}"] = (
            b"P6\n" + head + colour.astype(form).tobytes(),
            seen(colour, white),
        )
    files["P2, no last line end"] = files["P2 to 255"][0].rstrip(), three(GREY)
    dark = GREY // 8
    files["P5, dark"] = b"P5\n" + size + b"254\n" + dark.tobytes(), three(seen(dark, 254))
    files["P5, above its maximum"] = b"P5\n" + size + b"100\n" + GREY.tobytes(), three(GREY)
    return files


def bmp_files():
    def rows(pixels):
        lines = (line.tobytes() for line in np.ascontiguousarray(pixels)[::-1])
        return b"".join(line + bytes(-len(line) % 4) for line in lines)

    def bmp(bits, body, palette=b"", packing=0, length=40, masks=(), height=H):
        told = struct.pack(f"<{len(masks)}I", *masks)
        behind = told.ljust(length - 40, b"\0") + palette
        head = struct.pack("<IiiHHIIiiII", length, W, height, 1, bits, packing, 0, 0, 0, 0, 0)
        return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + len(behind)) + head + behind + body

    def colours(number):
        table = np.zeros((number, 4), np.uint8)
        table[: len(PALETTE), :3] = PALETTE[:number, ::-1]
        return table.tobytes()

    bgr, bgra = RGB[..., ::-1], np.dstack([RGB[..., ::-1], ALPHA])
    nibbles = np.pad(INDEX, ((0, 0), (0, W % 2)))
    runs = b"".join(bytes(b for v in row for b in (1, v)) + b"\0\0" for row in INDEX[::-1])
    core = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, W, H, 1, 24)
    blue_last = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    files = {
        "1 bit": (
            bmp(1, rows(np.packbits(BLACK_WHITE, axis=1)), colours(2)),
            PALETTE[BLACK_WHITE * 1],
        ),
        "4 bits": (bmp(4, rows(nibbles[:, ::2] << 4 | nibbles[:, 1::2]), colours(16)), COLOURS),
        "8 bits": (bmp(8, rows(INDEX), colours(256)), COLOURS),
        "runs": (bmp(8, runs + b"\0\1", colours(256), 1), COLOURS),
        "24 bits": (bmp(24, rows(bgr)), RGB),
        "24 bits from the top": (bmp(24, rows(bgr[::-1]), height=-H), RGB),
        "32 bits": (bmp(32, rows(bgra)), RGB),
        "masks": (bmp(32, rows(bgra), packing=3, masks=(0xFF0000, 0xFF00, 0xFF)), RGB),
        "masks of a long header": (
            bmp(32, rows(np.dstack([RGB, ALPHA])), b"", 3, 108, blue_last),
            RGB,
        ),
        "OS/2": (core + rows(bgr), RGB),
    }
    strange = {
        "exchanged masks": bmp(32, rows(np.dstack([RGB, ALPHA])), packing=3, masks=blue_last[:3]),
        "masks of 10 bits": bmp(
            32, rows(bgra), packing=3, length=108, masks=(0x3FF00000, 0xFFC00, 0x3FF, 0)
        ),
    }
    return files, strange


def png_files():
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    def png(kind, bits, rows, before=b""):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, kind, 0, 0, 0))
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    def bits_of(pixels, bits):
        if bits == 16:
            return pixels.astype(">u2")
        each = pixels.astype(np.uint8)[..., None] >> np.arange(bits - 1, -1, -1) & 1
        return pixels.astype("u1") if bits == 8 else np.packbits(each.reshape(H, -1), axis=1)

    table, clear = chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", bytes(16))
    files = {}
    for bits in (1, 2, 4, 8, 16):
        white = (1 << bits) - 1
        grey = scaled(GREY, white)
        key = chunk(b"tRNS", struct.pack(">H", grey[0, 0]))
        for name, before in (("grey", b""), ("grey, one clear", key)):
            image = png(0, bits, bits_of(grey, bits), before)
            files[f"{name}, {bits} bits"] = image, three(seen(grey, white))
    for bits in (1, 2, 4, 8):
        index = INDEX % min(1 << bits, 16)
        for name, before in (("palette", table), ("clear palette", table + clear)):
            files[f"{name}, {bits} bits"] = (
                png(3, bits, bits_of(index, bits), before),
                PALETTE[index],
            )
    for bits in (8, 16):
        for kind, pixels, truth in (
            (2, RGB, RGB),
            (4, np.dstack([GREY, ALPHA]), three(GREY)),
            (6, np.dstack([RGB, ALPHA]), RGB),
        ):
            stored = bits_of(scaled(pixels, (1 << bits) - 1), bits)
            files[f"kind {kind}, {bits} bits"] = png(kind, bits, stored), truth
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    files["gamma"] = png(2, 8, RGB, gamma), RGB
    files["5 bits in 8"] = png(2, 8, RGB, chunk(b"sBIT", b"\5\6\5")), RGB
    files["10 bits in 8"] = png(2, 8, RGB, chunk(b"sBIT", b"\n\n\n")), RGB
    return files


def tiff(pixels, colours, tags=(), order="<", planar=False, tile=0):
    """A page of unsigned numbers: one strip, tiles, or a strip for each channel."""
    depth, channels = 8 * pixels.itemsize, pixels.shape[2]
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    if planar:
        strips = [pixels[..., c].tobytes() for c in range(channels)]
    elif tile:
        padded = np.pad(pixels, ((0, -H % tile), (0, -W % tile), (0, 0)))
        strips = [
            padded[y : y + tile, x : x + tile].tobytes()
            for y in range(0, H, tile)
            for x in range(0, W, tile)
        ]
    else:
        strips = [pixels.tobytes()]
    places = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    offsets, counts = (324, 325) if tile else (273, 279)
    entries = {
        256: (4, [W]),
        257: (4, [H]),
        258: (3, [depth] * channels),
        259: (3, [1]),
        262: (3, [colours]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
        offsets: (4, places),
        counts: (4, list(map(len, strips))),
        **({322: (3, [tile]), 323: (3, [tile])} if tile else {278: (4, [H])}),
        **dict(tags),
    }
    body = b"".join(strips) + bytes(len(b"".join(strips)) % 2)
    start = 8 + len(body)
    page, more = struct.pack(order + "H", len(entries)), b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, (kind, numbers) in sorted(entries.items()):
        values = struct.pack(order + {3: "H", 4: "I"}[kind] * len(numbers), *numbers)
        page += struct.pack(order + "HHI", tag, kind, len(numbers))
        if len(values) > 4:
            page += struct.pack(order + "I", behind + len(more))
            more += values
        else:
            page += values.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, start) + body + page + bytes(4) + more


def packed_tiff(pixels, bits, colours):
    """Numbers of 10, 12 or 14 bits, one behind the other; a row begins with a byte."""
    single = np.unpackbits(pixels.astype(">u2")[..., None].view("u1"), axis=-1)[..., 16 - bits :]
    rows = np.packbits(single.reshape(H, -1), axis=1)[..., None]
    channels = pixels.shape[2]
    tags = [(256, (4, [W])), (258, (3, [bits] * channels)), (277, (3, [channels]))]
    return tiff(rows, colours, tags)


def tiff_files():
    grey, deep = GREY[..., None], RGB.astype(np.uint16) * 257
    rgba, clear = np.dstack([RGB, ALPHA]), [(338, (3, [2]))]
    files = {
        "RGB": (tiff(RGB, 2), RGB),
        "RGB, big end": (tiff(deep, 2, order=">"), RGB),
        "RGB, 16 bits": (tiff(deep, 2), RGB),
        "planes": (tiff(RGB, 2, planar=True), RGB),
        "tiles": (tiff(RGB, 2, tile=32), RGB),
        "tiles, 16 bits": (tiff(deep, 2, tile=32), RGB),
        "RGB and alpha": (tiff(rgba, 2, clear), RGB),
        "RGB and alpha, big end": (tiff(rgba, 2, clear, ">"), RGB),
        "RGB and alpha in planes": (tiff(rgba, 2, clear, planar=True), RGB),
        "RGB and alpha, 16 bits": (tiff(rgba.astype(np.uint16) * 257, 2, clear), RGB),
        "multiplied alpha": (tiff(rgba, 2, [(338, (3, [1]))]), RGB),
        "grey and alpha": (tiff(np.dstack([GREY, ALPHA]), 1, clear), three(GREY)),
        "grey": (tiff(grey, 1), three(GREY)),
        "grey, 16 bits": (tiff(grey.astype(np.uint16) * 257, 1), three(GREY)),
        "0 is white": (tiff(255 - grey, 0), three(GREY)),
    }
    for bits in (10, 12, 14):
        for name, pixels, colours in (("RGB", RGB, 2), ("grey", grey, 1)):
            stored = scaled(pixels // 8, (1 << bits) - 1)  # a dark picture, which stays dark
            truth = np.broadcast_to(pixels // 8, RGB.shape)
            files[f"{name}, {bits} bits"] = (packed_tiff(stored, bits, colours), truth)
    strange = {
        "0 is white, 16 bits": tiff((255 - grey).astype(np.uint16) * 257, 0),
        "planes, 16 bits": tiff(deep, 2, planar=True),
        "turned tiles": tiff(RGB, 2, [(274, (3, [3]))], tile=32),
        "a thumbnail": tiff(RGB, 2, [(254, (4, [1]))]),
        **{f"Lab, {kind}": tiff(RGB, kind) for kind in (8, 9, 10)},
    }
    return files, strange


def sun_files():
    def sun(bits, pixels, palette=b"", kind=1):
        lines = (line.tobytes() for line in np.ascontiguousarray(pixels))
        body = b"".join(line + bytes(len(line) % 2) for line in lines)
        head = (0x59A66A95, W, H, bits, len(body), kind, bool(palette), len(palette))
        return struct.pack(">8I", *head) + palette + body

    bgr = RGB[..., ::-1]
    files = {
        "24 bits": (sun(24, bgr), RGB),
        "32 bits": (sun(32, np.dstack([ALPHA, bgr])), RGB),
        "grey": (sun(8, GREY), three(GREY)),
        "palette": (sun(8, INDEX, PALETTE.T.tobytes()), COLOURS),
    }
    return files, {"1 bit": sun(1, np.packbits(~BLACK_WHITE, axis=1))}


def pam_files():
    files = {}
    for kind, pixels in (
        (b"RGB", RGB),
        (b"RGB_ALPHA", np.dstack([RGB, ALPHA])),
        (b"GRAYSCALE", GREY[..., None]),
        (b"GRAYSCALE_ALPHA", np.dstack([GREY, ALPHA])),
        (b"BLACKANDWHITE", BLACK_WHITE[..., None]),
    ):
        facts = (W, H, pixels.shape[2], 1 if kind == b"BLACKANDWHITE" else 255, kind)
        head = b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n" % facts
        files[kind.decode()] = head + pixels.astype(np.uint8).tobytes()
    return files
