"""Video files -> class names with probabilities. A file that can't be read is an item with an error, not the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.entries import Dataset, Entry
from pipelines.errors import UsageError
from pipelines.index import VideoIndex, write_index
from r3d_fast.compat import choose_device
from r3d_fast.data import clip_loader, eval_specs
from r3d_fast.evaluate import evaluate_model
from r3d_fast.restore import restore

# Fewer clips than this are decoded sooner than a worker process has started.
_FEW_CLIPS = 32


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video: (class, probability) pairs, most likely first, or why it says nothing."""

    video: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The prediction as JSON values."""
        named = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {**asdict(self), "classes": named}


class Predictor:
    """A model that names what happens in videos: `Predictor("runs/x")(["a.avi", "b.mp4"])`."""

    def __init__(self, model: str | Path, *, device: str = "auto") -> None:
        """The model of a run folder, a checkpoint or a .safetensors file of a run.

        Raises UsageError where there is none, CheckpointError where it is damaged, EnvironmentProblem without `device`.
        """
        self.device = choose_device(device)
        self.restored = restore(Path(model), self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.restored.classes

    def __call__(self, videos: Sequence[str | Path], *, top: int = 5) -> list[Prediction]:
        """A Prediction for each of `videos`, in order: the `top` likeliest classes over the run's evaluation clips."""
        if top < 1:
            raise UsageError(f"top {top}: expected at least 1")
        # Absolute paths under the root folder make any files one data set.
        paths = [os.path.abspath(video).lstrip("/") for video in videos]  # noqa: PTH100 - keeps symlinks as they are
        entries = tuple(Entry(path, 0, "") for path in sorted(set(paths)))
        with tempfile.TemporaryDirectory(prefix="r3d-fast-") as folder:
            data = Dataset("files", self.classes, entries, (), ())
            index = write_index(Path(folder) / "videos.r3dindex", Path("/"), data)
            errors = {
                item.path: item.reason + (f": {item.detail}" if item.detail else "") for item in index.quarantined
            }
            named = self._predict(index, errors) if len(index) else {}
        result = []
        for video, path in zip(videos, paths, strict=True):
            if path in named:
                best = np.argsort(-named[path], kind="stable")[:top]
                pairs = tuple((self.classes[i], float(named[path][i])) for i in best)
                result.append(Prediction(str(video), pairs))
            else:
                result.append(Prediction(str(video), error=errors.get(path, "can't be read")))
        return result

    def _predict(self, index: VideoIndex, errors: dict[str, str]) -> dict[str, Any]:
        """Probabilities float64 [C] by path; what could not be read goes to `errors`."""
        config = self.restored.config
        clip, augment = eval_specs(config)
        few = clip.views != "all" and len(index) * clip.views * augment.eval_crops < _FEW_CLIPS
        size = min(config.loader.batch_size, 8 if few else config.loader.batch_size, max(1, len(index)))
        spec = config.loader.model_copy(update={"batch_size": size, **({"workers": 0, "prefetch": 1} if few else {})})
        precision = self.restored.precision
        with clip_loader(
            index, self.device, precision.clip_dtype, clip=clip, augment=augment, loader=spec, split=None,
            train=False,
        ) as loader:  # fmt: skip
            evaluation = evaluate_model(
                self.restored.model, loader, len(self.classes), self.device, precision=precision
            )
        for bad in evaluation.bad:
            errors[index[bad.video_id].path] = bad.reason
        return {index[video].path: probabilities for video, _, probabilities in evaluation.scores.predictions()}
