from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import read_stamp, write_stamped_video
from numpy.typing import NDArray

from pipelines import AugmentSpec, Batch, ClipLoader, ClipSpec, LoaderSpec, ShardSpec, VideoIndex, read_frames
from pipelines.errors import DataError, EnvironmentProblem, UsageError
from pipelines.sampler import ClipPlan

ROOT = Path(__file__).resolve().parent.parent
CLIP = ClipSpec(num_frames=8)
SMALL = AugmentSpec(size_px=32, resize="graph")
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
    own = {name: options.pop(name) for name in ("prefetch", "repeats", "timeout_seconds") if name in options}
    spec = LoaderSpec(batch_size=batch_size, workers=workers, threads=1, seed=seed, **own)
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
            if status and int(status[1]) == os.getpid() and b"pipelines.worker" in (folder / "cmdline").read_bytes():
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
    """Each clip is its plan carried out: what differs is the rounding of resized pixels to whole numbers."""
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


# What a batch is


def test_batch_is_plain_numpy_of_the_stated_shapes_and_types(index: VideoIndex) -> None:
    shown = {}
    for layout in ("NCTHW", "NTHWC"):
        with make(index, augment=AugmentSpec(size_px=32, layout=layout)) as loader:
            batches = list(loader)
        assert len(batches) == len(loader) == 4
        for batch in batches:
            assert pixels(batch).shape == ((3, 3, 8, 32, 32) if layout == "NCTHW" else (3, 8, 32, 32, 3))
            assert pixels(batch).dtype == np.float32
            assert (batch.labels.shape, batch.labels.dtype) == ((3,), np.int64)
            assert (batch.video_ids.shape, batch.video_ids.dtype) == ((3,), np.int64)
            assert (batch.is_real.shape, batch.is_real.dtype) == ((3,), np.bool_)
            assert batch.is_real.all()
            assert batch.bad == ()
            assert batch.labels.tolist() == [index[i].label for i in batch.video_ids]
        shown[layout] = np.concatenate([pixels(batch) for batch in batches])
    assert np.array_equal(shown["NCTHW"].transpose(0, 2, 3, 4, 1), shown["NTHWC"])


def test_batches_are_made_without_paddle(index: VideoIndex) -> None:
    code = (
        "import sys, numpy, pipelines as p\n"
        "loader = p.ClipLoader(p.VideoIndex.open(sys.argv[1]), split='train', clip=p.ClipSpec(num_frames=4),\n"
        "                      loader=p.LoaderSpec(batch_size=2, workers=0))\n"
        "print(numpy.from_dlpack(next(iter(loader)).clips).shape)\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('paddle', 'r3d_fast', 'yaml')], sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(index.path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "(2, 3, 4, 112, 112)\n"


# Pixels


@pytest.mark.parametrize(
    "augment",
    [
        AugmentSpec(resize="graph"),
        AugmentSpec(size_px=32, resize="graph", layout="NTHWC"),  # shrinks everything
        AugmentSpec(size_px=160, resize="graph", value_max=255, mean=(110.0, 100.0, 90.0), std=(1.0, 2.0, 3.0)),
        AugmentSpec(size_px=56, resize="graph", max_scale_step=3, positions="corners5", mirror=1.0),  # stretches most
    ],
    ids=["reference", "small", "255", "stretched"],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_clips_are_the_plans_carried_out_by_numpy(index: VideoIndex, augment: AugmentSpec, train: bool) -> None:
    with make(index, augment=augment, train=train) as loader:
        batches = [batch for _ in range(2) for batch in loader]
        first = assert_parity(index, loader, batches[: len(loader)], augment)
        second = assert_parity(index, loader, batches[len(loader) :], augment)
    assert len(first) == len(second) == 12
    mirrors = {plan.mirror for plan in first + second}
    assert mirrors == (({True} if augment.mirror == 1.0 else {True, False}) if train else {False})
    assert len({plan.box[2:] for plan in first}) > (4 if train else 2)


def test_decoder_and_graph_resize_the_same_clips(index: VideoIndex) -> None:
    shown = {}
    for resize in ("decoder", "graph"):
        augment = AugmentSpec(size_px=56, resize=resize, value_max=255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        with make(index, augment=augment) as loader:
            shown[resize] = [(batch.video_ids.tolist(), pixels(batch)) for batch in loader]
    assert [ids for ids, _ in shown["decoder"]] == [ids for ids, _ in shown["graph"]]
    errors = np.concatenate([(a - b).ravel() for (_, a), (_, b) in zip(shown["decoder"], shown["graph"], strict=True)])
    assert 25 < 10 * np.log10(255**2 / np.mean(errors**2)) < 60  # the stamps' texture is all saturated colour


@pytest.mark.parametrize("resize", ["decoder", "graph"])
def test_evaluation_resizes_in_the_graph_whatever_training_does(index: VideoIndex, resize: Any) -> None:
    augment = AugmentSpec(size_px=32, resize=resize)
    with make(index, augment=augment, train=False) as loader:
        assert len(assert_parity(index, loader, list(loader), augment)) == 12


@pytest.mark.parametrize("resize", ["decoder", "graph"])
@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_frames_show_the_numbers_of_the_plan(index: VideoIndex, sampling: Any, train: bool, resize: Any) -> None:
    whole = AugmentSpec(
        size_px=112, scales=(1.0,), mirror=0.0, resize=resize, value_max=255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    clip = ClipSpec(num_frames=8, sampling=sampling, short="loop")
    seen = []
    with make(index, clip=clip, augment=whole, train=train) as loader:
        for number, batch in enumerate(loader):
            for i, plan in enumerate(loader.sampler.batch(0, number, 3)):
                if index[plan.video_id].path.startswith("jump"):  # 112 px square: whole and as it is
                    frames = pixels(batch)[i].transpose(1, 2, 3, 0).round().astype(np.uint8)
                    assert [read_stamp(frame) for frame in frames] == plan.frames.tolist()
                    seen.append(plan.video_id)
    assert len(set(seen)) == 4


# Workers


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_any_number_of_workers_makes_the_same_batches(index: VideoIndex, train: bool) -> None:
    made = []
    for workers in (0, 1, 2):
        with make(index, workers=workers, batch_size=5, train=train) as loader:
            made.append(content([batch for _ in range(2) for batch in loader]))
            assert len(children()) == workers
    assert len(made[0]) == (4 if train else 6)
    assert made[0] == made[1] == made[2]


def test_batches_that_are_kept_are_never_overwritten(index: VideoIndex) -> None:
    kept, copies = [], []
    with make(index, workers=2, prefetch=2) as loader:
        for batch in [*loader, *loader]:
            kept.append(batch)
            copies.append(content([batch]))
    del loader
    gc.collect()
    assert len(kept) == 8
    assert [content([batch]) for batch in kept] == copies
    assert len({clips[0][0] for clips in copies}) == 8


def test_batch_is_not_overwritten_while_later_ones_are_made(index: VideoIndex) -> None:
    with make(index, prefetch=1) as loader:
        batches = iter(loader)
        first = next(batches)
        before = content([first])
        rest = [content([batch]) for batch in batches] + [content([batch]) for batch in loader]
        assert content([first]) == before
        assert before not in rest


def test_seed_decides_the_batches(index: VideoIndex) -> None:
    made = []
    for seed in (0, 0, 2**63 - 1):
        with make(index, seed=seed) as loader:
            made.append(content(list(loader)))
    assert made[0] == made[1] != made[2]


def test_auto_means_a_worker_for_each_usable_cpu(index: VideoIndex) -> None:
    spec = LoaderSpec(batch_size=2)
    with ClipLoader(index, clip=CLIP, augment=SMALL, loader=spec, split=None, train=True) as loader:
        next(iter(loader))
        assert len(children()) == len(os.sched_getaffinity(0))


def test_close_ends_the_processes_and_the_loader_works_again(index: VideoIndex) -> None:
    loader = make(index, workers=2)
    batches = loader.epoch(0)
    first = [next(batches), next(batches)]
    assert len(children()) == 2
    loader.close()
    assert children() == []
    loader.close()
    rest = list(batches)  # from where it stood
    with make(index) as other:
        assert content(first + rest) == content(list(other))
    loader.close()
    assert children() == []
    with make(index, workers=1) as loader:
        next(iter(loader))
        assert len(children()) == 1
    assert children() == []


def test_files_open_stay_as_many_over_epochs_and_restarts(index: VideoIndex) -> None:
    counts = []
    with make(index, workers=1) as loader:
        for round_ in range(3):
            for number in (round_, round_ + 1, 0):  # going back to epoch 0 starts other workers
                for _ in loader.epoch(number):
                    pass
            gc.collect()
            (child,) = children()
            counts.append([len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (os.getpid(), child)])
    assert counts[0] == counts[1] == counts[2]


# Epochs and positions


def test_iterating_again_gives_the_next_epoch(index: VideoIndex) -> None:
    with make(index) as loader:
        epochs = [list(loader) for _ in range(3)]
        for number, batches in enumerate(epochs):
            assert {batch.epoch for batch in batches} == {number}
            assert [batch.position for batch in batches] == [3, 6, 9, 12]
            assert sorted(i for batch in batches for i in batch.video_ids) == list(range(12))
            assert [int(i) for batch in batches for i in batch.video_ids] == loader.sampler.order(number).tolist()
    orders = {tuple(int(i) for batch in batches for i in batch.video_ids) for batches in epochs}
    assert len(orders) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_epoch_starts_anywhere_forwards_and_backwards(index: VideoIndex, workers: int) -> None:
    with make(index) as loader:
        full = {number: content(list(loader.epoch(number))) for number in (0, 1, 2)}
    with make(index, workers=workers) as loader:
        assert content(list(loader.epoch(1, 6))) == full[1][2:]
        assert content(list(loader.epoch(2))) == full[2]  # without a stop in between
        assert content(list(loader.epoch(0, 3))) == full[0][1:]
        assert content([next(loader.epoch(1))]) == full[1][:1]  # left in its middle
        assert content(list(loader.epoch(1, 9))) == full[1][3:]
        assert list(loader.epoch(1, 12)) == []


def test_two_epochs_side_by_side(index: VideoIndex) -> None:
    with make(index) as loader:
        full = [content(list(loader.epoch(number))) for number in (0, 1)]
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
        assert [content([pair[k] for pair in pairs]) for k in (0, 1)] == full


def test_resume_at_the_position_of_a_batch(index: VideoIndex) -> None:
    with make(index) as loader:
        full = content(list(loader.epoch(5)))
    for k in range(3):
        with make(index) as loader:
            assert content(list(loader.epoch(5, position=full[k][5]))) == full[k + 1 :]


@pytest.mark.parametrize("position", [1, 4, -3, 15])
def test_position_where_no_batch_starts_is_an_error(index: VideoIndex, position: int) -> None:
    with (
        make(index) as loader,
        pytest.raises(
            UsageError,
            match=rf"^position {position} is not where a batch of 3 clips starts in an epoch of 4 batches; expected "
            "the position of a batch of the same batch size and number of shards$",
        ),
    ):
        loader.epoch(0, position)


# Repeats


@pytest.mark.parametrize("workers", [0, 2])
def test_repeats_give_each_video_so_often_in_successive_batches(index: VideoIndex, workers: int) -> None:
    with make(index, workers=workers, repeats=3) as loader:
        assert len(loader) == 12
        batches = list(loader)
        following = list(loader)
        plans = [plan for number in range(12) for plan in loader.sampler.batch(0, number, 3)]
        order = loader.sampler.order(0).tolist()
    assert [batch.position for batch in batches] == [3 * k for k in range(1, 13)]
    for first in range(0, 12, 3):
        seen = [batch.video_ids.tolist() for batch in batches[first : first + 3]]
        assert seen == [order[first : first + 3]] * 3
    assert [plan.video_id for plan in plans] == [int(i) for batch in batches for i in batch.video_ids]
    draws = [(plan.video_id, plan.frames.tolist(), plan.box, plan.mirror) for plan in plans]
    assert len({str(draw) for draw in draws}) == 36  # frames and crops of their own
    assert [b.video_ids.tolist() for b in following[:3]] != [b.video_ids.tolist() for b in batches[:3]]


def test_repeated_clips_are_their_plans_carried_out(index: VideoIndex) -> None:
    with make(index, repeats=2) as loader:
        assert len(assert_parity(index, loader, list(loader), SMALL)) == 24


def test_repeats_decode_less_for_a_clip(index: VideoIndex) -> None:
    packets = {}
    for repeats in (1, 4):
        with make(index, repeats=repeats) as loader:
            for _ in loader.epoch(0):
                pass
            if repeats == 1:
                list(loader.epoch(0)), list(loader.epoch(0)), list(loader.epoch(0))
            packets[repeats] = loader.statistics.packets
            assert loader.statistics.clips == 48
    assert packets[4] < 0.6 * packets[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_repeats_resume_amid_a_round_and_are_the_same_on_shards(index: VideoIndex, workers: int) -> None:
    with make(index, repeats=2, batch_size=4) as loader:
        full = list(loader.epoch(1))
    assert len(full) == 6
    for start in range(6):
        with make(index, repeats=2, batch_size=4, workers=workers) as loader:
            assert content(list(loader.epoch(1, 4 * start))) == content(full[start:])
    halves = []
    for k in range(2):
        with make(index, repeats=2, batch_size=2, shard=ShardSpec(index=k, count=2)) as loader:
            halves.append(list(loader.epoch(1)))
    for whole, *parts in zip(full, *halves, strict=True):
        together = np.stack([pixels(part) for part in parts], axis=1).reshape(pixels(whole).shape)
        assert np.array_equal(together, pixels(whole))


def test_evaluation_ignores_repeats(index: VideoIndex) -> None:
    made = []
    for repeats in (1, 3):
        with make(index, repeats=repeats, train=False) as loader:
            made.append(content(list(loader)))
    assert made[0] == made[1]


# Splits, evaluation, shards


def test_split_decides_whether_to_train(index: VideoIndex) -> None:
    spec = LoaderSpec(batch_size=2, workers=0, threads=1)
    train = ClipLoader(index, clip=CLIP, augment=SMALL, loader=spec)
    test = ClipLoader(index, clip=CLIP, augment=SMALL, loader=spec, split="test")
    assert (len(train), len(test)) == (4, 2)  # 9 videos, the ninth dropped; 3 videos, the fourth row padded
    taken = [int(i) for batch in train for i in batch.video_ids]
    assert {index[i].split for i in taken} == {"train"}
    assert taken != sorted(taken)
    taken = [int(i) for batch in test for i in batch.video_ids[batch.is_real]]
    assert taken == [i for i in range(12) if index[i].split == "test"]
    train.close()
    test.close()


def test_eval_counts_every_video_once_and_pads_the_last_batch(index: VideoIndex) -> None:
    with make(index, workers=2, batch_size=5, train=False) as loader:
        first = list(loader)
        workers = children()
        second = list(loader)
        third = list(loader.epoch(0))
        assert children() == workers  # the same processes go on
    assert children() == []  # at once, not when garbage is collected
    assert [batch.is_real.sum() for batch in first] == [5, 5, 2]
    assert [int(i) for batch in first for i in batch.video_ids[batch.is_real]] == list(range(12))
    assert all(batch.bad == () for batch in first)
    blank = -np.array(SMALL.mean) / np.array(SMALL.std)
    assert np.abs(pixels(first[2])[2:] - blank.reshape(3, 1, 1, 1)).max() < 1e-5
    assert [batch.epoch for batch in second] == [1, 1, 1]
    for again in (second, third):
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(pixels(a), pixels(b))
            assert (a.video_ids.tolist(), a.position) == (b.video_ids.tolist(), b.position)


def test_eval_left_in_its_middle_begins_anew(index: VideoIndex) -> None:
    with make(index, train=False) as loader:
        full = content(list(loader.epoch(0)))
        assert content([next(loader.epoch(0))]) == full[:1]
        assert content(list(loader.epoch(0))) == full
        assert content(list(loader.epoch(0, 6))) == full[2:]
        assert content(list(loader.epoch(0))) == full


def test_views_give_each_video_as_often(index: VideoIndex) -> None:
    clip = ClipSpec(num_frames=8, sampling="consecutive", views=3)
    with make(index, clip=clip, batch_size=7, train=False) as loader:
        batches = list(loader)
        assert_parity(index, loader, batches, SMALL)
    real = [int(i) for batch in batches for i in batch.video_ids[batch.is_real]]
    assert real == [i for i in range(12) for _ in range(3)]
    assert [batch.is_real.sum() for batch in batches] == [7] * 5 + [1]
    rows = np.concatenate([pixels(batch) for batch in batches])
    assert not np.array_equal(rows[9], rows[10])  # 47 frames: other windows
    assert np.array_equal(rows[0], rows[2])  # 5 frames: the same


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_two_shards_together_are_one(index: VideoIndex, train: bool) -> None:
    with make(index, batch_size=4, train=train) as loader:
        one = list(loader.epoch(3))
    parts = []
    for k in range(2):
        with make(index, batch_size=2, train=train, shard=ShardSpec(index=k, count=2)) as loader:
            parts.append(list(loader.epoch(3)))
            assert content(list(loader.epoch(3, 8))) == content(parts[k][2:])
    assert len(parts[0]) == len(parts[1]) == len(one) == 3
    for whole, *halves in zip(one, *parts, strict=True):
        together = np.stack([pixels(half) for half in halves], axis=1).reshape(pixels(whole).shape)
        assert np.array_equal(together, pixels(whole))
        assert np.stack([half.video_ids for half in halves], axis=1).ravel().tolist() == whole.video_ids.tolist()
        assert {half.position for half in halves} == {whole.position}


def test_shards_of_an_evaluation_have_equal_batches(index: VideoIndex) -> None:
    real = []
    for k in range(5):
        with make(index, batch_size=2, train=False, shard=ShardSpec(index=k, count=5)) as loader:
            batches = list(loader)
        assert len(batches) == 2
        real += [int(i) for batch in batches for i in batch.video_ids[batch.is_real]]
    assert sorted(real) == list(range(12))


def test_batch_larger_than_the_split_is_an_error(index: VideoIndex) -> None:
    text = "is more than the {} clips of split {}: training drops incomplete batches; choose a smaller one$"
    with pytest.raises(UsageError, match="^loader.batch_size 13 " + text.format(12, None)):
        make(index, batch_size=13)
    with pytest.raises(UsageError, match="^loader.batch_size 5 x 2 shards " + text.format(9, "'train'")):
        make(index, batch_size=5, split="train", shard=ShardSpec(index=0, count=2))
    assert len(make(index, batch_size=13, train=False)) == 1


def test_missing_split_is_an_error(index: VideoIndex) -> None:
    with pytest.raises(DataError, match=r"no split 'val'; it has test, train$"):
        make(index, split="val")


# Bad videos


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, 0))


def rot(path: Path) -> None:
    """Zeros from the first packets on; size and time as before."""
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:3000] + bytes(len(data) - 3000))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("resize", ["decoder", "graph"])
@pytest.mark.parametrize(
    ("damage", "workers", "reason"),
    [
        (delete, 1, "can't be read: No such file or directory"),
        (cut, 0, "changed since it was indexed: {size} bytes then, 9000 now; index the data set again"),
        (rewrite, 0, "changed since it was indexed: {size} bytes then, {size} now; index the data set again"),
        (rot, 0, "does not decode|frames missing"),
    ],
    ids=["deleted", "cut", "rewritten", "rotten"],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_bad_video_is_a_blank_row_with_its_reason(
    index: VideoIndex, copied: VideoIndex, damage: Any, workers: int, reason: str, train: bool,
    resize: Any,
) -> None:  # fmt: skip
    record = copied[7]
    path = Path(copied.root) / record.path
    damage(path)
    augment = AugmentSpec(size_px=32, resize=resize)
    with make(index, train=train, augment=augment) as loader:
        intact = list(loader)
    with make(copied, train=train, workers=workers, augment=augment) as loader:
        batches = list(loader)
    found = [bad for batch in batches for bad in batch.bad]
    assert [bad.video_id for bad in found] == [7]
    assert found[0].reason.startswith(f"{path}: ")
    assert any(text in found[0].reason for text in reason.format(size=record.size).split("|")), found[0].reason
    blank = -np.array(SMALL.mean) / np.array(SMALL.std)
    for a, b in zip(batches, intact, strict=True):
        good = a.video_ids != 7
        assert a.is_real.tolist() == good.tolist()
        assert (a.video_ids.tolist(), a.labels.tolist()) == (b.video_ids.tolist(), b.labels.tolist())
        assert np.array_equal(pixels(a)[good], pixels(b)[good])
        assert len(a.bad) == (~good).sum()
        if not good.all():
            assert np.abs(pixels(a)[~good] - blank.reshape(3, 1, 1, 1)).max() < 1e-5


# Workers that die


def within(seconds: float, make_batches: Iterator[Batch]) -> list[Batch]:
    """All batches; fails where they take longer, instead of waiting for ever."""
    batches: list[Batch] = []
    thread = threading.Thread(target=lambda: batches.extend(make_batches), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"no end within {seconds} s; {len(batches)} batches"
    return batches


@pytest.mark.parametrize(
    ("before", "after"), [(0.0, 0.0), (0.7, 0.0), (0.7, 0.7)], ids=["at work", "asleep", "found dead"]
)
def test_killed_worker_is_replaced_and_nothing_is_lost(
    index: VideoIndex, caplog: pytest.LogCaptureFixture, before: float, after: float
) -> None:
    with make(index, batch_size=2) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=2) as loader:
        batches = iter(loader)
        made = [next(batches), next(batches)]
        time.sleep(before)
        old = children()
        os.kill(old[0], signal.SIGKILL)
        time.sleep(after)
        with caplog.at_level(logging.WARNING, "pipelines.pool"):
            made += within(30, batches)
            made += within(30, iter(loader))
        assert content(made) == undisturbed
        assert set(old) & set(children()) == {old[1]}
        assert len(children()) == 2
        assert children() == sorted(loader.worker_pids)
    assert children() == []
    (record,) = caplog.records
    assert record.getMessage() == "a decoding process died (exit code -9): another one makes its clips again"


def test_hanging_worker_is_replaced_and_nothing_is_lost(index: VideoIndex, caplog: pytest.LogCaptureFixture) -> None:
    with make(index, batch_size=2) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=2, timeout_seconds=0.5) as loader:
        batches = iter(loader)
        made = [next(batches)]
        old = children()
        os.kill(old[1], signal.SIGSTOP)
        with caplog.at_level(logging.WARNING, "pipelines.pool"):
            made += within(30, batches)
            made += within(30, iter(loader))
        assert content(made) == undisturbed
        assert set(old) & set(children()) == {old[0]}
    (record,) = caplog.records
    assert record.getMessage().startswith("a decoding process gave no clip for 0.5 s and was ended (exit code -9)")


@pytest.mark.parametrize("kill_after", [2, 3])
def test_worker_killed_near_the_end_of_an_evaluation(index: VideoIndex, kill_after: int) -> None:
    with make(index, batch_size=4, train=False) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=4, train=False) as loader:
        batches = iter(loader)
        made = [next(batches) for _ in range(kill_after)]
        time.sleep(0.5)  # with 2 of 3 given, the last one lies ready, the end of the source does not
        os.kill(children()[0], signal.SIGKILL)
        made += within(30, batches)
        made += within(30, iter(loader))
        assert content(made) == undisturbed


def test_workers_that_keep_dying_end_the_epoch(index: VideoIndex, caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.05):
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    with make(index, workers=1) as loader:
        batches = iter(loader)
        next(batches)
        killer.start()
        try:
            while children():
                time.sleep(0.05)
            with (
                caplog.at_level(logging.WARNING, "pipelines.pool"),
                pytest.raises(
                    EnvironmentProblem,
                    match=r"^a decoding process ended while it started \(exit code -9\); what it printed stands above; "
                    "loader.workers=0 shows the error where it happens$",
                ),
            ):
                list(loader.epoch(5))
        finally:
            stop.set()
            killer.join()
        assert children() == []
    assert len(caplog.records) == 4  # the first one worked


def test_script_needs_no_main_guard(index: VideoIndex, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pipelines as p\n"
        f"index = p.VideoIndex.open({json.dumps(str(index.path))})\n"
        "print(len(list(p.ClipLoader(index, loader=p.LoaderSpec(batch_size=2, workers=1)))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "4\n", "")


def test_killed_program_leaves_no_workers_behind(index: VideoIndex) -> None:
    code = (
        "import os, signal, sys, pipelines as p\n"
        "spec = p.LoaderSpec(batch_size=2, workers=2)\n"
        "loader = p.ClipLoader(p.VideoIndex.open(sys.argv[1]), loader=spec)\n"
        "next(iter(loader))\n"
        "print(*loader.worker_pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(index.path)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    assert result.returncode == -signal.SIGKILL
    workers = [Path("/proc") / pid / "cmdline" for pid in result.stdout.decode().split()]
    assert len(workers) == 2
    end = time.monotonic() + 10
    while time.monotonic() < end and any(w.is_file() and b"pipelines.worker" in w.read_bytes() for w in workers):
        time.sleep(0.1)
    assert time.monotonic() < end, "the workers outlive the program"
