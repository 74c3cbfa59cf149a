"""Writes videos that are odd but whole, as phones, recorders and other tools write them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
from clips import stamped_frame, write_open_gop_h264, write_packed_mpeg4, write_stamped_video
from exact import boxes
from timed_video import write_with_times

TS_PACKET = 188


def write_oddities(folder: Path) -> dict[str, Path]:
    """All of them, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: write(folder / f"{name.replace(' ', '_')}.{suffix}") for name, (suffix, write) in ODDITIES.items()}


def write_turned(
    path: Path, *, degrees: int, mirrored: bool = False, codec: str = "libx264", b_frames: int = 2
) -> Path:
    """A video of 24 stamped frames that the container turns by `degrees`, counter-clockwise, and mirrors."""
    with av.open(str(path), "w") as target:
        stream = _stream(target, codec, b_frames)
        stream.set_display_rotation(degrees, hflip=mirrored)
        _encode(target, stream, range(24))
    return path


def write_set(
    path: Path,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    num_frames: int = 24,
    form: str | None = None,
    streams: int = 1,
    **settings: object,
) -> Path:
    """A video by the encoder `codec`, in which these `settings` of PyAV's codec context are stated."""
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w", format=form) as target:
        for _ in range(streams):
            stream = target.add_stream(codec, rate=25, options=quiet)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
            stream.codec_context.thread_count = 1
            for name, value in settings.items():
                setattr(stream.codec_context, name, value)
        for stream in target.streams.video:
            _encode(target, stream, range(num_frames), pix_fmt)
    return path


def write_interlaced(path: Path, codec: str = "mpeg2video") -> Path:
    """A video whose pictures are coded as two fields each."""
    flags = av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
    return write_set(path, codec, flags=flags)


def write_picture(path: Path, codec: str, form: str, pix_fmt: str) -> Path:
    """A single picture, whatever `path` is called."""
    made = write_set(path.with_suffix(".one"), codec, pix_fmt=pix_fmt, num_frames=1, form=form)
    return made.rename(path)


def write_with_exif(path: Path, *, orientation: int = 6) -> Path:
    """An AVI of 24 JPEGs with EXIF, as cameras write them, which says how they are turned (JEITA CP-3451 4.6.4 A)."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    plain = write_stamped_video(path.with_suffix(".plain.avi"), codec="mjpeg", num_frames=24)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                content = bytes(packet)
                changed = av.Packet(content[:2] + exif + content[2:])
                changed.stream, changed.pts, changed.dts = stream, number, number
                changed.time_base, changed.is_keyframe = packet.time_base, True
                target.mux(changed)
    plain.unlink()
    return path


def write_tagged(path: Path, *, matrix: int = 1, full_range: bool = True) -> Path:
    """An MP4 whose container states colours that the pictures don't."""
    write_stamped_video(path, codec="h264", num_frames=24, b_frames=2)
    path.write_bytes(boxes.with_colours(path.read_bytes(), matrix=matrix, full_range=full_range))
    return path


def write_hidden_end(path: Path, *, hide_first: int = 3, hide_last: int = 5) -> Path:
    """An MP4 of 24 frames whose edit list hides the first and the last ones."""
    write_stamped_video(path, codec="h264", num_frames=24, b_frames=2)
    changed = boxes.with_edit_list(path.read_bytes(), hide_first=hide_first, hide_last=hide_last, frames=24)
    path.write_bytes(changed)
    return path


def write_cover_first(path: Path) -> Path:
    """An MP4 whose cover picture is listed before the video."""
    write_stamped_video(path, codec="h264", num_frames=24)
    context = av.CodecContext.create("mjpeg", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.framerate = 64, 48, "yuvj420p", 25
    frame = av.VideoFrame.from_ndarray(stamped_frame(5)[:48, :64], format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    picture = b"".join(bytes(packet) for one in (frame, None) for packet in context.encode(one))
    cover = boxes.box(b"covr", boxes.box(b"data", struct.pack(">II", 13, 0) + picture))
    handler = boxes.box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = boxes.box(b"udta", boxes.box(b"meta", bytes(4) + handler + boxes.box(b"ilst", cover)))
    data = path.read_bytes()
    after = boxes.find(data, (b"moov", b"mvhd"))[-1][1]
    path.write_bytes(boxes.spliced(data, boxes.find(data, (b"moov",)), after, after, meta))
    return path


def write_two_descriptions(path: Path) -> Path:
    """An MP4 of two encodes of 12 frames in one track, each with its own sample description, as some editors do."""
    parts = [
        write_stamped_video(path.with_suffix(f".{profile}.mp4"), codec="h264", num_frames=12, options=options)
        for profile, options in {
            "one": {"preset": "ultrafast"},
            "two": {"preset": "medium", "x264-params": "ref=4:bframes=0:cabac=1:8x8dct=1"},
        }.items()
    ]
    with av.open(str(path), "w", format="mp4") as target:
        sizes: list[int] = []
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                for packet in source.demux(video):
                    if not packet.size or packet.pts is None or packet.dts is None:
                        continue
                    shift = 12 * number * int(1 / (25 * packet.time_base))
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    sizes.append(packet.size)
                    target.mux(packet)
    second = boxes.read(parts[1].read_bytes(), (*boxes.TABLE, b"stsd"))[8:]
    data = path.read_bytes()
    stsd = boxes.find(data, (*boxes.TABLE, b"stsd"))
    data = boxes.spliced(data, stsd, stsd[-1][1], stsd[-1][1], second)
    data = data[: stsd[-1][0] + 12] + struct.pack(">I", 2) + data[stsd[-1][0] + 16 :]
    (first,) = struct.unpack_from(">I", boxes.read(data, (*boxes.TABLE, b"stco")), 8)
    for kind, content in {
        b"stsc": struct.pack(">II6I", 0, 2, 1, 12, 1, 2, 12, 2),
        b"stco": struct.pack(">II2I", 0, 2, first, first + sum(sizes[:12])),
    }.items():
        way = boxes.find(data, (*boxes.TABLE, kind))
        data = boxes.spliced(data, way[:-1], *way[-1], boxes.box(kind, content))
    path.write_bytes(data)
    for part in parts:
        part.unlink()
    return path


def write_dropped_frames(path: Path) -> Path:
    """An AVI with empty chunks where a recorder dropped frames."""
    with av.open(str(path), "w", format="avi") as target:
        stream = _stream(target, "mpeg4", 0)
        _encode(target, stream, (*range(0, 8), *range(11, 18), *range(20, 24)))
    return path


def write_lost_packet(path: Path) -> Path:
    """An MPEG-TS that lacks a packet of 188 bytes in the middle of a picture."""
    write_stamped_video(path.with_suffix(".mkv"), codec="mpeg2video", num_frames=24, b_frames=2)
    with av.open(str(path.with_suffix(".mkv"))) as source, av.open(str(path), "w", format="mpegts") as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.with_suffix(".mkv").unlink()
    data = path.read_bytes()
    at = len(data) // TS_PACKET // 2 * TS_PACKET
    path.write_bytes(data[:at] + data[at + TS_PACKET :])
    return path


def _stream(target: av.container.OutputContainer, codec: str, b_frames: int) -> av.VideoStream:
    stream = target.add_stream(codec, rate=25)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
    stream.bit_rate = 2_000_000
    stream.codec_context.gop_size, stream.codec_context.max_b_frames = 8, b_frames
    stream.codec_context.thread_count = 1
    return stream


def _encode(
    target: av.container.OutputContainer,
    stream: av.VideoStream,
    stamps: range | tuple[int, ...],
    pix_fmt: str = "yuv420p",
) -> None:
    """Encode the frames with these numbers, each shown at the time of its number."""
    for number in stamps:
        frame = av.VideoFrame.from_ndarray(stamped_frame(number), format="rgb24")
        frame = frame.reformat(format=pix_fmt)
        frame.pts = number
        target.mux(stream.encode(frame))
    target.mux(stream.encode(None))


ODDITIES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "turned 90": ("mp4", lambda path: write_turned(path, degrees=90)),
    "turned 180": ("mov", lambda path: write_turned(path, degrees=180)),
    "turned 270": ("mkv", lambda path: write_turned(path, degrees=270)),
    "mirrored": ("mp4", lambda path: write_turned(path, degrees=0, mirrored=True, codec="mpeg4")),
    "turned and mirrored": ("mov", lambda path: write_turned(path, degrees=90, mirrored=True, codec="mpeg2video")),
    "JPEGs with EXIF": ("avi", write_with_exif),
    "tagged": ("mov", write_tagged),
    "hidden end": ("mp4", write_hidden_end),
    "cover first": ("mp4", write_cover_first),
    "two descriptions": ("mp4", write_two_descriptions),
    "dropped frames": ("avi", write_dropped_frames),
    "lost packet": ("ts", write_lost_packet),
    "uneven times": ("mkv", lambda path: write_with_times(path, [0, 40, 80, 200, 240, 1000, 1040, 3000, 3040, 3080])),
    "packed": ("avi", lambda path: write_packed_mpeg4(path, num_frames=24)),
    "open GOPs": ("mp4", lambda path: write_open_gop_h264(path, num_frames=60)),
}
