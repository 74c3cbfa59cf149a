"""Writes the packets of a clip as a small video in memory, for decoders that need files, such as DALI's.

The container is Matroska for every codec. It is fast to write, and it says when each packet is shown, which AVI can't:
with B-frames, readers of AVI would count frames in decoding order. A tick of its clock is one frame, and each packet
gives one frame, so decoders that count packets and decoders that count frames agree. Its pictures have the stored size,
without a turn. It has no colour tags: DALI looks only at those in the stream itself (see dali_limits.py).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import av.error
import numpy as np
from numpy.typing import NDArray

from pipelines.bitstreams.mpeg4 import USER_DATA, VOP, has_video_object_layer
from pipelines.bitstreams.nal_units import is_slice, length_size, nal_units, unit_type
from pipelines.bitstreams.packet_flags import DROPPABLE, SILENT, START
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import NEEDS_MEMORY
from pipelines.containers.io_retries import with_retries
from pipelines.errors import INDEX_FULLY, FrameError, R3DFastError, VideoError
from pipelines.video.packet_reader import check_unchanged, read_packets
from pipelines.video.packets import DecodeRun, PacketTable, select
from pipelines.video.record import VideoRecord

PacketBytes = bytes | bytearray | memoryview

CODEC_IDS = {
    "mpeg4": b"V_MPEG4/ISO/ASP",
    "mpeg1video": b"V_MPEG1",
    "mpeg2video": b"V_MPEG2",
    "mjpeg": b"V_MJPEG",
    "h264": b"V_MPEG4/ISO/AVC",
    "hevc": b"V_MPEGH/ISO/HEVC",
    "vp8": b"V_VP8",
    "vp9": b"V_VP9",
    "av1": b"V_AV1",
}
INEXACT = "can't be remuxed exactly"  # the reason of a FrameError after which PyAV can decode the frames from the file
_MOST_TICKS = 2**15 - 1  # the time of a block is a signed 16-bit offset from the time of its cluster
# Codec tags by which decoders of MPEG-4 choose the inverse transform of an encoder, or make up for its mistakes.
_ENCODER_TAGS = {"XVID", "XVIX", "RMP4", "ZMP4", "SIPP", "DIVX", "UMP4"}
_LONGEST_HEADERS = 512  # bytes of an MPEG-4 packet in which its headers are looked for


class MiniVideo(NamedTuple):
    """A small video in memory: `data` uint8 [bytes], and `frames` int32 [T], the number in it of each wanted frame.

    Numbers are 0-based and in display order. DALI takes them in any order, but if a number repeats, it decodes from the
    beginning again; so give it each number once, by `np.unique(frames)`, and rearrange the result.
    """

    data: NDArray[np.uint8]
    frames: NDArray[np.int32]


def remux(
    record: VideoRecord,
    frames: Sequence[int] | NDArray[np.integer],
    *,
    root: str = "",
    io_retries: int = 0,
    on_retry: Callable[[], object] = lambda: None,
) -> MiniVideo:
    """A video in memory with only the packets that `frames` need.

    `frames` are 0-based numbers in display order; they may come in any order and repeat. After an error of the system,
    such as EIO, the file is read up to `io_retries` times again; `on_retry` is called before each time. Raises
    VideoError if the file can't be read or has changed since it was indexed, FrameError with reason INEXACT if there is
    no small video whose frames every decoder counts in the same way, IndexError for a frame number that the video does
    not have.
    """
    path = os.path.join(root, record.path)  # noqa: PTH118 - in the hot path, and root may be empty
    shown = _shown_as(record)

    def gather() -> tuple[list[int], list[PacketBytes]]:
        check_unchanged(path, record)
        why = _cant_be_carried(record)
        if why:
            raise _inexact(path, why)
        return _gather(path, record, record.packets, frames, shown)

    try:
        numbers, blocks = with_retries(gather, io_retries, on_retry)
    except R3DFastError:
        raise
    except MemoryError as error:
        raise VideoError(path, NEEDS_MEMORY, reason_of(error), passing=True) from error
    except (av.error.FFmpegError, ValueError, OSError) as error:  # PyAV raises ValueError for some damage
        raise VideoError(path, "can't be read", reason_of(error)) from error
    ticks = np.empty(len(numbers), np.int32)
    ticks[np.argsort(shown[numbers])] = np.arange(len(numbers))
    tick_of = dict(zip(numbers, ticks.tolist(), strict=True))
    places = [tick_of[number] for number in record.packets.packets_of(frames).tolist()]
    height, width = record.stored_size
    data = write_matroska(
        zip(ticks.tolist(), blocks, strict=True),
        codec=record.codec,
        width=width,
        height=height,
        fps=record.fps or 25.0,
        extradata=record.extradata,
    )
    return MiniVideo(np.frombuffer(data, np.uint8), np.array(places, np.int32))


def _cant_be_carried(record: VideoRecord) -> str:
    """What the small video of a record could not carry, in words; empty if it carries all that decoding needs."""
    if record.packets.ordinal:
        return "its packets do not tell which frames they give"
    if record.codec not in CODEC_IDS:
        return f"codec {record.codec}"
    if record.parameters.changes:
        return "its headers change on the way"
    # FFmpeg goes by the tag where the stream names no encoder (mpeg4videodec.c, ff_mpeg4_workaround_bugs).
    tag = record.parameters.codec_tag.upper()
    if record.codec == "mpeg4" and tag in _ENCODER_TAGS and USER_DATA not in record.extradata:
        return f"only its codec tag {tag} names the encoder"
    return ""


def _shown_as(record: VideoRecord) -> NDArray[np.int64]:
    """The position in display order of the frame of each packet, int64 [P]; -1 if it gives none.

    With VP8 every packet counts as a frame, since `_shown_vp8` makes hidden frames visible.
    """
    table = record.packets
    if record.codec == "vp8":
        return np.arange(len(table.offset))
    return table.shown_as


def _gather(
    path: str,
    record: VideoRecord,
    table: PacketTable,
    frames: Sequence[int] | NDArray[np.integer],
    shown: NDArray[np.int64],
) -> tuple[list[int], list[PacketBytes]]:
    """(numbers, bytes) of the packets of the small video, in decoding order."""
    numbers: list[int] = []
    blocks: list[PacketBytes] = []
    for run in select(table, frames):
        packets = list(read_packets(path, table, run))
        if len(packets) < len(run.packets):
            raise FrameError(path, "packets missing", f"the file is damaged or changed: {INDEX_FULLY}")
        begins = run.packets[0] == 0 and not table.left_out  # whether it begins with the stream
        if record.codec in ("h264", "hevc") and not begins and not _restarts(record, packets[0][1]):
            if run.packets[0] == 0:
                raise _inexact(path, "its part of the file begins in the middle of a display order")
            # The display order of this run continues that of pictures before it, so begin at the first packet instead.
            flags = table.flags & ~np.uint8(START)
            flags[0] |= START
            return _gather(path, record, replace(table, flags=flags), frames, shown)
        for number, data in _one_frame_each(path, record, run, packets, shown):
            numbers.append(number)
            blocks.append(data)
    return numbers, blocks


def _one_frame_each(
    path: str,
    record: VideoRecord,
    run: DecodeRun,
    packets: list[tuple[int, bytes | memoryview]],
    shown: NDArray[np.int64],
) -> list[tuple[int, PacketBytes]]:
    """The packets of a run, changed where necessary so that each gives one frame. Raises FrameError if impossible."""
    if record.codec == "vp8":
        return [(number, _shown_vp8(data)) for number, data in packets]
    flags = record.packets.flags[run.packets]
    silent = (flags & SILENT).astype(bool)
    if np.any((shown[run.packets] < 0) & ~silent):
        raise _inexact(path, "a packet that gives no frame is needed")
    kept: list[tuple[int, PacketBytes]] = [
        packet for packet, drop in zip(packets, silent.tolist(), strict=True) if not drop
    ]
    if record.codec == "mpeg4":
        if silent[0] or (silent.any() and np.any(flags[int(np.argmax(silent)) :] & DROPPABLE)):
            raise _inexact(path, "a VOP without a picture sets the clock that B-VOPs go by")
        if any(bytes(data).count(VOP) > 1 for _, data in kept):
            raise _inexact(path, "several VOPs in a packet")
        if not has_video_object_layer(bytes(kept[0][1][:_LONGEST_HEADERS])):
            # NVDEC needs the video object layer in the stream itself, as AVI has it.
            kept[0] = (kept[0][0], record.extradata + bytes(kept[0][1]))
    return kept


def _shown_vp8(data: PacketBytes) -> PacketBytes:
    """A VP8 frame with its show_frame bit set (RFC 6386, 9.1), so that a hidden frame is shown too."""
    changed = bytearray(data)
    changed[0] |= 0x10
    return changed


def _restarts(record: VideoRecord, data: PacketBytes) -> bool:
    """Whether an H.264 or HEVC packet is a picture that starts a new display order (IDR, BLA)."""
    codec = record.codec
    for unit in nal_units(bytes(data), length_size(codec, record.extradata)):
        kind = unit_type(codec, unit)
        if is_slice(codec, kind):
            return 16 <= kind <= 20 if codec == "hevc" else kind == 5
    return False


def _inexact(path: str, why: str) -> FrameError:
    return FrameError(path, INEXACT, why)


def write_matroska(
    packets: Iterable[tuple[int, PacketBytes]],
    *,
    codec: str,
    width: int,
    height: int,
    fps: float = 25.0,
    extradata: bytes = b"",
) -> bytes:
    """A Matroska video (RFC 9559) of `packets`, each (tick, bytes), in decoding order.

    The tick is the number of the frame in display order. Only the first packet is marked as a key frame: all packets
    are needed, so a decoder would gain nothing by seeking. `codec` is a key of CODEC_IDS, `width` and `height` are in
    px.
    """
    tick_ns = round(1e9 / min(max(fps, 1.0), 1000.0))
    track = (
        _element(b"\xd7", b"\1")  # TrackNumber
        + _element(b"\x73\xc5", b"\1")  # TrackUID
        + _element(b"\x83", b"\1")  # TrackType: video
        + _element(b"\x23\xe3\x83", _uint(tick_ns))  # DefaultDuration
        + _element(b"\x86", CODEC_IDS[codec])
        + (_element(b"\x63\xa2", extradata) if extradata else b"")  # CodecPrivate
        + _element(b"\xe0", _element(b"\xb0", _uint(width)) + _element(b"\xba", _uint(height)))
    )
    info = _element(b"\x2a\xd7\xb1", _uint(tick_ns)) + _element(b"\x4d\x80", b"r3d") + _element(b"\x57\x41", b"r3d")
    head = _element(b"\x15\x49\xa9\x66", info) + _element(b"\x16\x54\xae\x6b", _element(b"\xae", track))
    segment = _element(b"\x18\x53\x80\x67", b"".join([head, *_clusters(packets)]))
    return _element(b"\x1a\x45\xdf\xa3", _element(b"\x42\x82", b"matroska")) + segment


def _clusters(packets: Iterable[tuple[int, PacketBytes]]) -> list[bytes]:
    clusters: list[bytes] = []
    cluster: list[PacketBytes] = []
    start, key = 0, b"\x80"
    for tick, data in packets:
        if cluster and abs(tick - start) > _MOST_TICKS:
            clusters.append(_element(b"\x1f\x43\xb6\x75", b"".join(cluster)))
            cluster = []
        if not cluster:
            start = tick
            cluster.append(_element(b"\xe7", _uint(start)))
        # SimpleBlock: a size of 4 bytes, track 1, time, flags.
        cluster.append(struct.pack(">BIBh", 0xA3, len(data) + 4 | 1 << 28, 0x81, tick - start) + key)
        cluster.append(data)
        key = b"\0"
    return [*clusters, _element(b"\x1f\x43\xb6\x75", b"".join(cluster))]


def _element(identifier: bytes, content: bytes) -> bytes:
    return identifier + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _uint(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
