from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import clips
import numpy as np
import pytest
import tiny
from PIL import Image, ImageColor

from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.writers.strip import _COLOURS, _LANE, StripWriter, _Columns, _Frames, _Scale

CLASSES = ("walk", "run", "rest")
INK, GAP, WHITE = (34, 34, 34), (238, 238, 238), (255, 255, 255)


def moments(values: Sequence[float | None], video: str = "v.mp4", hop: float = 1.0) -> list[Moment]:
    """Hops in which class walk has these probabilities, and the others share the rest; None: a hop that is missing."""
    return [
        Moment(video, k * hop, (k + 1) * hop, probabilities=np.array([p, (1 - p) * 0.75, (1 - p) * 0.25]))
        for k, p in enumerate(values)
        if p is not None
    ]


def drawn(place: Path, found: Sequence[Moment], *, frames: int = 0) -> np.ndarray:
    """The pixels of the strip of `found`, uint8 [H, W, 3]."""
    with StripWriter(place, CLASSES, 0.5) as strip:
        for number in range(frames):
            strip.add_frame(found[0].video, number / 2, lambda: np.full((48, 64, 3), (200, 10, 10), np.uint8))
        for moment in found:
            strip.add(moment)
    with Image.open(place) as image:
        return np.asarray(image.convert("RGB"))


def lane(picture: np.ndarray, place: int, lanes: int = 3) -> np.ndarray:
    """Lane number `place` of a strip, as pixels."""
    height = picture.shape[0] - 24 - 14 - 8
    top = height - (lanes - place) * _LANE
    return picture[top : top + _LANE]


def test_the_height_of_a_lane_is_the_probability_and_a_bar_marks_the_threshold(tmp_path: Path) -> None:
    found = moments([0.9, 0.9, 0.1, None, 0.6])
    picture = drawn(tmp_path / "s.png", found)
    scale = _Scale(5.0)
    walk = lane(picture, 0)
    colour = ImageColor.getrgb(_COLOURS[0])
    for hop, probability in enumerate((0.9, 0.9, 0.1, None, 0.6)):
        column = walk[:, round(scale.x(hop + 0.45))]
        height = int((column == colour).all(axis=1).sum())
        if probability is None:
            assert height == 0
            assert (column == GAP).all(axis=1).sum() > _LANE // 2
        else:
            assert height == pytest.approx((_LANE - 18) * probability, abs=2)
            assert bool((column == INK).all(axis=1).any()) == (probability >= 0.5)
            assert not (column == GAP).all(axis=1).any()


def test_classes_come_in_the_order_in_which_they_are_seen_most(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "s.png", moments([0.1, 0.1, 0.2]))
    x = round(_Scale(3.0).x(0.5))
    first, second = (ImageColor.getrgb(_COLOURS[k]) for k in (0, 1))
    run, rest = ((lane(picture, k)[:, x] == c).all(axis=1).sum() for k, c in ((0, first), (1, second)))
    assert run == pytest.approx((_LANE - 18) * 0.675, abs=2)
    assert rest == pytest.approx((_LANE - 18) * 0.225, abs=2)


def test_frames_stand_at_their_times(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "s.png", moments([0.9] * 8), frames=16)
    row = (picture[24 + 18 + 14 + 40] == (200, 10, 10)).all(axis=1)
    starts = np.flatnonzero(row[1:] & ~row[:-1]) + 1
    assert len(starts) >= 6
    times = (starts - _Scale.left) / (_Scale.right - _Scale.left) * 8
    assert np.abs(times * 2 - np.round(times * 2)).max() < 0.02


def test_neither_columns_nor_frames_grow_with_the_length() -> None:
    columns, frames = _Columns(1.0), _Frames()
    taken = 0

    def pixels() -> np.ndarray:
        nonlocal taken
        taken += 1
        return np.zeros((48, 64, 3), np.uint8)

    for k, moment in enumerate(moments([0.25 + 0.5 * (k % 2) for k in range(20_000)])):
        columns.add(moment)
        frames.add(float(k), pixels)
    assert len(columns.values) <= 1024
    assert columns.seconds == 32
    assert [value[0] for value in columns.values.values()] == pytest.approx([0.5] * len(columns.values))
    assert len(columns.values) == 20_000 // 32
    assert 12 <= len(frames.kept()) <= 24
    assert taken < 24 + 12 * 16  # at most twelve more each time that the length doubles
    apart = np.diff([seconds for seconds, _ in frames.kept()])
    assert apart.max() / apart.min() < 2


@pytest.mark.parametrize(
    "name", ["$x_1$ <b>&amp;.mp4", "a\nb\x1b[31m.mp4", "漢字ü🎉.mp4", "x" * 250 + ".mp4", "\udce4.mp4"]
)
def test_names_may_hold_anything(tmp_path: Path, name: str) -> None:
    assert drawn(tmp_path / "s.png", moments([0.9, 0.2], name)).shape[1] == 1600


def test_the_command_draws_one_video_into_a_file_and_several_into_a_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = [clips.write_stamped_video(tmp_path / f"{name}.avi", num_frames=60) for name in ("a", "b")]
    code, out, _ = tiny.said(capsys, "predict", model, videos[0], "--strip", tmp_path / "a.png", "--top", 1)
    assert code == 0
    assert len(out.splitlines()) == 3
    with Image.open(tmp_path / "a.png") as strip:
        assert strip.format == "PNG"
    code, out, err = tiny.said(capsys, "predict", model, *videos, "--strip", tmp_path / "c.png")
    assert (code, out) == (2, "")
    assert err == (
        f"r3d-fast: --strip {tmp_path / 'c.png'}: a picture of one video, and there are several; give a folder for "
        "theirs\n"
    )
    assert not (tmp_path / "c.png").exists()
    code, _, _ = tiny.said(capsys, "predict", model, *videos, "none.avi", "--events", "--strip", tmp_path / "strips")
    assert code == 3
    assert sorted(path.name for path in (tmp_path / "strips").iterdir()) == ["a.png", "b.png"]
    code, _, err = tiny.said(capsys, "predict", model, videos[0], "--strip", tmp_path / "no" / "a.png")
    assert code == 2
    assert "there is no folder" in err
