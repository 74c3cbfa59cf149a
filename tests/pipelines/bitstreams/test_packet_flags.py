from __future__ import annotations

import pytest

from pipelines.bitstreams.packet_flags import DROPPABLE, START, frames_given, packet_flags

CODE = b"\0\0\1"
LONG = b"\x05\xff\x2d" + b"A" * 300  # a message of user data, of 255 + 45 bytes
RECOVERY = b"\x06\x01\xc4"  # a message that from here on all is exact


def as_sized(packet: bytes) -> bytes:
    """The packet with the length before each NAL unit, as in MP4, instead of start codes."""
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in packet.split(CODE)[1:])


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"\0\0\1\x65\x88", START),  # IDR slice
        (b"\0\0\1\x41\x9a", 0),  # P slice that is referred to
        (b"\0\0\1\x01\x9a", DROPPABLE),  # nal_ref_idc 0
        (b"\0\0\1\x06\x06\x01\xc4\0\0\1\x41\x9a", START),  # recovery point: count 0, exact
        (b"\0\0\1\x06\x06\x01\x84\0\0\1\x41\x9a", 0),  # recovery point: count 0, not exact
        (b"\0\0\1\x06\x06\x01\x50\0\0\1\x41\x9a", 0),  # recovery point: count 1
        (b"\0\0\1\x06\x06\x01\xe4\0\0\1\x41\x9a", 0),  # recovery point: count 0, exact, but of a broken link
        (b"\0\0\1\x06" + LONG + RECOVERY + b"\x80\0\0\1\x01\x9a", START),
        (b"\0\0\1\x06\x05\x01A\xff\x06\x01\xc4" + RECOVERY + b"\x80\0\0\1\x01\x9a", START),  # type 261 before it
        (b"\0\0\1\x06\x05\x01A\x80\0\0\1\x01\x9a", DROPPABLE),  # another message
        (b"\0\0\1\x06\x06\x00\x80\0\0\1\x41\x9a", 0),  # recovery point: an empty one
        (b"\0\0\1\x06\xff\xff\xff\xff\0\0\1\x41\x9a", 0),  # cut within the type of a message
        (b"\0\0\1\x06\x06\xff\xff\xff\0\0\1\x41\x9a", 0),  # cut within its size
        (b"\0\0\1\x41\x9a\0\0\1\x01\x9a", 0),  # two slices, of which one is referred to
        (b"\0\0\1\x01\x9a\0\0\1\x01\x9a", DROPPABLE),
        (b"\0\0\1\x67\x9a\0\0\1\x01\x9a", DROPPABLE),  # parameters are no slice
        (b"\0\0\1\x67\x06\x01\xc4\x80\0\0\1\x41\x9a", 0),  # nor a message
    ],
)
def test_h264_packets_are_flagged_by_what_the_standard_promises(packet: bytes, expected: int) -> None:
    assert packet_flags("h264", packet, b"", False) == expected
    avcc = b"\x01\x64\x00\x1f\xff\xe1\x00"
    assert packet_flags("h264", as_sized(packet), avcc, False) == expected


def test_unknown_codecs_start_nowhere_and_intra_ones_everywhere() -> None:
    assert packet_flags("theora", b"\0", b"", False) == 0
    assert packet_flags("dnxhd", b"\0", b"", True) == START


def hevc(kind: int, *, first: bool = True) -> bytes:
    """A NAL unit of HEVC; a slice is the `first` of its picture or a later one."""
    return CODE + bytes([kind << 1, 1, 0x80 if first else 0x40])


@pytest.mark.parametrize("kind", range(40))
def test_hevc_begins_at_the_pictures_of_random_access(kind: int) -> None:
    expected = START if 16 <= kind <= 21 else 0  # BLA, IDR and CRA (ITU-T H.265, table 7-1)
    assert packet_flags("hevc", hevc(kind), b"", False) == expected
    assert packet_flags("hevc", hevc(35) + hevc(kind), b"", False) == expected


@pytest.mark.parametrize("kind", range(40))
def test_hevc_gives_one_frame_unless_a_decoder_may_skip_it(kind: int) -> None:
    may_be_skipped = kind in (8, 9, 16, 17, 18, 21)  # RASL, BLA and CRA
    is_slice = kind < 32
    assert frames_given("hevc", hevc(kind), b"") == (1 if is_slice and not may_be_skipped else None)
    assert frames_given("hevc", hevc(kind, first=False), b"") is None
    hvcc = b"\1" + bytes(20) + b"\xff" + bytes(1)
    sized = as_sized(hevc(35) + hevc(kind) + hevc(1, first=False))
    assert frames_given("hevc", sized, hvcc) == (1 if is_slice and not may_be_skipped else None)


def test_h264_gives_one_frame_where_it_has_one_first_slice() -> None:
    first, later, parameters = CODE + b"\x41\x9a", CODE + b"\x41\x4a", CODE + b"\x67\x9a"
    for packet, expected in (
        (first, 1),
        (parameters + first + later + later, 1),
        (CODE + b"\x65\x88", 1),
        (first + later + first, None),
        (later, None),
        (parameters, None),
        (CODE + b"\x41", None),
        (b"", None),
    ):
        assert frames_given("h264", packet, b"") == expected


def mpeg2(kind: int, *, ends: bytes = b"\xf8") -> bytes:
    """The header of a picture of MPEG-2 (ISO/IEC 13818-2, 6.2.3): 1 I, 2 P, 3 B; all bits beside its kind are set."""
    return CODE + b"\0\xff" + bytes([0xC0 | kind << 3 | 7]) + ends


def test_mpeg2_begins_at_an_i_picture_behind_a_sequence_header_and_leaves_out_b_pictures() -> None:
    sequence = CODE + b"\xb3\x14\x00\xf0"
    for codec in ("mpeg1video", "mpeg2video"):
        for packet, expected in (
            (sequence + mpeg2(1), START),
            (sequence + mpeg2(1) + mpeg2(2), START),  # two fields
            (mpeg2(1), 0),
            (sequence + mpeg2(2), 0),
            (sequence + mpeg2(2) + mpeg2(1), 0),
            (sequence + mpeg2(3), DROPPABLE),
            (mpeg2(3) + mpeg2(3), DROPPABLE),
            (mpeg2(3) + mpeg2(2), 0),
            (mpeg2(2) + mpeg2(3), 0),
            (mpeg2(3, ends=b""), DROPPABLE),
            (mpeg2(3, ends=b"")[:-1], 0),
            (sequence, 0),
            (b"", 0),
        ):
            assert packet_flags(codec, packet, b"", False) == expected, packet
