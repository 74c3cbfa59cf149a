"""The interface of a model that predicts: clips in, logits and pooled features out.

There are two implementations: RestoredNetwork runs the model of a run, a checkpoint or a .safetensors file in Paddle;
InferenceEngine runs a folder that `r3d-fast export` wrote in Paddle Inference.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from r3d_fast.config.config import Config

LogitsAndFeatures = tuple[NDArray[np.float32], NDArray[np.float32]]


class Network(Protocol):
    """A model ready to predict. Its `config` says which clips it takes (sections clip, augment, eval, loader)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""

    @property
    def config(self) -> Config:
        """The config that the model was trained with; `augment.layout` is the layout of the clips it takes."""

    @property
    def device(self) -> str:
        """The device that the model computes on: "cpu" or "gpu"."""

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """The dtype of the clips that the model takes."""

    @property
    def clip_seconds(self) -> float | None:
        """How long the clips of the training were, in the median, in seconds; None if the model does not say it."""

    def expect(self, clips: int) -> None:
        """Prepare for that many more clips: for many it pays to trace the model first."""

    def __call__(self, clips: Any) -> LogitsAndFeatures:
        """(logits float32 [N, C], features float32 [N, F]) of a batch of any size N, in host memory.

        `clips`: a DLPack object on `device`, such as `Batch.clips` or a NumPy array, of `clip_dtype` in the layout of
        `config.augment`. Its memory may be reused or freed after this has returned. Raises EnvironmentProblem, with
        the batch size that would fit, where the memory runs out.
        """
