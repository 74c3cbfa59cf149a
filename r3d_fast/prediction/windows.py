"""A long video -> the windows of frames that its timeline is made of, in one pass, few frames kept.

One frame of every `stride` is kept; T of them in a row are a window. The timeline goes in hops of a second, say: for
each speaks the window whose middle is the middle of the hop, at both ends of the video the first and the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError, VideoError
from pipelines.sampler import consecutive_frames, segment_frames
from pipelines.specs import ClipSpec
from pipelines.video.sequence import FrameSequence

# What a `segments` model learnt from spans a video: those of UCF-101 have 187 frames on average, at 25 a second mostly.
SEGMENTS_SECONDS = 7.0
_LEAST_SECONDS = 0.01


@dataclass
class Kept:
    """A frame that windows may show: `pixels()` uint8 [H, W, 3], RGB; once prepared, `values` are the model's input."""

    pixels: Callable[[], NDArray[np.uint8]]
    values: NDArray[Any] | None = None


class Window(NamedTuple):
    """T frames, and the hops that they speak for: `first` and those that follow it, so many `hops` in all."""

    frames: list[Kept]
    first: int
    hops: int


@dataclass(frozen=True)
class Hops:
    """How a timeline goes: hops of `seconds`, windows of about `window_seconds` (None: what suits the model's clips).

    Raises UsageError for values below 0.01 s.
    """

    seconds: float = 1.0
    window_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("hop", self.seconds), ("window", self.window_seconds)):
            if value is not None and not _LEAST_SECONDS <= value < float("inf"):
                raise UsageError(f"{name} {value}: expected seconds, at least {_LEAST_SECONDS}")

    def stride(self, clip: ClipSpec, fps: float) -> int:
        """The distance of a window's frames, in frames of the video."""
        seconds = self.window_seconds
        if seconds is None:
            if clip.sampling == "consecutive":
                return clip.stride
            seconds = SEGMENTS_SECONDS
        return max(1, round(seconds * fps / clip.num_frames))


def windows(path: str, clip: ClipSpec, hops: Hops) -> Iterator[Window]:
    """The windows of the video at `path`, in order, as they come; together they speak for every hop.

    A video shorter than a window gives the clip that it gives as a whole. Raises VideoError where the video can't be
    read; where it is cut short, after the windows of what is left.
    """
    problem: VideoError | None = None
    with FrameSequence(path) as video:
        line = _Line(clip.num_frames, hops.seconds)
        stride = hops.stride(clip, float(video.fps))
        try:
            for shown in video:
                if shown.number % stride == stride // 2:
                    yield from line.add(shown.seconds, Kept(partial(video.pixels, shown.frame)))
        except VideoError as error:
            problem = error
    if line.is_whole:
        yield from line.rest(video.end_seconds)
    elif problem is None:
        yield Window(_short(path, clip, video.num_frames), 0, _count(video.end_seconds, hops.seconds))
    if problem is not None:
        raise problem


class _Line:
    """The latest frames, and the hops that wait for the frame that completes their window."""

    def __init__(self, num_frames: int, hop_seconds: float) -> None:
        self._size, self._hop = num_frames, hop_seconds
        self._latest: deque[Kept] = deque(maxlen=num_frames)
        self._waiting: deque[int] = deque()  # of each hop, the number of frames that completes its window
        self._count = 0
        self._told = 0  # hops that have a window

    @property
    def is_whole(self) -> bool:
        """Whether the frames so far make a window."""
        return self._count >= self._size

    def add(self, seconds: float, frame: Kept) -> Iterator[Window]:
        """Take the next frame; the window that it completes, if some hop wants that one."""
        while (self._told + len(self._waiting) + 0.5) * self._hop <= seconds:
            self._waiting.append(max(self._size, self._count + self._size - self._size // 2))
        self._latest.append(frame)
        self._count += 1
        hops = 0
        while self._waiting and self._waiting[0] == self._count:
            self._waiting.popleft()
            hops += 1
        if hops:
            yield Window(list(self._latest), self._told, hops)
            self._told += hops

    def rest(self, end_seconds: float) -> Iterator[Window]:
        """The last window, for the hops until the end that have none yet."""
        hops = _count(end_seconds, self._hop) - self._told
        if hops > 0:
            yield Window(list(self._latest), self._told, hops)


def _count(seconds: float, hop_seconds: float) -> int:
    """Hops that so many seconds take; a last one that is shorter counts, if by more than rounding."""
    return max(1, int(np.ceil(seconds / hop_seconds - 1e-6)))


def _short(path: str, clip: ClipSpec, num_frames: int) -> list[Kept]:
    """The frames of the clip of a video that is shorter than a window, out of a second pass."""
    choose = segment_frames if clip.sampling == "segments" else consecutive_frames
    wanted = choose(num_frames, clip.model_copy(update={"views": 1}), None).tolist()
    with FrameSequence(path) as video:
        found = {
            shown.number: Kept(partial(video.pixels, shown.frame)) for shown in video if shown.number in set(wanted)
        }
    return [found[number] for number in wanted]
