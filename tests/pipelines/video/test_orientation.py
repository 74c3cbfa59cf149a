from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import turn_mp4, write_stamped_video
from oddities import write_with_exif

from pipelines.video.orientation import UPRIGHT, Orientation, orientation_of

# a b c d of a display matrix, and where it moves the pixels of a picture: as what numpy does to the stored one.
TURNS = {
    (1, 0, 0, 1): lambda stored: stored,
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1),  # a phone that is held upright: clockwise
    (-1, 0, 0, -1): lambda stored: np.rot90(stored, 2),
    (0, -1, 1, 0): lambda stored: np.rot90(stored),
    (-1, 0, 0, 1): lambda stored: stored[:, ::-1],
    (1, 0, 0, -1): lambda stored: stored[::-1],
    (0, 1, 1, 0): lambda stored: stored.swapaxes(0, 1),
    (0, -1, -1, 0): lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
}


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("matrix", TURNS)
def test_each_turn_of_a_file_shows_its_pixels_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = turn_mp4(write_stamped_video(tmp_path / "v.mp4", num_frames=1, codec="h264"), matrix)
    frame = first_frame(path)
    stored = frame.to_ndarray(format="rgb24")
    orientation = orientation_of(frame)
    shown = orientation.turned(stored)
    assert np.array_equal(shown, TURNS[matrix](stored))
    assert orientation.size(96, 128) == shown.shape[:2]
    assert Orientation.of_code(orientation.code) == orientation
    assert (orientation == UPRIGHT) == (matrix == (1, 0, 0, 1))


# Where each value of the EXIF tag Orientation moves the pixels (JEITA CP-3451, 4.6.4 A).
EXIF = dict(zip((1, 6, 3, 8, 2, 4, 5, 7), TURNS.values(), strict=True))


@pytest.mark.parametrize("value", EXIF)
def test_pictures_of_cameras_with_exif_are_upright_too(tmp_path: Path, value: int) -> None:
    frame = first_frame(write_with_exif(tmp_path / "v.avi", orientation=value))
    stored = frame.to_ndarray(format="rgb24")
    reads_exif = len(frame.side_data) > 0  # FFmpeg 8.1 does
    shown = EXIF[value](stored) if reads_exif else stored
    assert np.array_equal(orientation_of(frame).turned(stored), shown)


@pytest.mark.parametrize("code", range(8))
def test_a_box_of_the_shown_picture_is_found_in_the_stored_one(code: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
    orientation = Orientation.of_code(code)
    shown = orientation.turned(stored)
    y, x, height, width = orientation.stored_box((1, 2, 3, 4), *shown.shape[:2])
    assert np.array_equal(orientation.turned(stored[y : y + height, x : x + width]), shown[1:4, 2:6])


def test_many_frames_turn_at_once() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    turned = Orientation(True, False, True).turned(frames)
    assert np.array_equal(turned, np.rot90(frames, axes=(1, 2)))


def test_a_slant_is_left_out(tmp_path: Path) -> None:
    for matrix, expected in (((0.866, 0.5, -0.5, 0.866), UPRIGHT), ((0.0, 0.0, 0.0, 0.0), UPRIGHT)):
        path = turn_mp4(write_stamped_video(tmp_path / "v.mp4", num_frames=1, codec="h264"), matrix)
        assert orientation_of(first_frame(path)) == expected


def test_the_size_of_the_pixels_does_not_turn_a_picture(tmp_path: Path) -> None:
    path = turn_mp4(write_stamped_video(tmp_path / "v.mp4", num_frames=1, codec="h264"), (0, 2, -0.5, 0))
    assert orientation_of(first_frame(path)) == Orientation(True, True, False)
