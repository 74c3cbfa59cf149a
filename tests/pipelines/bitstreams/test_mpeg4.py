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

from pipelines import file_bytes
from pipelines.bitstreams.mpeg4 import (
    Mpeg4Pictures,
    has_video_object_layer,
    mpeg4_pictures,
    parse_video_object_layer,
)
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


@pytest.mark.parametrize("kind", "IPBS")
def test_no_kind_of_vop_that_is_not_coded_gives_a_frame(kind: str) -> None:
    assert shown([vop("I"), vop("P", time=1), vop(kind, coded=False, time=2), vop("P", time=3)]) == [0, 1, 3]


def test_a_start_code_at_the_end_of_a_packet_is_no_picture() -> None:
    found = pictures([vop("I") + b"\0\0\1\xb6", vop("P", time=1)])
    assert found is not None
    assert found.size.tolist() == [44, 40]


def test_b_vops_need_two_references_before_them() -> None:
    assert shown([vop(kind) for kind in "IPB"]) == [0, 2, 1]
    assert shown([vop(kind) for kind in "IB"]) is None


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


def test_of_three_pictures_in_a_packet_the_first_two_are_taken() -> None:
    packets = [vop("I"), vop("P", length=41) + vop("B", length=42) + vop("B", length=43), vop("P", coded=False)]
    found = pictures(packets, packed=True)
    assert found is not None
    assert (found.offset.tolist(), found.size.tolist()) == ([6, 46, 87], [40, 41, 42])
    assert not found.sound


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


MATRIX = [(value, 8) for value in range(8, 72)]  # of 64 values, none of which is 0
SHORT_MATRIX = [(8, 8), (17, 8), (0, 8)]  # the rest of it is as the last value


def quantised(*fields: tuple[int, int], version: int = 1, sprites: int = 0, kind: int = 1) -> bytes:
    """A video object layer of 16 x 24 px that ends with `fields`, those from `not_8_bit` on."""
    named = [(1, 1), (version, 4), (1, 3)] if version > 1 else [(0, 1)]
    head = [(0, 1), (kind, 8), *named, (1, 4), (0, 1), (0, 2), (1, 1), (25, 16), (1, 1), (0, 1)]
    size = [(1, 1), (16, 13), (1, 1), (24, 13), (1, 1), (0, 1), (1, 1), (sprites, 1 if version == 1 else 2)]
    return b"\0\0\1\x2f" + packed_bits(*head, *size, *fields, (255, 8))


@pytest.mark.parametrize(
    ("fields", "version", "bits"),
    [
        ([(0, 1), (0, 1), (1, 1), (1, 1), (0, 1)], 1, 5),
        ([(0, 1), (0, 1), (0, 1), (1, 1), (0, 1)], 1, 0),  # an estimation of complexity follows
        ([(0, 1), (0, 1), (1, 1), (0, 1), (1, 1), (1, 1)], 1, 5),  # partitioned
        ([(1, 1), (7, 4), (9, 4), (0, 1), (1, 1), (1, 1), (0, 1)], 1, 7),  # not 8 bit
        ([(0, 1), (1, 1), (0, 1), (0, 1), (1, 1), (1, 1), (0, 1)], 1, 5),  # the usual matrices
        ([(0, 1), (1, 1), (1, 1), *MATRIX, (0, 1), (1, 1), (1, 1), (0, 1)], 1, 5),
        ([(0, 1), (1, 1), (1, 1), *MATRIX, (1, 1), *MATRIX, (1, 1), (1, 1), (0, 1)], 1, 5),
        ([(0, 1), (1, 1), (1, 1), *SHORT_MATRIX, (1, 1), *SHORT_MATRIX, (1, 1), (1, 1), (0, 1)], 1, 5),
        ([(0, 1), (1, 1), (0, 1), (1, 1), *SHORT_MATRIX, (0, 1), (1, 1), (0, 1)], 1, 0),
        ([(0, 1), (0, 1), (1, 1), (1, 1), (1, 1), (0, 1), (0, 1)], 2, 5),  # quarter of a pixel
        ([(0, 1), (0, 1), (0, 1), (1, 1), (1, 1), (0, 1), (0, 1)], 2, 5),
        ([(0, 1), (0, 1), (1, 1), (0, 1), (1, 1), (0, 1), (0, 1)], 2, 0),
        ([(0, 1), (0, 1), (0, 1), (1, 1), (1, 1), (0, 1), (1, 1)], 2, 0),  # new predictions
        ([(0, 1), (0, 1), (0, 1), (1, 1), (1, 1), (1, 1), (1, 1), (0, 1)], 2, 5),
    ],
)
def test_the_bits_of_the_quantiser_are_read_behind_what_a_layer_may_have(
    fields: list[tuple[int, int]], version: int, bits: int
) -> None:
    """By ISO/IEC 14496-2, 6.2.3, from `not_8_bit` to `newpred_enable`."""
    found = parse_video_object_layer(quantised(*fields, version=version))
    assert found is not None
    assert (found.width, found.height, found.quant_bits, found.sprites) == (16, 24, bits, False)
    with_sprites = parse_video_object_layer(quantised(*fields, version=version, sprites=1))
    assert with_sprites is not None
    assert (with_sprites.width, with_sprites.quant_bits, with_sprites.sprites) == (16, 0, True)


def test_a_layer_that_ends_before_its_quantiser_leaves_that_open() -> None:
    header = quantised(*[(0, 1), (1, 1), (1, 1), *MATRIX])
    found = parse_video_object_layer(header[:40])
    assert found is not None
    assert (found.width, found.height, found.quant_bits) == (16, 24, 0)


def test_a_layer_says_which_decoder_can_decode_it() -> None:
    for kind in (1, 17):
        found = parse_video_object_layer(quantised((0, 1), (0, 1), (1, 1), (1, 1), (0, 1), kind=kind))
        assert found is not None
        assert (found.object_type, found.resolution, found.low_delay, found.interlaced) == (kind, 25, None, False)


@pytest.mark.parametrize(("code", "is_one"), [(0x1F, False), (0x20, True), (0x2F, True), (0x30, False)])
def test_the_start_code_of_a_layer_is_one_of_sixteen(code: int, is_one: bool) -> None:
    header = b"\0\0\1\xb0\1\0\0\1" + bytes([code]) + layer(low_delay=0)[8:]
    assert (parse_video_object_layer(header) is not None) == is_one
    assert has_video_object_layer(header + vop("I")) == is_one
    assert not has_video_object_layer(vop("I") + header)


@pytest.mark.parametrize(("shape", "resolution"), [(1, 25), (2, 25), (0, 0)])
def test_a_layer_of_another_shape_or_without_a_clock_is_none(shape: int, resolution: int) -> None:
    head = [(0, 1), (1, 8), (0, 1), (1, 4), (0, 1), (shape, 2), (1, 1), (resolution, 16), (1, 1), (0, 1)]
    size = [(1, 1), (16, 13), (1, 1), (24, 13), (1, 1), (0, 1), (1, 1), (0, 1), (0, 64)]
    assert parse_video_object_layer(b"\0\0\1\x20" + packed_bits(*head, *size)) is None


@pytest.mark.parametrize("window", [16, 41, 47, 100])
def test_pictures_are_found_wherever_a_window_of_the_file_ends(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = [vop("I"), vop("P") + vop("B"), vop("P", coded=False), vop("P", time=3, length=9), vop("I", length=12)]
    whole = pictures(packets, packed=True)
    monkeypatch.setattr(file_bytes, "_WINDOW", window)
    pieces = pictures(packets, packed=True)
    assert whole is not None
    assert pieces is not None
    for name in ("offset", "size", "flags", "frame_packet"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    assert (pieces.sound, pieces.counted) == (whole.sound, whole.counted)


@pytest.mark.parametrize(("second", "is_kept"), [("I", True), ("B", True), ("P", False), ("S", False)])
def test_of_a_packed_stream_the_decoder_keeps_an_i_or_a_b_picture_for_the_next_packet(
    second: str, is_kept: bool
) -> None:
    """As libavcodec's mpeg4_decode_vop does: it looks for a start code of these kinds behind the picture."""
    filler = vop("P", coded=False)
    found = pictures([vop("I"), vop("P") + vop(second), filler, vop("P")], packed=True)
    assert found is not None
    kept = [6 + 80] if is_kept else [6 + 120]  # the second picture of the pair, or the filler
    assert found.offset.tolist() == [6, 6 + 40, *kept, 6 + 120 + len(filler)]


@pytest.mark.parametrize(("length", "is_kept"), [(7, False), (8, True)])
def test_a_second_picture_of_seven_bytes_is_not_kept(length: int, is_kept: bool) -> None:
    filler = vop("P", coded=False)
    found = pictures([vop("I"), vop("P") + vop("B", length=length), filler], packed=True)
    assert found is not None
    assert found.offset.tolist()[2] == (6 + 80 if is_kept else 6 + 80 + length)


def test_a_group_header_before_a_filler_leaves_the_count_to_the_decoder() -> None:
    header = quantised((0, 1), (0, 1), (1, 1), (1, 1), (0, 1))
    group = b"\0\0\1\xb3" + packed_bits((0, 5), (0, 6), (1, 1), (0, 6), (1, 1), (0, 1))
    pair, filler = vop("P", time=1) + vop("I", time=2), vop("P", time=2, coded=False)
    for before, is_sound in ((b"", True), (group, False)):
        for behind in ([], [vop("P", time=3), vop("I", time=4)]):
            found = pictures([group + vop("I"), pair, before + filler, *behind], header, packed=True)
            assert found is not None
            assert found.sound == is_sound
