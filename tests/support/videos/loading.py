"""Helps the tests of the loader: small loaders, what a clip must look like by NumPy alone, where real videos are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resizing import planned_clip

from pipelines.datasets.video_files import is_video_name
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.sampler import ClipPlan
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.decoder import read_frames

ROOT = Path(__file__).resolve().parents[3]
CLIP = ClipSpec(num_frames=8)
SMALL = AugmentSpec(size_px=32, resize="graph")
SIZES = {"jump": (112, 112), "spin": (112, 144), "wave": (128, 96)}  # width, height in px: square, portrait, landscape
LENGTHS = (5, 21, 34, 47)


def make(index: VideoIndex, *, workers: int = 0, batch_size: int = 3, seed: int = 0, **options: Any) -> ClipLoader:
    """A small loader of all videos, by default for training."""
    names = ("prefetch", "repeats", "last_batch", "timeout_seconds", "decoder", "io_retries")
    own = {name: options.pop(name) for name in names if name in options}
    spec = LoaderSpec(batch_size=batch_size, workers=workers, threads=1, seed=seed, **own)
    options = {"clip": CLIP, "augment": SMALL, "split": None, "train": True, **options}
    return ClipLoader(index, loader=spec, **options)


def pixels(batch: Batch) -> NDArray[np.float32]:
    return np.from_dlpack(batch.clips)


def content(batches: Sequence[Batch]) -> list[tuple[Any, ...]]:
    """The whole content of batches, to be compared bit for bit."""
    return [
        (pixels(b).tobytes(), b.labels.tolist(), b.video_ids.tolist(), b.is_real.tolist(), b.epoch, b.position, b.bad)
        for b in batches
    ]


def children() -> list[int]:
    """The ids of the decoding processes of this process, without the tracker process of multiprocessing."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                command = _command_of_child(folder)
                while command == b"":  # it is about to be a program of its own
                    command = _command_of_child(folder)
                if command is not None and b"pipelines.workers.worker" in command:
                    found.append(int(folder.name))
    return found


def _command_of_child(folder: Path) -> bytes | None:
    """The command line of the process, b"" where it has none yet; None where it has ended or is no child."""
    state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
    return (folder / "cmdline").read_bytes() if int(parent) == os.getpid() and state != "Z" else None


# What the graph does to frames, computed independently


def expected_clip(index: VideoIndex, plan: ClipPlan, spec: AugmentSpec) -> NDArray[np.float64]:
    """The clip of a plan, made by plain NumPy, float64 [T, S, S, 3]."""
    return planned_clip(read_frames(index[plan.video_id], plan.frames, root=index.root), plan, spec)


def assert_parity(index: VideoIndex, loader: ClipLoader, batches: Sequence[Batch], spec: AugmentSpec) -> list[ClipPlan]:
    """Assert that each clip is what its plan says, up to the rounding of resized pixels; give the plans."""
    plans = []
    for number, batch in enumerate(batches):
        shown = pixels(batch)
        shown = shown.transpose(0, 2, 3, 4, 1) if spec.layout == "NCTHW" else shown
        for i, plan in enumerate(loader.sampler.batch(batch.epoch, number, loader.spec.batch_size)):
            assert (batch.video_ids[i], batch.labels[i], batch.is_real[i]) == (plan.video_id, plan.label, plan.is_real)
            if not plan.is_real:
                continue
            error = np.abs(shown[i] - expected_clip(index, plan, spec)) * np.array(spec.std) * 255 / spec.value_max
            assert error.mean() < 0.3, (plan, error.mean())  # of 255
            assert error.max() < 0.55, (plan, error.max())
            plans.append(plan)
    return plans


def find_real_videos(root: Path) -> Path | None:
    """The folder of real videos, a folder a class: UCF-101/ in `root`, or `root` itself; None if it is neither."""
    if (root / "UCF-101").is_dir():
        return root / "UCF-101"
    return root if any(is_video_name(path.name) for path in root.glob("*/*")) else None


def index_some(videos: Path, folder: Path, count: int = 96) -> VideoIndex:
    """An index of no more than `count` of the videos, spread over all; of links to them in `folder`."""
    paths = sorted(path for path in videos.glob("*/*") if is_video_name(path.name))
    for k in range(min(count, len(paths))):
        path = paths[k * len(paths) // min(count, len(paths))]
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).symlink_to(path.resolve())
    return VideoIndex.build(folder, workers=0, val_fraction=0.0, follow_links=True, allow_partial=True)
