"""Batch -> Paddle tensors, without a copy on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.loader import Batch
from r3d_fast.compat import from_dlpack, import_paddle


class Fed(NamedTuple):
    """A batch on the model's device: clips float32 as `Batch.clips`, labels int64 [N], weights float32 [N]."""

    clips: Any
    labels: Any
    weights: Any  # 1 / number of real rows for a real row, else 0: a weighted sum is the mean over real rows


def feed(batch: Batch, device: str) -> Fed:
    """The batch as Paddle tensors on `device`; on the CPU the clips share the loader's memory."""
    paddle = import_paddle()
    clips = from_dlpack(batch.clips)
    if device == "gpu":
        clips = clips.cuda()
    real = batch.is_real.astype("float32")
    return Fed(clips, paddle.to_tensor(batch.labels), paddle.to_tensor(real / max(1.0, float(real.sum()))))
