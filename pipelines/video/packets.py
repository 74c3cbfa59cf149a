"""Finds the packets that a set of frames needs to be decoded. No decoding, no I/O.

Frame k (0-based) is the k-th frame in display order when the whole video is decoded from its start.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.bitstreams.packet_flags import DROPPABLE, START

_HEADER = struct.Struct("<4sBBHQQ")
_PART = struct.Struct("<QQQ")
_MAGIC = b"PKT1"


@dataclass(frozen=True)
class PacketTable:
    """The packets of one video in decoding order, and which packet gives each frame.

    `offset` and `size`, int64 [P], are the places of the packets in the file, in bytes. `flags` uint8 [P] are
    bitstream.START, DROPPABLE and SILENT. `frame_packet` int64 [F] is the packet of each frame in display order. If
    packets can't be read at their offsets, `pts` int64 [P] has the time stamps by which they are found in the output of
    the demuxer; else it is None. `ordinal` is true if packets do not tell which frame they give: then the video is
    decoded from its first packet and frames are counted.

    A table may be of a part of its file (see `part`): then frame k is frame `skip` + k of `frame_packet`, there are
    `count` frames, and `left_out` packets of the file come before the first one here.
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
        """Whether packets can be read from the file at their offsets."""
        return self.pts is None

    @property
    def num_frames(self) -> int:
        """The number of frames of the video, or of the part of it that the table is of."""
        return len(self.frame_packet) if self.count is None else self.count

    @property
    def shown_as(self) -> NDArray[np.int64]:
        """The position in display order of the frame of each packet, int64 [P]; -1 for a packet that gives no frame."""
        shown = np.full(len(self.offset), -1, np.int64)
        shown[self.frame_packet] = np.arange(len(self.frame_packet))
        return shown

    def packets_of(self, frames: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """The packet of each of `frames`, int64 [T]. Raises IndexError for a frame outside 0..F-1."""
        numbers = np.asarray(frames, np.int64)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.num_frames):
            raise IndexError(
                f"frames {numbers.min()}..{numbers.max()} are asked for, but the video has {self.num_frames}: expected "
                f"numbers in display order, 0..{self.num_frames - 1}"
            )
        return self.frame_packet[numbers + self.skip]

    def part(self, begin: int, end: int) -> PacketTable:
        """The table of the frames `begin` to `end` - 1, numbered from 0, with the packets that they need.

        The decoded frames are bit-identical to those of the whole video, since the table keeps the packets from the one
        where decoding these frames begins, and the display order. Raises IndexError unless 0 <= begin < end <= F.
        """
        if not 0 <= begin < end <= self.num_frames:
            raise IndexError(f"frames {begin}..{end - 1} are asked for, but the video has {self.num_frames}")
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
        """The table as bytes: 11 for each packet, if the file is under 4 GiB and has fewer than 65,536 packets."""
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
        """The table whose `to_bytes` gave `blob`. Raises ValueError if `blob` is something else."""
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
        if frames and int(frame_packet.max()) >= packets:
            raise ValueError("packet table has frames of packets that it lacks")
        table = cls(
            offset.astype(np.int64), size.astype(np.int64), flags, frame_packet.astype(np.int64), pts, bool(bits & 8)
        )
        if len(blob) - at != (_PART.size if bits & 16 else 0):
            raise ValueError("packet table is cut short, or has more than its header says")
        if not bits & 16:
            return table
        left_out, skip, count = _PART.unpack_from(blob, at)
        if skip + count > frames:
            raise ValueError("packet table has a part that is longer than the video")
        return replace(table, left_out=left_out, skip=skip, count=count)


@dataclass(frozen=True)
class DecodeRun:
    """One pass of the decoder: it is given `packets` (int64, in decoding order) and then drained.

    `wanted` maps the number of a packet to the number of the frame that it gives. With an ordinal table it maps the
    0-based count of decoded frames to the number of the frame.
    """

    packets: NDArray[np.int64]
    wanted: dict[int, int]


def select(table: PacketTable, frames: Sequence[int] | NDArray[np.integer]) -> list[DecodeRun]:
    """The runs of the decoder that give `frames` exactly, with as few packets as possible.

    `frames` may come in any order and repeat. Each run begins at the last packet from which its frames are decoded
    exactly. It leaves out pictures that are not wanted and that no other picture needs. Raises IndexError for a frame
    outside 0..F-1.
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
    last_of: dict[int, int] = {}  # packet where a run starts -> last packet that the run needs
    for frame, packet in zip((wanted + table.skip).tolist(), needed.tolist(), strict=True):
        j = int(np.searchsorted(starts, packet, side="right")) - 1
        # A picture that is shown before its key frame (open GOP) needs pictures of the group before: begin there.
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


def _merged(last_of: dict[int, int]) -> list[tuple[int, int]]:
    """The spans (start, last) in order, with overlapping ones merged. Frames stay exact if a run begins earlier."""
    spans: list[tuple[int, int]] = []
    for start in sorted(last_of):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last_of[start]))
        else:
            spans.append((start, last_of[start]))
    return spans
