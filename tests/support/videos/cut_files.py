"""Writes small videos into every kind of container, with and without sound, and reads what a cut file still gives."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from clips import stamped_frame


class Layout(NamedTuple):
    """How a file is written: FFmpeg's name of the container, encoders of video and sound, options of the container."""

    container: str
    video: str
    sound: str = ""  # "": none
    options: Mapping[str, str] = {}
    seekable: bool = True  # False: written into a pipe, so that no size is filled in at the end
    pix_fmt: str = "yuv420p"


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
LAYOUTS = {
    "avi": Layout("avi", "mpeg4"),
    "avi with sound": Layout("avi", "mpeg4", "mp2"),
    "avi of a recorder": Layout("avi", "mpeg4", "mp2", seekable=False),
    "mp4": Layout("mp4", "libx264"),
    "mp4 with sound": Layout("mp4", "libx264", "aac"),
    "mp4, header first": Layout("mp4", "libx264", "aac", {"movflags": "faststart"}),
    "mov": Layout("mov", "mjpeg", "pcm_s16le", pix_fmt="yuvj420p"),
    "mp4 in fragments": Layout("mp4", "libx264", options=FRAGMENTED),
    "mp4 in fragments with sound": Layout("mp4", "libx264", "aac", FRAGMENTED),
    "mp4 in old fragments": Layout("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "mp4 in segments": Layout("mp4", "libx264", "aac", {"movflags": "cmaf+frag_keyframe+empty_moov"}),
    "mkv": Layout("matroska", "libx264"),
    "mkv with sound": Layout("matroska", "libx264", "aac"),
    "mkv of short clusters": Layout("matroska", "libx264", "aac", {"cluster_time_limit": "200"}),
    "mkv of a recorder": Layout("matroska", "libx264", "aac", seekable=False),
    "webm": Layout("webm", "libvpx", "libopus"),
    "webm, live": Layout("webm", "libvpx", "libopus", {"live": "1"}, seekable=False),
    "flv": Layout("flv", "flv", "mp3"),
    "flv without sound": Layout("flv", "libx264"),
    "flv of a recorder": Layout("flv", "flv", "mp3", seekable=False),
    "asf": Layout("asf", "wmv2", "wmav2"),
    "asf without sound": Layout("asf", "wmv2"),
    "asf of a recorder": Layout("asf", "wmv2", "wmav2", seekable=False),
    "ogg": Layout("ogg", "libvpx", "libopus"),
    "ogg without sound": Layout("ogg", "libvpx"),
    "mpeg": Layout("mpeg", "mpeg1video", "mp2"),
    "vob": Layout("vob", "mpeg2video", "ac3"),
    "mpegts": Layout("mpegts", "mpeg2video", "mp2"),
    "mxf": Layout("mxf", "mpeg2video", "pcm_s16le"),
    "nut": Layout("nut", "mpeg4", "mp2"),
    "ivf": Layout("ivf", "libvpx"),
    "y4m": Layout("yuv4mpegpipe", "wrapped_avframe"),
    "rm": Layout("rm", "rv20", "ac3"),
    "gxf": Layout("gxf", "mpeg2video"),
    "dv": Layout("dv", "dvvideo"),
    "vcd": Layout("vcd", "mpeg1video", "mp2"),
    "mxf of a recorder": Layout("mxf", "mpeg2video", "pcm_s16le", seekable=False),
}


ENCRYPTED = Layout(
    "mp4",
    "libx264",
    "aac",
    {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "00112233445566778899aabbccddeeff",
        "encryption_kid": "0123456789abcdef0123456789abcdef",
    },
)


class _Pipe(io.RawIOBase):
    """A file that can only be appended to."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.content += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


def write_layout(path: Path, layout: Layout, *, num_frames: int = 48, seconds_of_sound: float | None = None) -> Path:
    """Write a video of 25 frames/s with a key frame every 12. The sound is as long as the pictures by default.

    The frames have 128x96 px, and 720x576 px where the container wants that.
    """
    target = str(path) if layout.seekable else _Pipe()
    rate = 48000
    size = (720, 576) if layout.container in ("gxf", "dv") else (128, 96)
    with av.open(target, "w", format=layout.container, options=dict(layout.options)) as container:
        video = container.add_stream(layout.video, rate=25)
        video.width, video.height, video.pix_fmt = *size, layout.pix_fmt
        video.bit_rate = 30_000_000 if layout.container == "mxf" else 1_000_000
        video.codec_context.gop_size = 12
        video.codec_context.thread_count = 1
        sound = container.add_stream(layout.sound, rate=rate, layout="stereo") if layout.sound else None
        if sound is not None:
            sound.bit_rate = 128_000
        fifo = av.AudioFifo()
        length = num_frames / 25 if seconds_of_sound is None else seconds_of_sound
        samples = (9000 * np.random.default_rng(1).standard_normal(2 * int(rate * length))).astype(np.int16)
        for number in range(max(num_frames, round(length * 25))):
            if number < num_frames:
                frame = av.VideoFrame.from_ndarray(stamped_frame(number, size), format="rgb24")
                frame.pts = number
                container.mux(video.encode(frame.reformat(format=layout.pix_fmt)))
            if sound is not None:
                piece = samples[2 * number * rate // 25 : 2 * (number + 1) * rate // 25]
                if len(piece):
                    part = av.AudioFrame.from_ndarray(piece[None], format="s16", layout="stereo")
                    part.sample_rate, part.pts = rate, number * rate // 25
                    fifo.write(part)
                least = sound.codec_context.frame_size or 1152
                while (part := fifo.read(least)) is not None:
                    container.mux(sound.encode(part))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    if isinstance(target, _Pipe):
        path.write_bytes(target.content)
    return path


class Demuxed(NamedTuple):
    """What demuxing a file gives of its first video stream."""

    format: str  # FFmpeg's short name
    entries: list[tuple[int, int]]  # of FFmpeg's index: offset, size
    packets: list[bytes]  # without those marked as damaged


def demux(path: Path) -> Demuxed:
    """The packets of the first video stream of the file at `path`. Raises av.FFmpegError if FFmpeg can't open it."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        entries = [(entry.pos, entry.size) for entry in stream.index_entries]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size and not packet.is_corrupt]
        return Demuxed(container.format.name.split(",")[0], entries, packets)
