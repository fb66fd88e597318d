"""Protobuf's wire format, read as protobuf reads it."""

from __future__ import annotations

import mmap

import pytest

from runtime.protobuf_wire import BYTES, LONG, SHORT, VARINT, Malformed, fields, packed_varints


def mapped(content: bytes) -> mmap.mmap:
    data = mmap.mmap(-1, len(content))
    data.write(content)
    return data


def test_fields_come_with_their_numbers_or_places():
    data = mapped(b"\x08\x96\x01" + b"\x12\x02ab" + b"\x1d1234" + b"\x2112345678" + b"\x80\x01\x05")
    assert list(fields(data, 0, len(data))) == [
        (1, VARINT, 150, 0),
        (2, BYTES, 5, 7),
        (3, SHORT, 8, 12),
        (4, LONG, 13, 21),
        (16, VARINT, 5, 0),
    ]


def test_packed_numbers_are_those_of_the_list():
    data = mapped(b"\x03\x8e\x02\x9e\xa7\x05")
    assert list(packed_varints(data, 0, len(data))) == [3, 270, 86942]
    with pytest.raises(Malformed, match="within a number"):
        list(packed_varints(data, 0, 2))


@pytest.mark.parametrize(
    "content",
    [
        b"\x02\x00",  # field 0
        b"\xca\x80\x80\x80\x10\x00",  # field 9 and a bit that a parser with 32 of them drops
    ],
)
def test_numbers_of_fields_have_at_most_32_bits(content):
    with pytest.raises(Malformed, match="number that protobuf does not know"):
        list(fields(mapped(content), 0, len(content)))
