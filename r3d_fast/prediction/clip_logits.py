"""Video files -> what a network says of their clips, one by one, in order.

Clips of many videos share a batch. Files are taken in chunks, the next of which is looked at while the one before is
computed: so neither the first answer nor the memory depends on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipelines.datasets.entries import Dataset, Entry
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex, write_index
from pipelines.loader import Batch, ClipLoader
from pipelines.machine.cpus import usable_cpus
from pipelines.specs import ClipSpec
from r3d_fast.backend.paddle import from_dlpack
from r3d_fast.loaders import clip_loader
from r3d_fast.prediction.network import Network

# Fewer clips than this are decoded sooner than a worker process has started.
_FEW_CLIPS = 32
_CPU_BATCH = 8  # clips; larger ones are no faster there and take more memory
_SECOND_CHUNK, _LARGEST_CHUNK, _GROWTH = 128, 8192, 4  # videos
NOT_FINITE = "the model answers with numbers that are none (NaN or infinite): its weights are damaged or it diverged"


class Answer(NamedTuple):
    """What the network says of clip number `clip` of a video: `logits` float32 [C] and `features` float32 [F].

    `frames` int32 [T] are the clip's. Where there is an `error`, logits and features are None; a file that can't be
    read has one clip, without frames. `is_last`: no more clips of this video.
    """

    video: str
    clip: int
    frames: NDArray[np.int32]
    logits: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    error: str
    is_last: bool


def answers(
    network: Network, videos: Iterable[str | Path], *, views: int | str | None = None, batch_size: int | None = None
) -> Iterator[Answer]:
    """The answers to all clips of `videos`, in order; `views` clips a video, None: those of the model's evaluation.

    `batch_size`: clips computed at once, None: 8 on a CPU, the config's on a GPU. Raises UsageError for views that the
    model's clips can't have.
    """
    clip = clip_spec(network, views)
    check_batch(batch_size)
    size = batch_size or default_batch(network)
    return _answers(_chunks(map(str, videos), 2 * size), partial(_Chunk, network=network, clip=clip, batch_size=size))


def clip_spec(network: Network, views: int | str | None = None) -> ClipSpec:
    """Which clips the network gets of a video. Raises UsageError for views that they can't have."""
    config = network.config
    wanted = views if views is not None else config.eval.views or config.clip.views
    try:
        return ClipSpec.model_validate({**config.clip.model_dump(), "views": wanted})
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"views {wanted}: {said}") from error


def check_batch(batch_size: int | None) -> None:
    """Raise UsageError unless at least one clip is to be computed at once."""
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: expected at least 1")


def default_batch(network: Network) -> int:
    """Clips that are computed at once where nobody says how many."""
    return _CPU_BATCH if network.device == "cpu" else network.config.loader.batch_size


def _chunks(videos: Iterator[str], first: int) -> Iterator[list[str]]:
    """A small one first, for an early answer; then larger ones, as each starts decoders of its own."""
    size = first
    while chunk := list(islice(videos, size)):
        yield chunk
        size = min(max(size * _GROWTH, _SECOND_CHUNK), _LARGEST_CHUNK)


def _answers(chunks: Iterator[list[str]], make: Callable[[list[str]], _Chunk]) -> Iterator[Answer]:
    with ThreadPoolExecutor(1) as thread:

        def following() -> Future[_Chunk] | None:
            # Names are read here, not in the thread: a list on stdin that goes silent can be interrupted.
            names = next(chunks, None)
            return thread.submit(make, names) if names else None

        coming = following()
        try:
            while coming is not None:
                chunk, coming = coming.result(), None
                with closing(chunk):
                    coming = following()
                    yield from chunk.answers()
        finally:
            if coming is not None and not coming.cancel() and coming.exception() is None:
                coming.result().close()


class _Chunk:
    """Some videos, indexed in a folder of their own, under links whose names are their numbers: in order, and plain."""

    def __init__(self, videos: list[str], network: Network, clip: ClipSpec, batch_size: int) -> None:
        """Look at the files and set decoders to them; where there are many on a CPU, in other processes."""
        self.videos, self.network = videos, network
        self.errors: dict[int, str] = {}
        self._folder = TemporaryDirectory(prefix="r3d-fast-")
        self.root = Path(self._folder.name)
        self._loader: ClipLoader | None = None
        try:
            index = self._build()
            self._numbers = [_number(index[i].path) for i in range(len(index))]
            if self._numbers:
                self._loader = self._load(index, clip, batch_size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the decoders and remove the folder."""
        if self._loader is not None:
            self._loader.close()
        self._folder.cleanup()

    def answers(self) -> Iterator[Answer]:
        """The answers to all clips of all videos, in order."""
        told = 0
        for number, answer in self._readable(self._loader) if self._loader is not None else ():
            yield from self._unreadable(told, number)
            told = number + 1
            yield answer
        yield from self._unreadable(told, len(self.videos))

    def _build(self) -> VideoIndex:
        entries = []
        for number, video in enumerate(self.videos):
            if "\0" in video:
                self.errors[number] = "not a file name: it holds a NUL"
            elif os.path.isdir(video):  # noqa: PTH112 - "" is no folder
                self.errors[number] = "a folder, not a video file"
            else:
                name = _link_name(number)
                # The absolute path of the name as it is given: what it may link to in turn is its own affair.
                os.symlink(os.path.abspath(video), self.root / name)  # noqa: PTH100, PTH211
                entries.append(Entry(name, 0, ""))
        data = Dataset("files", self.network.classes, tuple(entries), (), ())
        # In this process: those that multiprocessing starts would run the user's script again.
        index = write_index(self.root / "videos.r3dindex", self.root, data, workers=1)
        for item in index.quarantined:
            self.errors[_number(item.path)] = item.reason + (f": {item.detail}" if item.detail else "")
        return index

    def _load(self, index: VideoIndex, clip: ClipSpec, batch_size: int) -> ClipLoader:
        config, on_cpu = self.network.config, self.network.device == "cpu"
        update: dict[str, Any] = {"batch_size": batch_size}
        _, augment, _ = config.eval_specs()
        clips = len(index) * clip.views * augment.eval_crops if clip.views != "all" else None
        if clips is not None and clips < _FEW_CLIPS:
            update = {"batch_size": min(batch_size, clips), "workers": 0, "prefetch": 1}
        elif on_cpu and len(index) <= _SECOND_CHUNK and config.loader.workers == "auto":
            update["workers"] = max(
                1, usable_cpus() // 2
            )  # the model needs the CPUs, and each start takes 0.4 s of one
        loader = clip_loader(
            index, self.network.device, self.network.clip_dtype, clip=clip, augment=augment,
            loader=config.loader.model_copy(update=update), split=None, train=False,
        )  # fmt: skip
        if on_cpu:
            loader.start()
        return loader

    def _unreadable(self, start: int, end: int) -> Iterator[Answer]:
        for number in range(start, end):
            if number in self.errors:
                yield Answer(self.videos[number], 0, np.zeros(0, np.int32), None, None, self.errors[number], True)

    def _readable(self, loader: ClipLoader) -> Iterator[tuple[int, Answer]]:
        sampler, network = loader.sampler, self.network
        network.expect(sampler.num_clips)
        row = view = 0
        for batch in loader.epoch(0):
            start = batch.position - len(batch.is_real)
            count = min(len(batch.is_real), sampler.num_clips - start)
            logits, features = network(_leading(batch, count, network.device))
            reasons = iter(batch.bad)
            for i in range(count):
                number = self._numbers[row]
                error = "" if batch.is_real[i] else self._told(number, next(reasons).reason)
                if not error and not np.isfinite(logits[i]).all():
                    error = NOT_FINITE
                is_last = view + 1 == sampler.views[row] * sampler.crops
                yield number, Answer(
                    self.videos[number], view, sampler.plan(0, start + i).frames,
                    None if error else logits[i], None if error else features[i], error, is_last,
                )  # fmt: skip
                row, view = (row + 1, 0) if is_last else (row, view + 1)

    def _told(self, number: int, reason: str) -> str:
        """`reason` without the path of the link: whoever reads it knows the file."""
        return reason.removeprefix(f"{self.root / _link_name(number)}: ")


def _leading(batch: Batch, count: int, device: str) -> Any:
    """The first `count` clips of a batch: what pads it is not computed, where that costs anything."""
    if device != "cpu" or count == len(batch.is_real):
        return batch.clips
    return from_dlpack(batch.clips).numpy()[:count]


def _link_name(number: int) -> str:
    return f"{number:06d}"


def _number(name: str) -> int:
    return int(name)
