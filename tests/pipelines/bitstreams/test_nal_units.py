from __future__ import annotations

import pytest

from pipelines.bitstreams.nal_units import is_slice, length_size, nal_units, unit_type

UNITS = [b"\x67\x64\x00", b"\x68", b"\x65\x88\x80"]
HVCC = b"\x01" + bytes(20) + b"\xfc\0"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_units_with_lengths(size: int) -> None:
    data = b"".join(len(unit).to_bytes(size, "big") + unit for unit in (*UNITS[:2], b"", UNITS[2]))
    assert list(nal_units(data, size)) == UNITS


@pytest.mark.parametrize("code", [b"\0\0\1", b"\0\0\0\1"])
def test_units_between_start_codes(code: bytes) -> None:
    found = list(nal_units(b"junk" + b"".join(code + unit for unit in UNITS), 0))
    assert [unit.rstrip(b"\0") for unit in found] == [unit.rstrip(b"\0") for unit in UNITS]
    assert list(nal_units(b"no start code", 0)) == list(nal_units(b"\0\0\1", 0)) == []


def test_what_is_cut_short_ends() -> None:
    assert list(nal_units(b"\0\0\0\x05ab", 4)) == [b"ab"]
    assert list(nal_units(b"\0\0", 4)) == list(nal_units(b"\0\0\0\x01", 4)) == []


@pytest.mark.parametrize(
    ("codec", "extradata", "size"),
    [
        ("h264", b"\x01\x64\x00\x1f\xff", 4),
        ("h264", b"\x01\x64\x00\x1f\xfd", 2),
        ("h264", b"\0\0\0\1\x67\x64", 0),
        ("h264", b"\x01\x64", 0),
        ("hevc", HVCC[:21] + b"\xff\0", 4),
        ("hevc", HVCC, 1),
        ("hevc", HVCC[:22], 0),
        ("hevc", b"", 0),
    ],
)
def test_the_header_says_how_long_lengths_are(codec: str, extradata: bytes, size: int) -> None:
    assert length_size(codec, extradata) == size


def test_types() -> None:
    assert [unit_type("h264", unit) for unit in UNITS] == [7, 8, 5]
    assert [unit_type("hevc", bytes([kind << 1, 1])) for kind in (0, 19, 33)] == [0, 19, 33]
    assert [is_slice("h264", kind) for kind in (0, 1, 5, 6)] == [False, True, True, False]
    assert [is_slice("hevc", kind) for kind in (0, 31, 32)] == [True, True, False]
