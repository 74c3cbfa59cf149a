"""A peer as a PyTorch DataLoader that does the work of the clip loader.

Same plans, same crops, same antialiased resize, same normalisation; only who decodes differs.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

from bench.loader.peers import Frames, Peer, extract, is_importable, read
from pipelines.index.video_index import VideoIndex
from pipelines.output.temporary import temporary_folder
from pipelines.sampler import ClipPlan, ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec


class _PeerDataset:
    """A map-style data set without end: item k is clip k % num_clips of epoch k // num_clips."""

    def __init__(self, peer: Peer, paths: dict[int, str], sampler: ClipSampler) -> None:
        self.peer, self.paths, self.sampler = peer, paths, sampler
        torch: Any = importlib.import_module("torch")
        augment = sampler.augment
        mean, std = (torch.tensor(three).view(3, 1, 1, 1) for three in (augment.mean, augment.std))
        self.scale, self.shift = augment.value_max / 255 / std, mean / std

    def __getitem__(self, k: int) -> tuple[Any, bool]:
        """(clip k, float32 [3, T, S, S]; whether its video could not be read, which leaves the clip blank)."""
        plan = self.sampler.plan(*divmod(k, self.sampler.num_clips))
        try:
            return self.finish(read(self.peer, self.paths[plan.video_id], plan.frames), plan), False
        except Exception:  # a clip that raises is counted, and must not end the measurement of the others
            torch: Any = importlib.import_module("torch")
            return torch.zeros(3, len(plan.frames), *plan.resized), True

    def finish(self, pixels: Frames, plan: ClipPlan) -> Any:
        """The model's input out of decoded frames: cropped, resized, mirrored, normalised."""
        torch: Any = importlib.import_module("torch")
        y, x, height, width = plan.box
        # A view in channels-last order: torch has a kernel for that, twice as fast as for planes.
        cropped = torch.from_numpy(pixels).permute(0, 3, 1, 2)[:, :, y : y + height, x : x + width]
        resize = importlib.import_module("torch.nn.functional").interpolate
        small = resize(cropped, size=plan.resized, mode="bilinear", antialias=True)
        if plan.mirror:
            small = small.flip(-1)
        out = torch.empty(3, len(plan.frames), *plan.resized)
        return out.copy_(small.transpose(0, 1)).mul_(self.scale).sub_(self.shift)


class _Endless:
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


def _start_worker(modules: tuple[str, ...], _number: int) -> None:
    """Leave a worker one thread: the workers are the parallelism."""
    importlib.import_module("torch").set_num_threads(1)
    if any("cv2" in module for module in modules) and is_importable("cv2"):
        importlib.import_module("cv2").setNumThreads(0)


class PeerLoader:
    """Batches float32 [N, 3, T, S, S] of a peer, without end: epoch after epoch in the order of our own loader.

    A context manager; `close` ends its workers and removes its files. `failures` counts the clips so far that could
    not be read and are blank.
    """

    def __init__(
        self,
        peer: Peer,
        index: VideoIndex,
        clip: ClipSpec,
        augment: AugmentSpec,
        *,
        split: str | None,
        seed: int,
        batch_size: int,
        workers: int,
    ) -> None:
        self.failures = 0
        self._files = ExitStack()
        videos = index.columns(split)
        sampler = ClipSampler(videos, clip, augment, seed=seed, train=True, shard=ShardSpec())
        paths = {i: str(index.root / index[i].path) for i in videos.video_id.tolist()}
        try:
            if peer.extracts:
                paths = self._extract(paths, workers)
            clips = _PeerDataset(peer, paths, sampler)
            data: Any = importlib.import_module("torch.utils.data")
            options: dict[str, Any] = {}
            if workers:
                start = functools.partial(_start_worker, peer.modules)
                options = {"persistent_workers": True, "prefetch_factor": 2, "worker_init_fn": start}
                # None of the decoders minds a fork, even after it was used here, and it spares importing torch again.
                options["multiprocessing_context"] = "fork"
            self._loader: Any = data.DataLoader(
                clips, batch_size, sampler=_Endless(), num_workers=workers, drop_last=True, **options
            )
            self._batches: Any = iter(self._loader)
        except BaseException:
            self._files.close()
            raise

    def _extract(self, paths: dict[int, str], workers: int) -> dict[int, str]:
        root = self._files.enter_context(temporary_folder())
        folders = {i: f"{root}/{i}" for i in paths}
        with ProcessPoolExecutor(max(1, workers), get_context("fork")) as pool:
            list(pool.map(extract, paths.values(), folders.values()))
        return folders

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch."""
        clips, failed = next(self._batches)
        self.failures += int(failed.sum())
        return clips

    def close(self) -> None:
        """End the workers and remove the extracted frames. Closing twice is fine."""
        # The loader has no public way to end persistent workers but to be dropped.
        self._batches = self._loader = None
        self._files.close()

    def __enter__(self) -> PeerLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
