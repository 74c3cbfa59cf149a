from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_reads import FaultyReads
from PIL import Image

from pipelines.index.video_index import VideoIndex
from pipelines.video.decoder import FrameReader
from r3d_fast.report import mistakes
from r3d_fast.report.mistakes import Judged, judged_videos, opened_index, with_strips, worst_videos


def line(video: str, label: str, predicted: str, probability: float, of_label: float | None) -> dict[str, Any]:
    top = [{"class": predicted, "probability": probability}]
    return {"video": video, "label": label, "predicted": predicted, "top": top, "label_probability": of_label}


def test_the_most_confident_mistakes_come_first_then_the_hardest_of_the_rest() -> None:
    lines = [
        line("right", "a", "a", 0.95, 0.95), line("narrow", "a", "a", 0.5, 0.5), line("mild", "a", "b", 0.4, 0.3),
        line("sure", "a", "b", 0.99, 0.01), line("middling", "b", "a", 0.6, 0.2), line("old", "a", "a", 0.7, None),
    ]  # fmt: skip
    mistakes, hardest = worst_videos(judged_videos(lines), 2)
    assert [one.video for one in mistakes] == ["sure", "middling"]
    assert [one.video for one in hardest] == ["mild", "narrow"]
    assert [one.is_right for one in hardest] == [False, True]


@pytest.mark.parametrize(
    "damaged",
    [{}, {"video": "v", "error": "x"}, {**line("v", "a", "b", 0.5, 0.1), "top": []}, line("v", "a", "b", 7.0, 0.1),
     {**line("v", "a", "b", 0.5, 0.1), "label": 3}, {**line("v", "a", "b", 0.5, 0.1), "top": ["x"]},
     {**line("v", "a", "b", 0.5, 0.1), "predicted": None}],
)  # fmt: skip
def test_lines_without_a_prediction_are_left_out(damaged: dict[str, Any]) -> None:
    assert judged_videos([damaged]) == []


def test_a_strip_shows_frames_of_the_video(index: VideoIndex) -> None:
    number = 5
    name = index.names()[number]
    (found,) = with_strips([Judged(name, "a", "b", 0.5, 0.1)], index)
    head, _, data = found.strip.partition(",")
    assert head == "data:image/jpeg;base64"
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), np.float64)
    assert strip.shape == (found.height, found.width, 3) == (90, 4 * 90 + 3 * 2, 3)
    record = index[number]
    frames = FrameReader().read(record, [1, 4, 7, 10], root=str(index.root))  # the middles of four parts of 12 frames
    for column, frame in enumerate(frames):
        shown = strip[:, column * 92 : column * 92 + 90]
        expected = np.asarray(Image.fromarray(frame).resize((90, 90), Image.Resampling.BOX), np.float64)
        assert np.abs(shown - expected).mean() < 6


def test_why_there_are_no_frames_is_said(index: VideoIndex, tmp_path: Path) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    copied = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0)
    names = copied.names()
    (tmp_path / "data" / names[0]).unlink()
    (tmp_path / "data" / names[1]).write_bytes(b"no video any more")
    found = with_strips([Judged(name, "a", "b", 0.5, 0.1) for name in (names[0], names[1], "other", names[2])], copied)
    assert [bool(one.strip) for one in found] == [False, False, False, True]
    assert names[0] in found[0].why
    assert "changed" in found[1].why
    assert found[2].why == "no longer in the index"
    (gone,) = with_strips([Judged("v", "a", "b", 0.5, 0.1)], None)
    assert gone.why == "the index of the data set is not there any more"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("segv", "crashes the decoder: the process that read it was ended by SIGSEGV, twice"),
        ("block", "hangs the decoder: nothing was read or decoded for 1 s, and its process was ended"),
    ],
)
def test_a_video_that_ends_or_blocks_the_decoder_has_no_strip_and_says_why(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, text: str
) -> None:
    names = index.names()[:3]
    FaultyReads(tmp_path, monkeypatch).begin(index[1].path, fault)
    monkeypatch.setattr(mistakes, "_STALL", 1.0)
    found = with_strips([Judged(name, "a", "b", 0.5, 0.1) for name in names], index)
    assert [bool(one.strip) for one in found] == [True, False, True]
    assert found[1].why == f"{index.root / index[1].path}: {text}"


def test_the_index_is_that_of_the_evaluation_else_that_of_the_config(index: VideoIndex, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no index")
    mine = {"index": str(index.path), "root": str(index.root)}
    for figures, settings in ((mine, {}), ({}, mine), ({"index": str(tmp_path / "bad")}, mine), ({"index": 3}, mine)):
        found = opened_index(figures, settings)
        assert found is not None
        assert found.root == index.root
    moved = opened_index({**mine, "root": "not/there"}, {})  # as where it was written relative to another folder
    assert moved is not None
    assert moved.root == index.root
    assert opened_index({}, {"index": None}) is None
    assert opened_index({"index": str(tmp_path / "bad")}, {}) is None
