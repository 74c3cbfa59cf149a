from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
import tiny

from pipelines.errors import UsageError
from r3d_fast import Predictor
from r3d_fast.prediction.frame_arrays import Frames


def frames_of(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos; the second one is shorter than a clip, the third one upright."""
    folder = tmp_path_factory.mktemp("videos")
    shapes = ((60, (128, 96)), (3, (128, 96)), (40, (112, 150)))
    return [clips.write_stamped_video(folder / f"{k}.avi", num_frames=n, size=s) for k, (n, s) in enumerate(shapes)]


@pytest.mark.parametrize(
    ("overrides", "views"),
    [
        ((), None),
        (("clip.sampling=segments", "clip.stride=1"), 3),
        (("augment.eval_crops=3",), "all"),
        (("augment.eval_crops=10", "eval.views=2"), None),
    ],
)
def test_frames_are_predicted_as_the_file_that_they_are_of(
    videos: list[Path], tmp_path: Path, overrides: tuple[str, ...], views: Any
) -> None:
    predictor = Predictor(tiny.untrained(tmp_path / "model", *overrides), device="cpu")
    arrays = [frames_of(path) for path in videos]
    for size in (1, 5):
        of_files = list(predictor.clips(videos, views=views, batch_size=size))
        of_arrays = list(predictor.clips(arrays, views=views, batch_size=size))
        for file, array in zip(of_files, of_arrays, strict=True):
            assert (file.clip, file.is_last, array.error) == (array.clip, array.is_last, "")
            np.testing.assert_array_equal(file.frames, array.frames)
            assert array.logits == pytest.approx(file.logits, abs=1e-5)


def test_one_video_gives_one_prediction_and_several_a_list(videos: list[Path], model: Path) -> None:
    predictor = Predictor(model, device="cpu")
    frames = frames_of(videos[0])
    wanted = predictor([videos[0]], top=2)[0]
    for one in (str(videos[0]), videos[0], frames):
        found = predictor(one, top=2)
        assert dict(found.classes) == pytest.approx(dict(wanted.classes), abs=1e-5)
    mixed = predictor([videos[1], frames, "none.avi", frames, videos[0]])
    assert [item.video for item in mixed] == [str(videos[1]), "frames", "none.avi", "frames", str(videos[0])]
    assert [item.error is None for item in mixed] == [True, True, False, True, True]
    assert [item.video for item in predictor.stream(str(videos[0]))] == [str(videos[0])]
    assert {moment.video for moment in predictor.timeline(videos[0])} == {str(videos[0])}


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((4, 32, 32, 3), np.float32), r"frames float32 \[4, 32, 32, 3\]: expected uint8 \[T, H, W, 3\]"),
        (np.zeros((3, 4, 32, 32), np.uint8), r"frames uint8 \[3, 4, 32, 32\]: expected"),
        (np.zeros((32, 32, 3), np.uint8), r"frames uint8 \[32, 32, 3\]: expected"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"frames uint8 \[0, 32, 32, 3\]: expected"),
        (7, "frames int64"),
    ],
)
def test_other_arrays_are_told_from_frames(model: Path, frames: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Predictor(model, device="cpu")([frames])
