"""What is said of loaders that are opened for training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from clips import write_stamped_video

from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import Config
from r3d_fast.loaders import eval_loader, train_loader
from r3d_fast.ranks.group import Group

STRIDED = ("clip.sampling=consecutive", "clip.num_frames=4", "clip.stride=3")


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Training videos of 6, 9, 10 and 30 frames, a test video of 9; the names say it."""
    root = tmp_path_factory.mktemp("lengths")
    for name in ("train/a/6", "train/a/9", "train/b/10", "train/b/30", "test/b/9"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_stamped_video(root / f"{name}.avi", num_frames=int(Path(name).name))
    return VideoIndex.build(root, workers=1)


def said(capsys: pytest.CaptureFixture[str], index: VideoIndex, *overrides: str, group: Any = None) -> list[str]:
    """What opening a training and an evaluation loader prints."""
    config: Config = tiny.tiny_config(index, "loader.batch_size=2", *overrides)
    capsys.readouterr()
    with train_loader(index, "train", config.clip, config.augment, config.loader, group=group):
        pass
    with eval_loader(index, "test", *config.eval_specs(), group=group):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_strided_clip_that_short_videos_slow_down_is_said_once_a_split(
    capsys: pytest.CaptureFixture[str], lengths: VideoIndex
) -> None:
    assert said(capsys, lengths, *STRIDED, "clip.short=repeat") == [
        f"warning: split {split} videos are shorter than a clip (4 frames, 3 apart: 10 of the video); "
        "clip.short=repeat stretches them over the clip, so they move slower than the others; clip.short=loop keeps "
        "the speed"
        for split in ("train: 2 of 4", "test: 1 of 1")
    ]
    assert said(capsys, lengths, *STRIDED[:1], "clip.stride=1", "clip.num_frames=8", "clip.short=repeat") == [
        "warning: split train: 1 of 4 videos are shorter than a clip (8 frames); clip.short=repeat stretches them over "
        "the clip, so they move slower than the others; clip.short=loop keeps the speed"
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ("clip.short=loop", *STRIDED),
        ("clip.short=edge", *STRIDED),
        ("clip.short=repeat", *STRIDED[:2], "clip.stride=1"),  # no video is shorter
        ("clip.short=repeat", "clip.sampling=segments", "clip.stride=1", "clip.num_frames=16"),
    ],
)
def test_nothing_is_said_where_no_video_is_slowed(
    capsys: pytest.CaptureFixture[str], lengths: VideoIndex, overrides: tuple[str, ...]
) -> None:
    assert said(capsys, lengths, *overrides) == []


def test_windows_of_an_evaluation_are_looped_so_only_training_is_warned_of(
    capsys: pytest.CaptureFixture[str], lengths: VideoIndex
) -> None:
    (line,) = said(capsys, lengths, *STRIDED, "clip.short=repeat", "eval.views=paper")
    assert line.startswith("warning: split train: 2 of 4 videos")


def test_only_the_first_rank_says_it(capsys: pytest.CaptureFixture[str], lengths: VideoIndex) -> None:
    second = Group(1, 2, local_count=2)
    assert said(capsys, lengths, *STRIDED, "clip.short=repeat", "loader.batch_size=4", group=second) == []


def test_a_run_and_its_evaluation_say_it(
    capsys: pytest.CaptureFixture[str], lengths: VideoIndex, tmp_path: Path
) -> None:
    options = tiny.overrides(lengths, *STRIDED, "clip.short=repeat", "loader.batch_size=2", "train.epochs=2")
    given = [part for option in options for part in ("-o", option)]
    code, _, err = tiny.said(capsys, "train", "-c", "demo", *given, "--run", tmp_path / "run")
    assert (code, err.count("clip.short=repeat stretches them")) == (0, 2)
    code, _, err = tiny.said(capsys, "eval", "--run", tmp_path / "run")
    assert (code, err.count("clip.short=repeat stretches them")) == (0, 1)
