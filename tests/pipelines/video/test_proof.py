from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest
from clips import read_stamp, turn_mp4, write_open_gop_h264, write_stamped_video
from oddities import write_interlaced, write_lost_packet

from pipelines.bitstreams.packet_flags import START
from pipelines.errors import VideoError
from pipelines.video.decoder import FrameReader, read_frames
from pipelines.video.orientation import UPRIGHT, Orientation
from pipelines.video.probe import probe_video
from pipelines.video.proof import FullDecode, decode_fully, mismatch


def test_a_full_decode_says_which_packet_gives_each_frame(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", num_frames=20, codec="h264", b_frames=2)
    found = decode_fully(str(path))
    assert (found.height, found.width, found.orientation, found.error) == (96, 128, UPRIGHT, "")
    tags = found.tags
    assert tags is not None
    assert sorted(tags.tolist()) == list(range(20))
    assert tags.tolist() != list(range(20))  # with B-frames packets come in another order
    assert set(found.samples) == {0, 1, 2, 3, 4, 6, 8, 12, 16, 19}
    assert (found.is_interlaced, found.is_whole, found.corrupt, found.pix_fmt) == (False, True, [], "yuv420p")
    assert decode_fully(str(write_interlaced(tmp_path / "i.mpg"))).is_interlaced
    first = decode_fully(str(path), limit=3)
    assert (len(first.packets), first.is_whole, set(first.samples)) == (3, False, {0, 1, 2})
    assert decode_fully(str(path), samples="none").samples == {}
    assert set(decode_fully(str(path), samples="all").samples) == set(range(20))
    assert {
        k: v for k, v in decode_fully(str(path), samples="all").samples.items() if k in found.samples
    } == found.samples


def test_packets_that_a_cut_took_end_what_a_full_decode_gave(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", num_frames=20, codec="h264", b_frames=2)
    found = decode_fully(str(path))
    packets = list(found.packets)
    found.corrupt = [2, 9, 15]
    found.end_before({packets[9]})  # type: ignore[arg-type]
    assert (found.packets, found.corrupt) == (packets[:9], [2])
    found.end_before(set())
    assert found.packets == packets[:9]
    found.packets[3] = found.packets[4]
    assert found.tags is None
    found.packets[3] = None
    assert found.tags is None
    tags = FullDecode(packets=[*range(300)]).tags
    assert tags is not None
    assert tags.tolist() == list(range(300))


def test_what_proves_nothing_about_a_file_is_no_mismatch(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", num_frames=12, codec="h264")
    record, samples = probe_video(path), decode_fully(str(path)).samples
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    assert "changed since it was indexed" in mismatch(record, samples, root="")
    path.unlink()
    with pytest.raises(VideoError, match="can't be read: No such file"):
        mismatch(record, samples, root="")


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_decode_the_same_frames(tmp_path: Path, threads: int) -> None:
    for path in (
        write_open_gop_h264(tmp_path / "sound.mkv", num_frames=60),
        write_lost_packet(tmp_path / "damaged.ts"),
    ):
        assert decode_fully(str(path), threads=threads) == decode_fully(str(path))


def test_the_proof_holds_for_what_the_index_says(tmp_path: Path) -> None:
    path = turn_mp4(write_stamped_video(tmp_path / "v.mp4", num_frames=30, codec="h264"), (0, 1, -1, 0))
    samples = decode_fully(str(path)).samples
    assert mismatch(probe_video(path), samples, root="") == ""


def test_what_a_decoder_lacks_or_mixes_up_is_found(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", num_frames=30, codec="h264")
    record, samples = probe_video(path), decode_fully(str(path)).samples
    full_range = replace(record, parameters=replace(record.parameters, color_range=2))
    assert mismatch(full_range, samples, root="") == "frame 0 differs from that of a full decode"
    turned = replace(record, orientation=Orientation(False, True, True))
    assert mismatch(turned, samples, root="") == "frame 0 differs from that of a full decode"
    table = record.packets
    late = table.frame_packet.copy()
    late[[15, 16]] = late[[16, 15]]  # two frames in the middle change places
    swapped = replace(record, table=replace(table, frame_packet=late).to_bytes())
    assert mismatch(swapped, samples, root="") == "frame 16 differs from that of a full decode"
    no_header = replace(record, extradata=b"")
    assert "does not decode" in mismatch(no_header, samples, root="")


def test_a_size_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.mjpeg"
    sizes = ((128, 96), (160, 112))
    parts = [write_stamped_video(tmp_path / f"{w}.avi", size=(w, h), codec="mjpeg") for w, h in sizes]
    content = b""
    for part in parts:
        with av.open(str(part)) as container:
            content += b"".join(bytes(packet) for packet in container.demux(video=0))
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"frame size changes: 128x96, then 160x112"):
        decode_fully(str(path))


def test_a_damaged_video_is_read_from_its_start_and_says_so(tmp_path: Path) -> None:
    path = write_lost_packet(tmp_path / "v.ts")
    record = probe_video(path)
    assert record.packets.ordinal
    assert {"damaged packets", "read from its start"} <= set(record.notes)
    with av.open(str(path)) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert record.num_frames == len(truth)
    chosen = [len(truth) - 1, 3, len(truth) // 2]
    np.testing.assert_array_equal(read_frames(record, chosen), np.stack([truth[k] for k in chosen]))


def test_the_frames_before_the_damage_are_taken_where_one_asks_for_them(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mkv", num_frames=48, codec="mjpeg", container="mkv")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        sizes = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    at = data.index(sizes[30])
    data[at : at + len(sizes[30])] = bytes(len(sizes[30]))
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"does not decode: after frame 30: "):
        probe_video(path)
    record = probe_video(path, allow_partial=True)
    assert record.num_frames == 30
    assert "damaged" in record.notes
    assert [read_stamp(frame) for frame in read_frames(record, range(30))] == list(range(30))


def test_a_damaged_video_is_the_same_by_several_threads(tmp_path: Path) -> None:
    """Threads hide damage that they don't tell each in its own way: then one decodes again."""
    path = write_stamped_video(tmp_path / "v.mkv", num_frames=48, b_frames=2)
    sound = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number in range(3, 40, 6):
        at = sound.index(packets[number]) + len(packets[number]) // 2
        path.write_bytes(sound[:at] + bytes(6) + sound[at + 6 :])
        by_one = probe_video(path, allow_partial=True)
        by_three = probe_video(path, allow_partial=True, threads=3)
        assert replace(by_one, mtime_ns=0) == replace(by_three, mtime_ns=0)


@pytest.mark.parametrize("codec", ["mjpeg", "vp8"])
def test_frames_of_damaged_pictures_do_not_depend_on_what_was_read_before(tmp_path: Path, codec: str) -> None:
    """These decoders leave in a damaged picture what was in their memory, and do not say so."""
    source = write_stamped_video(tmp_path / "sound", codec=codec, gop=6, num_frames=24)
    table, found, taken = probe_video(source).packets, [], 0
    spans = [(at, at + size) for at, size in zip(table.offset.tolist(), table.size.tolist(), strict=True)]
    for seed in range(45):
        data, draw = bytearray(source.read_bytes()), Random(f"{codec} {seed}")
        for _ in range((1, 4, 16)[seed % 3]):
            begin, end = draw.choice(spans) if table.addressable else (len(data) // 10, len(data) * 9 // 10)
            data[draw.randrange(begin, end)] = draw.randrange(256)
        path = tmp_path / "damaged"
        path.write_bytes(data)
        try:
            record = probe_video(path)
        except VideoError:
            continue
        taken += 1
        reader = FrameReader()
        row = reader.read(record, range(record.num_frames))
        full = decode_fully(str(path), samples="all").samples
        for number in range(0, record.num_frames, 2):
            alone = reader.read(record, [number])[0]
            is_same = np.array_equal(alone, row[number]) and sha256(alone.data).digest() == full[number]
            found += [(seed, number)] * (not is_same)
    assert found == []
    assert taken > 10


def test_a_sound_video_of_such_a_codec_is_read_from_its_key_frames(tmp_path: Path) -> None:
    for codec in ("mjpeg", "vp8"):
        record = probe_video(write_stamped_video(tmp_path / codec, codec=codec, gop=6, num_frames=24))
        assert not record.packets.ordinal
        assert np.count_nonzero(record.packets.flags & START) == (24 if codec == "mjpeg" else 4)
        assert record.corrupt == 0
