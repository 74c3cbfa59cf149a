"""Reads the bytes of packets from a file: directly at their offsets if the container allows it, else by demuxing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import av
import av.error

from pipelines.errors import VideoError
from pipelines.video.packets import DecodeRun, PacketTable
from pipelines.video.record import VideoRecord


def check_unchanged(path: str, record: VideoRecord) -> None:
    """Raise VideoError if the file has changed since it was indexed, OSError if it is gone."""
    status = os.stat(path)  # noqa: PTH116 - in the hot path
    if status.st_size != record.size or status.st_mtime_ns != record.mtime_ns:
        raise VideoError(
            path,
            "changed since it was indexed",
            f"{record.size} bytes then, {status.st_size} now; index the data set again",
        )


def read_packets(path: str, table: PacketTable, run: DecodeRun) -> Iterator[tuple[int, bytes | memoryview]]:
    """(number, bytes) of each packet of the run in decoding order, read as fast as the container allows."""
    return read_ranges(path, table, run) if table.addressable else demux_packets(path, table, run)


def read_ranges(path: str, table: PacketTable, run: DecodeRun) -> Iterator[tuple[int, bytes | memoryview]]:
    """(number, bytes) of each packet of the run, read at its offset in the file; by one read if they lie close."""
    offset, size = table.offset[run.packets], table.size[run.packets]
    begin, end = int(offset.min()), int((offset + size).max())
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if end - begin > 4 * int(size.sum()) + 2**20:  # far apart, as in a long run without B-pictures
            for number, at, length in zip(run.packets.tolist(), offset.tolist(), size.tolist(), strict=True):
                yield number, os.pread(descriptor, length, at)
            return
        data = memoryview(os.pread(descriptor, end - begin, begin))
    finally:
        os.close(descriptor)
    for number, at, length in zip(run.packets.tolist(), (offset - begin).tolist(), size.tolist(), strict=True):
        yield number, data[at : at + length]


def demux_packets(path: str, table: PacketTable, run: DecodeRun) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each packet of the run, found by seeking in the container and comparing time stamps."""
    assert table.pts is not None
    number_of = {pts: number for number, pts in enumerate(table.pts.tolist())}
    left = set(run.packets.tolist())
    first, last = int(run.packets[0]), int(run.packets[-1])
    for seeks in (True, False):
        with av.open(path, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            if seeks:
                try:
                    container.seek(int(table.pts[first]), stream=stream)
                except av.error.FFmpegError:
                    continue  # the file may be too short to seek in: read from the beginning instead
            started = False
            for packet in container.demux(stream):
                number = number_of.get(packet.pts) if packet.pts is not None and packet.size else None
                if number is None or number < first:
                    continue
                if not started and number != first:
                    break  # the seek went past the packet: read from the beginning instead
                started = True
                if number in left:
                    left.discard(number)
                    yield number, bytes(packet)
                if number >= last or not left:
                    return
            if started:
                return
