"""Config -> index and loaders: which videos a run reads, and how."""

from __future__ import annotations

from typing import Any, Literal

from pipelines.errors import DataError, UsageError
from pipelines.index.video_index import VideoIndex, find_index
from pipelines.loader import ClipLoader
from pipelines.machine.cpus import usable_cpus
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast.backend.paddle import gpu_number
from r3d_fast.config.config import Config
from r3d_fast.ranks.group import Group

ClipDtype = Literal["float32", "float16"]
_MOST_NVDEC_THREADS = 16  # two for each of as many engines as any card has


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


def train_loader(
    config: Config, index: VideoIndex, device: str = "cpu", dtype: ClipDtype = "float32", group: Group | None = None
) -> ClipLoader:
    """Shuffled, augmented clips of the training split, on `device`, in `dtype`; those of this rank of `group`.

    Raises UsageError where the ranks can't share `loader.batch_size`, which is that of all of them together.
    """
    group, size = group or Group(), config.loader.batch_size
    if size % group.count:
        raise UsageError(
            f"loader.batch_size {size} can't be shared by {group.count} ranks: it counts the clips of all of them "
            f"together; expected a multiple of {group.count}, such as {-(-size // group.count) * group.count}"
        )
    return clip_loader(
        index, device, dtype, group, clip=config.clip, augment=config.augment,
        loader=_for_rank(config.loader, size // group.count, group, device),
        split=config.data.train_split, train=True,
    )  # fmt: skip


def eval_loader(
    config: Config, index: VideoIndex, split: str | None = None, device: str = "cpu", dtype: ClipDtype = "float32",
    group: Group | None = None,
) -> ClipLoader:  # fmt: skip
    """Every crop of every view of the evaluation split's videos (or those of `split`), in order, in `dtype`.

    Of several ranks in `group` each gets a share of them, in batches of its share of the batch size, rounded up.
    """
    group = group or Group()
    clip, augment = eval_specs(config)
    size = config.eval.batch_size or config.loader.batch_size
    loader = _for_rank(config.loader, -(-size // group.count), group, device)
    return clip_loader(
        index, device, dtype, group, clip=clip, augment=augment, loader=loader,
        split=split or config.data.eval_split, train=False,
    )  # fmt: skip


def eval_specs(config: Config) -> tuple[ClipSpec, AugmentSpec]:
    """The clips that evaluation and prediction take, and their pixels."""
    views, crops = config.eval.views, config.eval.crops
    clip = config.clip if views is None else config.clip.model_copy(update={"views": views})
    augment = config.augment if crops is None else config.augment.model_copy(update={"eval_crops": crops})
    return clip, augment


def clip_loader(
    index: VideoIndex, device: str, dtype: ClipDtype, group: Group | None = None, **options: Any
) -> ClipLoader:
    """A ClipLoader whose batches lie on `device` ("cpu" or "gpu": Paddle's current one) in `dtype`, of a rank's clips.

    `dtype`: "float32" or "float16".
    """
    group = group or Group()
    place = f"gpu:{gpu_number()}" if device == "gpu" else device
    return ClipLoader(index, device=place, dtype=dtype, shard=group.shard, **options)


def _for_rank(loader: LoaderSpec, batch_size: int, group: Group, device: str) -> LoaderSpec:
    """`loader` with the batch of one rank, which shares this machine's CPUs with the others there."""
    update: dict[str, Any] = {"batch_size": batch_size}
    cpus = max(1, usable_cpus() // group.local_count)
    if group.local_count > 1 and loader.workers == "auto":
        update["workers"] = cpus
    if group.local_count > 1 and loader.threads == "auto":
        update["threads"] = max(cpus, _MOST_NVDEC_THREADS) if device == "gpu" else cpus
    return loader.model_copy(update=update)
