"""The timeline of a live source: a thread reads it and makes windows, while the network computes the windows of before.

Memory stays the same, however long it runs: at most MOST_WAITING windows wait. Where more would, because this machine
computes fewer windows than the source has hops, the newest one stands for all hops that wait. A sender that waits (a
file, stdin, or a stream that is sent faster than it was filmed) is made to wait instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from threading import Condition, Thread

import numpy as np

from pipelines.errors import VideoError
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.prediction.clip_logits import clip_spec
from r3d_fast.prediction.live.connections import Connections
from r3d_fast.prediction.live.live_windows import live_windows
from r3d_fast.prediction.network import Network
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.timelines.timeline import Preparer, seen
from r3d_fast.prediction.timelines.windows import Hops, OnFrame, Window

MOST_WAITING = 2
_AHEAD_SECONDS = 2.0  # a stream whose time runs so far ahead of ours is sent faster than it was filmed
_PATIENCE = 0.2  # seconds between checks whether to stop
_END_SECONDS = 2.0  # a thread that takes longer to end is about to connect
_MANY = 1 << 20  # windows, for which it pays to trace the network first


def live_timeline(
    network: Network,
    connections: Connections,
    hops: Hops,
    *,
    stopping: Callable[[], bool] = lambda: False,
    on_frame: OnFrame | None = None,
    say: Callable[[str], object],
) -> Iterator[Moment]:
    """The moments of a live source, with probabilities, each as soon as it is computed, until the source ends.

    It also ends soon after `stopping` says so. A source that can't be opened, or not again after a cut, gives a last
    moment with the error. `on_frame` is called by another thread; `say` gets a line where this machine is too slow.
    """
    clip, hops = clip_spec(network), hops.for_clips(network.clip_seconds)
    preparer = Preparer(network.config.augment, network.clip_dtype)
    network.expect(_MANY)
    network(_black(network.config.augment, clip, network.clip_dtype))  # the first batch takes much longer
    name = connections.source.name
    end = 0.0
    with closing(_Waiting(connections, hops.seconds, say)) as waiting:
        watch = None if on_frame is None else partial(on_frame, name)
        waiting.fill(lambda: live_windows(connections, clip, hops, watch))
        while found := waiting.take(stopping):
            for window, logits in zip(found, network(preparer.clips(found))[0], strict=True):
                for hop in range(window.first, window.first + window.hops):
                    start, end = hop * hops.seconds, (hop + 1) * hops.seconds
                    yield seen(Moment(name, start, end, at=_time_of_day(connections, start)), logits)
        if waiting.error is not None:
            error = waiting.error
            text = error.reason + (f": {error.detail}" if error.detail else "")
            yield Moment(name, end, end + hops.seconds, error=text, at=_time_of_day(connections, end))


def _time_of_day(connections: Connections, seconds: float) -> datetime | None:
    """The time of day, with its zone, at `seconds` of a source; None for a file and for stdin, which may be old."""
    if connections.waits:
        return None
    return datetime.fromtimestamp(connections.began_at).astimezone() + timedelta(seconds=seconds)


def _black(augment: AugmentSpec, clip: ClipSpec, dtype: str) -> np.ndarray:
    """A batch of one clip of zeros, in the layout of `augment`."""
    frames, side = clip.num_frames, augment.size_px
    shape = (1, 3, frames, side, side) if augment.layout == "NCTHW" else (1, frames, side, side, 3)
    return np.zeros(shape, dtype)


class _Waiting:
    """The windows that are made and not computed yet. One thread adds to them, another takes them."""

    def __init__(self, connections: Connections, hop_seconds: float, say: Callable[[str], object]) -> None:
        self.error: VideoError | None = None  # why the source ended, if it should not have
        self._connections, self._hop, self._say = connections, hop_seconds, say
        self._windows: deque[Window] = deque()
        self._changed = Condition()
        self._is_over = self._is_closed = self._is_late = False
        self._failure: BaseException | None = None
        self._thread: Thread | None = None

    def fill(self, make: Callable[[], Iterator[Window]]) -> None:
        """Start the thread that adds the windows that `make` gives."""

        def work() -> None:
            try:
                for window in make():
                    if not self._put(window):
                        return
            except VideoError as error:
                self.error = error
            except BaseException as error:  # raised again in the thread that takes
                self._failure = error
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

        self._thread = Thread(target=work, name="live source", daemon=True)
        self._thread.start()

    def take(self, stopping: Callable[[], bool]) -> list[Window]:
        """All windows that wait, at least one; none where the source has ended, or `stopping` says so."""
        with self._changed:
            while not self._windows:
                if self._is_over or stopping():
                    if self._failure is not None:
                        raise self._failure
                    return []
                self._changed.wait(_PATIENCE)
            found = list(self._windows)
            self._windows.clear()
            self._changed.notify_all()
            return [] if stopping() else found

    def close(self) -> None:
        """End the connection and the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._connections.close()
        if self._thread is not None:
            self._thread.join(_END_SECONDS)

    def _put(self, window: Window) -> bool:
        """Add a window; gives False where nobody takes it any more."""
        with self._changed:
            while len(self._windows) >= MOST_WAITING and not self._is_closed and self._may_wait(window):
                self._changed.wait(_PATIENCE)
            if self._is_closed:
                return False
            if len(self._windows) >= MOST_WAITING:
                window = self._for_all(window)
            self._windows.append(window)
            self._changed.notify_all()
        return True

    def _may_wait(self, window: Window) -> bool:
        ahead = (window.first + window.hops) * self._hop - self._connections.now()
        return self._connections.waits or ahead > _AHEAD_SECONDS

    def _for_all(self, window: Window) -> Window:
        """`window` in place of all that wait, back to the last gap: for their hops, too."""
        if not self._is_late:
            self._is_late = True
            self._say(
                f"{self._connections.source.name}: this machine computes fewer windows than one every {self._hop:g} s: "
                "one stands for several hops; choose a longer --hop"
            )
        while self._windows and self._windows[-1].first + self._windows[-1].hops == window.first:
            before = self._windows.pop()
            window = window._replace(first=before.first, hops=before.hops + window.hops)
        return window
