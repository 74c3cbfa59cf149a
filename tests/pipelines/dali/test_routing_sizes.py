"""Sizes of which DALI never finds the NVDEC session again: PyAV gets them, unless DALI is asked for by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from clips import turn_mp4, write_stamped_video

from pipelines.dali import routing
from pipelines.dali.routing import choose_decoder
from pipelines.dali_limits import DaliLimits, VideoKind, is_cut_from_units
from pipelines.index.video_index import VideoIndex
from pipelines.machine.nvdec import DALI_CODECS, DecoderCaps
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream
from pipelines.video.orientation import Orientation
from pipelines.video.record import VideoRecord

CAPS = tuple(DecoderCaps(codec, "4:2:0", 8, 1, 48, 48, 4096, 4096, 65536) for codec in DALI_CODECS)
SESSIONS = "DALI would open an NVDEC session for each clip, as it never finds one again for such a size"
# Those of data sets: UCF-101 and what Kinetics, HMDB-51 and HD video often have.
TAKEN = {
    "mpeg4": [(320, 240), (176, 144), (640, 480)],
    "h264": [(320, 240), (1280, 720), (1920, 1088)],
    "vp8": [(640, 480)],
    "hevc": [(1920, 1080), (424, 240), (232, 240)],
    "vp9": [(1920, 1080), (424, 240)],
    "av1": [(1920, 1080), (424, 240)],
}
REFUSED = {
    "mpeg4": [(424, 240), (320, 180), (340, 256), (177, 161)],
    "h264": [(424, 240), (340, 256), (1920, 1080), (320, 232), (318, 240)],
    "vp8": [(424, 240), (320, 180)],
    "hevc": [(340, 256), (854, 480), (426, 240)],
    "vp9": [(340, 256), (426, 240), (320, 180)],
    "av1": [(340, 256), (426, 240)],
}


def record(codec: str, size: tuple[int, int]) -> VideoRecord:
    return VideoRecord("v", 1, 1, 9, size[1], size[0], codec, codec, "yuv420p", 25.0, "mp4", b"", b"")


@pytest.mark.parametrize("codec", sorted(DALI_CODECS))
def test_each_codec_by_its_unit(codec: str) -> None:
    limits = DaliLimits(frozenset(DALI_CODECS), CAPS, whole_units=True)
    for size in TAKEN[codec]:
        assert limits.refuses(record(codec, size)) == "", size
    for size in REFUSED[codec]:
        video = record(codec, size)
        assert is_cut_from_units(codec, *size)
        assert limits.refuses(video) == SESSIONS, size
        assert replace(limits, whole_units=False).refuses(video) == ""
        assert VideoKind.of(video).traits == f"size no multiple of {DALI_CODECS[codec]} px"


def test_a_turned_video_goes_by_its_stored_size() -> None:
    """Width and height have the same unit, so a quarter turn changes nothing: 240x424 is stored as 424x240."""
    limits = DaliLimits(frozenset(DALI_CODECS), CAPS, whole_units=True)
    turned = Orientation(transposes=True)
    for codec in DALI_CODECS:
        for size, reason in [(TAKEN[codec][0], ""), (REFUSED[codec][0], SESSIONS)]:
            video = replace(record(codec, size), width=size[1], height=size[0], orientation=turned)
            assert video.stored_size == (size[1], size[0])
            assert limits.refuses(video) == reason


def test_on_a_cpu_every_size_is_taken() -> None:
    limits = DaliLimits(frozenset({"vp9", "mjpeg"}), whole_units=True)
    assert limits.refuses(record("vp9", (177, 161))) == limits.refuses(record("mjpeg", (177, 161))) == ""
    assert VideoKind.of(record("mjpeg", (177, 161))).traits == ""


@pytest.fixture
def sizes(tmp_path: Path) -> VideoIndex:
    """Seven videos, four of them of a size that is no multiple of 16; one of each is turned."""
    (tmp_path / "v" / "a").mkdir(parents=True)
    wanted = [(176, 144), (176, 136), (168, 144), (176, 144), (176, 136), (176, 144), (168, 144)]
    for number, size in enumerate(wanted):
        path = tmp_path / "v" / "a" / f"{number}.mp4"
        write_stamped_video(path, codec="mpeg4", num_frames=6, size=size)
        if number in (3, 4):
            turn_mp4(path, (0, 1, -1, 0))
    return VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)


@pytest.fixture
def v100_decodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """NVDEC of a V100 that gives the right frames; the names of the videos that it was checked on."""
    checked: list[str] = []
    monkeypatch.setattr(routing, "limits_of_device", lambda device: DaliLimits(frozenset({"mpeg4"}), CAPS))
    monkeypatch.setattr(routing, "wrong_frames", lambda record, root, device: checked.append(record.path) or "")
    routing._tell_once.cache_clear()
    yield checked
    routing._tell_once.cache_clear()


def chosen(index: VideoIndex, decoder: Literal["auto", "dali", "hybrid"], **options: float) -> ClipStream:
    stream = ClipStream(
        str(index.path), str(index.root), None, ClipSpec(), AugmentSpec(), ShardSpec(), 4, 0, train=True,
        decoder=decoder, device="gpu:0", **options,
    )  # fmt: skip
    return choose_decoder(stream, index, 2)[0]


def taken(stream: ClipStream, index: VideoIndex) -> list[int]:
    assert stream.limits is not None
    return [number for number in range(len(index)) if not stream.limits.refuses(index[number])]


def test_auto_and_hybrid_leave_them_to_pyav_and_say_how_many(
    sizes: VideoIndex, v100_decodes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pipelines"):
        for stream in (chosen(sizes, "auto"), chosen(sizes, "hybrid"), chosen(sizes, "hybrid", dali_share=0.5)):
            assert taken(stream, sizes) == [0, 3, 5]
    assert [one.getMessage() for one in caplog.records] == [
        f"PyAV decodes the videos that DALI can't: 4 videos (mpeg4, yuv420p, size no multiple of 16 px): {SESSIONS}"
    ]
    assert set(v100_decodes) == {"a/0.mp4"}


def test_dali_takes_them_where_it_is_asked_for(
    sizes: VideoIndex, v100_decodes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Both kinds are checked, an example of each."""
    with caplog.at_level(logging.WARNING, "pipelines"):
        found = taken(chosen(sizes, "dali"), sizes)
    assert found == [0, 2, 3, 5, 6]  # those of 136 rows would get the session of those of 144
    assert v100_decodes == ["a/0.mp4", "a/2.mp4"]
    assert caplog.records == []


def test_where_all_are_such_pyav_decodes_all(tmp_path: Path, v100_decodes: list[str]) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    write_stamped_video(tmp_path / "v" / "a" / "0.mp4", codec="mpeg4", num_frames=6, size=(176, 136))
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    assert chosen(index, "auto").limits is None
    assert v100_decodes == []
    assert chosen(index, "dali").limits is not None
