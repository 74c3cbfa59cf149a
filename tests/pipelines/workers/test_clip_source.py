"""What a worker makes of the clips of a video: their frames in their slots, and why there are none."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from clips import read_stamps, write_classes
from numpy.typing import NDArray

from pipelines.dali_limits import DaliLimits
from pipelines.index.known_bad import KnownBad
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import NO_JITTER
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream, Sample
from pipelines.video.decoder import read_frames
from pipelines.workers.clip_source import DecodedSource, EncodedSource, LeftOut, clip_source

FRAMES, SIZE = 4, 56


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    """Four stamped videos of 128 x 112 px."""
    return VideoIndex.build(write_classes(tmp_path / "data", 4, num_frames=10), workers=0, val_fraction=0.0)


def stream_of(index: VideoIndex, *, train: bool = True, resize: str = "graph", size_px: int = SIZE) -> ClipStream:
    augment = AugmentSpec.model_validate({"size_px": size_px, "resize": resize})
    clip = ClipSpec(num_frames=FRAMES)
    return ClipStream(str(index.path), str(index.root), None, clip, augment, ShardSpec(), 3, seed=1, train=train)


def slots_for(source: DecodedSource, index: VideoIndex, count: int = 1) -> list[NDArray[np.uint8]]:
    return [np.full(source.slot_bytes(index), 7, np.uint8) for _ in range(count)]


def test_the_largest_clip_fits_into_a_slot(index: VideoIndex) -> None:
    assert DecodedSource(stream_of(index)).slot_bytes(index) == FRAMES * 112 * 128 * 3
    assert DecodedSource(stream_of(index, resize="decoder")).slot_bytes(index) == FRAMES * SIZE * SIZE * 3
    assert DecodedSource(stream_of(index, train=False, resize="decoder")).slot_bytes(index) == FRAMES * 112 * 128 * 3
    largest = index.largest_file() * 2 + 2**16  # more than the frames of so small a video
    scaled = EncodedSource(stream_of(index, resize="decoder"))
    assert scaled.slot_bytes(index) == max(largest, FRAMES * SIZE * SIZE * 3)


def test_who_decodes_is_the_source(index: VideoIndex) -> None:
    stream = stream_of(index)
    assert type(clip_source(stream, {})) is DecodedSource
    assert type(clip_source(replace(stream, limits=DaliLimits(frozenset({"mjpeg"}))), {})) is EncodedSource


@pytest.mark.parametrize("resize", ["graph", "decoder"])
def test_a_clip_is_that_part_of_the_frames_of_its_plan(index: VideoIndex, resize: str) -> None:
    source = DecodedSource(stream_of(index, resize=resize))
    for position in range(3):
        plan = source.stream.sampler(index).plan(0, position)
        (slot,) = slots_for(source, index)
        (sample,) = source.load(0, [position], [slot])
        y, x, height, width = plan.box
        shape = (FRAMES, SIZE, SIZE, 3) if resize == "decoder" else (FRAMES, height, width, 3)
        assert (sample.shape, sample.video_id, sample.label, sample.is_real) == (shape, plan.video_id, plan.label, True)
        assert (sample.resized, sample.window, sample.mirror) == (plan.resized, plan.window, plan.mirror)
        assert (sample.reason, sample.numbers, sample.jitter) == ("", (), plan.jitter)
        clip = slot[: np.prod(shape)].reshape(shape)
        if resize == "graph":
            whole = read_frames(index[plan.video_id], plan.frames, root=index.root)
            np.testing.assert_array_equal(clip, whole[:, y : y + height, x : x + width])
        assert np.all(slot[np.prod(shape) :] == 7)
        assert source.path_of(0, position) == str(index.root / index[plan.video_id].path)


def test_the_cost_of_loading_is_that_since_it_was_asked_for(index: VideoIndex) -> None:
    source = DecodedSource(stream_of(index))
    slots = slots_for(source, index)
    source.load(0, [0], slots)
    once = source.statistics()
    assert once.packets > 0
    assert once.bytes_read > 0
    source.load(0, [0], slots)
    source.load(0, [0], slots)
    assert source.statistics().packets == 2 * once.packets
    assert source.statistics().packets == 0


def test_the_seconds_of_reading_are_among_those_that_loading_took(index: VideoIndex) -> None:
    source = EncodedSource(replace(stream_of(index), limits=DaliLimits(frozenset({"mpeg4"}))))
    slots = slots_for(source, index)
    begin = perf_counter()
    (sample,) = source.load(0, [0], slots)
    took = perf_counter() - begin
    assert sample.numbers  # it is encoded
    assert 0 < source.statistics().read_seconds <= took


def test_a_file_that_can_not_be_read_is_not_read_again_to_be_decoded(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def noted(self: DecodedSource, epoch: int, positions: Sequence[int], *more: Any, **options: Any) -> list[Sample]:
        decoded.extend(positions)
        return plain(self, epoch, positions, *more, **options)

    plain = DecodedSource.load
    monkeypatch.setattr(DecodedSource, "load", noted)
    source = EncodedSource(replace(stream_of(index), limits=DaliLimits(frozenset({"mpeg4"}))))
    Path(source.path_of(0, 1)).unlink()
    (sample,) = source.load(0, [1], slots_for(source, index))
    assert not sample.is_real
    assert decoded == []


def test_a_video_that_can_not_be_noted_as_bad_is_left_out_in_this_run(
    index: VideoIndex, caplog: pytest.LogCaptureFixture
) -> None:
    KnownBad(index.path).path.mkdir()
    source = DecodedSource(stream_of(index))
    caplog.clear()
    source.quarantine(0, 2, "hangs the decoder", "three times")
    assert f"{source.path_of(0, 2)}: is not read again in this run (" in caplog.text
    assert not source.load(0, [2], slots_for(source, index))[0].is_real


def test_a_file_that_is_gone_is_a_black_clip_with_its_reason(index: VideoIndex) -> None:
    for encoded, source in (
        (False, DecodedSource(stream_of(index))),
        (True, EncodedSource(replace(stream_of(index), limits=DaliLimits(frozenset({"mpeg4"}))))),
    ):
        path = Path(source.path_of(0, 1))
        content = path.read_bytes()
        path.unlink()
        (slot,) = slots_for(source, index)
        (sample,) = source.load(0, [1], [slot], encoded=encoded)
        path.write_bytes(content)
        assert not sample.is_real
        assert sample.reason.startswith(f"{path}: can't be read: No such file")
        assert (sample.shape, sample.jitter) == ((FRAMES, 8, 8, 3), NO_JITTER)
        size = FRAMES * 8 * 8 * 3
        assert not slot[:size].any()
        assert np.all(slot[size:] == 7)
        (again,) = source.failed(0, [1], [slot], "x" * 3000)
        assert again.reason == "x" * 2000  # so that it fits into the buffer of a socket


def test_a_video_that_is_left_out_is_so_in_other_processes_and_later_runs_too(
    index: VideoIndex, caplog: pytest.LogCaptureFixture
) -> None:
    source = DecodedSource(stream_of(index))
    path = source.path_of(0, 2)
    number = source.stream.sampler(index).plan(0, 2).video_id
    with caplog.at_level(logging.WARNING, "pipelines.workers.clip_source"):
        left_out = source.quarantine(0, 2, "hangs the decoder", "three times")
    assert left_out == LeftOut(number, "hangs the decoder: three times")
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{path}: is not read any more, also in later runs; to try it again: r3d-fast data check")
    (known,) = KnownBad(index.path).entries()
    assert (known.path, known.reason, known.detail) == (index[number].path, "hangs the decoder", "three times")
    told, plain = DecodedSource(stream_of(index)), pickle.loads(pickle.dumps(source))  # noqa: S301 - as a worker process gets it
    told.leave_out(left_out)
    for one in (source, told, plain, DecodedSource(stream_of(index))):  # the last one knows it by the index
        (sample,) = one.load(0, [2], slots_for(one, index))
        assert (sample.is_real, sample.reason) == (False, f"{path}: quarantined: hangs the decoder: three times")
        assert one.statistics().packets == 0
        assert all(one.load(0, [position], slots_for(one, index))[0].is_real for position in (0, 1))
    given = DecodedSource(stream_of(index), {number: "as it was said"})
    assert given.load(0, [2], slots_for(given, index))[0].reason == f"{path}: quarantined: as it was said"


def test_the_clips_of_a_video_are_made_together(index: VideoIndex) -> None:
    stream = replace(stream_of(index, train=False), clip=ClipSpec(num_frames=FRAMES, views=3))
    source = DecodedSource(stream)
    plans = [source.stream.sampler(index).plan(0, position) for position in range(3)]
    assert len({plan.video_id for plan in plans}) == 1
    slots = slots_for(source, index, 3)
    samples = source.load(0, [0, 1, 2], slots)
    whole = read_frames(index[plans[0].video_id], range(10), root=index.root)
    assert read_stamps(source.path_of(0, 0)) == list(range(10))
    for plan, sample, slot in zip(plans, samples, slots, strict=True):
        y, x, height, width = plan.box
        clip = slot[: np.prod(sample.shape)].reshape(sample.shape)
        np.testing.assert_array_equal(clip, whole[plan.frames, y : y + height, x : x + width])
