from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from clips import turn_mp4, write_stamped_video
from devices import assert_same_clips, load
from stand_ins import cuda, python

from pipelines.dali import decoding_memory, routing
from pipelines.dali.decoding_memory import DecodingMemory, bytes_for_batch, clip_bytes, sessions_bytes
from pipelines.dali.routing import choose_decoder
from pipelines.dali.share_finder import ShareFinder
from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.machine.nvdec import DALI_CODECS, DecoderCaps
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream

CAPS = tuple(DecoderCaps(codec, "4:2:0", 8, 1, 48, 48, 4096, 4096, 65536) for codec in DALI_CODECS)
SMALL, LARGE = (112, 112), (176, 144)  # width, height in px


# What is counted


def test_a_clip_has_8_frames_of_its_decoder_its_own_and_copies_of_its_box() -> None:
    frame, box = 3 * 240 * 320, 3 * 160 * 160
    assert clip_bytes((240, 320), (160, 160), 16) == 8 * frame + 16 * frame + 2 * 16 * box
    assert clip_bytes((240, 320), (160, 160), 16, turned=True) == 24 * frame + 4 * 16 * box
    # 64 clips of UCF-101 with the largest crop are 0.7 GB; as many of 1080p are more than a V100 has.
    assert 64 * clip_bytes((240, 320), (240, 240), 16) == pytest.approx(0.71e9, rel=0.01)
    assert 64 * clip_bytes((1080, 1920), (1080, 1080), 16) == pytest.approx(16.7e9, rel=0.01)


def test_sessions_are_kept_by_size() -> None:
    one = 22 * 320 * 240 * 3 // 2
    assert sessions_bytes([("mpeg4", 320, 240)], threads=2) == 2 * one
    assert sessions_bytes([("mpeg4", 320, 240), ("h264", 320, 240)], threads=2) == 4 * one
    # None is found again for 424x240, coded as 432x240: a hundred are kept, and then there is room for no other.
    many = 100 * 22 * 432 * 240 * 3 // 2
    assert sessions_bytes([("mpeg4", 320, 240), ("mpeg4", 424, 240)], threads=2) == many
    assert sessions_bytes([("hevc", 424, 240)], threads=2) == 2 * 22 * 424 * 240 * 3 // 2  # coded in blocks of 8 px
    # Of many sizes the largest count.
    sizes = [("h264", 16 * side, 16 * side) for side in range(10, 80)]
    assert sessions_bytes(sizes, threads=2) == sum(2 * 22 * (16 * side) ** 2 * 3 // 2 for side in range(30, 80))
    assert sessions_bytes([], threads=2) == 0


FREE = """
import json
from pipelines.machine.memory import free_gpu_memory
from pipelines.dali.decoding_memory import bytes_for_batch
print(json.dumps([free_gpu_memory(0), free_gpu_memory(7), bytes_for_batch(0, [("mpeg4", 320, 240)], 2)]))
"""


def test_a_quarter_of_what_the_driver_says_is_free(v100: Path, tmp_path: Path) -> None:
    free = 15 * 2**30
    sessions = sessions_bytes([("mpeg4", 320, 240)], 2)
    assert python(FREE, libraries=v100)[:3] == [free, None, free // 4 - sessions]
    cuda(tmp_path, "-DOLD")  # a driver without contexts
    assert python(FREE, libraries=tmp_path)[:3] == [None, None, None]


def test_sessions_may_take_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_memory, "free_gpu_memory", lambda number: 4 * 10**9)
    assert bytes_for_batch(0, [("h264", 1920, 1080)], 2) == 0  # 100 sessions of 1080p are 6.9 GB
    assert bytes_for_batch(0, [("h264", 1920, 1088)], 2) == 10**9 - 2 * 22 * 1920 * 1088 * 3 // 2


# What becomes of it


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 videos that DALI decodes on the CPU, half of them larger, one turned; and two that it does not decode."""
    root = tmp_path_factory.mktemp("memory") / "v"
    for number in range(14):
        (root / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        codec, suffix = ("mpeg4", "avi") if number >= 12 else ("mjpeg", "mov" if number == 3 else "avi")
        path = root / f"class{number % 2}" / f"v{number:02}.{suffix}"
        write_stamped_video(path, codec=codec, num_frames=12 + number, size=LARGE if number % 2 else SMALL)
        if number == 3:
            turn_mp4(path, (0, 1, -1, 0))
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


def cap(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let the clips of a batch that DALI decodes take `most` bytes, as on a GPU."""

    def choose(stream: ClipStream, index: VideoIndex, workers: int, threads: Any) -> tuple[ClipStream, ShareFinder]:
        chosen, finder = choose_decoder(stream, index, workers, threads)
        if chosen.limits is not None:
            chosen = replace(chosen, limits=replace(chosen.limits, batch_bytes=most))
        return chosen, finder

    monkeypatch.setattr("pipelines.loader.choose_decoder", choose)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("workers", "repeats"), [(0, 1), (2, 1), (2, 2)])
def test_clips_beyond_the_cap_go_to_pyav_and_stay_the_same(
    mixed: VideoIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, train: bool, workers: int,
    repeats: int,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"workers": workers, "batch_size": 7, "train": train}
    options |= {"repeats": repeats} if train else {}
    with load(mixed, "pyav", "cpu", **options) as plain:
        expected = [batch for number in range(3) for batch in plain.epoch(number)]
    most = int(2.5 * clip_bytes(SMALL[::-1], SMALL, 8))
    cap(monkeypatch, most)
    with caplog.at_level(logging.WARNING, "pipelines"), load(mixed, "dali", "cpu", **options) as loader:
        found = [batch for number in range(3) for batch in loader.epoch(number)]
        taken = loader.statistics.encoded_clips
        routed = loader.routing
    assert_same_clips(found, expected)
    assert routed is not None
    assert routed.decoder == "dali"
    assert len(found) <= taken <= 3 * len(found)  # of a batch of 7 clips two or three small ones have room
    (told,) = [one.getMessage() for one in caplog.records if "GPU's memory" in one.getMessage()]
    assert f"the clips of a batch get {most / 1e6:.0f} MB together, a quarter of what was free without" in told
    assert told.endswith(" the sessions: PyAV decodes those beyond that")


def test_with_no_room_at_all_pyav_decodes_every_clip(mixed: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    cap(monkeypatch, 0)
    with load(mixed, "dali", "cpu") as loader:
        assert len(list(loader)) == 3
        assert loader.statistics.encoded_clips == 0


def test_where_every_batch_fits_nothing_is_counted(
    mixed: VideoIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cap(monkeypatch, 10**9)
    with load(mixed, "dali", "cpu") as loader:
        list(loader)
        assert loader.statistics.encoded_clips > 6
        assert loader._prefetcher is not None
        assert loader._prefetcher._memory.room == math.inf
    assert "GPU's memory" not in caplog.text


def stream(index: VideoIndex, decoder: Literal["auto", "dali", "hybrid"]) -> ClipStream:
    return ClipStream(
        str(index.path), str(index.root), None, ClipSpec(), AugmentSpec(), ShardSpec(), 4, 0, train=True,
        decoder=decoder, device="gpu:0",
    )  # fmt: skip


@pytest.mark.parametrize("decoder", ["auto", "dali", "hybrid"])
def test_each_way_to_decode_has_the_cap(
    mixed: VideoIndex, monkeypatch: pytest.MonkeyPatch, decoder: Literal["auto", "dali", "hybrid"]
) -> None:
    monkeypatch.setattr(routing, "limits_of_device", lambda device: DaliLimits(frozenset({"mpeg4"}), CAPS))
    monkeypatch.setattr(routing, "wrong_frames", lambda record, root, device: "")
    monkeypatch.setattr(decoding_memory, "free_gpu_memory", lambda number: 10**9)
    limits = choose_decoder(stream(mixed, decoder), mixed, 2)[0].limits
    assert limits is not None
    sizes = [("mpeg4", *SMALL), ("mpeg4", *LARGE)]
    assert limits.batch_bytes == 10**9 // 4 - sessions_bytes(sizes, 2)  # two threads for the one engine


def test_sessions_of_sizes_that_pyav_decodes_are_not_counted(
    mixed: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "limits_of_device", lambda device: DaliLimits(frozenset({"mpeg4"}), CAPS))
    monkeypatch.setattr(routing, "wrong_frames", lambda record, root, device: "")
    monkeypatch.setattr(decoding_memory, "free_gpu_memory", lambda number: 10**9)
    whole, cut = ("mpeg4", *SMALL), ("mpeg4", 168, 136)
    monkeypatch.setattr(type(mixed), "sizes", lambda self: [whole, cut])
    for decoder, sizes in (("auto", [whole]), ("dali", [whole, cut])):
        limits = choose_decoder(stream(mixed, decoder), mixed, 2)[0].limits  # type: ignore[arg-type]
        assert limits is not None
        assert limits.batch_bytes == 10**9 // 4 - sessions_bytes(sizes, 2)


def test_what_a_clip_takes(mixed: VideoIndex) -> None:
    limited = replace(stream(mixed, "dali"), device="cpu", limits=DaliLimits(frozenset({"mjpeg"}), batch_bytes=1))
    memory = DecodingMemory(limited, mixed)
    assert memory.room == 1
    for plan in limited.sampler(mixed).batch(0, 0, 12):
        record = mixed[plan.video_id]
        size, turned = (record.height, record.width), record.orientation.transposes
        expected = clip_bytes(size, plan.box[2:], 16, turned=turned) if record.codec == "mjpeg" else 0
        assert memory.of_clip(plan) == expected
        assert memory.of_clip(replace(plan, is_real=False)) == 0
