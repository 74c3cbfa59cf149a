"""The Predictor: gives the most likely classes of video files, with probabilities.

A file that can't be read gives a prediction with an error, and the others are predicted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.containers.file_checks import MAX_PIXELS, Acceptance
from r3d_fast.metrics import softmax
from r3d_fast.prediction.clip_logits import Answer, answers, check_batch
from r3d_fast.prediction.restored_network import open_network
from r3d_fast.prediction.top_classes import TopClasses, check_top, likeliest, top_classes_json
from r3d_fast.prediction.windows import Hops

if TYPE_CHECKING:
    from r3d_fast.prediction.timeline import Moment


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one video as (class, probability) pairs, most likely first, or an error.

    Where only some clips of the video could be read, `classes` come from those clips, and `error` says how many are
    missing.
    """

    video: str
    classes: TopClasses = ()
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The prediction as JSON values."""
        return {**asdict(self), "classes": top_classes_json(self.classes)}


class Predictor:
    """A model that names the action in videos: `Predictor("runs/x")(["a.avi", "b.mp4"])`."""

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

    def __call__(
        self,
        videos: Sequence[str | Path],
        *,
        top: int = 5,
        views: int | str | None = None,
        batch_size: int | None = None,
    ) -> list[Prediction]:
        """A Prediction for each of `videos`, in order; the arguments are those of `stream`."""
        return list(self.stream(videos, top=top, views=views, batch_size=batch_size))

    def stream(
        self,
        videos: Iterable[str | Path],
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
        self, videos: Iterable[str | Path], *, views: int | str | None = None, batch_size: int | None = None
    ) -> Iterator[Answer]:
        """An Answer for each clip of `videos`, in order, as soon as it is computed: logits and pooled features."""
        return answers(self.network, videos, views=views, batch_size=batch_size, accept=self.accept)

    def timeline(
        self,
        videos: Iterable[str | Path],
        *,
        hop: float = 1.0,
        window: float | None = None,
        top: int = 5,
        batch_size: int | None = None,
    ) -> Iterator[Moment]:
        """A Moment for each `hop` seconds of each of `videos`, in order, each as soon as it is computed.

        The videos may have any length. `window`: seconds that a clip spans (None: T frames at the model's stride, or
        7 s for a model trained on `segments` clips). A video that can't be read to its end has a last Moment with an
        error. Raises UsageError for a value out of its range.
        """
        from r3d_fast.prediction.timeline import timeline

        check_top(top)
        check_batch(batch_size)
        hops, names = Hops(hop, window), map(str, videos)
        return timeline(self.network, names, hops, top=top, batch_size=batch_size, accept=self.accept)

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
