"""Reads the bytes of packets from a file: directly at their offsets if the container allows it, else by demuxing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import av
import av.error
from av.video.stream import VideoStream

from pipelines.containers.file_checks import BACK, require_regular
from pipelines.containers.opening import open_video
from pipelines.errors import VideoError
from pipelines.file_bytes import checksum_of, read_exactly
from pipelines.video.packets import DecodeRun, PacketTable
from pipelines.video.record import VideoRecord


def check_unchanged(path: str, record: VideoRecord) -> None:
    """Raise VideoError if the file has changed since it was indexed or is no regular one, OSError if it is gone.

    A copy, which may have another time, has the same bytes: then it is read once as a whole to see that.
    """
    status = os.stat(path)  # noqa: PTH116 - in the hot path
    is_file = stat.S_ISREG(status.st_mode)  # a folder may have the size, and a FIFO would be waited for
    if (
        is_file
        and status.st_size == record.size
        and (status.st_mtime_ns == record.mtime_ns or checksum_of(path, status.st_mtime_ns) == record.checksum)
    ):
        return
    require_regular(path, status, BACK)
    detail = "the same size, but other bytes"
    if status.st_size != record.size:
        detail = f"{record.size} bytes then, {status.st_size} now"
    raise VideoError(path, "changed since it was indexed", f"{detail}; index the data set again")


def read_packets(path: str, table: PacketTable, run: DecodeRun) -> Iterator[tuple[int, bytes | memoryview]]:
    """(number, bytes) of each packet of the run in decoding order, read as fast as the container allows."""
    if table.addressable:
        yield from read_ranges(path, table, run)
        return
    for number, packet in demux_packets(path, table, run):
        yield number, bytes(packet)


def read_ranges(path: str, table: PacketTable, run: DecodeRun) -> Iterator[tuple[int, bytes | memoryview]]:
    """(number, bytes) of each packet of the run, read at its offset in the file; by one read if they lie close."""
    offset, size = table.offset[run.packets], table.size[run.packets]
    begin, end = int(offset.min()), int((offset + size).max())
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if end - begin > 4 * int(size.sum()) + 2**20:  # far apart, as in a long run without B-pictures
            for number, at, length in zip(run.packets.tolist(), offset.tolist(), size.tolist(), strict=True):
                yield number, read_exactly(descriptor, length, at)
            return
        data = memoryview(read_exactly(descriptor, end - begin, begin))
    except EOFError as error:
        detail = "it ends before its packets do; index the data set again"
        raise VideoError(path, "changed since it was indexed", detail) from error
    finally:
        os.close(descriptor)
    for number, at, length in zip(run.packets.tolist(), (offset - begin).tolist(), size.tolist(), strict=True):
        yield number, data[at : at + length]


def demux_packets(
    path: str, table: PacketTable, run: DecodeRun, options: dict[str, str] | None = None
) -> Iterator[tuple[int, av.Packet[VideoStream]]]:
    """(number, packet) of each packet of the run, found by seeking in the container and comparing time stamps.

    A packet can decode itself until the next one is asked for, by the container's own decoder, which gets `options`.
    """
    assert table.pts is not None
    number_of = {pts: number for number, pts in enumerate(table.pts.tolist())}
    left = set(run.packets.tolist())
    first, last = int(run.packets[0]), int(run.packets[-1])
    for seeks in (True, False):
        with open_video(path) as video:
            video.stream.codec_context.options = options or {}
            if seeks:
                try:
                    video.container.seek(int(table.pts[first]), stream=video.stream)
                except av.error.FFmpegError:
                    continue  # the file may be too short to seek in: read from the beginning instead
            started = False
            for packet in video.container.demux(video.stream):
                number = number_of.get(packet.pts) if packet.pts is not None and packet.size else None
                if number is None or number < first:
                    continue
                if not started and number != first:
                    break  # the seek went past the packet: read from the beginning instead
                started = True
                if number in left:
                    left.discard(number)
                    yield number, packet
                if number >= last:
                    return
            if started:
                return
