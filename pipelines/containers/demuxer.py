"""Lists the packets of a file in the order of the container, and checks whether they can be read by their offsets."""

from __future__ import annotations

from dataclasses import dataclass

import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.bitstreams.packet_flags import KEY, frames_given, packet_flags
from pipelines.containers.clock import TimeStamps
from pipelines.containers.completeness import lost_frames
from pipelines.containers.file_checks import AVI_HEAD, TRUNCATED, is_avi
from pipelines.containers.opening import OpenVideo
from pipelines.errors import VideoError
from pipelines.file_bytes import FileBytes

_PICTURE_CHUNKS, _OTHER_CHUNKS = (b"dc", b"db"), (b"LIST", b"JUNK")  # AVI
_CHUNK_HEADER = 8  # AVI: four characters and a size precede each packet
# What a demuxer says beside the bytes of a packet and a decoder of pictures does not need.
_NEEDLESS = frozenset(
    [
        "a53_cc",
        "afd",
        "ambient_viewing_environment",
        "content_light_level",
        "cpb_properties",
        "dynamic_hdr10_plus",
        "fallback_track",
        "mastering_display_metadata",
        "metadata_update",
        "mpegts_stream_id",
        "prft",
        "quality_stats",
        "replay_gain",
        "rtcp_sr",
        "s12m_timecode",
        "skip_samples",
        "spherical",
        "stereo_3d",
        "strings_metadata",
    ]
)
# Containers whose time stamps order the pictures of all codecs, and those in which they do so without reordering.
_ORDERED, _PLAIN = ("mov",), ("matroska", "ivf")
_UNREORDERED = ("vp8", "vp9", "av1")
_MOST_REORDERED = 16  # frames (ITU-T H.264 A.3.1, max_dec_frame_buffering)
_NO_NUMBERS, _NO_FLAGS = np.zeros(0, np.int64), np.zeros(0, np.uint8)


@dataclass
class PacketList:
    """The packets of a stream; arrays are [P], in the order of the file."""

    offset: NDArray[np.int64]  # in bytes; has no meaning if not addressable
    size: NDArray[np.int64]  # in bytes
    flags: NDArray[np.uint8]  # of bitstreams.packet_flags; empty for MPEG-4, whose headers say more
    pts: NDArray[np.int64] | None  # None: a time stamp is missing or repeats
    first: bytes  # the first packet
    addressable: bool  # the bytes of the file at `offset` are the packets; all were compared
    sound: bool  # it is known which packets give a frame, all of these are shown, and `pts` orders them
    stamps: TimeStamps
    giving: NDArray[np.int64]  # the numbers of the packets that give a frame, if sound
    corrupt: frozenset[int] = frozenset()  # the numbers of the packets that the demuxer marks as damaged or cut
    hidden: int = 0  # packets whose frames are not shown, by an edit list
    changes: bool = False  # the headers of the stream change on the way, beside the packets
    indexed: bool = False  # listed by the index of an AVI, with which all of the file agrees


def list_packets(video: OpenVideo, path: str, file: FileBytes) -> PacketList:
    """The packets of `video`, which is in `file`. Raises VideoError if there are none."""
    is_mpeg4 = video.stream.codec_context.codec.canonical_name == "mpeg4"
    indexed = _from_avi_index(video.stream, file) if is_mpeg4 and video.format == "avi" else None
    return indexed or _demux(video, path, file, is_mpeg4)


def _from_avi_index(stream: VideoStream, file: FileBytes) -> PacketList | None:
    """The packets of an AVI by the file's own index; None if the index does not agree with the rest of the file.

    This is three times faster than demuxing. The index is trusted if it has as many entries as the header says frames,
    if the same chunk header, with the number of the stream and the packet's size, is before each packet, if other
    chunks fill the space between these, and if no second AVI follows the first one, which would be played too.
    """
    riff_end = 8 + int.from_bytes(file.read(4, 4), "little")
    if is_avi(bytes(file.read(riff_end + riff_end % 2, AVI_HEAD))):
        return None
    entries = [(entry.pos, entry.size, entry.timestamp) for entry in getattr(stream, "index_entries", ())]
    if not entries or len(entries) != stream.frames:
        return None
    table = np.array(entries, np.int64)
    at, size, ticks = (np.ascontiguousarray(column) for column in table.T)
    end = int((at + _CHUNK_HEADER + size).max())
    if size.min() <= 0 or at.min() < 0 or end > file.size or np.any(np.diff(at) <= 0):
        return None
    mark = bytes(file.read(0, int(at[0]) + 4)[-4:])  # from the start, so that the file is read once
    if mark[:2] != b"%02d" % stream.index or mark[2:] not in _PICTURE_CHUNKS:
        return None
    window_of = file.window_of(at)
    for start, data in file.windows(overlap=_CHUNK_HEADER):
        here = window_of == start
        head = data[(at[here] - start)[:, None] + np.arange(_CHUNK_HEADER)]
        sizes = np.ascontiguousarray(head[:, 4:]).view("<u4")[:, 0]
        if np.any(head[:, :4] != np.frombuffer(mark, np.uint8)) or np.any(sizes != size[here]):
            return None
    if not _is_filled(file, at, size, mark):
        return None
    offset = at + _CHUNK_HEADER
    first = bytes(file.read(int(offset[0]), int(size[0])))
    stamps = TimeStamps.of(stream, ticks)
    return PacketList(offset, size, _NO_FLAGS, None, first, True, False, stamps, _NO_NUMBERS, indexed=True)


def _is_filled(file: FileBytes, at: NDArray[np.int64], size: NDArray[np.int64], mark: bytes) -> bool:
    """Whether other chunks fill the space between the chunks at `at` int64 [P], whose four characters are `mark`.

    `size` int64 [P] is the number of bytes after the header of each. Where anything else lies between chunks, the
    demuxer looks for the next one, and may find it elsewhere.
    """
    head = bytes(file.read(0, int(at[0])))
    movi = head.rfind(b"movi")
    ends = np.concatenate([[movi + 4], (at + _CHUNK_HEADER + size)[:-1]])
    gaps = np.flatnonzero(at - ends > 1)  # a chunk of an odd size may be followed by one byte
    if movi < 0:
        return False
    for place, end in zip(ends[gaps].tolist(), at[gaps].tolist(), strict=True):
        place += place % 2
        while place < end - 1:
            header = bytes(file.read(place, _CHUNK_HEADER))
            is_stream = header[:2].isdigit() and header[:2] != mark[:2] and header[2:4].isalpha()
            if not is_stream and header[:4] not in _OTHER_CHUNKS and header[:2] != b"ix":
                return False
            inner = 4 if header[:4] == b"LIST" else int.from_bytes(header[4:], "little")
            place += _CHUNK_HEADER + inner + inner % 2
        if place not in (end, end + 1):
            return False
    return True


def _is_plausible(pts: NDArray[np.int64]) -> bool:
    """Whether time stamps reorder pictures no further than codecs do; else they are not those of the decoder."""
    shown = np.empty(len(pts), np.int64)
    shown[np.argsort(pts, kind="stable")] = np.arange(len(pts))
    return bool(np.all(np.abs(shown - np.arange(len(pts))) <= _MOST_REORDERED))


def _demux(video: OpenVideo, path: str, file: FileBytes, is_mpeg4: bool) -> PacketList:
    """The packets of `video` by demuxing the file."""
    context = video.stream.codec_context
    codec, extradata = context.codec.canonical_name, context.extradata or b""
    intra_only = bool(context.codec.properties & 1)  # AV_CODEC_PROP_INTRA_ONLY
    ordered = video.format in _ORDERED or (video.format in _PLAIN and codec in _UNREORDERED)
    unknown = TimeStamps.of(video.stream, None)
    found = PacketList(_NO_NUMBERS, _NO_NUMBERS, _NO_FLAGS, None, b"", True, ordered, unknown, _NO_NUMBERS)
    giving: list[int] = []
    rows: list[tuple[int, int, int | None]] = []
    ticks: list[int | None] = []
    durations: list[int] = []
    flags: list[int] = []
    try:
        for packet in video.container.demux(video.stream):
            if not packet.size:
                continue
            content = bytes(packet)
            found.first = found.first or content
            at = -1 if packet.pos is None else packet.pos
            found.addressable = found.addressable and file.read(at, len(content)) == content
            found.changes = found.changes or any(data.data_type not in _NEEDLESS for data in packet.iter_sidedata())
            if packet.is_corrupt:
                found.corrupt |= {len(rows)}
            found.hidden += packet.is_discard
            if not is_mpeg4:
                flags.append(packet_flags(codec, content, extradata, intra_only) | (KEY if packet.is_keyframe else 0))
                count = frames_given(codec, content, extradata) if found.sound and not packet.is_discard else None
                found.sound = count in (0, 1)
                giving += [len(rows)] * bool(count)
            rows.append((at, len(content), packet.pts))
            ticks.append(packet.dts if video.format == "avi" else packet.pts)
            durations.append(packet.duration or 0)
    except av.error.FFmpegError:
        if not rows:
            raise
        found.corrupt |= {len(rows)}  # the packet that the demuxer fails at; those before it are there
    if not rows:
        missing = lost_frames(path)
        if missing:
            raise VideoError(path, TRUNCATED, missing)
        raise VideoError(path, "no video packets", "the container opens but holds no picture")
    stamps = [row[2] for row in rows if row[2] is not None]
    table = np.array([row[:2] for row in rows], np.int64)
    found.offset, found.size, found.flags = table[:, 0].copy(), table[:, 1].copy(), np.array(flags, np.uint8)
    found.giving = np.array(giving, np.int64)
    found.pts = np.array(stamps, np.int64) if len(set(stamps)) == len(rows) else None
    if None not in ticks:
        found.stamps = TimeStamps.of(video.stream, np.array(ticks, np.int64), np.array(durations, np.int64))
    ordered = found.pts is not None and _is_plausible(found.pts)
    if found.pts is not None and codec in _UNREORDERED:  # other time stamps than of the order of decoding are wrong
        ordered = ordered and bool(np.all(np.diff(found.pts[found.giving]) > 0))
    found.sound = found.sound and ordered and not found.corrupt and not found.changes
    return found
