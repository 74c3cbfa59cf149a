"""Writes test videos whose frames show their own number as black and white blocks, which survive lossy codecs.

The blocks lie on the 16 px grid of macroblocks: two rows of six bits, most significant bit first, and below them the
same bits inverted, so that a black, grey or smeared frame is never read as a number. Around the blocks a texture moves,
so that P- and B-frames have content.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

BLOCK_PX = 16
BITS = 12
COLUMNS = 6
ROWS = 2 * (BITS // COLUMNS)  # the bits, then the inverse copy
ORIGIN_PX = 16
MIN_SIZE = (ORIGIN_PX + COLUMNS * BLOCK_PX, ORIGIN_PX + ROWS * BLOCK_PX)

# For each codec: its encoder, usual container, pixel format, and options that make the encoder fast and quiet and let
# it put key frames only where they are asked for.
ENCODERS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "mpeg4": ("mpeg4", "avi", "yuv420p", {"sc_threshold": "1000000000"}),
    "mpeg2video": ("mpeg2video", "avi", "yuv420p", {"sc_threshold": "1000000000"}),
    "mjpeg": ("mjpeg", "avi", "yuvj420p", {}),
    "h264": ("libx264", "mp4", "yuv420p", {"preset": "ultrafast", "sc_threshold": "0"}),
    "hevc": ("libx265", "mp4", "yuv420p", {"preset": "ultrafast"}),
    "vp8": ("libvpx", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "av1": ("libsvtav1", "mp4", "yuv420p", {"preset": "8", "crf": "20"}),
}
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a page for each video otherwise
FORMATS = {"mkv": "matroska"}  # FFmpeg's name of a container, if it is not the suffix


def has_encoder(codec: str) -> bool:
    """Whether this PyAV can write `codec`."""
    try:
        av.Codec(ENCODERS[codec][0], "w")
    except av.FFmpegError:
        return False
    return True


def stamped_frame(number: int, size: tuple[int, int] = (128, 96)) -> Frame:
    """Frame `number` of every stamped video, before encoding: uint8 [H, W, 3], RGB; `size` is (width, height)."""
    width, height = size
    if width < MIN_SIZE[0] or height < MIN_SIZE[1] or not 0 <= number < 1 << BITS:
        raise ValueError(f"size {size}, number {number}: expected at least {MIN_SIZE} and 0..{(1 << BITS) - 1}")
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin((x + 2 * number) / 7 + channel) * np.cos((y - number) / 5 - channel) for channel in range(3)]
    frame = (128 + 90 * np.stack(waves, axis=2)).astype(np.uint8)
    bits = np.array([number >> (BITS - 1 - bit) & 1 for bit in range(BITS)], np.uint8).reshape(-1, COLUMNS)
    blocks = np.concatenate([bits, 1 - bits]) * np.uint8(255)
    stamp = blocks.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)
    frame[ORIGIN_PX : ORIGIN_PX + stamp.shape[0], ORIGIN_PX : ORIGIN_PX + stamp.shape[1]] = stamp[..., None]
    return frame


def read_stamp(frame: Frame) -> int:
    """The number that `frame`, uint8 [H, W, 3], shows.

    Raises AssertionError unless both copies of the bits can be read clearly and agree.
    """
    assert frame.dtype == np.uint8, f"expected uint8, got {frame.dtype}"
    assert frame.ndim == 3, f"expected [H, W, 3], got shape {frame.shape}"
    area = frame[ORIGIN_PX : ORIGIN_PX + ROWS * BLOCK_PX, ORIGIN_PX : ORIGIN_PX + COLUMNS * BLOCK_PX]
    assert area.shape == (ROWS * BLOCK_PX, COLUMNS * BLOCK_PX, 3), f"no room for a stamp in shape {frame.shape}"
    blocks = area.reshape(ROWS, BLOCK_PX, COLUMNS, BLOCK_PX, 3)
    inner = BLOCK_PX // 4
    levels = blocks[:, inner:-inner, :, inner:-inner].mean(axis=(1, 3, 4))  # edges ring, middles don't
    assert ((levels < 80) | (levels > 175)).all(), f"grey blocks: {levels.round().astype(int).tolist()}"
    ones = (levels > 128).reshape(2, BITS)
    assert (ones[0] != ones[1]).all(), f"the two copies disagree: {ones.astype(int).tolist()}"
    return int(sum(1 << (BITS - 1 - bit) for bit in range(BITS) if ones[0, bit]))


def read_stamps(path: str | Path | io.BytesIO) -> list[int]:
    """The numbers that the frames of a video show, when the whole video is decoded."""
    with av.open(path) as container:
        return [read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def write_stamped_video(
    path: str | Path,
    *,
    num_frames: int = 48,
    size: tuple[int, int] = (128, 96),
    codec: str = "mpeg4",
    container: str | None = None,
    gop: int = 12,
    b_frames: int = 0,
    fps: int = 25,
    options: Mapping[str, str] | None = None,
    pix_fmt: str | None = None,
) -> Path:
    """Write a video to `path` whose frame k is `stamped_frame(k)`, with a key frame every `gop` frames.

    `codec` is a key of ENCODERS. `container` is avi, mp4, mkv, webm or mov; by default it is the suffix of `path`, and
    without a suffix the usual one of the codec. With B-frames mpeg4 and mpeg2video have open GOPs, as FFmpeg writes
    them by default. Returns `path`.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".").lower()
    with _own_priority():
        path.write_bytes(
            _encode(container or suffix, num_frames, size, codec, gop, b_frames, fps, options or {}, pix_fmt)
        )
    return path


def write_classes(
    root: Path,
    count: int,
    *,
    classes: Sequence[str] = "ab",
    num_frames: int = 20,
    size: tuple[int, int] = (128, 112),
    codec: str = "mpeg4",
) -> Path:
    """Write a data set of `count` stamped AVIs to `root`: video k is ``<class k % n>/v<k>.avi`` for n `classes`."""
    for number in range(count):
        folder = root / classes[number % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        write_stamped_video(folder / f"v{number}.avi", num_frames=num_frames, size=size, codec=codec)
    return root


@contextmanager
def _own_priority() -> Iterator[None]:
    """A block after which this thread has its old priority: SVT-AV1 leaves a superuser's thread real-time."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_packed_mpeg4(
    path: str | Path,
    *,
    num_frames: int = 48,
    size: tuple[int, int] = (128, 96),
    gop: int = 12,
    b_frames: int = 1,
    fps: int = 25,
) -> Path:
    """Write an AVI like XviD's ("packed bitstream") to `path`, with the frames of `write_stamped_video`.

    A reference VOP is in one packet with the first B-VOP that follows it. The other B-VOPs move up by one packet, and a
    VOP of a few bytes that is not coded fills the gap. So there are as many packets as frames. User data say that the
    stream is packed.
    """
    plain = _encode("avi", num_frames, size, "mpeg4", gop, b_frames, fps, {}, None)
    path = Path(path)
    with av.open(io.BytesIO(plain)) as source, av.open(str(path), "w", format="avi") as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(video) if packet.size]
        for position, (data, is_key) in enumerate(_packed(packets, fps)):
            packet = av.Packet(data)
            packet.stream = stream
            packet.pts = packet.dts = position
            packet.time_base = video.time_base
            packet.is_keyframe = is_key
            target.mux(packet)
    return path


def write_open_gop_h264(path: str | Path, *, num_frames: int = 72, size: tuple[int, int] = (128, 96)) -> Path:
    """Write H.264 with open GOPs to `path`: B-frames shown before a later key frame need the GOP before it.

    The key frames after the first one are not IDR.
    """
    params = "open-gop=1:keyint=24:min-keyint=24:bframes=3:b-adapt=0:scenecut=0"
    options = {"preset": "fast", "x264-params": params}
    return write_stamped_video(
        path, num_frames=num_frames, size=size, codec="h264", gop=24, b_frames=3, options=options
    )


def write_open_gop_mpeg(
    path: str | Path, *, num_frames: int = 48, size: tuple[int, int] = (128, 96), codec: str = "mpeg2video"
) -> Path:
    """Write MPEG-2, or `codec="mpeg4"`, with open GOPs: two B-frames after each later key frame are shown before it."""
    return write_stamped_video(path, num_frames=num_frames, size=size, codec=codec, gop=12, b_frames=2)


def turn_mp4(path: Path, matrix: Sequence[float]) -> Path:
    """Make an MP4 or MOV with one track ask to be shown by `matrix`, its a b c d (ISO/IEC 14496-12, 8.3.2).

    (0, 1, -1, 0) is what a phone that is held upright writes: players turn the picture clockwise. Returns `path`.
    """
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 52 if data[at] == 1 else 40  # the matrix, after version, flags, times and so on
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_cover_before_video(path: str | Path, *, num_frames: int = 24) -> Path:
    """Write a stamped MP4 whose first stream is a cover picture, a PNG of 16 x 16 px."""
    plain = io.BytesIO(_encode("mp4", num_frames, (128, 96), "h264", 12, 0, 25, {}, None))
    file = io.BytesIO()
    with av.open(plain) as source, av.open(file, "w", format="mp4") as target:
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = 0x400  # AV_DISPOSITION_ATTACHED_PIC
        video = target.add_stream_from_template(source.streams.video[0])
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        picture.pts = 0
        for packet in (*cover.encode(picture), *cover.encode(None)):
            target.mux(packet)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                target.mux(packet)
    data = file.getvalue()
    moov = data.index(b"moov") - 4
    size = int.from_bytes(data[moov : moov + 4], "big")
    mvhd = 8 + int.from_bytes(data[moov + 8 : moov + 12], "big")
    udta = data.index(b"udta", moov) - 4  # with the picture; as the last box of moov it can go before the track
    end = moov + size
    Path(path).write_bytes(data[: moov + mvhd] + data[udta:end] + data[moov + mvhd : udta] + data[end:])
    return Path(path)


def write_audio_only(path: str | Path, *, seconds: float = 0.5) -> Path:
    """Write a file with one audio stream (a tone) and no video to `path`."""
    rate = 48000
    wave = 8000 * np.sin(np.arange(int(rate * seconds)) * (2 * np.pi * 440 / rate))
    with av.open(str(path), "w") as target:
        stream = target.add_stream(target.default_audio_codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            target.mux(packet)
    return Path(path)


def _encode(
    container: str,
    num_frames: int,
    size: tuple[int, int],
    codec: str,
    gop: int,
    b_frames: int,
    fps: int,
    options: Mapping[str, str],
    pix_fmt: str | None,
) -> bytes:
    encoder, usual_container, usual_format, usual_options = ENCODERS[codec]
    container = container or usual_container
    merged = {**usual_options, **options}
    if codec == "hevc" and "x265-params" not in merged:
        merged["x265-params"] = f"log-level=none:keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:open-gop=0"
    file = io.BytesIO()
    with av.open(file, "w", format=FORMATS.get(container, container)) as target:
        stream = target.add_stream(encoder, rate=fps, options=merged)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt or usual_format
        stream.bit_rate = 0 if "crf" in merged else 2_000_000
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1  # so that the bytes are the same on every machine
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(stamped_frame(number, size), format="rgb24")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return file.getvalue()


def _packed(packets: list[tuple[bytes, bool]], fps: int) -> Iterator[tuple[bytes, bool]]:
    """The packets of a packed stream with their key flags, made from those of a plain stream in decoding order."""
    groups: list[tuple[bytes, bool, list[bytes]]] = []  # a reference VOP, its key flag, the B-VOPs after it
    for data, is_key in packets:
        if _vop_type(data) == "B":
            groups[-1][2].append(data)
        else:
            groups.append((_with_packed_mark(data), is_key, []))
    for reference, is_key, b_vops in groups:
        if not b_vops:
            yield reference, is_key
            continue
        yield reference + b_vops[0], is_key
        for data in b_vops[1:]:
            yield data, False
        yield _not_coded_vop(reference, fps), False


def _vop_type(data: bytes) -> str:
    return "IPBS"[data[data.index(b"\0\0\1\xb6") + 4] >> 6]


def _with_packed_mark(data: bytes) -> bytes:
    """`data` with the user data of the encoder replaced by XviD's; unchanged if it has none."""
    start = data.find(b"\0\0\1\xb2")
    if start < 0:
        return data
    end = data.index(b"\0\0\1", start + 4)
    return data[:start] + b"\0\0\1\xb2DivX503b1393p\0\0\1\xb2XviD0055" + data[end:]


def _not_coded_vop(reference: bytes, fps: int) -> bytes:
    """A P-VOP that is not coded, with the time of `reference` (ISO/IEC 14496-2, 6.2.5)."""
    header = reference[reference.index(b"\0\0\1\xb6") + 4 :][:8]
    bits = "".join(f"{byte:08b}" for byte in header)
    seconds = bits.index("0", 2)  # modulo_time_base: a 1 for each second since the last reference, then a 0
    time_bits = max(1, (fps - 1).bit_length())
    time = bits[2 : seconds + 1] + bits[seconds + 1 : seconds + 1 + 1 + time_bits + 1]  # with a marker on both sides
    text = "01" + time + "0"
    text += "0" + "1" * (-(len(text) + 1) % 8)  # stuffing
    return b"\0\0\1\xb6" + int(text, 2).to_bytes(len(text) // 8, "big")
