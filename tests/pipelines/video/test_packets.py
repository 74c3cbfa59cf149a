from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import clips
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.bitstreams.packet_flags import DROPPABLE, START
from pipelines.containers.opening import OpenVideo, open_video
from pipelines.errors import VideoError
from pipelines.video import packet_reader
from pipelines.video.decoder import FrameReader
from pipelines.video.packet_reader import demux_packets, read_packets, read_ranges
from pipelines.video.packets import DecodeRun, PacketTable, select
from pipelines.video.probe import probe_video


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
    for packet in (3, 4, 65_535):
        with pytest.raises(ValueError, match="packet table has frames of packets that it lacks"):
            PacketTable.from_bytes(table("IPP", [0, 1, packet]).to_bytes())


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
    # The last packet of such a run is the picture of the group before where the key frame is wanted, too.
    longer = table("IPIbPIbP", [0, 1, 3, 2, 4, 6, 5, 7])
    assert fed(select(longer, [0, 5, 6])) == [[0], [2, 4, 5, 6]]  # type: ignore[arg-type]


def test_a_stream_that_begins_with_an_open_group_is_decoded_from_its_first_packet() -> None:
    # Of the b, which is shown before the I, half is missing: the decoder decides what becomes of it.
    assert fed(select(table("IbP", [1, 0, 2]), [0])) == [[0, 1]]  # type: ignore[arg-type]


def test_where_frames_are_counted_all_packets_are_fed_and_a_part_counts_on() -> None:
    counted = replace(table("IPP", [0, 1, 2]), ordinal=True)
    assert [(run.packets.tolist(), run.wanted) for run in select(counted, [2, 0])] == [([0, 1, 2], {0: 0, 2: 2})]
    (run,) = select(counted.part(1, 3), [1])
    assert (run.packets.tolist(), run.wanted) == ([0, 1, 2], {2: 1})
    assert select(counted, []) == []


@pytest.mark.parametrize(("begin", "end"), [(-1, 2), (2, 2), (2, 4)])
def test_a_part_that_the_video_does_not_have_is_an_error(begin: int, end: int) -> None:
    says = f"^frames {begin}..{end - 1} are asked for, but the video has 3$"
    with pytest.raises(IndexError, match=says):
        table("IPP", [0, 1, 2]).part(begin, end)


class Stream(NamedTuple):
    """A stream as an encoder makes it: its table, and of each packet the packets that its picture refers to."""

    table: PacketTable
    references: list[list[int]]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Groups of an I, then P pictures, each with up to three b pictures that are shown before it; some groups open."""
    kinds, order, references = "", list[int](), list[list[int]]()
    before: int | None = None  # the anchor before the next picture
    for group in range(draw(st.integers(1, 5))):
        leading = draw(st.integers(0, 3)) if group else 0  # b pictures of an open group, shown before its I
        for number, size in enumerate([leading, *draw(st.lists(st.integers(0, 3), max_size=4))]):
            anchor = len(kinds)
            kinds += "P" if number else "I"
            references.append([before] if number and before is not None else [])
            for _ in range(size):
                order.append(len(kinds))
                kinds += "b"
                references.append([one for one in (before, anchor) if one is not None])
            order.append(anchor)
            before = anchor
    return Stream(table(kinds, order), references)


def needed_for(packet: int, references: list[list[int]]) -> set[int]:
    """`packet` and all packets that its picture needs, directly or by others."""
    found, left = set[int](), [packet]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += references[one]
    return found


@given(streams(), st.data())
def test_a_run_has_all_that_its_frames_need_and_no_picture_that_nobody_needs(
    stream: Stream, data: st.DataObject
) -> None:
    known, references = stream
    wanted = data.draw(st.lists(st.integers(0, known.num_frames - 1), min_size=1, max_size=6))
    given_frames: dict[int, int] = {}
    runs = select(known, wanted)
    for run, later in zip(runs, [*runs[1:], None], strict=True):
        fed, first = set(run.packets.tolist()), int(run.packets[0])
        assert known.flags[first] & START
        assert later is None or fed.isdisjoint(later.packets.tolist())
        for packet, frame in run.wanted.items():
            assert known.frame_packet[frame] == packet
            assert needed_for(packet, references) <= fed
            given_frames[frame] = packet
        # Nothing after the last wanted one, and of pictures that nobody refers to the wanted ones alone.
        assert max(fed) == max(run.wanted)
        assert {packet for packet in fed if known.flags[packet] & DROPPABLE} <= set(run.wanted)
        # It begins as late as it can: from the next start on, something would be missing.
        starts = [one for one in sorted(fed) if known.flags[one] & START and one > first]
        for start in starts[:1]:
            assert any(min(needed_for(packet, references)) < start for packet in run.wanted)
    assert sorted(given_frames) == sorted(set(wanted))


@given(streams(), st.data())
def test_a_part_gives_the_frames_of_the_whole_by_its_own_numbers(stream: Stream, data: st.DataObject) -> None:
    known = stream.table
    begin = data.draw(st.integers(0, known.num_frames - 1))
    end = data.draw(st.integers(begin + 1, known.num_frames))
    part = PacketTable.from_bytes(known.part(begin, end).to_bytes())
    assert part.num_frames == end - begin
    everything = select(part, range(end - begin))
    assert everything[0].packets[0] == 0
    assert everything[-1].packets[-1] == len(part.offset) - 1
    wanted = data.draw(st.lists(st.integers(0, end - begin - 1), min_size=1, max_size=6))
    for run in select(part, wanted):
        for packet, frame in run.wanted.items():
            # The same bytes of the file, of which the part has those from its first packet on.
            assert part.offset[packet] == known.offset[known.frame_packet[begin + frame]]
            needed = needed_for(packet + part.left_out, stream.references)
            assert needed <= set((run.packets + part.left_out).tolist())
    with pytest.raises(IndexError, match=rf"expected numbers in display order, 0\.\.{end - begin - 1}"):
        select(part, [end - begin])


def test_headers_that_say_nothing() -> None:
    for header in (b"", b"\0\0\1", b"\0\0\1\x20", b"\0\0\1\x20\x00\xc8"):
        assert parse_video_object_layer(header) is None


class Counted(NamedTuple):
    """An open container that notes what is asked of it: each time stamp that is sought, and each packet that is read.

    Instead of a seek, it raises `refuses` if that is given.
    """

    container: Any
    asked: list[str | int | None]
    refuses: Exception | None = None

    def seek(self, *where: Any, **options: Any) -> None:
        self.asked.append("seek")
        if self.refuses:
            raise self.refuses
        self.container.seek(*where, **options)

    def demux(self, *streams: Any) -> Iterator[av.Packet]:
        for packet in self.container.demux(*streams):
            self.asked.append(packet.pts)
            yield packet


def count_demuxing(monkeypatch: pytest.MonkeyPatch, refuses: Exception | None = None) -> list[str | int | None]:
    """What `demux_packets` asks of the containers that it opens from now on."""
    asked: list[str | int | None] = []

    @contextmanager
    def counted(path: str) -> Iterator[OpenVideo]:
        with open_video(path) as video:
            yield video._replace(container=Counted(video.container, asked, refuses))  # type: ignore[arg-type]

    monkeypatch.setattr(packet_reader, "open_video", counted)
    return asked


MKV_RUNS = [([0], [0]), ([40], [36, 37, 38, 39, 40]), ([24], [24]), ([95], list(range(84, 96)))]


@pytest.mark.parametrize(("wanted", "packets"), MKV_RUNS)
def test_demuxing_begins_at_the_key_frame_and_ends_at_the_last_packet_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[int], packets: list[int]
) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mkv", codec="h264", num_frames=96)
    table = probe_video(path).packets
    (run,) = select(table, wanted)
    asked = count_demuxing(monkeypatch)
    found = [(number, bytes(data)) for number, data in read_packets(str(path), table, run)]
    assert asked == ["seek", *[40 * number for number in packets]]
    with av.open(str(path)) as container:
        truth = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert found == [(number, truth[number]) for number in packets]


def test_demuxing_leaves_out_what_a_run_does_not_need(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mkv", codec="h264", num_frames=48)
    table = probe_video(path).packets
    run = DecodeRun(np.array([12, 13, 17]), {17: 17})
    assert [number for number, _ in demux_packets(str(path), table, run)] == [12, 13, 17]


def test_a_seek_that_goes_too_far_or_nowhere_is_made_good_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mkv", codec="h264", num_frames=96)
    data = bytearray(path.read_bytes())
    cues = data.rindex(b"\x1c\x53\xbb\x6b")
    for said, instead in ((480, 1), (960, 480)):  # so the index says of 480 ms where the key frame of 960 ms is
        at = data.index(b"\xb3\x82" + said.to_bytes(2, "big"), cues) + 2
        data[at : at + 2] = instead.to_bytes(2, "big")
    path.write_bytes(data)
    record = probe_video(path)
    (run,) = select(record.packets, [14])
    for refuses, sought in ((None, ["seek", 960]), (av.error.PermissionError(1, "Operation not permitted"), ["seek"])):
        asked = count_demuxing(monkeypatch, refuses)
        assert [number for number, _ in demux_packets(str(path), record.packets, run)] == [12, 13, 14]
        assert asked == [*sought, *range(0, 14 * 40 + 1, 40)]
    assert [clips.read_stamp(frame) for frame in FrameReader().read(record, [14, 30, 95])] == [14, 30, 95]


def test_the_decoder_of_a_demuxed_video_stops_at_damage_where_its_options_say_so(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mkv", num_frames=24)
    table = probe_video(path).packets
    with av.open(str(path)) as container:
        damaged = [bytes(packet) for packet in container.demux(video=0)][6]
    data = path.read_bytes()
    path.write_bytes(data.replace(damaged, damaged[:20] + bytes(len(damaged) - 20)))
    (run,) = select(table, [8])

    def decoded(options: dict[str, str] | None) -> int:
        return sum(len(packet.decode()) for _, packet in demux_packets(str(path), table, run, options))

    assert decoded(None) > 0
    with pytest.raises(av.error.InvalidDataError):
        decoded({"err_detect": "explode"})


def test_packets_that_are_gone_are_not_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mkv", codec="h264", num_frames=48)
    table = probe_video(path).packets
    stamps = np.concatenate([table.pts, [99_000]])  # type: ignore[list-item]
    longer = replace(table, pts=stamps)
    asked = count_demuxing(monkeypatch)
    run = DecodeRun(np.array([36, 37, 48]), {48: 48})
    assert [number for number, _ in demux_packets(str(path), longer, run)] == [36, 37]
    assert asked == ["seek", *range(36 * 40, 48 * 40, 40), None]  # the demuxer ends with a packet without a time


@pytest.mark.parametrize(("gap", "is_apart"), [(2**20 + 4 * 300, False), (2**20 + 4 * 300 + 1, True)])
def test_packets_are_read_at_once_unless_what_lies_between_them_is_much_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: int, is_apart: bool
) -> None:
    data = np.random.default_rng(0).bytes(gap + 500)
    (tmp_path / "v").write_bytes(data)
    offset, size = np.array([7, 300, 7 + gap - 120]), np.array([80, 100, 120])  # from 7 to 7 + gap
    table = PacketTable(offset, size, np.zeros(3, np.uint8), np.arange(3))
    read: list[tuple[int, int]] = []
    exactly = packet_reader.read_exactly

    def counted(descriptor: int, length: int, at: int) -> bytes:
        read.append((at, length))
        return exactly(descriptor, length, at)

    monkeypatch.setattr(packet_reader, "read_exactly", counted)
    found = list(read_ranges(str(tmp_path / "v"), table, DecodeRun(np.arange(3), {})))
    places = list(zip(offset.tolist(), size.tolist(), strict=True))
    assert [(number, bytes(piece)) for number, piece in found] == [
        (number, data[at : at + length]) for number, (at, length) in enumerate(places)
    ]
    assert read == (places if is_apart else [(7, gap)])


@pytest.mark.parametrize("length", [100, 2**22])
def test_packets_that_lie_behind_the_end_of_the_file_are_an_error(tmp_path: Path, length: int) -> None:
    (tmp_path / "v").write_bytes(bytes(length))
    table = PacketTable(np.array([0, length - 1]), np.array([50, 2]), np.zeros(2, np.uint8), np.arange(2))
    before = os.listdir("/proc/self/fd")
    says = "changed since it was indexed: it ends before its packets do; index the data set again$"
    with pytest.raises(VideoError, match=says):
        list(read_ranges(str(tmp_path / "v"), table, DecodeRun(np.arange(2), {})))
    assert len(os.listdir("/proc/self/fd")) == len(before)
