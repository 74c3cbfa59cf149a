"""The Predictor: gives the most likely classes of video files and of frames in memory, with probabilities.

A file that can't be read gives a prediction with an error, and the others are predicted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pipelines.containers.file_checks import MAX_PIXELS, Acceptance
from pipelines.containers.live_source import LiveSource, live_source
from pipelines.errors import UsageError
from pipelines.isolation.reserve import reserve
from pipelines.specs import ClipSpec
from r3d_fast.console import tell
from r3d_fast.metrics import softmax
from r3d_fast.prediction.clip_logits import Answer, answers, check_batch, clip_spec, default_batch
from r3d_fast.prediction.frame_arrays import FrameReader, Frames, as_frames
from r3d_fast.prediction.live.connections import RECONNECT_SECONDS, Connections
from r3d_fast.prediction.restored_network import open_network
from r3d_fast.prediction.timelines.events import THRESHOLD, Event, check_threshold, events
from r3d_fast.prediction.timelines.naming import Naming, named
from r3d_fast.prediction.timelines.windows import Hops, OnFrame
from r3d_fast.prediction.top_classes import TopClasses, check_top, likeliest, top_classes_json

if TYPE_CHECKING:
    from r3d_fast.prediction.timelines.moments import Moment


# One that looks at files, or gives their frames in a row, and one that decodes their clips.
_PROCESSES = 2
Video = str | Path | Frames  # a file, or the frames of a video: uint8 [T, H, W, 3], RGB


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one video as (class, probability) pairs, most likely first, or an error.

    `video` is the path, or "frames" for frames in memory. Where only some clips of the video could be read, `classes`
    come from those clips, and `error` says how many are missing.
    """

    video: str
    classes: TopClasses = ()
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The prediction as JSON values."""
        return {**asdict(self), "classes": top_classes_json(self.classes)}


class Predictor:
    """A model that names the action in videos: `Predictor("runs/x")("a.avi")`.

    A video is the path of a file, or its frames, uint8 [T, H, W, 3] in RGB.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        allow_partial: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Load `model`: a run folder, a checkpoint, a .safetensors file, or a folder that `r3d-fast export` wrote.

        `device`: "auto", "cpu" or "gpu". With `allow_partial` truncated and damaged videos are predicted as far as they
        decode. Videos whose frames have more than `max_pixels` are not read. Raises UsageError where there is no model,
        CheckpointError where it is damaged, EnvironmentProblem where this machine does not have `device`.
        """
        self._reserve = reserve(_PROCESSES)  # they start while Paddle is imported
        self.network = open_network(model, device)
        self.accept = Acceptance(allow_partial, max_pixels)

    @property
    def device(self) -> str:
        """The device that the model computes on: "cpu" or "gpu"."""
        return self.network.device

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.network.classes

    @overload
    def __call__(  # type: ignore[overload-overlap]  # text and arrays are iterable, too
        self, videos: Video, *, top: int = 5, views: int | str | None = None, batch_size: int | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self, videos: Iterable[Video], *, top: int = 5, views: int | str | None = None, batch_size: int | None = None
    ) -> list[Prediction]: ...

    def __call__(
        self,
        videos: Video | Iterable[Video],
        *,
        top: int = 5,
        views: int | str | None = None,
        batch_size: int | None = None,
    ) -> Prediction | list[Prediction]:
        """The Prediction of one video, or a list of those of several, in order; the arguments are those of `stream`."""
        found = list(self.stream(videos, top=top, views=views, batch_size=batch_size))
        return found[0] if _is_one(videos) else found

    def stream(
        self,
        videos: Video | Iterable[Video],
        *,
        top: int = 5,
        views: int | str | None = None,
        batch_size: int | None = None,
        on_clip: Callable[[Answer], object] | None = None,
    ) -> Iterator[Prediction]:
        """A Prediction for each of `videos`, in order, each as soon as it is computed.

        A prediction has the `top` most likely classes; probabilities are averaged over the clips of the video. `views`:
        clips of each video, a number, "all" or "paper" (None: as many as the model's evaluation takes).
        `batch_size`: clips computed at once, from one or more videos. `on_clip` is called with the Answer of each clip.
        Raises UsageError for a value out of its range.
        """
        check_top(top)
        return self._predictions(self.clips(videos, views=views, batch_size=batch_size), top, on_clip)

    def clips(
        self, videos: Video | Iterable[Video], *, views: int | str | None = None, batch_size: int | None = None
    ) -> Iterator[Answer]:
        """An Answer for each clip of `videos`, in order, as soon as it is computed: logits and pooled features."""
        clip = clip_spec(self.network, views)
        check_batch(batch_size)
        return self._answers(_listed(videos), views, batch_size, clip)

    def _answers(
        self, videos: Iterable[Video], views: int | str | None, batch_size: int | None, clip: ClipSpec
    ) -> Iterator[Answer]:
        reader: FrameReader | None = None
        for is_file, some in groupby(videos, _is_file):
            if is_file:
                files = (str(video) for video in some)
                yield from answers(self.network, files, views=views, batch_size=batch_size, accept=self.accept)
                continue
            for video in some:
                reader = reader or FrameReader(self.network, clip, batch_size or default_batch(self.network))
                yield from reader.answers(as_frames(video))

    def timeline(
        self,
        videos: str | Path | Iterable[str | Path],
        *,
        hop: float = 1.0,
        window: float | None = None,
        top: int = 5,
        batch_size: int | None = None,
        threshold: float = 0.0,
        smooth: float = 0.0,
        on_frame: OnFrame | None = None,
    ) -> Iterator[Moment]:
        """A Moment for each `hop` seconds of each of `videos`, in order, each as soon as it is computed.

        The videos may have any length. `window`: seconds that a clip spans (None: as many as the clips that the model
        was trained on, in the median). Each moment names the `top` likeliest classes of at least the probability
        `threshold`; with `smooth`, probabilities are averaged over so many seconds. A video that can't be read to its
        end has a last Moment with an error. Another thread calls `on_frame` (see windows) with the frames that are
        looked at. Raises UsageError for a value out of its range.
        """
        from r3d_fast.prediction.timelines.timeline import timeline

        naming = Naming(top, threshold, smooth)
        check_batch(batch_size)
        hops, names = Hops(hop, window), map(str, _listed(videos))
        found = timeline(self.network, names, hops, batch_size=batch_size, accept=self.accept, on_frame=on_frame)
        return self._named(found, naming)

    def live(
        self,
        source: str | LiveSource,
        *,
        hop: float = 1.0,
        window: float | None = None,
        top: int = 5,
        threshold: float = 0.0,
        smooth: float = 0.0,
        reconnect: float = RECONNECT_SECONDS,
        stopping: Callable[[], bool] = lambda: False,
        on_frame: OnFrame | None = None,
        say: Callable[[str], object] = tell,
    ) -> Iterator[Moment]:
        """A Moment for each `hop` seconds of a live source, each as soon as it is computed, until the source ends.

        `source`: an address such as rtsp://..., a camera such as /dev/video0, or `pipe:` for stdin. After a cut it
        tries for `reconnect` seconds to connect again. It ends soon after `stopping` says so. `say` gets a line about
        each cut. The other arguments are those of `timeline`. Raises UsageError for a value out of its range, and where
        `source` is no live source.
        """
        from r3d_fast.prediction.live.live_timeline import live_timeline

        naming, hops = Naming(top, threshold, smooth), Hops(hop, window)
        found = source if isinstance(source, LiveSource) else live_source(source)
        if found is None:
            raise UsageError(f"{source}: a file, not a live source; predict it with `timeline`")
        connections = Connections(found, reconnect_seconds=reconnect, max_pixels=self.accept.max_pixels, say=say)
        moments = live_timeline(self.network, connections, hops, stopping=stopping, on_frame=on_frame, say=say)
        return named(moments, self.classes, naming)

    def events(
        self,
        videos: str | Path | Iterable[str | Path],
        *,
        hop: float = 1.0,
        window: float | None = None,
        batch_size: int | None = None,
        threshold: float = THRESHOLD,
        smooth: float = 0.0,
    ) -> Iterator[Event]:
        """The events of each of `videos`, in order, each as soon as it has ended: from when to when a class is seen.

        `threshold`: the probability with which an event begins; the module prediction.timelines.events has the rules.
        The other arguments are those of `timeline`. A video that can't be read to its end has an Event with an error.
        """
        check_threshold(threshold)
        moments = self.timeline(videos, hop=hop, window=window, batch_size=batch_size, top=1, smooth=smooth)
        return events(moments, self.classes, threshold=threshold, merge_seconds=smooth)

    def _named(self, found: Iterator[Moment], naming: Naming) -> Iterator[Moment]:
        """The moments with the names of their classes. It keeps this object, and so its processes, until it ends."""
        yield from named(found, self.classes, naming)

    def _predictions(
        self, stream: Iterator[Answer], top: int, on_clip: Callable[[Answer], object] | None
    ) -> Iterator[Prediction]:
        """The predictions of videos, from the answers for their clips."""
        total = np.zeros(len(self.classes))
        clips, problem = 0, ""
        for answer in stream:
            if on_clip is not None:
                on_clip(answer)
            if answer.logits is not None:
                total += softmax(answer.logits)
                clips += 1
            problem = problem or answer.error
            if not answer.is_last:
                continue
            missing = answer.clip + 1 - clips
            error = None
            if missing:
                error = f"{missing} of {clips + missing} clips missing: {problem}" if clips else problem
            named = likeliest(self.classes, total / clips, top) if clips else ()
            yield Prediction(answer.video, named, error)
            total, clips, problem = np.zeros(len(self.classes)), 0, ""


def _is_file(video: object) -> bool:
    return isinstance(video, (str, Path))


def _is_one(videos: object) -> bool:
    """Whether `videos` is one video: a path, or an array of its frames."""
    return _is_file(videos) or hasattr(videos, "__array__")


def _listed(videos: Any) -> Iterable[Any]:
    """`videos`, or a list of it if it is one video. Raises UsageError for what is neither a video nor a series."""
    if _is_one(videos):
        return [videos]
    if not isinstance(videos, Iterable) or isinstance(videos, bytes):
        raise UsageError(f"{videos!r:.60} is no video; expected the path of one, its frames, or several of these")
    return videos
