from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from timed_video import write_with_times

from pipelines.containers.clock import FrameClock, TimeBase, usual_rate

MS = Fraction(1, 1000)
STEP = Fraction(1, 25)


def times(stamps: Sequence[int | None], start: int | None = 0) -> list[float]:
    """The times in ms of frames with these stamps in ms, in a file that starts at `start` ms."""
    clock = FrameClock(TimeBase(MS, None if start is None else start * MS, STEP, False))
    return [round(1000 * clock.seconds(stamp), 6) for stamp in stamps]


def test_stamps_count_from_the_start_of_the_file() -> None:
    assert times([0, 40, 90]) == [0, 40, 90]
    assert times([1400, 1440], 1400) == [0, 40]
    assert times([1400, 1440], 1000) == [400, 440]  # the sound is 0.4 s ahead
    assert times([1400, 1440], None) == [0, 40]
    assert times([-400, -360], -400) == [0, 40]
    assert times([-400, -360], 0) == [0, 40]  # the file starts with its first frame at the latest
    assert times([10**9, 10**9 + 40]) == [0, 40]  # no file waits for days


def test_a_gap_is_a_gap_however_long() -> None:
    assert times([0, 40, 15_840, 15_880]) == [0, 40, 15_840, 15_880]
    assert times([0, 40, 7_200_000, 7_200_040]) == [0, 40, 7_200_000, 7_200_040]


def test_a_clock_that_begins_anew_goes_on() -> None:
    assert times([0, 40, 80, 0, 40, 80]) == [0, 40, 80, 80, 80, 80]  # too little to be more than disorder
    long = list(range(0, 1000, 40))
    assert times(long * 3) == list(range(0, 3000, 40))
    assert times([0, 40, 80, 999_000_000, 999_000_040]) == [0, 40, 80, 120, 160]
    wrapped = round(2**33 / 90)  # ms at which MPEG streams count from 0 again
    assert times([wrapped - 40, wrapped, 40, 80], wrapped - 40) == [0, 40, 80, 120]


def test_frames_without_stamps_follow_at_the_usual_step() -> None:
    assert times([None, None, None]) == [0, 40, 80]
    assert times([0, None, None, 130, None]) == [0, 40, 80, 130, 170]
    assert times([None, None, 1080, 1120], 1000) == [0, 40, 80, 120]


def test_stamps_out_of_order_never_turn_time_back_nor_make_it_drift() -> None:
    assert times([0, 160, 80, 40, 120, 320, 240, 200, 280, 360]) == [0, 160, 160, 160, 160, 320, 320, 320, 320, 360]
    assert times([0, 0, 40, 40, 80, 80]) == [0, 0, 40, 40, 80, 80]


def test_stamps_that_stand_still_are_no_clock() -> None:
    found = times([0] * 100)
    assert found[:17] == [0] * 17
    assert np.diff(found[16:]).tolist() == pytest.approx([40] * 83)


def test_the_end_is_that_of_the_last_frame() -> None:
    clock = FrameClock(TimeBase(MS, Fraction(0), STEP, False))
    clock.seconds(0)
    assert clock.end == 0.04
    clock.seconds(40, 15_000)
    assert clock.end == 15.04
    clock.seconds(80, 10**9)
    assert clock.end == pytest.approx(0.12)


def rate(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        return usual_rate(container.streams.video[0])


def test_the_usual_rate_is_that_without_stills_and_dropped_frames(tmp_path: Path) -> None:
    still = [*range(0, 800, 40), *range(15_800, 16_600, 40)]
    assert rate(write_with_times(tmp_path / "s.mp4", still)) == 25
    assert rate(write_with_times(tmp_path / "s.mkv", still)) == 25
    halved = list(range(0, 4000, 80))
    assert rate(write_with_times(tmp_path / "d.avi", halved, codec="mpeg4", tick=STEP)) == Fraction(25, 2)
    assert rate(clips.write_stamped_video(tmp_path / "e.avi", fps=30)) == 30
    assert rate(clips.write_stamped_video(tmp_path / "e.mp4", codec="h264", fps=30)) == 30
