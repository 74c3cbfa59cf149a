"""The clips that `data preview` shows are those that the model gets: the numbers beside the frames are in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import read_stamp, write_classes
from faulty_reads import FaultyReads

from pipelines.index.video_index import VideoIndex
from pipelines.isolation.reserve import reserve
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.decoder import read_frames
from r3d_fast.config.sections import TrainSpec
from r3d_fast.loaders import train_loader
from r3d_fast.preview.chosen_clips import evaluation_clips, training_clips

CLIP = ClipSpec(num_frames=4)
WHOLE = AugmentSpec(size_px=112, scales=(1.0,))  # of square videos: all of each frame, so that its stamp can be read
LOADER = LoaderSpec(batch_size=6, workers=1, threads=1)


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 square videos of 3 classes, 9 of them for training."""
    root = write_classes(tmp_path_factory.mktemp("square") / "videos", 12, classes="abc", size=(112, 112))
    return VideoIndex.build(root, val_fraction=0.25, workers=0)


def test_training_clips_show_their_frames_mirrored_or_not(square: VideoIndex) -> None:
    clips = training_clips(square, "train", CLIP, WHOLE, LOADER, TrainSpec(), 9)
    assert len(clips) == 9
    assert {clip.plan.mirror for clip in clips} == {False, True}
    for clip in clips:
        frames = clip.frames[:, :, ::-1] if clip.plan.mirror else clip.frames
        assert [read_stamp(frame) for frame in frames] == clip.plan.frames.tolist()
        assert clip.label == clip.path[0]
        assert clip.whole_frame is not None
        video = square[clip.plan.video_id]
        np.testing.assert_array_equal(clip.whole_frame, read_frames(video, clip.plan.frames[:1], root=square.root)[0])


def test_mixed_clips_are_those_that_are_trained_on(square: VideoIndex) -> None:
    """With mixup a clip is share * clip + (1 - share) * partner, and its label names both."""
    clips = training_clips(square, "train", CLIP, WHOLE, LOADER, TrainSpec(mixup_alpha=5.0), 6)
    with train_loader(square, "train", CLIP, WHOLE, LOADER) as loader:
        batch = next(loader.epoch(0))
        alone = np.rint(255 * (np.from_dlpack(batch.clips).transpose(0, 2, 3, 4, 1) * WHOLE.std + WHOLE.mean))
    for row, clip in enumerate(clips):
        words = clip.label.split()
        share, own, other = int(words[0]) / 100, words[2], words[6]
        assert own == clip.path[0]
        assert words == [words[0], "%", own, "+", f"{100 - int(words[0])}", "%", other]
        errors = [
            np.abs(share * alone[row] + (1 - share) * alone[partner] - clip.frames).max()
            for partner in range(6)
            if square.classes[batch.labels[partner]] == other and partner != row
        ]
        assert min(errors) < 3  # the share is shown in whole percents


def test_evaluation_clips_are_spread_over_the_classes(square: VideoIndex) -> None:
    clips = evaluation_clips(square, "test", CLIP, WHOLE, LOADER, 8)
    assert [clip.label for clip in clips] == ["a", "b", "c"]
    for clip in clips:
        assert [read_stamp(frame) for frame in clip.frames] == clip.plan.frames.tolist()
    assert [clip.label for clip in evaluation_clips(square, "train", CLIP, WHOLE, LOADER, 3)] == ["a", "b", "c"]


def test_a_clip_that_cant_be_read_says_why(square: VideoIndex, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "videos", 4, size=(112, 112))
    index = VideoIndex.build(root, workers=0)
    (root / "a" / "v0.avi").unlink()
    (root / "a" / "v2.avi").unlink()
    clips = training_clips(index, "train", CLIP, WHOLE, LOADER, TrainSpec(), 4)
    gone = [clip for clip in clips if clip.label == "a"]
    assert gone
    assert all("No such file" in clip.problem and clip.whole_frame is None for clip in gone)
    assert not any(clip.problem for clip in clips if clip.label == "b")


def test_a_video_that_crashes_the_decoder_lacks_its_whole_frame_and_says_why(
    square: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's process started before the fault, and reads the video well; who reads it again crashes with it."""
    bad = square[0].path
    kept = reserve(1)
    FaultyReads(tmp_path, monkeypatch).begin(bad, "segv")
    clips = evaluation_clips(square, square[0].split, CLIP, WHOLE, LOADER, 12)
    kept.close()
    assert [clip.path for clip in clips if clip.whole_frame is None] == [bad]
    (clip,) = [clip for clip in clips if clip.problem]
    crash = "crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert clip.problem == f"{square.root / bad}: {crash}"
    assert [read_stamp(frame) for frame in clip.frames] == clip.plan.frames.tolist()
