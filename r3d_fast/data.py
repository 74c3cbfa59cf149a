"""Config -> index and loaders: which videos a run reads, and how."""

from __future__ import annotations

from typing import Any, Literal

from pipelines.errors import DataError
from pipelines.index import VideoIndex, find_index
from pipelines.loader import ClipLoader
from r3d_fast.config import Config

ClipDtype = Literal["float32", "float16"]


def open_index(config: Config) -> VideoIndex:
    """The index that `config.data` names. Raises ConfigError where it names none, DataError where there is none yet."""
    data = config.data
    data.require_source()
    if data.index is not None:
        return VideoIndex.open(data.index, data.root)
    assert data.root is not None
    if not data.root.is_dir():
        raise DataError(f"{data.root}: no such folder; expected the videos there: set -o data.root=FOLDER")
    path = find_index(data.root)
    if path is None:
        raise DataError(f"{data.root}: not indexed yet, run first: r3d-fast data index {data.root}")
    return VideoIndex.open(path, data.root)


def train_loader(config: Config, index: VideoIndex, device: str = "cpu", dtype: ClipDtype = "float32") -> ClipLoader:
    """Shuffled, augmented clips of the training split, on `device`, in `dtype`."""
    return clip_loader(
        index, device, dtype, clip=config.clip, augment=config.augment, loader=config.loader,
        split=config.data.train_split, train=True,
    )  # fmt: skip


def eval_loader(
    config: Config, index: VideoIndex, split: str | None = None, device: str = "cpu", dtype: ClipDtype = "float32"
) -> ClipLoader:
    """Every view of every video of the evaluation split (or of `split`), centred, in order, on `device`, in `dtype`."""
    views = config.eval.views
    clip = config.clip if views is None else config.clip.model_copy(update={"views": views})
    size = config.eval.batch_size or config.loader.batch_size
    loader = config.loader.model_copy(update={"batch_size": size})
    return clip_loader(
        index, device, dtype, clip=clip, augment=config.augment, loader=loader,
        split=split or config.data.eval_split, train=False,
    )  # fmt: skip


def clip_loader(index: VideoIndex, device: str, dtype: ClipDtype, **options: Any) -> ClipLoader:
    """A ClipLoader whose batches lie on `device` ("cpu" or "gpu") in `dtype` ("float32" or "float16")."""
    return ClipLoader(index, device=device, dtype=dtype, **options)
