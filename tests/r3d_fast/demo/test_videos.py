"""The demo data set: motion tells the class, single frames don't."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.errors import UsageError
from r3d_fast.demo.videos import CLASSES, MARKER, SHIFT, make_demo_dataset

Frames = NDArray[np.uint8]


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "data"
    make_demo_dataset(path, videos_per_class=12, test_per_class=8, num_frames=20, seed=3)
    return path


@pytest.fixture(scope="module")
def clips_of(root: Path) -> dict[str, list[list[Frames]]]:
    return {
        split: [[decode(path) for path in sorted((root / split / name).iterdir())] for name in CLASSES]
        for split in ("train", "test")
    }


def test_folders_counts_and_format(root: Path) -> None:
    assert sorted(path.name for path in root.iterdir()) == [MARKER, "test", "train"]
    for split, count in (("train", 12), ("test", 8)):
        assert sorted(path.name for path in (root / split).iterdir()) == sorted(CLASSES)
        for name in CLASSES:
            names = [path.name for path in sorted((root / split / name).iterdir())]
            assert names == [f"{number:03d}.avi" for number in range(count)]
    with av.open(str(root / "train" / "left" / "000.avi")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("mpeg4", 72, 72, 25)
        packets = [packet for packet in container.demux(stream) if packet.size]
    types = ["IPB"[bytes(packet)[bytes(packet).index(b"\0\0\1\xb6") + 4] >> 6] for packet in packets]
    assert len(types) == 20
    assert types.count("I") == 2
    assert types.count("B") >= 8


def motion(clip: Frames, reach: int = 5) -> tuple[int, int]:
    """(x, y) by which content moves in two frames, by trying every shift over the whole clip."""
    grey = clip.mean(axis=3)
    inner = slice(reach, -reach)
    errors = {
        (x, y): float(((np.roll(grey[:-2], (y, x), axis=(1, 2)) - grey[2:])[:, inner, inner] ** 2).mean())
        for x in range(-reach, reach + 1)
        for y in range(-reach, reach + 1)
    }
    return min(errors, key=lambda shift: errors[shift])


def test_motion_tells_the_direction_in_every_video(clips_of: dict[str, list[list[Frames]]]) -> None:
    for name, clips in zip(CLASSES, clips_of["test"], strict=True):
        for clip in clips if name in SHIFT else ():
            moved = np.array(motion(clip))
            along = moved @ SHIFT[name]
            assert along >= 2, f"{name}: moved {moved}"
            assert np.abs(moved).sum() == along, f"{name}: moved {moved}"


def test_the_other_classes_turn_and_scale_about_the_centre(clips_of: dict[str, list[list[Frames]]]) -> None:
    """Turning moves content up in one half and down in the other; zooming does so sideways."""
    expected = {"zoom_in": (0, 1), "zoom_out": (0, -1), "rotate_right": (1, 1), "rotate_left": (1, -1)}
    for name, clips in zip(CLASSES, clips_of["test"], strict=True):
        for clip in clips if name in expected else ():
            axis, sign = expected[name]
            middle = clip[6:14]
            right, left = motion(middle[:, 22:50, 40:]), motion(middle[:, 22:50, :32])
            assert (right[axis] - left[axis]) * sign > 0, f"{name}: right half {right}, left half {left}"


def statistics(clip: Frames) -> NDArray[np.float64]:
    """What a look at the middle frame gives: colours, contrasts, and how fine the texture is in either direction."""
    frame = clip[len(clip) // 2].astype(np.float64)
    grey = frame.mean(axis=2)
    fine = [np.log((np.diff(grey, axis=axis) ** 2).mean() / grey.var()) for axis in (0, 1)]
    return np.array([*frame.mean(axis=(0, 1)), *frame.std(axis=(0, 1)), *fine])


def test_a_single_frame_does_not_tell_the_class(clips_of: dict[str, list[list[Frames]]]) -> None:
    train = np.array([[statistics(clip) for clip in clips] for clips in clips_of["train"]])
    test = np.array([[statistics(clip) for clip in clips] for clips in clips_of["test"]])
    spread = train.std(axis=(0, 1))
    centroids = train.mean(axis=1) / spread
    distances = np.linalg.norm(test[:, :, None] / spread - centroids, axis=-1)
    accuracy = (distances.argmin(axis=2) == np.arange(len(CLASSES))[:, None]).mean()
    # Chance is 1/8 with a standard deviation of 0.041 over 64 videos: three of them.
    assert accuracy < 0.125 + 0.124
    # The middle frames of the classes differ by no more than draws from one distribution do (12 a class).
    assert (np.abs(centroids - centroids.mean(axis=0)) * np.sqrt(12)).max() < 4.0


def test_equal_arguments_give_equal_videos_and_seeds_differ(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_demo_dataset(tmp_path / name, videos_per_class=1, test_per_class=1, num_frames=4, seed=seed)
    for split in ("train", "test"):
        for name in CLASSES:
            first, again, other = (decode(tmp_path / root / split / name / "000.avi") for root in "abc")
            np.testing.assert_array_equal(first, again)
            assert not np.array_equal(first, other)
    assert not np.array_equal(decode(tmp_path / "a/train/up/000.avi"), decode(tmp_path / "a/test/up/000.avi"))


def test_progress_counts_and_a_second_call_returns_at_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        make_demo_dataset(
            tmp_path / "data",
            videos_per_class=2,
            test_per_class=1,
            num_frames=2,
            progress=lambda *now: told.append(now),
        )
    assert told == [(number, 24) for number in range(1, 25)]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.avi").write_bytes(b"precious")
    (tmp_path / "file").write_bytes(b"precious")
    for name in ("videos", "file"):
        with pytest.raises(UsageError, match="exists, but is not a demo data set; give another folder"):
            make_demo_dataset(tmp_path / name)
    assert (tmp_path / "videos" / "mine.avi").read_bytes() == b"precious"

    (tmp_path / "empty").mkdir()
    make_demo_dataset(tmp_path / "empty", videos_per_class=1, test_per_class=1, num_frames=2)
    with pytest.raises(UsageError, match="other arguments"):
        make_demo_dataset(tmp_path / "empty", videos_per_class=1, test_per_class=1, num_frames=3)


def test_a_stop_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_dataset(tmp_path / "data", videos_per_class=1, test_per_class=1, num_frames=2, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"videos_per_class": 0}, "videos_per_class 0: expected at least 1"),
        ({"test_per_class": 0}, "test_per_class 0: expected at least 1"),
        ({"num_frames": 1}, "num_frames 1: expected at least 2"),
        ({"seed": -1}, "seed -1: expected at least 0"),
        ({"size": (71, 72)}, "size 71x72"),
        ({"size": (8, 8)}, "size 8x8"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_demo_dataset(tmp_path / "data", **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
