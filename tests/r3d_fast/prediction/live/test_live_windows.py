from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import clips
import numpy as np
import pytest

from pipelines.errors import VideoError
from pipelines.specs import ClipSpec
from r3d_fast.prediction.live.connections import LiveFrame
from r3d_fast.prediction.live.live_windows import live_windows
from r3d_fast.prediction.timelines.windows import Hops, Window, windows

CLIP = ClipSpec(num_frames=4, sampling="consecutive", stride=2)


def numbered(number: int) -> Callable[[], np.ndarray]:
    return lambda: np.full((1, 1, 3), number, np.int32)


def stream(times: list[float], *, first: int = 0, fps: float = 25.0) -> list[LiveFrame]:
    """Frames at these times whose pixels are their numbers."""
    return [LiveFrame(seconds, numbered(first + k), fps) for k, seconds in enumerate(times)]


def shown(found: Iterator[Window] | list[Window]) -> dict[int, list[int]]:
    """The frames of the window of each hop."""
    hops: dict[int, list[int]] = {}
    for window in found:
        for hop in range(window.first, window.first + window.hops):
            assert hop not in hops
            hops[hop] = [int(frame.pixels()[0, 0, 0]) for frame in window.frames]
    return hops


@pytest.mark.parametrize(("frames", "fps"), [(60, 25), (240, 10), (101, 30)])
@pytest.mark.parametrize("hops", [Hops(1.0), Hops(0.3), Hops(1.0, 2.0), Hops(2.0, 1.0)])
def test_they_are_those_of_a_file_with_the_same_frames(tmp_path: Path, frames: int, fps: int, hops: Hops) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=frames, fps=fps)
    wanted: dict[int, list[int]] = {}
    for window in windows(str(path), CLIP, hops):
        for hop in range(window.first, window.first + window.hops):
            wanted[hop] = [clips.read_stamp(frame.pixels()) for frame in window.frames]
    found = shown(live_windows(stream([k / fps for k in range(frames)], fps=fps), CLIP, hops))
    assert found == wanted


def test_a_long_window_ends_half_a_second_after_its_hop() -> None:
    times = [k / 10 for k in range(200)]
    found: dict[int, tuple[int, list[int]]] = {}
    taken = 0

    def counted() -> Iterator[LiveFrame]:
        nonlocal taken
        for frame in stream(times, fps=10):
            taken += 1
            yield frame

    for window in live_windows(counted(), ClipSpec(num_frames=8), Hops(1.0, 8.0)):
        for hop in range(window.first, window.first + window.hops):
            found[hop] = taken, [int(frame.pixels()[0, 0, 0]) for frame in window.frames]
    # A frame each second, and the first window only when it is full.
    assert [found[hop][1] for hop in (0, 7)] == [[5, 15, 25, 35, 45, 55, 65, 75]] * 2
    for hop in range(8, 19):
        at, frames = found[hop]
        assert times[frames[-1]] <= hop + 1.5
        assert times[at - 1] <= hop + 1.6
        assert frames[-1] - frames[0] == 70


def test_no_window_spans_a_gap_and_the_hops_in_it_have_none() -> None:
    one, other = stream([k / 25 for k in range(60)]), stream([7.3 + k / 25 for k in range(50)], first=100)
    found = shown(live_windows([*one, None, None, *other], CLIP, Hops(1.0)))
    assert sorted(found) == [0, 1, 2, 7, 8, 9]
    assert all(max(found[hop]) < 100 for hop in (0, 1, 2))
    assert all(min(found[hop]) >= 100 for hop in (7, 8, 9))


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.5, 0.9])
def test_a_gap_shorter_than_a_hop_shows_as_a_hop_without_a_window(gap: float) -> None:
    one, other = stream([k / 25 for k in range(75)]), stream([3 + gap + k / 25 for k in range(75)], first=100)
    found = shown(live_windows([*one, None, *other], CLIP, Hops(1.0)))
    assert sorted(found)[:3] == [0, 1, 2]
    assert min(hop for hop in found if hop > 2) == 4


def test_the_windows_before_a_cut_come_at_once_and_those_before_an_error_before_it() -> None:
    def frames() -> Iterator[LiveFrame | None]:
        yield from stream([k / 25 for k in range(45)])
        yield None
        raise VideoError("v", "cut")

    found = live_windows(frames(), CLIP, Hops(1.0))
    assert shown([next(found), next(found)]).keys() == {0, 1}
    with pytest.raises(VideoError, match="v: cut"):
        next(found)


def test_a_camera_that_slows_down_fills_windows_of_the_same_length() -> None:
    times = [k / 30 for k in range(90)] + [3 + k / 10 for k in range(60)]
    found = shown(live_windows(stream(times, fps=30), ClipSpec(num_frames=5), Hops(1.0, 1.0)))
    for hop in range(1, 8):
        assert times[found[hop][-1]] - times[found[hop][0]] == pytest.approx(0.8, abs=0.11)


def test_what_ends_before_the_first_window_is_full_gives_the_clip_of_so_short_a_video() -> None:
    found = shown(live_windows(stream([k / 25 for k in range(5)]), ClipSpec(num_frames=8), Hops(1.0, 8 / 25)))
    assert found == {0: [0, 0, 1, 1, 2, 3, 3, 4]}
    assert shown(live_windows([*stream([k / 25 for k in range(5)]), None], ClipSpec(num_frames=8), Hops())) == {}
