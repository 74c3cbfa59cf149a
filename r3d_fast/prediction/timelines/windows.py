"""The windows of frames that the timeline of a long video is made of, found in one pass that keeps few frames.

One frame of every `stride` is kept, and T kept frames in a row are a window. The timeline is cut into hops of equal
length, one second by default. Each hop gets the window whose middle is the middle of the hop; hops near the start of
the video get the first window, hops near its end the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import ACCEPT_WHOLE, DOES_NOT_DECODE, TRUNCATED, Acceptance
from pipelines.errors import UsageError, VideoError
from pipelines.isolation.frames import DistantFrames, Wanted
from pipelines.sampler import consecutive_frames, segment_frames
from pipelines.specs import ClipSpec

# A model of `segments` clips learnt from clips that span a whole video: in UCF-101 187 frames on average, mostly at 25
# frames a second.
SEGMENTS_SECONDS = 7.0
_LEAST_SECONDS = 0.01

# Called with the name of a video, the time of a frame in seconds, and a function that gives its pixels, uint8
# [H, W, 3], RGB.
OnFrame = Callable[[str, float, Callable[[], NDArray[np.uint8]]], object]


@dataclass
class Kept:
    """A frame kept for windows: `pixels()` uint8 [H, W, 3], RGB; once it is prepared, `values` is the model's input."""

    pixels: Callable[[], NDArray[np.uint8]]
    values: NDArray[Any] | None = None


class Window(NamedTuple):
    """T frames, and the hops that get them: `hops` in a row, of which the first has the number `first`.

    `end`: the second at which the video ends, which cuts its last hop short; None where that is not known yet.
    """

    frames: list[Kept]
    first: int
    hops: int
    end: float | None = None


@dataclass(frozen=True)
class Hops:
    """How a timeline is cut: hops of `seconds`, windows of about `window_seconds`.

    With None a window is as long as the clips that the model was trained on; where the model does not say it (see
    `for_clips`), T frames at their stride, or SEGMENTS_SECONDS for a model of `segments` clips. Raises UsageError for
    values below 0.01 s.
    """

    seconds: float = 1.0
    window_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("hop", self.seconds), ("window", self.window_seconds)):
            if value is not None and not _LEAST_SECONDS <= value < float("inf"):
                raise UsageError(f"{name} {value}: expected a finite number of seconds, at least {_LEAST_SECONDS}")

    def for_clips(self, clip_seconds: float | None) -> Hops:
        """These hops, with windows of `clip_seconds` where no other length is given."""
        if self.window_seconds is not None or clip_seconds is None:
            return self
        return Hops(self.seconds, max(_LEAST_SECONDS, clip_seconds))

    def stride(self, clip: ClipSpec, fps: float) -> int:
        """The distance between two frames of a window, in frames of a video with `fps` frames a second."""
        seconds = self.window_seconds
        if seconds is None:
            if clip.sampling == "consecutive":
                return clip.stride
            seconds = SEGMENTS_SECONDS
        return max(1, round(seconds * fps / clip.num_frames))


def windows(
    path: str, clip: ClipSpec, hops: Hops, accept: Acceptance = ACCEPT_WHOLE, on_frame: OnFrame | None = None
) -> Iterator[Window]:
    """The windows of the video at `path`, in order, each once the video is decoded to the end of its hops.

    Every hop gets one.

    A video shorter than a window gives one window: the clip that evaluation takes from the whole video. `on_frame` is
    called with each frame that windows are made of. Raises VideoError where the video can't be read or is not taken by
    `accept`; where it is truncated or damaged, only after the windows of the part that is left.
    """
    problem: VideoError | None = None
    held: Window | None = None  # until it is known whether the video ends within its hops
    with DistantFrames(path, max_pixels=accept.max_pixels) as video:
        line = WindowLine(clip.num_frames, hops.seconds)
        slack = float(1 / video.fps) / 4
        stride = hops.stride(clip, float(video.fps))
        try:
            for _, seconds, values in video.frames(Wanted(stride, stride // 2)):
                pixels = partial(given, values)
                if on_frame is not None:
                    on_frame(path, seconds, pixels)
                if held is not None and seconds >= (held.first + held.hops) * hops.seconds:
                    yield held
                    held = None
                for window in line.add(seconds, Kept(pixels)):
                    if held is not None:
                        yield held
                    held = window
        except VideoError as error:
            takes_rest = accept.partial and video.num_frames > 0 and error.reason in (TRUNCATED, DOES_NOT_DECODE)
            problem = None if takes_rest else error
    if line.is_whole:
        last = [*([held] if held else []), *line.rest(hop_count(video.end_seconds, hops.seconds, slack))]
        if last and problem is None:
            last[-1] = last[-1]._replace(end=video.end_seconds)
        yield from last
    elif problem is None:
        count = hop_count(video.end_seconds, hops.seconds, slack)
        yield Window(_short(path, clip, video.num_frames, accept.max_pixels), 0, count, video.end_seconds)
    if problem is not None:
        raise problem


class WindowLine:
    """The latest frames of a video, and the hops whose window is not complete yet."""

    def __init__(
        self, num_frames: int, hop_seconds: float, *, first_hop: int = 0, most_ahead: int | None = None
    ) -> None:
        """Windows of `num_frames` frames for hops of `hop_seconds`, of which the first has the number `first_hop`.

        A window has half of its frames after the middle of its hop, or `most_ahead` if these are fewer.
        """
        self._size, self._hop = num_frames, hop_seconds
        half = num_frames - num_frames // 2
        self._ahead = half if most_ahead is None else max(1, min(half, most_ahead))
        self._latest: deque[Kept] = deque(maxlen=num_frames)
        self._waiting: deque[int] = deque()  # for each hop, how many frames there are when its window is complete
        self._count = 0
        self._done = first_hop  # the number of the first hop that has no window yet

    @property
    def is_whole(self) -> bool:
        """Whether there were enough frames for a window."""
        return self._count >= self._size

    @property
    def latest(self) -> list[Kept]:
        """The latest frames, as many as a window has if there are so many."""
        return list(self._latest)

    def add(self, seconds: float, frame: Kept) -> Iterator[Window]:
        """Add the next frame; yields the window that it completes, if that is the window of a hop."""
        while (self._done + len(self._waiting) + 0.5) * self._hop <= seconds:
            self._waiting.append(max(self._size, self._count + self._ahead))
        self._latest.append(frame)
        self._count += 1
        hops = 0
        while self._waiting and self._waiting[0] == self._count:
            self._waiting.popleft()
            hops += 1
        if hops:
            yield Window(list(self._latest), self._done, hops)
            self._done += hops

    def rest(self, total: int) -> Iterator[Window]:
        """The last window, for all hops with a number below `total` that have no window yet."""
        hops = total - self._done
        if hops > 0:
            yield Window(list(self._latest), self._done, hops)


def hop_count(seconds: float, hop_seconds: float, slack: float) -> int:
    """The number of hops in `seconds`; a shorter last hop counts too, if it is longer than `slack` seconds.

    A quarter of a frame is left out: the picture often begins some ms after the sound, where time begins.
    """
    return max(1, int(np.ceil((seconds - min(slack, hop_seconds / 4)) / hop_seconds)))


def _short(path: str, clip: ClipSpec, num_frames: int, max_pixels: int) -> list[Kept]:
    """The frames of the one clip of a video that is shorter than a window; the video is read a second time."""
    choose = segment_frames if clip.sampling == "segments" else consecutive_frames
    wanted = choose(num_frames, clip.model_copy(update={"views": 1}), None).tolist()
    with DistantFrames(path, max_pixels=max_pixels) as video:
        until_last = video.frames(Wanted(end=max(wanted) + 1))  # beyond it a truncated video raises an error
        found = {frame.number: Kept(partial(given, frame.pixels)) for frame in until_last if frame.number in wanted}
    return [found[number] for number in wanted]


def given(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The `pixels` themselves: with `partial` the `pixels` of a frame that is there already."""
    return pixels
