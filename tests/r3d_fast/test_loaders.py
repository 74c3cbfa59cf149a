"""What is said of loaders that are opened for training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from clips import write_stamped_video
from from_config import eval_clips, train_clips

from pipelines.errors import DataError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import LoaderSpec
from r3d_fast.config.config import Config
from r3d_fast.loaders import eval_loader, train_loader, usual_eval_batch
from r3d_fast.ranks.group import Group

STRIDED = ("clip.sampling=consecutive", "clip.num_frames=4", "clip.stride=3")


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Training videos of 6, 9, 10 and 30 frames, a test video of 9; the names say it."""
    root = tmp_path_factory.mktemp("lengths")
    for name in ("train/a/6", "train/a/9", "train/b/10", "train/b/30", "test/b/9"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_stamped_video(root / f"{name}.avi", num_frames=int(Path(name).name))
    return VideoIndex.build(root, workers=0)


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


def test_an_evaluation_batch_that_nobody_has_chosen_is_the_usual_one_of_each_rank(lengths: VideoIndex) -> None:
    config = tiny.tiny_config(lengths, "loader.batch_size=auto", "eval.batch_size=auto")
    for group in (Group(), Group(1, 2)):
        with eval_loader(lengths, "train", *config.eval_specs(), group=group) as clips:
            assert clips.batch_size == usual_eval_batch("cpu") == 8


def test_a_loader_alone_can_choose_no_batch(lengths: VideoIndex) -> None:
    with pytest.raises(UsageError, match=r"loader.batch_size auto: .*expected a number of clips"):
        ClipLoader(lengths, loader=LoaderSpec(batch_size="auto"))


def one_class(folder: Path, videos: int) -> VideoIndex:
    for number in range(videos):
        (folder / "data" / "walk").mkdir(parents=True, exist_ok=True)
        write_stamped_video(folder / "data" / "walk" / f"{number}.avi", num_frames=6 + number)
    return VideoIndex.build(folder / "data", workers=0)


def test_a_single_class_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = one_class(tmp_path, 5)
    config = tiny.tiny_config(index, "loader.batch_size=2")
    train_clips(config, index).close()
    assert "warning: all videos of split train are of class walk: whatever the model says will be right" in (
        capsys.readouterr().err
    )


def test_a_data_set_without_test_videos_says_what_to_do(tmp_path: Path) -> None:
    index = one_class(tmp_path, 1)
    config = tiny.tiny_config(index)
    with pytest.raises(DataError, match="no split 'test'; it has train: nothing to evaluate on; add videos") as caught:
        eval_clips(config, index)
    assert str(caught.value).endswith("-o data.eval_split=train")
