"""Lists the packets of a file in the order of the container, and checks whether they can be read by their offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.bitstreams.packet_flags import packet_flags, single_picture
from pipelines.containers.clock import TimeStamps
from pipelines.containers.file_checks import AVI_HEAD, is_cut_short
from pipelines.errors import VideoError

_CHUNK_HEADER = 8  # AVI: four characters and a size precede each packet


@dataclass
class PacketList:
    """The packets of a stream; arrays are [P], in the order of the file."""

    offset: NDArray[np.int64]  # in bytes; has no meaning if not addressable
    size: NDArray[np.int64]  # in bytes
    flags: NDArray[np.uint8]  # of bitstream.packet_flags; empty for MPEG-4, whose headers say more
    pts: NDArray[np.int64] | None  # None: a time stamp is missing or repeats
    first: bytes  # the first packet
    addressable: bool  # the bytes of the file at `offset` are the packets; all were compared
    sound: bool  # an MP4 in which each packet gives exactly one frame, and all frames are shown
    truncated: bool  # the file ends before its last packet
    stamps: TimeStamps


def list_packets(path: str, stream: VideoStream, data: NDArray[np.uint8]) -> PacketList:
    """The packets of `stream`. `data` is the whole file, uint8 [bytes]. Raises VideoError if there are no packets."""
    is_mpeg4 = stream.codec_context.codec.canonical_name == "mpeg4"
    indexed = _from_avi_index(stream, data) if is_mpeg4 else None
    return indexed or _demux(path, stream, data, is_mpeg4)


def _from_avi_index(stream: VideoStream, data: NDArray[np.uint8]) -> PacketList | None:
    """The packets of an AVI by the file's own index; None if the index does not agree with the rest of the file.

    This is three times faster than demuxing. The index is trusted if it has as many entries as the header says frames,
    and if a chunk header with the number of the stream and the same size is before each packet.
    """
    if stream.container.format.name != "avi" or is_cut_short(data[:AVI_HEAD].tobytes(), len(data)):
        return None
    entries = [(entry.pos, entry.size, entry.timestamp) for entry in getattr(stream, "index_entries", ())]
    if not entries or len(entries) != stream.frames:
        return None
    table = np.array(entries, np.int64)
    at, size, stamps = table.T
    if size.min() <= 0 or at.min() < 0 or (at + _CHUNK_HEADER + size).max() > len(data) or np.any(np.diff(at) <= 0):
        return None
    head = data[at[:, None] + np.arange(_CHUNK_HEADER)]
    number = np.frombuffer(b"%02d" % stream.index, np.uint8)
    if np.any(head[:, :2] != number) or np.any(np.ascontiguousarray(head[:, 4:]).view("<u4")[:, 0] != size):
        return None
    offset = at + _CHUNK_HEADER
    first = data[offset[0] : offset[0] + size[0]].tobytes()
    return PacketList(
        offset, size.copy(), np.zeros(0, np.uint8), None, first, True, False, False, TimeStamps.of(stream, stamps)
    )


def _demux(path: str, stream: VideoStream, data: NDArray[np.uint8], is_mpeg4: bool) -> PacketList:
    """The packets of `stream` by demuxing the file."""
    context, container = stream.codec_context, stream.container
    assert isinstance(container, InputContainer)
    codec, extradata = context.codec.canonical_name, context.extradata or b""
    intra_only = bool(context.codec.properties & 1)  # AV_CODEC_PROP_INTRA_ONLY
    view = data.data
    rows: list[tuple[int, int, int | None]] = []
    ticks: list[int | None] = []
    durations: list[int] = []
    flags: list[int] = []
    first = b""
    is_mp4, is_avi = "mp4" in container.format.name, container.format.name == "avi"
    addressable, sound, truncated = True, is_mp4, False
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_corrupt:
            truncated = True
            break
        content = bytes(packet)
        first = first or content
        at = -1 if packet.pos is None else packet.pos
        addressable = addressable and at >= 0 and view[at : at + len(content)] == content
        if not is_mpeg4:
            flags.append(packet_flags(codec, content, packet.is_keyframe, extradata, intra_only))
            sound = sound and not packet.is_discard and single_picture(codec, content, extradata)
        rows.append((at, len(content), packet.pts))
        ticks.append(packet.dts if is_avi else packet.pts)
        durations.append(packet.duration or 0)
    if not rows:
        raise VideoError(path, "no video packets", "the container opens but holds no picture")
    pts = [row[2] for row in rows if row[2] is not None]
    unique = len(set(pts)) == len(rows)
    table = np.array([row[:2] for row in rows], np.int64)
    if is_avi:
        truncated = truncated or is_cut_short(data[:AVI_HEAD].tobytes(), len(data))
    elif is_mp4:
        truncated = truncated or len(rows) < stream.frames
    return PacketList(
        table[:, 0].copy(),
        table[:, 1].copy(),
        np.array(flags, np.uint8),
        np.array(pts, np.int64) if unique else None,
        first,
        addressable,
        sound and unique and not truncated,
        truncated,
        TimeStamps.of(stream, None if None in ticks else np.array(ticks, np.int64), np.array(durations, np.int64)),
    )
