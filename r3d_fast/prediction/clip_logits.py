"""The logits and features that a network computes for every clip of some video files, in order.

Clips of different videos share a batch. The files are taken in chunks, and the next chunk is indexed while the network
computes the current one. So the time to the first answer and the memory don't grow with the number of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipelines.containers.file_checks import ACCEPT_WHOLE, Acceptance
from pipelines.datasets.entries import Dataset, Entry
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex, write_index
from pipelines.loader import Batch, ClipLoader
from pipelines.machine.cpus import usable_cpus
from pipelines.output.temporary import temporary_folder
from pipelines.specs import ClipSpec
from r3d_fast.backend.paddle import from_dlpack
from r3d_fast.loaders import clip_loader, usual_eval_batch
from r3d_fast.prediction.network import Network
from r3d_fast.prediction.top_classes import check_count
from r3d_fast.prediction.video_paths import why_no_video

# Decoding fewer clips than this takes less time than starting a second worker process.
_FEW_CLIPS = 32
_SECOND_CHUNK, _LARGEST_CHUNK, _GROWTH = 128, 8192, 4  # videos
NOT_FINITE = "the model computes NaN or infinite numbers: its weights are damaged, or its training diverged"


class Answer(NamedTuple):
    """What the network computes for clip number `clip` of a video: `logits` float32 [C] and `features` float32 [F].

    `frames` int32 [T] are the numbers of the clip's frames. Where `error` is not empty, logits and features are None.
    A file that can't be read gives one Answer, with an error and without frames. `is_last`: whether this is the last
    clip of the video.
    """

    video: str
    clip: int
    frames: NDArray[np.int32]
    logits: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    error: str
    is_last: bool


def answers(
    network: Network,
    videos: Iterable[str | Path],
    *,
    views: int | str | None = None,
    batch_size: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
) -> Iterator[Answer]:
    """An Answer for each clip of `videos`, in order.

    `views`: clips of each video (None: as many as the model's evaluation takes). `batch_size`: clips computed at once
    (None: 8 on a CPU, the config's on a GPU). A video that `accept` does not take gives an error. Raises
    UsageError for a number of views that the model's config does not allow.
    """
    clip = clip_spec(network, views)
    check_batch(batch_size)
    size = batch_size or default_batch(network)
    make = partial(_Chunk, network=network, clip=clip, batch_size=size, accept=accept)
    return _answers(_chunks(map(str, videos), 2 * size), make)


def clip_spec(network: Network, views: int | str | None = None) -> ClipSpec:
    """Which clips of a video the network gets; `views` as in `answers`, which says what is raised."""
    config = network.config
    wanted = views if views is not None else config.eval.views or config.clip.views
    try:
        return ClipSpec.model_validate({**config.clip.model_dump(), "views": wanted})
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"views {wanted}: {reason}") from error


def check_batch(batch_size: int | None) -> None:
    """Raise UsageError if `batch_size` is given and is no whole number, or below 1."""
    if batch_size is not None:
        check_count("batch_size", batch_size)


def default_batch(network: Network) -> int:
    """The number of clips computed at once where the caller gives none."""
    usual = usual_eval_batch(network.device)
    return usual if network.device == "cpu" else network.config.loader.batch_size_or(usual)


def _chunks(videos: Iterator[str], first: int) -> Iterator[list[str]]:
    """The videos in chunks: a small one first, for an early answer, then larger ones, as each starts new decoders."""
    size = first
    while chunk := list(islice(videos, size)):
        yield chunk
        size = min(max(size * _GROWTH, _SECOND_CHUNK), _LARGEST_CHUNK)


def _answers(chunks: Iterator[list[str]], make: Callable[[list[str]], _Chunk]) -> Iterator[Answer]:
    with ThreadPoolExecutor(1) as thread:

        def start_next() -> Future[_Chunk] | None:
            # The names are read in this thread: so Ctrl-C works while a list on stdin is waited for.
            names = next(chunks, None)
            return thread.submit(make, names) if names else None

        coming = start_next()
        try:
            while coming is not None:
                chunk, coming = coming.result(), None
                with closing(chunk):
                    coming = start_next()
                    yield from chunk.answers()
        finally:
            if coming is not None and not coming.cancel() and coming.exception() is None:
                coming.result().close()


class _Chunk:
    """Some videos with an index of their own, in a temporary folder that holds a numbered link to each video.

    The numbers keep the order of the videos in the index, and they are valid names whatever the videos are called.
    """

    def __init__(
        self, videos: list[str], network: Network, clip: ClipSpec, batch_size: int, accept: Acceptance
    ) -> None:
        """Index the files and, for the CPU, start decoding them, both in processes of their own."""
        self.videos, self.network = videos, network
        self.errors: dict[int, str] = {}
        self._folder = ExitStack()
        self.root = self._folder.enter_context(temporary_folder())
        self._loader: ClipLoader | None = None
        try:
            index = self._build(accept)
            self._numbers = [_number(index[i].path) for i in range(len(index))]
            if self._numbers:
                self._loader = self._load(index, clip, batch_size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the decoders and remove the temporary folder."""
        if self._loader is not None:
            self._loader.close()
        self._folder.close()

    def answers(self) -> Iterator[Answer]:
        """The answers for all clips of all videos, in order."""
        done = 0
        for number, answer in self._readable(self._loader) if self._loader is not None else ():
            yield from self._unreadable(done, number)
            done = number + 1
            yield answer
        yield from self._unreadable(done, len(self.videos))

    def _build(self, accept: Acceptance) -> VideoIndex:
        """The index of the videos that can be read; `errors` gets the reasons for the others."""
        entries = []
        for number, video in enumerate(self.videos):
            if "\0" in video:
                self.errors[number] = "not a file name: it contains a NUL byte"
            elif (reason := why_no_video(video)) is not None:
                self.errors[number] = reason
            else:
                name = _link_name(number)
                # The path is made absolute but not resolved: a video may itself be a link.
                os.symlink(os.path.abspath(video), self.root / name)  # noqa: PTH100, PTH211
                entries.append(Entry(name, 0, ""))
        data = Dataset("files", self.network.classes, tuple(entries), (), ())
        index = write_index(self.root / "videos.r3dindex", self.root, data, workers=1, accept=accept)
        for item in index.quarantined:
            self.errors[_number(item.path)] = item.reason + (f": {item.detail}" if item.detail else "")
        return index

    def _load(self, index: VideoIndex, clip: ClipSpec, batch_size: int) -> ClipLoader:
        """The loader of the clips, with as many workers as suit their number."""
        config, on_cpu = self.network.config, self.network.device == "cpu"
        update: dict[str, Any] = {"batch_size": batch_size}
        _, augment, _ = config.eval_specs()
        clips = len(index) * clip.views * augment.eval_crops if isinstance(clip.views, int) else None
        if clips is not None and clips < _FEW_CLIPS:
            update = {"batch_size": min(batch_size, clips), "workers": 1, "prefetch": 1}
        elif on_cpu and len(index) <= _SECOND_CHUNK and config.loader.workers == "auto":
            # The model needs CPUs too, and starting a worker takes 0.4 s of one.
            update["workers"] = max(1, usable_cpus() // 2)
        elif config.loader.workers == 0:  # a file that crashes the decoder is to be an error of its own only
            update["workers"] = 1
        loader = clip_loader(
            index, self.network.device, self.network.clip_dtype, clip=clip, augment=augment,
            loader=config.loader.model_copy(update=update), split=None, train=False,
            names=[self.videos[number] for number in self._numbers],
        )  # fmt: skip
        if on_cpu:
            loader.start()
        return loader

    def _unreadable(self, start: int, end: int) -> Iterator[Answer]:
        """An Answer with the error for each video from `start` to `end` that could not be indexed."""
        for number in range(start, end):
            if number in self.errors:
                yield Answer(self.videos[number], 0, np.zeros(0, np.int32), None, None, self.errors[number], True)

    def _readable(self, loader: ClipLoader) -> Iterator[tuple[int, Answer]]:
        """(number of the video, Answer) of each clip of the indexed videos."""
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
                error = "" if batch.is_real[i] else next(reasons).reason.removeprefix(f"{self.videos[number]}: ")
                if not error and not np.isfinite(logits[i]).all():
                    error = NOT_FINITE
                is_last = view + 1 == sampler.views[row] * sampler.crops
                yield number, Answer(
                    self.videos[number], view, sampler.plan(0, start + i).frames,
                    None if error else logits[i], None if error else features[i], error, is_last,
                )  # fmt: skip
                row, view = (row + 1, 0) if is_last else (row, view + 1)


def _leading(batch: Batch, count: int, device: str) -> Any:
    """The first `count` clips of a batch. On a CPU the rows that only fill the batch are left out, to save time."""
    if device != "cpu" or count == len(batch.is_real):
        return batch.clips
    return from_dlpack(batch.clips).numpy()[:count]


def _link_name(number: int) -> str:
    return f"{number:06d}"


def _number(name: str) -> int:
    return int(name)
