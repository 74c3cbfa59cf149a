from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import clips
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.bitstreams.mpeg4 import Mpeg4Pictures, mpeg4_pictures, parse_video_object_layer
from pipelines.bitstreams.packet_flags import DROPPABLE, SILENT, START
from pipelines.file_bytes import FileBytes

FPS = 25


def packed_bits(*fields: tuple[int, int]) -> bytes:
    """Fields (value, bits) one after another, filled up to whole bytes with ones."""
    text = "".join(f"{value:0{count}b}" for value, count in fields if count)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def layer(*, low_delay: int | None, resolution: int = FPS, interlaced: int = 0, extended: bool = False) -> bytes:
    """A video object layer by ISO/IEC 14496-2, 6.2.3; `low_delay` None leaves out the control parameters.

    `extended` adds what is optional: a pixel aspect ratio, buffer parameters and a fixed rate.
    """
    buffer = [(1, 1), (0, 79)] if extended else [(0, 1)]
    control = [(0, 1)] if low_delay is None else [(1, 1), (1, 2), (low_delay, 1), *buffer]
    aspect = [(15, 4), (0x0403, 16)] if extended else [(1, 4)]
    rate = [(1, 1), (1, max(1, (resolution - 1).bit_length()))] if extended else [(0, 1)]
    fields = [(0, 1), (1, 8), (1, 1), (1, 4), (1, 3), *aspect, *control, (0, 2), (1, 1), (resolution, 16), (1, 1)]
    fields += [*rate, (1, 1), (322, 13), (1, 1), (242, 13), (1, 1), (interlaced, 1), (1, 1), (0, 1)]
    return b"\0\0\1\0\0\0\1\x20" + packed_bits(*fields)


def vop(kind: str, *, coded: bool = True, time: int = 0, seconds: int = 0, length: int = 40) -> bytes:
    """A VOP header of `kind` in a layer of 25 ticks a second; a coded one is filled up to `length` bytes."""
    fields = [("IPBS".index(kind), 2), *[(1, 1)] * seconds, (0, 1), (1, 1), (time, 5), (1, 1), (int(coded), 1)]
    head = b"\0\0\1\xb6" + packed_bits(*fields)
    return head + b"\x55" * (length - len(head)) if coded else head


def pictures(packets: list[bytes], header: bytes | None = None, *, packed: bool = False) -> Mpeg4Pictures | None:
    data = b"start " + b"".join(packets)
    size = np.array([len(packet) for packet in packets], np.int64)
    offset = 6 + np.cumsum(size) - size
    with TemporaryDirectory() as folder:
        path = Path(folder, "v.m4v")
        path.write_bytes(data)
        with FileBytes(path) as file:
            return mpeg4_pictures(file, offset, size, layer(low_delay=0) if header is None else header, packed=packed)


def shown(packets: list[bytes], **options: Any) -> list[int] | None:
    found = pictures(packets, **options)
    return None if found is None or found.frame_packet is None else found.frame_packet.tolist()


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("low_delay", [None, 0, 1])
@pytest.mark.parametrize(("resolution", "bits"), [(1, 1), (2, 1), (25, 5), (32, 5), (33, 6), (30000, 15), (65535, 16)])
def test_the_layer_is_read_bit_by_bit(low_delay: int | None, resolution: int, bits: int, extended: bool) -> None:
    found = parse_video_object_layer(layer(low_delay=low_delay, resolution=resolution, interlaced=1, extended=extended))
    assert found is not None
    assert (found.width, found.height) == (322, 242)
    assert found.time_increment_bits == bits
    assert found.low_delay == (None if low_delay is None else bool(low_delay))
    assert found.interlaced


@pytest.mark.parametrize("length", range(1, 20))
def test_a_layer_cut_anywhere_is_none_or_the_same(length: int) -> None:
    header = layer(low_delay=0)
    assert parse_video_object_layer(header[:length]) in (None, parse_video_object_layer(header))


def test_the_layer_of_encoded_videos_says_what_the_decoder_says(tmp_path: Path) -> None:
    for b_frames in (0, 2):
        path = clips.write_stamped_video(tmp_path / "a.mp4", size=(322, 242), num_frames=3, fps=30, b_frames=b_frames)
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            found = parse_video_object_layer(context.extradata or b"")
            assert found is not None
            assert (found.width, found.height) == (context.width, context.height) == (322, 242)
            assert found.time_increment_bits == 5


def test_a_vop_that_is_not_coded_gives_no_frame() -> None:
    packets = [vop("I"), vop("P", time=1), vop("P", time=2, coded=False), vop("P", time=0, seconds=3)]
    found = pictures(packets)
    assert found is not None
    assert found.flags.tolist() == [START, 0, SILENT, 0]
    assert shown(packets) == [0, 1, 3]


def test_a_small_vop_that_is_coded_gives_a_frame() -> None:
    assert shown([vop("I"), vop("P", time=1, length=7), vop("P", time=2, length=9)]) == [0, 1, 2]


def test_b_vops_display_before_the_reference_that_precedes_them() -> None:
    found = pictures([vop(kind) for kind in "IPBBPBIB"])
    assert found is not None
    assert found.flags.tolist() == [START, 0, DROPPABLE, DROPPABLE, 0, DROPPABLE, START, DROPPABLE]
    assert shown([vop(kind) for kind in "IPBBPBIB"]) == [0, 2, 3, 1, 5, 4, 7, 6]


@pytest.mark.parametrize(
    ("packets", "header"),
    [
        pytest.param([vop("P"), vop("I")], None, id="does not begin with a key"),
        pytest.param([vop("I"), b"no start code at all"], None, id="a packet without a VOP"),
        pytest.param([vop("I"), vop("B"), vop("P")], None, id="B before its second reference"),
        pytest.param([vop(kind) for kind in "IPBP"], layer(low_delay=None), id="order not said"),
        pytest.param([vop(kind) for kind in "IPBP"], layer(low_delay=1), id="B-VOPs that should not be"),
        pytest.param([vop(kind) for kind in "IPP"], layer(low_delay=0, interlaced=1), id="interlaced"),
        pytest.param([vop("I"), vop("P")], b"", id="no layer"),
        pytest.param([vop("I"), b"\0\0\1\xb6\x7f"], None, id="a VOP header cut short"),
    ],
)
def test_what_leaves_doubt_is_left_to_the_decoder(packets: list[bytes], header: bytes | None) -> None:
    assert shown(packets, header=header) is None


def test_a_packed_pair_is_two_pictures_and_its_filler_none() -> None:
    packets = [vop("I"), vop("P") + vop("B"), vop("P", coded=False), vop("P")]
    found = pictures(packets, packed=True)
    assert found is not None
    assert found.size.tolist() == [40, 40, 40, 40]
    assert found.offset.tolist() == [6, 46, 86, 6 + 120 + len(packets[2])]
    assert shown(packets, packed=True) == [0, 2, 1, 3]


PACKED: dict[str, Callable[[Path], Any]] = {
    "one B": lambda p: clips.write_packed_mpeg4(p, num_frames=40),
    "two B": lambda p: clips.write_packed_mpeg4(p, num_frames=40, b_frames=2),
    "three B, short groups": lambda p: clips.write_packed_mpeg4(p, num_frames=40, b_frames=3, gop=5),
    "more than a second between keys": lambda p: clips.write_packed_mpeg4(p, num_frames=40, b_frames=2, gop=35, fps=7),
    "ends inside a group": lambda p: clips.write_packed_mpeg4(p, num_frames=2, b_frames=2),
}


@pytest.mark.parametrize("name", PACKED)
def test_the_model_of_packed_streams_is_the_real_decoders(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.avi"
    PACKED[name](path)
    content = path.read_bytes()
    offset, size, header = demuxed(path)
    with FileBytes(path) as file:
        found = mpeg4_pictures(file, offset, size, header, packed=True)
    assert found is not None
    assert found.frame_packet is not None
    # Fed alone, as a packet of its own, each picture comes out as the frame that the model says.
    context = av.CodecContext.create("mpeg4", "r")
    assert isinstance(context, av.VideoCodecContext)
    context.extradata = header
    stamps: dict[int | None, int] = {}
    feeds: list[av.Packet | None] = [None]
    for number, (at, length) in enumerate(zip(found.offset.tolist(), found.size.tolist(), strict=True)):
        packet = av.Packet(length)  # made by size it has the zeros behind it that the decoder reads
        packet.update(content[at : at + length])
        packet.pts = number
        feeds.insert(-1, packet)
    for feed in feeds:
        for frame in context.decode(feed):
            stamps[frame.pts] = clips.read_stamp(frame.to_ndarray(format="rgb24"))
    assert [stamps[number] for number in found.frame_packet.tolist()] == clips.read_stamps(path)


def demuxed(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], bytes]:
    """Offsets and sizes of the packets, and all headers before the first picture."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [(packet.pos, packet.size, bytes(packet)) for packet in container.demux(stream) if packet.size]
        header = (stream.codec_context.extradata or b"") + found[0][2].split(b"\0\0\1\xb6")[0]
    table = np.array([row[:2] for row in found], np.int64)
    return table[:, 0].copy(), table[:, 1].copy(), header
