from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import read_stamp
from loading import (
    CLIP,
    ROOT,
    SMALL,
    assert_parity,
    children,
    content,
    make,
    pixels,
)

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec

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


def test_the_order_of_axes_can_be_chosen_until_the_first_batch(index: VideoIndex) -> None:
    with (
        make(index, augment=AugmentSpec(size_px=32, layout="NTHWC")) as given,
        make(index, augment=AugmentSpec(size_px=32)) as chosen,
    ):
        chosen.use_layout("NTHWC")
        assert chosen.sampler.augment.layout == "NTHWC"
        for one, other in zip(given, chosen, strict=True):
            np.testing.assert_array_equal(pixels(one), pixels(other))
        with pytest.raises(UsageError, match="layout NCTHW: the loader makes batches already"):
            chosen.use_layout("NCTHW")


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


@pytest.mark.parametrize("crops", [3, 10])
def test_evaluation_crops_are_carried_out_by_numpy(index: VideoIndex, crops: int) -> None:
    augment = AugmentSpec(size_px=32, eval_crops=crops)
    with make(index, augment=augment, train=False, batch_size=7) as loader:
        plans = assert_parity(index, loader, list(loader), augment)
    assert len(plans) == 12 * crops
    assert {plan.mirror for plan in plans} == ({True, False} if crops == 10 else {False})


def test_crops_of_the_same_frames_are_decoded_once(index: VideoIndex) -> None:
    packets = {}
    for crops in (1, 3):
        with make(index, augment=AugmentSpec(size_px=32, eval_crops=crops), train=False, batch_size=6) as loader:
            assert sum(int(batch.is_real.sum()) for batch in loader) == 12 * crops
            packets[crops] = loader.statistics.packets
    assert packets[3] == packets[1] > 0
