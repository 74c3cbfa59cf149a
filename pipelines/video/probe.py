"""Probes a video file: whether it can be used, how many frames it has, and which packets give them."""

from __future__ import annotations

import mmap
import os
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from pipelines.bitstreams.mpeg4 import VOP, mpeg4_pictures, parse_video_object_layer
from pipelines.bitstreams.packet_flags import DROPPABLE, START
from pipelines.containers.clock import TimeStamps
from pipelines.containers.demuxer import PacketList, list_packets
from pipelines.containers.file_checks import AVI_HEAD, check_regular, check_size, is_avi
from pipelines.containers.opening import find_video_stream
from pipelines.errors import VideoError
from pipelines.video.decoder import ScannedFrame, scan_frames
from pipelines.video.packets import PacketTable
from pipelines.video.parts import part_of
from pipelines.video.record import Span, VideoRecord


def probe_video(
    path: str | Path, *, root: str | Path = "", allow_partial: bool = False, span: Span | None = None
) -> VideoRecord:
    """The record of the video at `root`/`path`, with the number of frames that decoding the whole file gives.

    With a `span` (begin, end) the record has only the frames that are shown from `begin` on and before `end`, in
    seconds from the start of the file, as players count; see containers.clock. If the file is hardly longer than the
    span, it is assumed to be cut to it already, and the record has all frames.

    Frames of MPEG-4 part 2 are counted by their headers, those of H.264 and HEVC in a sound MP4 by the container. For
    all other files, and in case of doubt, the file is decoded. With `allow_partial` a truncated file is used as far as
    it goes. Raises VideoError with a short reason if the file can't be used.
    """
    name = str(path)
    full = str(Path(root) / name) if str(root) else name
    status = check_regular(full)
    try:
        with Path(full).open("rb") as file:
            # The map is not closed explicitly, since the traceback of an error may hold arrays that use it.
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        record, stamps = _probe(name, full, status, data, allow_partial)
        return record if span is None else part_of(full, record, stamps, span)
    except av.error.FFmpegError as error:
        raise VideoError(full, "not a readable video", error.strerror or str(error)) from error
    except OSError as error:
        raise VideoError(full, "can't be read", error.strerror or str(error)) from error


def _probe(
    name: str, full: str, status: os.stat_result, data: NDArray[np.uint8], allow_partial: bool
) -> tuple[VideoRecord, TimeStamps]:
    """The record of the whole file, and the time stamps of its packets."""
    # If FFmpeg is told the format, opening takes a third less time.
    form = "avi" if is_avi(data[:AVI_HEAD].tobytes()) else None
    with av.open(full, format=form, metadata_errors="ignore") as container:
        stream = find_video_stream(full, container)
        context = stream.codec_context
        packets = list_packets(full, stream, data)
        if packets.truncated and not allow_partial:
            raise VideoError(full, "truncated", f"{len(packets.offset)} packets left")
        base = {
            "path": name,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "codec": context.codec.canonical_name,
            "decoder": context.name,
            "fps": float(stream.average_rate or stream.guessed_rate or Fraction(0)),
            "container": container.format.name.split(",")[0],
            "note": _note(full, container.format.name, packets),
        }
        extradata = context.extradata or b""
        pix_fmt = context.pix_fmt or ""
        size = (context.height, context.width)
    if base["codec"] == "mpeg4":
        record = _from_vops(full, base, data, packets, extradata, pix_fmt)
        if record is not None:
            return record, packets.stamps
        size = _layer_size(extradata + packets.first) or size
    check_size(full, size[1], size[0])
    return _from_decode(full, base, packets, extradata), packets.stamps


def _from_vops(
    path: str, base: dict[str, object], data: NDArray[np.uint8], packets: PacketList, extradata: bytes, pix_fmt: str
) -> VideoRecord | None:
    """The record of an MPEG-4 part 2 stream by the headers of its pictures; None if it has to be decoded."""
    if not packets.addressable or packets.truncated:
        return None
    # The bytes before the first picture go into the extradata, so that a decoder that begins later also gets them. They
    # name the encoder, for instance, which decides the inverse transform.
    header = packets.first[: packets.first.find(VOP)] if VOP in packets.first else b""
    if header and header not in extradata:
        extradata += header
    packed = any(mark in extradata and b"p" in extradata.split(mark, 1)[1][:16] for mark in (b"DivX", b"divx"))
    pictures = mpeg4_pictures(data, packets.offset, packets.size, extradata, packed=packed)
    layer = parse_video_object_layer(extradata)
    if pictures is None or pictures.frame_packet is None or layer is None:
        return None
    check_size(path, layer.width, layer.height)
    table = PacketTable(pictures.offset, pictures.size, pictures.flags, pictures.frame_packet)
    return VideoRecord(
        **base,  # type: ignore[arg-type]
        num_frames=table.num_frames,
        height=layer.height,
        width=layer.width,
        pix_fmt=pix_fmt or "yuv420p",
        extradata=extradata,
        table=table.to_bytes(),
    )


def _layer_size(header: bytes) -> tuple[int, int] | None:
    layer = parse_video_object_layer(header)
    return (layer.height, layer.width) if layer else None


def _from_decode(path: str, base: dict[str, object], packets: PacketList, extradata: bytes) -> VideoRecord:
    """The record by decoding the whole file, or only its first frame if the container says all the rest."""
    count = len(packets.offset)
    flags = packets.flags if len(packets.flags) else np.zeros(count, np.uint8)
    sure = packets.sound and packets.addressable and bool(flags[0] & START)
    frames: list[ScannedFrame] = []
    for frame in scan_frames(path):
        if frames and (frame.height, frame.width) != (frames[0].height, frames[0].width):
            raise VideoError(
                path,
                "frame size changes",
                f"{frames[0].width}x{frames[0].height}, then {frame.width}x{frame.height}",
            )
        if frame.packet is None or frame.packet < count or not packets.truncated:
            frames.append(frame)
        if sure:
            break
    if not frames:
        raise VideoError(path, "no frame decodes")
    ordinal = False
    if sure:
        assert packets.pts is not None
        shown = np.argsort(packets.pts, kind="stable")
    else:
        tags = [frame.packet for frame in frames]
        ordinal = None in tags or len(set(tags)) < len(tags)
        shown = np.arange(len(frames)) if ordinal else np.array(tags, np.int64)
        if len(frames) != count or any(frame.corrupt for frame in frames):
            # The decoder hides damage with earlier frames, so it has to start at the first packet.
            flags = np.zeros(count, np.uint8)
        if base["codec"] == "h264":
            # Streams that are not in a sound MP4 are often damaged in ways that show only if pictures are left out.
            flags = flags & ~np.uint8(DROPPABLE)
    flags = flags.copy()
    flags[0] |= START
    addressable = packets.addressable
    if not addressable and packets.pts is None:
        ordinal, shown = True, np.arange(len(frames))
    pts = None if addressable else packets.pts if packets.pts is not None else np.zeros(count, np.int64)
    table = PacketTable(np.maximum(packets.offset, 0), packets.size, flags, shown, pts, ordinal)
    return VideoRecord(
        **base,  # type: ignore[arg-type]
        num_frames=len(shown),
        height=frames[0].height,
        width=frames[0].width,
        pix_fmt=frames[0].pix_fmt,
        extradata=extradata,
        table=table.to_bytes(),
    )


def _note(path: str, formats: str, packets: PacketList) -> str:
    """What is unusual about the file: another format than its name says, a missing end, uneven frame times."""
    notes = []
    ending = Path(path).suffix.lower().lstrip(".")
    if ending == "avi" and "avi" not in formats:
        notes.append(f"{formats.split(',')[0]} content under an .avi name")
    if packets.truncated:
        notes.append("truncated")
    if packets.pts is not None and "avi" not in formats and len(packets.pts) > 2:
        steps = np.diff(np.sort(packets.pts))
        if steps.max() > 2 * max(1, int(np.median(steps))) or steps.min() * 2 < int(np.median(steps)):
            notes.append("uneven frame times")
    return "; ".join(notes)
