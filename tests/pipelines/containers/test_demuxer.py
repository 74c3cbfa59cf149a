"""Where the headers of packets count the frames, and where they are not believed."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from exact.encoders import Encoding, write
from exact.truth import truth_of

from pipelines.errors import FrameError
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video


def sound(folder: Path, encoder: str) -> Path:
    path = folder / f"{encoder}.webm"
    write(path, Encoding(encoder, "yuv420p"), "webm")
    return path


def with_packets(source: Path, path: Path, order: list[int]) -> Path:
    """A file with the packets `order` of the source, each with the time stamp that it had."""
    with av.open(str(source)) as container, av.open(str(path), "w", format="matroska") as target:
        stream = container.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number in order:
            packets[number].stream, packets[number].dts = copy, None
            target.mux(packets[number])
    return path


@pytest.mark.parametrize("encoder", ["libvpx-vp9", "libsvtav1"])
def test_a_sound_file_is_not_decoded_to_be_counted(tmp_path: Path, encoder: str) -> None:
    record = probe_video(sound(tmp_path, encoder))
    assert (record.num_frames, record.corrupt) == (20, -1)


def test_where_packets_may_be_lost_all_is_decoded(tmp_path: Path) -> None:
    path = with_packets(sound(tmp_path, "libvpx-vp9"), tmp_path / "lost.mkv", [*range(6), *range(9, 20)])
    truth = truth_of(path)
    record = probe_video(path, allow_partial=True)
    assert "uneven frame times" in record.note
    assert record.corrupt >= 0
    assert record.num_frames == len(truth.frames) <= 17
    for number, frame in enumerate(truth.frames):
        try:
            assert np.array_equal(read_frames(record, [number])[0], frame)
        except FrameError:
            assert truth.error or record.corrupt


def test_time_stamps_do_not_reorder_pictures_that_come_in_the_order_of_decoding(tmp_path: Path) -> None:
    source = sound(tmp_path, "libvpx-vp9")
    path = tmp_path / "swapped.mkv"
    data = bytearray(with_packets(source, path, list(range(20))).read_bytes())
    third = data.index(b"\x81" + (80).to_bytes(2, "big"))  # a block begins with its track and its time in ms
    data[third + 1 : third + 3] = (10).to_bytes(2, "big")
    path.write_bytes(data)
    record, truth = probe_video(path), truth_of(path)
    assert record.num_frames == len(truth.frames) == 20
    for number, frame in enumerate(truth.frames):
        assert np.array_equal(read_frames(record, [number])[0], frame)
