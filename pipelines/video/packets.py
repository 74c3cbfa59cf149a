"""Which packets a set of frames needs, and no other. No decoding, no I/O.

Frame k is the k-th frame, in display order, that a full sequential decode of the video gives.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.video.bitstream import DROPPABLE, START

_HEADER = struct.Struct("<4sBBHQQ")
_PART = struct.Struct("<QQQ")
_MAGIC = b"PKT1"


@dataclass(frozen=True)
class PacketTable:
    """The packets of one video in decoding order, and the one that gives each frame.

    `offset` int64 [P] and `size` int64 [P]: bytes in the file. `flags` uint8 [P]: bitstream.START, DROPPABLE, SILENT.
    `frame_packet` int64 [F]: the packet of each frame in display order. `addressable`: the file's bytes at `offset` are
    the packet; otherwise `pts` int64 [P] finds the packets again in the demuxer's output. `ordinal`: frames can't be
    told apart by packet, they are counted as a decode from the first packet gives them.

    A table may stand for a part of its file (see `part`): then frame k is the frame `skip` + k of `frame_packet`, there
    are `count` of them, and `left_out` packets of the file come before the first one here.
    """

    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    flags: NDArray[np.uint8]
    frame_packet: NDArray[np.int64]
    pts: NDArray[np.int64] | None = None
    ordinal: bool = False
    left_out: int = 0
    skip: int = 0
    count: int | None = None

    @property
    def addressable(self) -> bool:
        """Whether packets can be read from the file by byte range."""
        return self.pts is None

    @property
    def num_frames(self) -> int:
        """Frames that a full sequential decode gives, or of them those of the part that the table stands for."""
        return len(self.frame_packet) if self.count is None else self.count

    @property
    def shown_as(self) -> NDArray[np.int64]:
        """The place of each packet's frame in display order, int64 [P], -1 for a packet that gives none."""
        shown = np.full(len(self.offset), -1, np.int64)
        shown[self.frame_packet] = np.arange(len(self.frame_packet))
        return shown

    def packets_of(self, frames: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """The packet of each of `frames`, int64 [T]. Raises IndexError for a frame outside 0..F-1."""
        numbers = np.asarray(frames, np.int64)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.num_frames):
            raise IndexError(
                f"frames {numbers.min()}..{numbers.max()} asked of a video with {self.num_frames}: "
                "0-based, display order"
            )
        return self.frame_packet[numbers + self.skip]

    def part(self, begin: int, end: int) -> PacketTable:
        """The table of the frames `begin` to `end` - 1 alone, numbered from 0, with the packets that they need.

        They come out bit-identical: what precedes them is kept from the packet on where decoding them begins, and the
        order in which frames are shown is kept. Raises IndexError unless 0 <= begin < end <= F.
        """
        if not 0 <= begin < end <= self.num_frames:
            raise IndexError(f"frames {begin}..{end - 1} asked of a video with {self.num_frames}")
        if self.ordinal:
            return replace(self, skip=self.skip + begin, count=end - begin)
        runs = select(self, np.arange(begin, end))
        first = min(int(run.packets[0]) for run in runs)
        last = max(int(run.packets[-1]) for run in runs)
        kept = (self.frame_packet >= first) & (self.frame_packet <= last)
        packets = slice(first, last + 1)
        return PacketTable(
            self.offset[packets],
            self.size[packets],
            self.flags[packets],
            self.frame_packet[kept] - first,
            None if self.pts is None else self.pts[packets],
            left_out=self.left_out + first,
            skip=int(np.count_nonzero(kept[: self.skip + begin])),
            count=end - begin,
        )

    def to_bytes(self) -> bytes:
        """The table as a compact blob: 11 bytes a packet for files under 4 GiB with fewer than 65,536 packets."""
        wide = bool(len(self.offset) and int(self.offset.max()) >= 2**32)
        long = len(self.offset) >= 2**16
        bits = wide | long << 1 | (self.pts is not None) << 2 | self.ordinal << 3 | (self.count is not None) << 4
        parts = [
            _HEADER.pack(_MAGIC, bits, 0, 0, len(self.offset), len(self.frame_packet)),
            self.offset.astype("<u8" if wide else "<u4").tobytes(),
            self.size.astype("<u4").tobytes(),
            self.flags.astype("u1").tobytes(),
            self.frame_packet.astype("<u4" if long else "<u2").tobytes(),
        ]
        if self.pts is not None:
            parts.append(self.pts.astype("<i8").tobytes())
        if self.count is not None:
            parts.append(_PART.pack(self.left_out, self.skip, self.count))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, blob: bytes) -> PacketTable:
        """The table that `to_bytes` wrote. Raises ValueError if the blob is not one."""
        if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
            raise ValueError("not a packet table")
        _, bits, _, _, packets, frames = _HEADER.unpack_from(blob)
        at = _HEADER.size
        columns = []
        plan = [
            ("<u8" if bits & 1 else "<u4", packets),
            ("<u4", packets),
            ("u1", packets),
            ("<u4" if bits & 2 else "<u2", frames),
        ] + ([("<i8", packets)] if bits & 4 else [])
        for kind, count in plan:
            width = np.dtype(kind).itemsize * count
            if at + width > len(blob):
                raise ValueError("packet table is cut short")
            columns.append(np.frombuffer(blob, kind, count, at))
            at += width
        offset, size, flags, frame_packet = columns[:4]
        pts = columns[4] if bits & 4 else None
        table = cls(
            offset.astype(np.int64), size.astype(np.int64), flags, frame_packet.astype(np.int64), pts, bool(bits & 8)
        )
        if not bits & 16:
            return table
        if at + _PART.size > len(blob):
            raise ValueError("packet table is cut short")
        left_out, skip, count = _PART.unpack_from(blob, at)
        return replace(table, left_out=left_out, skip=skip, count=count)


@dataclass(frozen=True)
class DecodeRun:
    """One pass of the decoder: feed `packets` (int64, decoding order), then drain; it yields the frames of `wanted`.

    `wanted` maps a packet to the frame it gives; with an ordinal table it maps the count of frames so far instead.
    """

    packets: NDArray[np.int64]
    wanted: dict[int, int]


def select(table: PacketTable, frames: Sequence[int] | NDArray[np.integer]) -> list[DecodeRun]:
    """The runs that give `frames` (any order, repeats allowed) with as few packets as exactness allows.

    Each run begins at the last packet from which decoding gives its frames exactly, and leaves out pictures that no
    other refers to and nobody asked for. Raises IndexError for a frame outside 0..F-1.
    """
    wanted = np.unique(np.asarray(frames, np.int64))
    if len(wanted) == 0:
        return []
    needed = table.packets_of(wanted)
    if table.ordinal:
        return [DecodeRun(np.arange(len(table.offset)), {int(k) + table.skip: int(k) for k in wanted})]
    shown_as = table.shown_as
    starts = np.flatnonzero(table.flags & START)
    start_frames = shown_as[starts]
    last_of: dict[int, int] = {}  # start -> last packet needed from it
    for frame, packet in zip((wanted + table.skip).tolist(), needed.tolist(), strict=True):
        j = int(np.searchsorted(starts, packet, side="right")) - 1
        # A picture that displays before its key frame (open GOP) refers to the group before: begin there.
        while j > 0 and start_frames[j] > frame:
            j -= 1
        start = int(starts[j])
        last_of[start] = max(last_of.get(start, start), packet)
    runs: list[DecodeRun] = []
    skippable = (table.flags & DROPPABLE).astype(bool)
    skippable[needed] = False
    for start, last in _merged(last_of):
        packets = np.arange(start, last + 1)
        given = {int(p): int(shown_as[p]) - table.skip for p in needed[(needed >= start) & (needed <= last)]}
        runs.append(DecodeRun(packets[~skippable[start : last + 1]], given))
    return runs


def whole(table: PacketTable, frames: Sequence[int] | NDArray[np.integer]) -> list[DecodeRun]:
    """One run over every packet that gives `frames`: for damaged streams, where less loses frames."""
    wanted = np.unique(np.asarray(frames, np.int64))
    if table.ordinal:
        return select(table, wanted)
    needed = table.packets_of(wanted)
    given = dict(zip(needed.tolist(), wanted.tolist(), strict=True))
    return [DecodeRun(np.arange(len(table.offset)), given)] if given else []


def _merged(last_of: dict[int, int]) -> list[tuple[int, int]]:
    """Spans (start, last) in order, those that overlap made one: what a span decodes on the way is as exact."""
    spans: list[tuple[int, int]] = []
    for start in sorted(last_of):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last_of[start]))
        else:
            spans.append((start, last_of[start]))
    return spans
