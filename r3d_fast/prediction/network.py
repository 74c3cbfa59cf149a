"""What predicts, whatever it came from: clips in, logits and pooled features out.

A run, a checkpoint or a .safetensors file is built by Paddle and runs as it is; a folder that `r3d-fast export` wrote
runs in Paddle Inference.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from r3d_fast.config.config import Config

LogitsAndFeatures = tuple[NDArray[np.float32], NDArray[np.float32]]


class Network(Protocol):
    """A model ready to predict. `config` says which clips it wants (clip, augment, eval, loader)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""

    @property
    def config(self) -> Config:
        """The config it was trained with; `augment.layout` is the one it takes."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "gpu"."""

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """What the clips that it takes are made of."""

    def expect(self, clips: int) -> None:
        """Make ready for that many clips more."""

    def __call__(self, clips: Any) -> LogitsAndFeatures:
        """(logits float32 [N, C], features float32 [N, F]) of a batch, on the host; any N.

        `clips`: a DLPack object on `device`, such as `Batch.clips` or a NumPy array, of `clip_dtype` in the layout of
        `config.augment`. It may be let go of or written again when this has returned. Raises EnvironmentProblem, with
        the batch size that fits, out of memory.
        """
