"""The windows of a live source: those of a file with the same frames, as far as they may look ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import VideoError
from pipelines.sampler import segment_frames
from pipelines.specs import ClipSpec
from r3d_fast.prediction.live.connections import LiveFrame
from r3d_fast.prediction.timelines.windows import Hops, Kept, Window, WindowLine, given, hop_count

# A hop's window ends at most that many seconds after the hop: so its label is there a second after the hop, also where
# decoding and computing take half a second.
_LOOK_AHEAD = 0.5

OnLiveFrame = Callable[[float, Callable[[], NDArray[np.uint8]]], object]


def live_windows(
    frames: Iterable[LiveFrame | None], clip: ClipSpec, hops: Hops, on_frame: OnLiveFrame | None = None
) -> Iterator[Window]:
    """The windows of `frames`, in order, each as soon as its last frame is there; None in `frames` is a gap.

    They are the windows of a file with these frames, but none ends later than half a second after its hop: a long
    window lies before that. No window spans a gap, and hops within one have none: after a gap shorter than a hop, one
    hop is left out, by which the gap shows. Frames are chosen by their time, so
    that a camera that slows down in the dark still fills windows of the same length. `on_frame` is called with the time
    and the pixels of each frame that windows are made of. VideoErrors of `frames` are raised after the last window.
    """
    stretch: _Stretch | None = None
    first_hop = 0
    problem: VideoError | None = None
    try:
        for frame in frames:
            if frame is None:
                if stretch is not None:
                    yield from stretch.rest()
                    first_hop = stretch.end_hop + 1  # without a hop between them, events would go on across the cut
                stretch = None
                continue
            stretch = stretch or _Stretch(frame, clip, hops, first_hop)
            if stretch.is_due(frame):
                try:
                    pixels = partial(given, frame.pixels())
                except VideoError:
                    continue  # `frames` says it next: a cut, or the end
                if on_frame is not None:
                    on_frame(frame.seconds, pixels)
                yield from stretch.add(frame.seconds, pixels)
    except VideoError as error:
        problem = error
    if stretch is not None:
        yield from stretch.rest(is_all=problem is None)
    if problem is not None:
        raise problem


class _Stretch:
    """The windows of frames without a gap between them."""

    def __init__(self, first: LiveFrame, clip: ClipSpec, hops: Hops, first_hop: int) -> None:
        """`first`: the first frame; `first_hop`: the number of the first hop that has no window yet."""
        self._clip, self._hop, self._frame_seconds = clip, hops.seconds, 1 / first.fps
        stride = hops.stride(clip, first.fps)
        self._spacing = stride / first.fps
        self._due = first.seconds + stride // 2 / first.fps
        self._end = first.seconds
        begin = max(first_hop, int(first.seconds / self._hop + 0.5))  # the first hop whose middle is still to come
        ahead = int((self._hop / 2 + _LOOK_AHEAD) / self._spacing + 1e-6)
        self._line = WindowLine(clip.num_frames, self._hop, first_hop=begin, most_ahead=ahead)

    @property
    def end_hop(self) -> int:
        """The number of the first hop that begins after the stretch."""
        return hop_count(self._end, self._hop, self._frame_seconds / 4)

    def is_due(self, frame: LiveFrame) -> bool:
        """Whether windows are made of this frame. Called for each frame."""
        self._end = frame.seconds + self._frame_seconds
        late = frame.seconds - self._due + self._frame_seconds / 4
        if late < 0:
            return False
        self._due += self._spacing * (1 + late // self._spacing)
        return True

    def add(self, seconds: float, pixels: Callable[[], NDArray[np.uint8]]) -> Iterator[Window]:
        """Add a frame that is due; gives the window that it completes, if there is one."""
        return self._line.add(seconds, Kept(pixels))

    def rest(self, *, is_all: bool = False) -> Iterator[Window]:
        """The last window, for the hops that have none yet.

        With `is_all` the source has ended with this stretch: one that is too short for a window then gives the clip
        that evaluation takes from so short a video.
        """
        frames = self._line.latest
        if self._line.is_whole:
            yield from self._line.rest(self.end_hop)
        elif is_all and frames:
            wanted = segment_frames(len(frames), self._clip.model_copy(update={"views": 1}), None)
            yield Window([frames[number] for number in wanted.tolist()], 0, self.end_hop)
