from __future__ import annotations

from pathlib import Path

import clips
import pytest

from pipelines.containers.file_checks import Acceptance
from pipelines.errors import UsageError, VideoError
from pipelines.specs import ClipSpec
from r3d_fast.prediction.timelines.windows import Hops, Window, windows

CLIP = ClipSpec(num_frames=4, sampling="consecutive", stride=2)


def stamps(window: Window) -> list[int]:
    return [clips.read_stamp(frame.pixels()) for frame in window.frames]


def test_hops_take_a_second_and_windows_the_frames_of_the_model() -> None:
    assert (Hops().seconds, Hops().window_seconds) == (1.0, None)
    assert Hops().stride(CLIP, 25.0) == 2
    assert Hops().stride(ClipSpec(num_frames=7), 25.0) == 25  # 7 frames in 7 s
    assert Hops(1.0, 1.0).stride(CLIP, 25.0) == 6
    assert Hops(1.0, 0.01).stride(CLIP, 25.0) == 1


def test_windows_are_as_long_as_the_clips_of_the_training_unless_a_length_is_given() -> None:
    assert Hops(0.5).for_clips(1.6) == Hops(0.5, 1.6)
    assert Hops(0.5).for_clips(0.001) == Hops(0.5, 0.01)
    assert Hops(0.5, 3.0).for_clips(1.6) == Hops(0.5, 3.0)
    assert Hops(0.5).for_clips(None) == Hops(0.5)


@pytest.mark.parametrize("bad", [0.0, 0.009, -1.0, float("inf"), float("nan")])
def test_hops_and_windows_take_at_least_a_hundredth_of_a_second(bad: float) -> None:
    with pytest.raises(UsageError, match=f"hop {bad}: expected a finite number of seconds, at least 0.01"):
        Hops(bad)
    with pytest.raises(UsageError, match=f"window {bad}: expected a finite number of seconds, at least 0.01"):
        Hops(1.0, bad)
    assert Hops(0.01, 0.01).window_seconds == 0.01


def test_each_hop_has_the_frames_about_its_middle(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=60)  # 2.4 s; the frames 1, 3, 5, ... are kept
    found = list(windows(str(path), CLIP, Hops()))
    assert [(window.first, window.hops, window.end) for window in found] == [(0, 1, None), (1, 1, None), (2, 1, 2.4)]
    assert [stamps(window) for window in found] == [[9, 11, 13, 15], [35, 37, 39, 41], [53, 55, 57, 59]]


def test_the_last_hop_ends_with_the_video_also_where_its_window_is_complete_before(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=45)  # 1.8 s, the middle of the last hop is at 1.5 s
    found = list(windows(str(path), CLIP, Hops()))
    assert [(window.first, window.hops, window.end) for window in found] == [(0, 1, None), (1, 1, 1.8)]
    assert stamps(found[-1]) == [35, 37, 39, 41]


def test_the_first_hops_share_the_first_window(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=20)
    found = list(windows(str(path), CLIP, Hops(0.08)))  # a hop is the step between two kept frames
    assert [(window.first, window.hops) for window in found] == [(0, 3), *((hop, 1) for hop in range(3, 10))]
    assert [stamps(window)[0] for window in found] == [1, 3, 5, 7, 9, 11, 13, 13]


def test_a_video_shorter_than_a_window_gives_one_for_all_its_hops(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=3)
    (window,) = windows(str(path), CLIP.model_copy(update={"short": "loop"}), Hops(0.05))
    assert (window.first, window.hops, window.end) == (0, 3, 0.12)
    assert stamps(window) == [0, 2, 1, 0]


def test_of_a_truncated_video_comes_what_is_left_and_an_error_unless_a_part_is_taken(tmp_path: Path) -> None:
    whole = clips.write_stamped_video(tmp_path / "v.avi", num_frames=80)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    part = list(windows(str(cut), CLIP, Hops(), Acceptance(partial=True)))
    end = part[-1].end
    assert end is not None
    assert 2 < end < 3.2
    found = windows(str(cut), CLIP, Hops())
    for window in part:
        again = next(found)
        assert (stamps(again), again.first, again.hops, again.end) == (stamps(window), window.first, window.hops, None)
    with pytest.raises(VideoError, match="truncated"):
        next(found)


@pytest.mark.parametrize("partial", [False, True])
def test_of_no_video_no_part_is_taken(tmp_path: Path, partial: bool) -> None:
    (tmp_path / "x.avi").write_text("no video")
    with pytest.raises(VideoError, match="not a readable video"):
        list(windows(str(tmp_path / "x.avi"), CLIP, Hops(), Acceptance(partial=partial)))
