"""Opens the index and makes the clip loaders for training and evaluation, from the sections of a config."""

from __future__ import annotations

from typing import Any, Literal

from pipelines.containers.file_checks import MOST_CORRUPT
from pipelines.errors import DataError, UsageError
from pipelines.index.locations import find_index, rebuild_command
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.machine.cpus import usable_cpus
from pipelines.specs import DEFAULT_BATCH, AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast.backend.paddle import gpu_number
from r3d_fast.config.sections import DataSpec
from r3d_fast.console import quoted, tell
from r3d_fast.ranks.group import Group

ClipDtype = Literal["float32", "float16"]


def open_index(data: DataSpec) -> VideoIndex:
    """The index that `data` names.

    Raises ConfigError if it names no videos, DataError if they are not indexed yet, or not in the way that it asks for.
    """
    data.require_source()
    if data.index is not None:
        return _with_known_damage(VideoIndex.open(data.index, data.root), data.max_corrupt_fraction)
    assert data.root is not None
    if not data.root.is_dir():
        raise DataError(f"{data.root}: no such folder; expected the videos there: set -o data.root=FOLDER")
    path = find_index(data.root)
    if path is None:
        raise DataError(f"{data.root}: not indexed yet; first run: {quoted('r3d-fast', 'data', 'index', data.root)}")
    return _with_known_damage(VideoIndex.open(path, data.root), data.max_corrupt_fraction)


def _with_known_damage(index: VideoIndex, most: float) -> VideoIndex:
    """The `index`. Raises DataError if a stricter limit than the usual one is asked for than it knows of all videos."""
    if most < MOST_CORRUPT and (unknown := index.never_decoded()):
        again = rebuild_command(index.path, index.root, {**index.options, "max_corrupt_fraction": most})
        raise DataError(
            f"data.max_corrupt_fraction {most:g}: {unknown} of {len(index)} videos in {index.path} were indexed by "
            f"their headers, so how many of their frames are damaged is not known; decode them once: {quoted(*again)}"
        )
    return index


def train_loader(
    index: VideoIndex, split: str, clip: ClipSpec, augment: AugmentSpec, loader: LoaderSpec, *, device: str = "cpu",
    dtype: ClipDtype = "float32", group: Group | None = None, balanced: bool = False, max_corrupt_fraction: float = 1.0,
) -> ClipLoader:  # fmt: skip
    """A loader of shuffled, augmented clips of the videos of `split`, on `device`, in `dtype`.

    In a job of several ranks it gives the share of this one; the batch size of `loader` counts all ranks together. If
    `balanced`, an epoch shows all classes equally often. Raises UsageError if the batch size is not a multiple of the
    number of ranks.
    """
    group = group or Group()
    own = _for_rank(loader, rank_batch_size(loader, group), group, device)
    clips = clip_loader(
        index, device, dtype, group, clip=clip, augment=augment, loader=own, split=split, train=True, balanced=balanced,
        max_corrupt_fraction=max_corrupt_fraction,
    )  # fmt: skip
    _warn_of_slow_motion(clips, group)
    _warn_of_one_class(clips, group)
    return clips


def rank_batch_size(loader: LoaderSpec, group: Group) -> int:
    """The clips in a training batch of one rank. Raises UsageError if the ranks can't share `loader.batch_size`.

    Where that is "auto" it is the default: `planning` puts a number there before a run.
    """
    size = loader.batch_size_or(DEFAULT_BATCH)
    if size % group.count:
        raise UsageError(
            f"loader.batch_size {size} can't be shared by {group.count} ranks (it counts the clips of all ranks "
            f"together); expected a multiple of {group.count}, such as {-(-size // group.count) * group.count}"
        )
    return size // group.count


def eval_loader(
    index: VideoIndex, split: str, clip: ClipSpec, augment: AugmentSpec, loader: LoaderSpec, *, device: str = "cpu",
    dtype: ClipDtype = "float32", group: Group | None = None, max_corrupt_fraction: float = 1.0,
) -> ClipLoader:  # fmt: skip
    """A loader of all views and crops of the videos of `split`, in order, on `device`, in `dtype`.

    In a job of several ranks it gives the share of this one. Its batch size is that of `loader`, divided by the number
    of ranks and rounded up; "auto" is `usual_eval_batch`, for each rank.
    """
    group = group or Group()
    _require_split(index, split)
    size = loader.batch_size_or(usual_eval_batch(device) * group.count)
    own = _for_rank(loader, -(-size // group.count), group, device)
    clips = clip_loader(
        index, device, dtype, group, clip=clip, augment=augment, loader=own, split=split, train=False,
        max_corrupt_fraction=max_corrupt_fraction,
    )  # fmt: skip
    _warn_of_slow_motion(clips, group)
    return clips


def usual_eval_batch(device: str) -> int:
    """The clips that `device` evaluates or predicts at once where nobody has said how many.

    On a CPU larger batches are no faster and take more memory.
    """
    return 8 if device == "cpu" else DEFAULT_BATCH


def clip_loader(
    index: VideoIndex, device: str, dtype: ClipDtype, group: Group | None = None, **options: Any
) -> ClipLoader:
    """A ClipLoader for this rank, whose batches lie on `device`: "cpu", or "gpu" for the GPU of this process."""
    group = group or Group()
    numbered = f"gpu:{gpu_number()}" if device == "gpu" else device
    return ClipLoader(index, device=numbered, dtype=dtype, shard=group.shard, **options)


def _require_split(index: VideoIndex, split: str) -> None:
    """Raise DataError, with what to do, if `index` lacks the `split` to evaluate on."""
    try:
        index.own_split(split)
    except DataError as error:
        if not index.splits:
            raise
        raise DataError(
            f"{error}: nothing to evaluate on; add videos and index them again, or evaluate on those of another split: "
            f"-o data.eval_split={index.splits[0]}"
        ) from error


def _warn_of_one_class(clips: ClipLoader, group: Group) -> None:
    """Say on the first rank if all videos are of one class."""
    labels = set(clips.sampler.videos.label.tolist())
    if group.is_first and len(labels) == 1:
        name = clips.index.classes[labels.pop()]
        tell(f"warning: all videos of split {clips.split} are of class {name}: whatever the model says will be right")


def _warn_of_slow_motion(clips: ClipLoader, group: Group) -> None:
    """Say on the first rank how many videos `clip.short: repeat` slows down; nothing where it slows none.

    Windows of an evaluation are looped whatever `clip.short` says, and a clip of `segments` has no speed of its own.
    """
    clip, lengths = clips.sampler.clip, clips.sampler.videos.num_frames
    windows = clip.takes_windows and not clips.sampler.train
    if not group.is_first or clip.sampling == "segments" or clip.short != "repeat" or windows:
        return
    slowed = int((lengths < clip.span).sum())
    if slowed:
        apart = "" if clip.stride == 1 else f", {clip.stride} apart: {clip.span} of the video"
        tell(
            f"warning: split {clips.split}: {slowed} of {len(lengths)} videos are shorter than a clip "
            f"({clip.num_frames} frames{apart}); clip.short=repeat stretches them over the clip, so they move slower "
            "than the others; clip.short=loop keeps the speed"
        )


def _for_rank(loader: LoaderSpec, batch_size: int, group: Group, device: str) -> LoaderSpec:
    """`loader` for one rank: with its own `batch_size`, and workers and threads for its share of the CPUs.

    On a GPU the threads are left to the loader, as the engines of NVDEC, or else the workers, decide their number.
    """
    update: dict[str, Any] = {"batch_size": batch_size}
    cpus = max(1, usable_cpus() // group.local_count)
    if group.local_count > 1 and loader.workers == "auto":
        update["workers"] = cpus
    if group.local_count > 1 and loader.threads == "auto" and device == "cpu":
        update["threads"] = cpus
    return loader.model_copy(update=update)
