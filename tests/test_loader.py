from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_stamped_video
from numpy.typing import NDArray

from pipelines import AugmentSpec, Batch, ClipLoader, ClipSpec, LoaderSpec, VideoIndex, read_frames
from pipelines.sampler import ClipPlan

ROOT = Path(__file__).resolve().parent.parent
CLIP = ClipSpec(num_frames=8)
SMALL = AugmentSpec(size_px=32)
SIZES = {"jump": (112, 112), "spin": (112, 144), "wave": (128, 96)}  # width, height in px: square, portrait, landscape
LENGTHS = (5, 21, 34, 47)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 stamped videos in 3 classes of 3 shapes, one of each class shorter than a clip; 8 to train on, 4 to test."""
    root = tmp_path_factory.mktemp("loader") / "videos"
    for name, size in SIZES.items():
        (root / name).mkdir(parents=True)
        for k, length in enumerate(LENGTHS):
            write_stamped_video(root / name / f"v{k}.avi", num_frames=length, size=size, b_frames=k % 3)
    return VideoIndex.build(root, val_fraction=0.34, workers=0)


@pytest.fixture
def copied(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """The same videos and index, to damage."""
    shutil.copytree(index.root, tmp_path / "videos")  # keeps the times
    shutil.copy(index.path, tmp_path / "index")
    return VideoIndex.open(tmp_path / "index", tmp_path / "videos")


def make(index: VideoIndex, *, workers: int = 0, batch_size: int = 3, seed: int = 0, **options: Any) -> ClipLoader:
    """A small loader of all videos, in training unless told otherwise."""
    spec = LoaderSpec(batch_size=batch_size, workers=workers, threads=1, prefetch=options.pop("prefetch", 2), seed=seed)
    options = {"clip": CLIP, "augment": SMALL, "split": None, "train": True, **options}
    return ClipLoader(index, loader=spec, **options)


def pixels(batch: Batch) -> NDArray[np.float32]:
    return np.from_dlpack(batch.clips)


def content(batches: Sequence[Batch]) -> list[tuple[Any, ...]]:
    """Everything of the batches, bit for bit."""
    return [
        (pixels(b).tobytes(), b.labels.tolist(), b.video_ids.tolist(), b.is_real.tolist(), b.epoch, b.position, b.bad)
        for b in batches
    ]


def children() -> list[int]:
    """The decoding processes of this one (not multiprocessing's own tracker, which stays until the end)."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "stat").read_text().rsplit(")", 1)[1].split() if folder.name.isdigit() else []
            if status and int(status[1]) == os.getpid() and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


# An independent account of what the graph does to frames


def triangle(size: int, out: int) -> NDArray[np.float64]:
    """Weights [out, size] of antialiased bilinear resizing: a triangle as wide as the step, edge pixels repeated."""
    step = size / out
    radius = max(step, 1.0)
    weights = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * step
        for k in range(int(centre - radius) - 1, int(centre + radius) + 2):
            weights[i, min(max(k, 0), size - 1)] += max(0.0, 1.0 - abs(k + 0.5 - centre) / radius)
    return weights / weights.sum(axis=1, keepdims=True)


def expected_clip(index: VideoIndex, plan: ClipPlan, spec: AugmentSpec) -> NDArray[np.float64]:
    """The plan carried out by plain NumPy, [T, S, S, 3]."""
    y, x, h, w = plan.box
    frames = read_frames(index[plan.video_id], plan.frames, root=index.root)[:, y : y + h, x : x + w].astype(float)
    rows, columns = triangle(h, plan.resized[0]), triangle(w, plan.resized[1])
    resized = np.einsum("ih,thwc,jw->tijc", rows, frames, columns, optimize=True)
    top, left = plan.window
    seen = resized[:, top : top + spec.size_px, left : left + spec.size_px]
    if plan.mirror:
        seen = seen[:, :, ::-1]
    return (seen * (spec.value_max / 255.0) - np.array(spec.mean)) / np.array(spec.std)


def assert_parity(index: VideoIndex, loader: ClipLoader, batches: Sequence[Batch], spec: AugmentSpec) -> list[ClipPlan]:
    """Each clip is its plan carried out: within 0.5 of 255 on average, 2 of 255 at most."""
    plans = []
    for number, batch in enumerate(batches):
        shown = pixels(batch)
        shown = shown.transpose(0, 2, 3, 4, 1) if spec.layout == "NCTHW" else shown
        for i, plan in enumerate(loader.sampler.batch(batch.epoch, number, loader.spec.batch_size)):
            assert (batch.video_ids[i], batch.labels[i], batch.is_real[i]) == (plan.video_id, plan.label, plan.is_real)
            if not plan.is_real:
                continue
            error = np.abs(shown[i] - expected_clip(index, plan, spec)) * np.array(spec.std) * 255 / spec.value_max
            assert error.mean() < 0.5, (plan, error.mean())
            assert error.max() < 2.0, (plan, error.max())
            plans.append(plan)
    return plans
