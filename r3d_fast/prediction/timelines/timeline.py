"""The timeline of a video: the probabilities of the classes second by second, for videos of any length.

Each frame is decoded, resized and normalised once, also where several windows show it. Windows are computed in batches:
a thread decodes and prepares the next batches while the network computes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import ACCEPT_WHOLE, Acceptance
from pipelines.dali.graph import ClipPipeline
from pipelines.errors import VideoError
from pipelines.machine.cpus import usable_cpus
from pipelines.sampler import eval_geometry
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream, Sample
from r3d_fast.metrics import softmax
from r3d_fast.prediction.clip_logits import NOT_FINITE, clip_spec, default_batch
from r3d_fast.prediction.network import Network
from r3d_fast.prediction.read_ahead import ahead
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.timelines.windows import Hops, Kept, OnFrame, Window, windows
from r3d_fast.prediction.video_paths import why_no_video

_GROUP = 64  # frames that DALI prepares at once
_GROUP_BYTES = 1 << 28  # bytes of RGB that DALI prepares at once
_AHEAD = 2  # batches that are prepared ahead
_MOST_PARTS = 256  # parts of a batch: windows, and videos that can't be read


@dataclass(frozen=True)
class _Part:
    """A window of a batch, or an error, for `count` hops of `video`; the first of them has the number `first`.

    `end`: the second at which the video ends, where that is known.
    """

    video: str
    first: int
    count: int
    error: str = ""
    end: float | None = None


@dataclass(frozen=True)
class _Work:
    """A batch: its parts in order, and `clips` [N, ...], one for each part without an error (None if there is none)."""

    parts: list[_Part]
    clips: NDArray[Any] | None


def timeline(
    network: Network,
    videos: Iterable[str],
    hops: Hops,
    *,
    batch_size: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    on_frame: OnFrame | None = None,
) -> Iterator[Moment]:
    """The moments of each of `videos`, in order, as soon as they are computed: one for each hop, with probabilities.

    `batch_size`: windows computed at once, from one or more videos (None: 8 on a CPU, the config's on a GPU).
    A video that `accept` does not take gives a moment with an error; of a truncated one it is the last moment. Another
    thread calls `on_frame` with each frame that windows are made of, before the moments that it belongs to are given.
    """
    clip, hops = clip_spec(network), hops.for_clips(network.clip_seconds)
    size = batch_size or default_batch(network)
    each = ((video, windows(video, clip, hops, accept, on_frame)) for video in videos)
    works = _batches(each, size, Preparer(network.config.augment, network.clip_dtype))
    computed = 0
    with closing(ahead(works, _AHEAD)) as ready:
        for work in ready:
            rows: Iterator[NDArray[np.float32]] = iter(())
            if work.clips is not None:
                computed += len(work.clips)
                network.expect(computed)  # the length is not known ahead: expect as many more windows as came so far
                rows = iter(network(work.clips)[0])
            for part in work.parts:
                start = part.first * hops.seconds
                moment = Moment(part.video, start, start + hops.seconds, error=part.error or None)
                if not part.error:
                    moment = seen(moment, next(rows))
                for hop in range(part.first, part.first + part.count):
                    yield replace(moment, start=hop * hops.seconds, end=_end(hop, hops.seconds, part.end))


def _end(hop: int, seconds: float, video_end: float | None) -> float:
    """When the hop of this number ends: `seconds` after its start, or with the video."""
    is_cut = video_end is not None and hop * seconds < video_end < (hop + 1) * seconds
    return round(video_end, 3) if is_cut and video_end is not None else (hop + 1) * seconds


def seen(moment: Moment, logits: NDArray[np.float32]) -> Moment:
    """`moment` with the probabilities by its logits, or with an error where these are not finite."""
    if not np.isfinite(logits).all():
        return replace(moment, error=NOT_FINITE)
    return replace(moment, probabilities=softmax(logits))


def _batches(videos: Iterable[tuple[str, Iterator[Window]]], size: int, preparer: Preparer) -> Iterator[_Work]:
    """The windows of `videos`, each a path with its windows, in batches of `size`."""
    parts: list[_Part] = []
    waiting: list[Window] = []
    for video, found in videos:
        hops_done = 0
        while True:
            try:
                window = next(found, None)
            except VideoError as error:
                detail = f": {error.detail}" if error.detail else ""
                parts.append(_Part(video, hops_done, 1, why_no_video(video) or f"{error.reason}{detail}"))
                if len(parts) >= _MOST_PARTS:  # many bad files: report them before the batch is full
                    yield _Work(parts, preparer.clips(waiting) if waiting else None)
                    parts, waiting = [], []
                break
            if window is None:
                break
            hops_done = window.first + window.hops
            parts.append(_Part(video, window.first, window.hops, end=window.end))
            waiting.append(window)
            preparer.free(waiting)
            if len(waiting) == size:
                yield _Work(parts, preparer.clips(waiting))
                parts, waiting = [], []
    if parts:
        yield _Work(parts, preparer.clips(waiting) if waiting else None)


class Preparer:
    """Prepares windows as the model's input, with the DALI graph that evaluation uses; each frame is prepared once."""

    def __init__(self, augment: AugmentSpec, dtype: str) -> None:
        self._augment = augment = augment.model_copy(update={"eval_crops": 1})
        self._axis = 2 if augment.layout == "NCTHW" else 1
        stream = ClipStream(
            "", "", None, ClipSpec(num_frames=1), augment, ShardSpec(), _GROUP, 0, False,
            dtype="float16" if dtype == "float16" else "float32",
        )  # fmt: skip
        self._pipeline = ClipPipeline(stream, threads=usable_cpus())

    def clips(self, found: list[Window]) -> NDArray[Any]:
        """The windows as clips, [N, 3, T, S, S] or [N, T, S, S, 3] by the model's layout, in the model's dtype."""
        self._prepare([frame for window in found for frame in window.frames])
        return np.stack(
            [np.concatenate([_values(frame) for frame in window.frames], self._axis - 1) for window in found]
        )

    def free(self, found: list[Window]) -> None:
        """Prepare the windows now if the pixels of their frames take much memory."""
        frames = {id(frame): frame for window in found for frame in window.frames if frame.values is None}
        if frames and len(frames) * next(iter(frames.values())).pixels().nbytes > _GROUP_BYTES:
            self._prepare(list(frames.values()))

    def _prepare(self, frames: list[Kept]) -> None:
        """Give each of `frames` that has no values yet its values."""
        group: list[tuple[Kept, NDArray[np.uint8]]] = []
        taken: set[int] = set()
        total = 0
        for frame in frames:
            if frame.values is not None or id(frame) in taken:
                continue
            taken.add(id(frame))
            pixels = np.ascontiguousarray(frame.pixels())[None]
            group.append((frame, pixels))
            total += pixels.nbytes
            if len(group) == _GROUP or total >= _GROUP_BYTES:
                self._run(group)
                group, total = [], 0
        if group:
            self._run(group)

    def _run(self, group: list[tuple[Kept, NDArray[np.uint8]]]) -> None:
        arrays = [pixels for _, pixels in group]
        self._pipeline.feed(arrays, [self._sample(pixels.shape) for pixels in arrays])
        values = np.array(self._pipeline.clips())
        for (frame, _), prepared in zip(group, values, strict=True):
            frame.values = prepared
            frame.pixels = _gone

    def _sample(self, shape: tuple[int, ...]) -> Sample:
        return Sample(shape, 0, 0, True, *eval_geometry(shape[1], shape[2], self._augment))


def _values(frame: Kept) -> NDArray[Any]:
    assert frame.values is not None
    return frame.values


def _gone() -> NDArray[np.uint8]:
    raise AssertionError("this frame is prepared already; its pixels were freed")
