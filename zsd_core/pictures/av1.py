"""The largest frame that an AV1 stream announces in its sequence headers (AV1, 5.5)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["av1_sizes"]

SEQUENCE_HEADER = 1


def av1_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Largest width and height by every sequence header of a stream of open bitstream units.

    Raises:
        IndexError: the stream ends early.
    """
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1  # one byte more with layers
        length = len(data) - at
        if head & 2:
            length = 0
            for shift in range(0, 56, 7):  # at most 8 bytes, 7 bits in each
                byte, at = data[at], at + 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
        if head >> 3 & 15 == SEQUENCE_HEADER:
            yield _frame_size(_Bits(data[at : at + length]))
        at += length


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data[:256], "big"), 8 * len(data[:256])

    def __call__(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("the sequence header ends early")
        return self._number >> self._left & ((1 << count) - 1)


def _frame_size(bits: _Bits) -> tuple[int, int]:
    bits(4)  # profile, still picture
    if bits(1):  # a still picture's short header
        bits(5)
    else:
        _operating_points(bits, _delay_bits(bits))
    sides = bits(4) + 1, bits(4) + 1
    return bits(sides[0]) + 1, bits(sides[1]) + 1


def _delay_bits(bits: _Bits) -> int:
    """Step over the timing; length of a decoder model's delays, 0 without a model."""
    if not bits(1):
        return 0
    bits(64)
    if bits(1):  # equal intervals: a number with as many leading zeros as digits
        zeros = 0
        while not bits(1):
            zeros += 1
        bits(zeros)
    if not bits(1):
        return 0
    length = bits(5) + 1
    bits(42)
    return length


def _operating_points(bits: _Bits, delay: int) -> None:
    shown_late = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:  # levels that have a tier
            bits(1)
        if delay and bits(1):
            bits(2 * delay + 1)
        if shown_late and bits(1):
            bits(4)
