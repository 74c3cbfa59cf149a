"""Bytes changed inside MPEG-4: the index counts the frames of a full decode, and reading gives those or an error."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import clips
import numpy as np
import pytest
from exact.truth import Truth, truth_of

from pipelines.errors import VideoError
from pipelines.video.decoder import FrameReader
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord


def write_with_sound(path: Path) -> Path:
    """An AVI with a chunk of sound after each picture."""
    with av.open(str(path), "w", format="avi") as target:
        video = target.add_stream("mpeg4", rate=25, options={"g": "12", "sc_threshold": "1000000000"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        sound = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(clips.stamped_frame(number), format="rgb24")
            frame.pts = number
            target.mux(video.encode(frame))
            noise = np.zeros((1, 320), np.int16) + number
            samples = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            samples.rate, samples.pts, samples.time_base = 8000, 320 * number, Fraction(1, 8000)
            target.mux(sound.encode(samples))
        target.mux(video.encode(None))
    return path


SOURCES: dict[str, Callable[[Path], Path]] = {
    "P": lambda path: clips.write_stamped_video(path),
    "B": lambda path: clips.write_stamped_video(path, b_frames=2),
    "packed B": lambda path: clips.write_packed_mpeg4(path, num_frames=48, b_frames=2) or path,
    "one group": lambda path: clips.write_stamped_video(path, gop=100),
    "with sound": write_with_sound,
}


def damaged(source: Path, path: Path, changes: int, seed: int) -> Path:
    """`source` with up to `changes` bytes changed between its header and its index, written to `path`."""
    data, draw = bytearray(source.read_bytes()), Random(f"{source.stem} {seed}")
    begin, end = data.find(b"movi") + 4, data.rfind(b"idx1")
    for _ in range(changes):
        data[draw.randrange(begin, end)] = draw.randrange(256)
    path.write_bytes(data)
    return path


def faults(path: Path, *, step: int = 1) -> list[str]:
    """What is wrong with how the file is indexed and read, each `step`-th frame alone; none where it is refused."""
    truth = truth_of(path)
    try:
        record = probe_video(path)
    except VideoError:
        return [] if truth.error or len(truth.sizes) > 1 or not truth.frames else ["it is refused"]
    if record.num_frames != len(truth.frames):
        return [f"{record.num_frames} frames are counted, {len(truth.frames)} decode"]
    return wrong_frames(record, truth, step)


def wrong_frames(record: VideoRecord, truth: Truth, step: int) -> list[str]:
    reader, found = FrameReader(), []
    for number in range(0, record.num_frames, step):
        try:
            frame = reader.read(record, [number])[0]
        except VideoError:
            continue
        if not np.array_equal(frame, truth.frames[number]):
            found.append(f"frame {number} is another one")
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_read_of_damaged_mpeg4_is_the_full_decode(tmp_path: Path, name: str) -> None:
    source = SOURCES[name](tmp_path / f"{name}.avi")
    found = {}
    for seed in range(12):
        changes = (1, 3, 10, 40)[seed % 4]
        found[seed] = faults(damaged(source, tmp_path / "x.avi", changes, seed), step=3)
    assert {seed: what for seed, what in found.items() if what} == {}


@pytest.mark.real
def test_sixty_clips_with_200_bytes_changed_have_the_frames_of_a_full_decode(real_clips: Path, tmp_path: Path) -> None:
    sources = sorted((real_clips / "UCF-101").rglob("*.avi"))
    found = {}
    for number in range(60):
        source = sources[number % len(sources)]
        path = damaged(source, tmp_path / "x.avi", 200, number)
        found[source.name] = faults(path, step=60)
    assert {name: what for name, what in found.items() if what} == {}


def wrong_behind_key_frames(source: Path, path: Path) -> list[int]:
    """The seeds with which a P picture behind a key frame is damaged near its end, and reading it alone is wrong."""
    record = probe_video(source)
    table, starts = record.packets, np.flatnonzero(record.packets.flags & 1)
    found = []
    for seed in range(40):
        data, draw = bytearray(source.read_bytes()), Random(seed)
        packet = int(starts[draw.randrange(1, len(starts))]) + 1
        size = int(table.size[packet])
        at = int(table.offset[packet]) + size - 2 - draw.randrange(min(60, size - 12))
        data[at : at + 2] = draw.randbytes(2)
        path.write_bytes(data)
        frame = FrameReader().read(probe_video(path), [packet])[0]
        found += [seed] * (not np.array_equal(frame, truth_of(path).frames[packet]))
    return found


def test_a_picture_that_ends_badly_behind_a_key_frame_is_noticed(tmp_path: Path) -> None:
    """A decoder that has just begun takes some ends of pictures for right that one that began earlier does not."""
    assert wrong_behind_key_frames(SOURCES["P"](tmp_path / "p.avi"), tmp_path / "x.avi") == []


@pytest.mark.real
def test_a_picture_of_a_real_clip_that_ends_badly_is_noticed(real_clips: Path, tmp_path: Path) -> None:
    source = real_clips / "UCF-101/JumpingJack/v_JumpingJack_g09_c01.avi"
    assert wrong_behind_key_frames(source, tmp_path / "x.avi") == []


def test_the_damaged_frames_of_a_decoded_file_are_counted(tmp_path: Path) -> None:
    source = SOURCES["packed B"](tmp_path / "packed.avi")
    assert probe_video(source).corrupt == 0
    path = damaged(source, tmp_path / "x.avi", 40, 0)
    corrupt = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            corrupt += frame.is_corrupt
    assert probe_video(path).corrupt == corrupt > 0


def test_of_a_file_that_is_counted_by_headers_the_damaged_frames_are_not_known(tmp_path: Path) -> None:
    assert probe_video(SOURCES["P"](tmp_path / "p.avi")).corrupt == -1
