from __future__ import annotations

import json
from pathlib import Path

import clips
import numpy as np
import pytest
import tiny
from untrained import write_weights

from pipelines.index.video_index import VideoIndex
from pipelines.specs import ClipSpec
from r3d_fast.errors import CheckpointError
from r3d_fast.prediction.restored_network import open_network
from r3d_fast.weights.clip_seconds import median_clip_seconds
from r3d_fast.weights.stored_model import read_weights
from r3d_fast.weights.tensor_file import write_tensors

CONSECUTIVE = ClipSpec(num_frames=16, sampling="consecutive", stride=2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """To train on 20, 50 and 90 frames, the last ones 50 a second, the others 25. To test on 75 frames."""
    root = tmp_path_factory.mktemp("lengths") / "videos"
    for split, name, frames, fps in (("train", "a", 20, 25), ("train", "b", 50, 25), ("train", "c", 90, 50),
                                     ("test", "d", 75, 25)):  # fmt: skip
        (root / split / "x").mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(root / split / "x" / f"{name}.avi", num_frames=frames, fps=fps)
    return VideoIndex.build(root, workers=0)


def test_a_segments_clip_lasts_as_long_as_its_video(videos: VideoIndex) -> None:
    assert videos.frame_rates("train").tolist() == [25, 25, 50]
    assert median_clip_seconds(videos, "train", ClipSpec()) == pytest.approx(1.8)
    assert median_clip_seconds(videos, "test", ClipSpec()) == pytest.approx(3.0)
    assert median_clip_seconds(videos, None, ClipSpec()) == pytest.approx(np.median([0.8, 2.0, 1.8, 3.0]))


def test_a_consecutive_clip_lasts_its_frames_or_as_many_as_there_are(videos: VideoIndex) -> None:
    assert median_clip_seconds(videos, "train", CONSECUTIVE) == pytest.approx(np.median([20 / 25, 32 / 25, 32 / 50]))


def test_a_run_says_how_long_its_clips_were(index: VideoIndex, tmp_path: Path) -> None:
    run = tiny.trained(tmp_path / "run", index, "train.epochs=1", "schedule.warmup_epochs=0")
    wanted = median_clip_seconds(index, "train", open_network(run, "cpu").config.clip)
    assert wanted is not None
    state = json.loads((run / "best" / "state.json").read_text())
    assert state["clip_seconds"] == wanted
    for model in (run, run / "best", run / "best" / "model.safetensors"):
        assert open_network(model, "cpu").clip_seconds == wanted


def test_weights_of_before_say_nothing_and_odd_values_are_refused(tmp_path: Path) -> None:
    config = write_weights(tmp_path / "w.safetensors")
    stored = read_weights(tmp_path / "w.safetensors")
    assert stored.clip_seconds is None
    for value in (0, -1.0, "NaN", "inf", "x", [1]):
        about = {"config": config.model_dump(mode="json"), "classes": stored.classes, "clip_seconds": value}
        with (tmp_path / "odd.safetensors").open("wb") as file:
            write_tensors(file, stored.weights, {"r3d_fast": json.dumps(about)})
        with pytest.raises(CheckpointError, match="does not say which model"):
            read_weights(tmp_path / "odd.safetensors")
