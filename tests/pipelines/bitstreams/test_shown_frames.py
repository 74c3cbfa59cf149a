from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from clips import has_encoder, write_stamped_video

from pipelines.bitstreams.shown_frames import begins_with_key_frame, shown_frames

# For each codec: FFmpeg's decoder of it, and the options with which it gives each frame at once.
DECODERS = {"vp8": ("vp8", {}), "vp9": ("vp9", {}), "av1": ("libdav1d", {"max_frame_delay": "1"})}


class Stream(NamedTuple):
    codec: str
    extradata: bytes
    packets: list[bytes]
    keys: list[bool]  # as the container flags them

    def said(self) -> list[int | None]:
        return [shown_frames(self.codec, packet, self.extradata) for packet in self.packets]


def read(path: Path) -> Stream:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [packet.is_keyframe for packet in packets]
        return Stream(context.codec.canonical_name, context.extradata or b"", [bytes(p) for p in packets], keys)


def decode(stream: Stream, packets: Sequence[bytes]) -> list[list[bytes]]:
    """The pixels of the frames that each packet gives, and last of those that come when the decoder is emptied."""
    name, options = DECODERS[stream.codec]
    decoder = av.CodecContext.create(name, "r")
    decoder.thread_count, decoder.options = 1, options
    decoder.extradata = stream.extradata or None
    given = [decoder.decode(av.Packet(packet)) for packet in packets] + [decoder.decode(None)]
    return [[frame.to_ndarray().tobytes() for frame in frames] for frames in given]


def counts(stream: Stream) -> list[int]:
    """How many frames each packet gives."""
    given = [len(frames) for frames in decode(stream, stream.packets)]
    assert given.pop() == 0
    return given


VIDEOS = [
    ("vp8", "webm", {}),
    ("vp8", "ivf", {"deadline": "good", "lag-in-frames": "25", "auto-alt-ref": "1"}),
    ("vp9", "webm", {}),
    ("vp9", "mp4", {"deadline": "good", "lag-in-frames": "25", "auto-alt-ref": "6", "cpu-used": "4"}),
    ("vp9", "ivf", {"error-resilient": "1"}),
    ("vp9", "mkv", {"tile-columns": "2", "row-mt": "1"}),
    ("av1", "mp4", {}),
    ("av1", "webm", {"preset": "6"}),
    ("av1", "mkv", {"svtav1-params": "irefresh-type=1"}),  # open groups, whose key frames are shown later
    ("av1", "ivf", {"svtav1-params": "pred-struct=1"}),  # no picture is hidden
    ("av1", "obu", {"svtav1-params": "enable-overlays=1"}),
    ("av1", "mp4", {"svtav1-params": "film-grain=8:enable-tf=0"}),
]


@pytest.mark.parametrize(("codec", "container", "options"), VIDEOS)
@pytest.mark.parametrize(("size", "gop"), [((128, 96), 12), ((320, 176), 100)])
def test_as_many_as_the_decoder_gives(
    codec: str, container: str, options: dict[str, str], size: tuple[int, int], gop: int, tmp_path: Path
) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this PyAV writes no {codec}")
    path = write_stamped_video(
        tmp_path / "v", codec=codec, container=container, options=options, size=size, gop=gop, num_frames=40
    )
    stream = read(path)
    assert stream.said() == counts(stream)
    assert sum(counts(stream)) == 40


@pytest.mark.skipif(not has_encoder("av1"), reason="this PyAV writes no AV1")
def test_10_bit(tmp_path: Path) -> None:
    stream = read(write_stamped_video(tmp_path / "v.mp4", codec="av1", pix_fmt="yuv420p10le"))
    assert stream.said() == counts(stream)
    assert sum(counts(stream)) == 48


def test_hidden_frames_of_vp8(tmp_path: Path) -> None:
    stream = read(write_stamped_video(tmp_path / "v.webm", codec="vp8"))
    for number in range(0, 48, 5):  # show_frame is the bit of 16
        packet = stream.packets[number]
        stream.packets[number] = bytes([packet[0] & ~0x10]) + packet[1:]
    assert stream.said() == counts(stream)
    assert sum(counts(stream)) == 38


def test_superframes_and_repeated_frames_of_vp9(tmp_path: Path) -> None:
    stream = read(write_stamped_video(tmp_path / "v.webm", codec="vp9"))
    packets = []
    for number, packet in enumerate(stream.packets):
        if number % 12 == 0:  # a key frame; show_frame is the bit of 2
            hidden = bytes([packet[0] & ~2]) + packet[1:]
        elif number % 12 == 1:
            packets.append(superframe(hidden, packet))
        else:
            packets.append(packet)
        if number % 12 == 5:
            packets += [b"\x88", superframe(packet, b"\x89")]  # show_existing_frame
    changed = stream._replace(packets=packets)
    assert set(changed.said()) == {1, 2}
    assert changed.said() == counts(changed)


def superframe(*frames: bytes) -> bytes:
    """The frames in one packet, with an index (annex B) whose sizes have three bytes."""
    marker = bytes([0xC0 | 2 << 3 | len(frames) - 1])
    return b"".join(frames) + marker + b"".join(len(frame).to_bytes(3, "little") for frame in frames) + marker


def test_av1_without_a_header_outside_the_packets(tmp_path: Path) -> None:
    stream = read(write_stamped_video(tmp_path / "v.ivf", codec="av1", container="ivf"))
    for extradata in (b"", b"\x81\0\x0c\0"):  # the latter as rav1e's: a box without OBUs
        assert stream._replace(extradata=extradata).said() == [1] * 48


def test_av1_of_which_a_decoder_may_choose_is_not_told(tmp_path: Path) -> None:
    """The header has two operating points; a frame is of the second layer; a list of tiles."""
    frame = b"\x32\x01\x10"  # OBU_FRAME, 1 byte: a key frame that is shown
    assert shown_frames("av1", frame, b"") == 1
    assert shown_frames("av1", b"\x36\x08\x01\x10", b"") is None  # spatial_id 1
    assert shown_frames("av1", b"\x36\x20\x01\x10", b"") == 1  # temporal_id 1
    assert shown_frames("av1", b"\x42\x01\x10" + frame, b"") is None
    for points, said in ((0, 1), (1, None)):
        bits = "000" + "0" + "0" + "0" + "0" + f"{points:05b}" + "0" * 12
        header = int(bits, 2).to_bytes(3, "big")
        assert shown_frames("av1", b"\x0a\x03" + header + frame, b"") is said


def test_a_still_picture_with_a_reduced_header_is_shown() -> None:
    header = int("000" + "1" + "1" + "0" * 19, 2).to_bytes(3, "big")
    packet = b"\x0a\x03" + header + b"\x32\x01\xff"
    assert shown_frames("av1", packet, b"") == 1
    assert begins_with_key_frame("av1", packet, b"")


@pytest.mark.parametrize("codec", DECODERS)
def test_frames_from_a_key_frame_on_are_exact(codec: str, tmp_path: Path) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this PyAV writes no {codec}")
    stream = read(write_stamped_video(tmp_path / "v.mkv", codec=codec))
    begins = [begins_with_key_frame(codec, packet, stream.extradata) for packet in stream.packets]
    assert begins == stream.keys
    assert sum(begins) >= 4
    frames = list(chain.from_iterable(decode(stream, stream.packets)))
    for number in np.flatnonzero(begins).tolist():
        assert list(chain.from_iterable(decode(stream, stream.packets[number:]))) == frames[number:]


def test_a_key_frame_that_is_hidden_begins_only_where_it_may() -> None:
    assert begins_with_key_frame("vp8", b"\x00\0\0", b"")
    assert not begins_with_key_frame("vp8", b"\x11\0\0", b"")
    assert begins_with_key_frame("vp9", b"\x80\0\0", b"")
    assert not begins_with_key_frame("vp9", b"\x86\0\0", b"")
    assert not begins_with_key_frame("vp9", b"\x88", b"")  # an earlier frame again
    assert begins_with_key_frame("av1", b"\x32\x01\x10", b"")
    assert not begins_with_key_frame("av1", b"\x32\x01\x00", b"")  # a forward key frame
    assert not begins_with_key_frame("av1", b"\x32\x01\x20", b"")  # an inter frame
    assert not begins_with_key_frame("av1", b"\x32\x01\x50", b"")  # only intra
    assert not begins_with_key_frame("av1", b"\x1a\x01\x80", b"")  # the forward key frame, shown


@pytest.mark.parametrize("codec", [*DECODERS, "h264"])
def test_damaged_headers(codec: str, tmp_path: Path) -> None:
    packets = [b"", b"\xff"]
    if codec in DECODERS and has_encoder(codec):
        stream = read(write_stamped_video(tmp_path / "v.mkv", codec=codec, num_frames=8))
        packets += [packet[:length] for packet in stream.packets for length in range(1, 40)]
    draws = np.random.default_rng(0)
    packets += [draws.bytes(int(draws.integers(1, 60))) for _ in range(500)]
    for packet in packets:
        said = shown_frames(codec, packet, draws.bytes(20))
        assert said is None or 0 <= said <= 8
        assert begins_with_key_frame(codec, packet, b"") in (True, False)


def test_a_superframe_index_that_is_wrong_and_another_codec() -> None:
    frame = b"\x82\x49"
    assert shown_frames("vp9", superframe(frame, frame), b"") == 2
    assert shown_frames("vp9", superframe(frame, frame)[:-1] + b"\xc8", b"") == 1  # no index: the marks differ
    assert shown_frames("vp9", b"\x82\xc0\xff\xc0", b"") is None  # a frame of 255 bytes in a packet of 4
    assert shown_frames("vp9", b"\x82\xc0\0\xc0", b"") is None
    assert shown_frames("h264", frame, b"") is None
