"""The videos that a measurement is made on: an index of those that can be read, and what was left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.videos.synthesis import make_clips
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, R3DFastError
from pipelines.index.video_index import VideoIndex, write_index
from pipelines.isolation.jobs import Lost, do_apart
from pipelines.isolation.process import Tell
from pipelines.machine.cpus import usable_cpus
from pipelines.output.files import write_json
from pipelines.output.folders import make_folder
from pipelines.output.temporary import temporary_folder
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.decoder import FrameReader
from pipelines.video.record import VideoRecord

OWN_CLIPS = "bench's own clips"  # the name of those that bench makes
_OWN_NUMBER = 64
_INDEX, _CHOICE = "clips.r3dindex", "selection.json"  # in the folder of a selection
_CHUNK = 16  # videos that are checked sooner than another process starts


@dataclass(frozen=True)
class VideoSelection:
    """`index` of the videos to read, `excluded` ({path, reason}) of the others."""

    index: VideoIndex
    excluded: tuple[dict[str, str], ...]
    index_files_per_cpu_second: float


@contextmanager
def selected_videos(
    data: Path | None, say: Callable[[str], None], videos: int | None = None, kept: Path | None = None
) -> Iterator[VideoSelection]:
    """The videos under `data` (no more than `videos` of them); None: videos of bench's own, there until this ends.

    The selection of a folder `data` is taken from the folder `kept` if it is there, otherwise made and left there. Then
    it is made for all measurements only once. Raises what `video_folder` and `select_videos` raise, and UsageError
    where nothing can be written to `kept`.
    """
    with video_folder(data, say) as root, temporary_folder() as folder:
        if data is None or kept is None:
            selection = select_videos(root, folder, videos)
        else:
            selection = kept_selection(root, kept, videos) or keep_selection(root, kept, videos)
        say(f"{len(selection.index)} videos, {len(selection.excluded)} excluded")
        yield selection


def keep_selection(root: Path, folder: Path, videos: int | None) -> VideoSelection:
    """What `select_videos` gives, left in `folder` for `kept_selection`. Raises UsageError where that can't be written.

    Raises what `select_videos` raises.
    """
    make_folder(folder, "choose another folder for the selection")
    (folder / _CHOICE).unlink(missing_ok=True)
    selection = select_videos(root, folder, videos)
    rate = selection.index_files_per_cpu_second
    write_json(folder / _CHOICE, {**_choice(root, videos), "excluded": selection.excluded, "rate": rate})
    return selection


def kept_selection(root: Path, folder: Path, videos: int | None) -> VideoSelection | None:
    """The selection that was left in `folder`; None where it is of another `root` or number of `videos`, or damaged."""
    try:
        values = json.loads((folder / _CHOICE).read_text(encoding="utf-8"))
        if {name: values[name] for name in _choice(root, videos)} != _choice(root, videos):
            return None
        return VideoSelection(VideoIndex(folder / _INDEX, root), tuple(values["excluded"]), float(values["rate"]))
    except (OSError, ValueError, KeyError, TypeError, R3DFastError):
        return None


def _choice(root: Path, videos: int | None) -> dict[str, Any]:
    """What a selection is of; JSON values."""
    return {"root": str(root.resolve()), "videos": videos}


@contextmanager
def video_folder(data: Path | None, say: Callable[[str], None]) -> Iterator[Path]:
    """`data` as it is; None: a folder of videos of bench's own, there until this ends.

    Raises DataError where `data` is no folder.
    """
    if data is not None:
        if not data.is_dir():
            raise DataError(
                f"{data}: no such folder; expected one with videos, or no --data: bench makes its own clips"
            )
        yield data
        return
    with temporary_folder() as folder:
        say(f"making {_OWN_NUMBER} clips of 320x240")
        make_clips(folder / "clips", _OWN_NUMBER)
        yield folder / "clips"


def select_videos(root: Path, folder: Path, videos: int | None = None) -> VideoSelection:
    """The videos under `root`; their index lies in `folder`, so that nothing is left at `root`.

    With `videos` no more than so many are taken, spread evenly over all in the order of their names.
    A video that can't be indexed, or of which one clip of either sampling can't be read, is excluded. Raises DataError
    where nothing is left.
    """
    data = recognise_dataset(root, val_fraction=0.0)
    if videos is not None and videos < len(data.entries):
        entries = sorted(data.entries, key=lambda entry: entry.path)
        data = replace(data, entries=tuple(entries[k * len(entries) // videos] for k in range(videos)))
    begin = _cpu_seconds()
    index = write_index(folder / _INDEX, root, data, workers=1)
    rate = len(data.entries) / max(_cpu_seconds() - begin, 1e-9)
    excluded = {item.path: item.reason for item in index.quarantined} | unreadable(index)
    if len(excluded) >= len(data.entries):
        first = next(iter(excluded.items()), ("", ""))
        raise DataError(f"{root}: none of the {len(data.entries)} videos can be read; first: {first[0]}: {first[1]}")
    kept = replace(data, entries=tuple(entry for entry in data.entries if entry.path not in excluded))
    index = write_index(folder / _INDEX, root, kept, workers=1)
    return VideoSelection(index, tuple({"path": path, "reason": excluded[path]} for path in sorted(excluded)), rate)


def unreadable(index: VideoIndex) -> dict[str, str]:
    """The videos of which a clip can't be read, by path, and why; other processes read, as many as there are CPUs."""
    read = _ClipsOf(index)
    results = do_apart(read, range(len(index)), workers=min(usable_cpus(), 1 + len(index) // _CHUNK))
    bad = {}
    for position, result in enumerate(results):
        why = f"{result.reason}: {result.detail}" if isinstance(result, Lost) else result
        if why:
            bad[read.video_at(position).path] = why
    return bad


class _ClipsOf:
    """Reads a clip of either sampling of the video that the sampler has at a position: why that can't be, else ""."""

    def __init__(self, index: VideoIndex) -> None:
        self._index = index

    def __call__(self, job: int, tell: Tell) -> str:
        record = self.video_at(job)
        for sampler in self._samplers:
            try:
                FrameReader().read(record, sampler.plan(0, job).frames, root=str(self._index.root), box=(0, 0, 1, 1))
            except R3DFastError as error:
                return str(error).removeprefix(f"{self._index.root / record.path}: ")
        return ""

    def video_at(self, position: int) -> VideoRecord:
        """The video at `position` of the samplers."""
        return self._index[self._samplers[0].plan(0, position).video_id]

    @cached_property
    def _samplers(self) -> list[ClipSampler]:
        specs = [ClipSpec.model_validate({"sampling": sampling}) for sampling in ("segments", "consecutive")]
        columns = self._index.columns()
        return [ClipSampler(columns, clip, AugmentSpec(), seed=0, train=True, shard=ShardSpec()) for clip in specs]

    def __reduce__(self) -> tuple[type[_ClipsOf], tuple[VideoIndex]]:
        """Leave the samplers behind: each process makes its own."""
        return type(self), (self._index,)


def _cpu_seconds() -> float:
    """The CPU time that this process has used so far, and those that it has started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def described(data: Path | None, clips: VideoSelection) -> dict[str, Any]:
    """What a report says of the videos, by name; JSON values."""
    columns = clips.index.columns()
    return {
        "data": data.name if data else OWN_CLIPS,
        "videos": len(clips.index),
        "median_frames_a_video": float(np.median(columns.num_frames)),
        "largest_frame_px": [int(columns.width.max()), int(columns.height.max())],
        "codecs": dict(clips.index.counts("codec")),
    }
