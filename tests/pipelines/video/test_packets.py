from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.bitstreams.packet_flags import DROPPABLE, START, packet_flags
from pipelines.video.packets import PacketTable, select


def table(kinds: str, order: list[int]) -> PacketTable:
    """Packets by kind: I starts, P, b is droppable; `order` is the packet of each displayed frame."""
    flags = np.array([{"I": START, "P": 0, "b": DROPPABLE}[kind] for kind in kinds], np.uint8)
    offset = np.arange(len(kinds)) * 100
    return PacketTable(offset, np.full(len(kinds), 90), flags, np.array(order))


@given(
    count=st.sampled_from([1, 5, 200, 70_000]),
    wide=st.booleans(),
    stamps=st.booleans(),
    ordinal=st.booleans(),
    seed=st.integers(0, 10),
)
def test_a_table_survives_its_blob(count: int, wide: bool, stamps: bool, ordinal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    offset = np.sort(rng.integers(0, 2**40 if wide else 2**32, count))
    pts = rng.integers(-(2**40), 2**40, count) if stamps else None
    before = PacketTable(
        offset, rng.integers(1, 2**31, count), rng.integers(0, 8, count).astype(np.uint8), rng.permutation(count), pts,
        ordinal,
    )  # fmt: skip
    after = PacketTable.from_bytes(before.to_bytes())
    for name in ("offset", "size", "flags", "frame_packet"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.ordinal == ordinal
    assert after.addressable == (not stamps)
    if pts is not None:
        np.testing.assert_array_equal(after.pts, pts)  # type: ignore[arg-type]


def test_a_cut_blob_is_an_error() -> None:
    blob = table("IPP", [0, 1, 2]).to_bytes()
    with pytest.raises(ValueError, match="packet table is cut short"):
        PacketTable.from_bytes(blob[:-1])
    with pytest.raises(ValueError, match="not a packet table"):
        PacketTable.from_bytes(b"PKT0" + blob[4:])


def fed(runs: list[object]) -> list[list[int]]:
    return [run.packets.tolist() for run in runs]  # type: ignore[attr-defined]


def test_a_run_begins_at_the_last_key_and_leaves_out_b_pictures() -> None:
    # Decoded I P b b P b b I P: displayed I b b P b b P I P.
    closed = table("IPbbPbbIP", [0, 2, 3, 1, 5, 6, 4, 7, 8])
    assert fed(select(closed, [8])) == [[7, 8]]  # type: ignore[arg-type]
    assert fed(select(closed, [6])) == [[0, 1, 4]]  # type: ignore[arg-type]
    assert fed(select(closed, [5])) == [[0, 1, 4, 6]]  # type: ignore[arg-type]
    assert fed(select(closed, [0, 8])) == [[0], [7, 8]]  # type: ignore[arg-type]


def test_a_picture_that_displays_before_its_key_needs_the_group_before() -> None:
    # Open GOP: the b after the second I displays before it and refers to the group before.
    opened = table("IPIbP", [0, 1, 3, 2, 4])
    assert fed(select(opened, [3])) == [[2]]  # type: ignore[arg-type]
    (run,) = select(opened, [2])
    assert run.packets.tolist() == [0, 1, 2, 3]
    assert run.wanted == {3: 2}
    # A run that reaches into the next group gives that group's frames on the way.
    (both,) = select(opened, [2, 4])
    assert both.packets.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"\0\0\1\x65\x88", START),  # IDR slice
        (b"\0\0\1\x41\x9a", 0),  # P slice that is referred to
        (b"\0\0\1\x01\x9a", DROPPABLE),  # nal_ref_idc 0
        (b"\0\0\1\x06\x06\x01\xc4\0\0\1\x41\x9a", START),  # recovery point: count 0, exact
        (b"\0\0\1\x06\x06\x01\x84\0\0\1\x41\x9a", 0),  # recovery point: count 0, not exact
        (b"\0\0\1\x06\x06\x01\x50\0\0\1\x41\x9a", 0),  # recovery point: count 1
    ],
)
def test_h264_packets_are_flagged_by_what_the_standard_promises(packet: bytes, expected: int) -> None:
    assert packet_flags("h264", packet, b"", False) == expected
    sized = b"".join(len(unit).to_bytes(4, "big") + unit for unit in packet.split(b"\0\0\1")[1:])
    avcc = b"\x01\x64\x00\x1f\xff\xe1\x00"
    assert packet_flags("h264", sized, avcc, False) == expected


def test_unknown_codecs_start_nowhere_and_intra_ones_everywhere() -> None:
    assert packet_flags("theora", b"\0", b"", False) == 0
    assert packet_flags("dnxhd", b"\0", b"", True) == START


def test_headers_that_say_nothing() -> None:
    for header in (b"", b"\0\0\1", b"\0\0\1\x20", b"\0\0\1\x20\x00\xc8"):
        assert parse_video_object_layer(header) is None
