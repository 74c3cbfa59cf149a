"""A run draws the clips of its first batches once, and trains as if it did not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from faulty_reads import FaultyReads
from numpy.typing import NDArray
from PIL import Image

from pipelines.index.video_index import VideoIndex
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast import train
from r3d_fast.backend.feed import feed
from r3d_fast.loaders import train_loader
from r3d_fast.preview import first_clips
from r3d_fast.preview.first_clips import EVAL_CLIPS, TRAIN_CLIPS, FirstClips

SHORT = ("train.epochs=1", "schedule.warmup_epochs=0", "schedule.warmup_start=0")


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, to be left as it is."""
    return tiny.trained(tmp_path_factory.mktemp("first") / "run", index, *SHORT)


def drawn(run: Path) -> list[NDArray[np.uint8]]:
    pictures = []
    for name in (TRAIN_CLIPS, EVAL_CLIPS):
        with Image.open(run / name) as picture:
            pictures.append(np.array(picture))
    return pictures


def test_a_run_draws_its_first_clips_once(run: Path, index: VideoIndex, tmp_path: Path) -> None:
    for picture in drawn(run):
        assert picture.shape[0] > 6 * 112, "a row for each clip of the batch"
    longer = Path(shutil.copytree(run, tmp_path / "run"))
    times = [(longer / name).stat().st_mtime_ns for name in (TRAIN_CLIPS, EVAL_CLIPS)]
    train(tiny.tiny_config(index, *SHORT, "train.epochs=2"), run=longer, resume=True)
    assert [(longer / name).stat().st_mtime_ns for name in (TRAIN_CLIPS, EVAL_CLIPS)] == times


def test_mixed_batches_are_drawn_as_they_are_trained_on(run: Path, index: VideoIndex, tmp_path: Path) -> None:
    mixed = tiny.trained(tmp_path / "mixed", index, *SHORT, "train.mixup_alpha=3")
    assert not np.array_equal(drawn(run)[0], drawn(mixed)[0])
    assert np.array_equal(drawn(run)[1], drawn(mixed)[1]), "an evaluation mixes nothing"


def test_pictures_that_fail_are_a_warning_and_change_nothing(
    run: Path, index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> bytes:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(first_clips, "contact_sheet", fails)
    failed = tiny.trained(tmp_path / "failed", index, *SHORT)
    said = capsys.readouterr().err
    for name in (TRAIN_CLIPS, EVAL_CLIPS):
        assert not (failed / name).exists()
        assert f"warning: {failed / name}: not drawn (MemoryError: no room for a picture)" in said
    for key, array in runs.last_checkpoint(run).weights.items():
        np.testing.assert_array_equal(runs.last_checkpoint(failed).weights[key], array)


def test_a_video_that_crashes_the_decoder_is_named_and_the_picture_is_drawn(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of the loader started before the fault, and read the video well."""
    said: list[str] = []
    pictures = FirstClips(tmp_path, said.append)
    spec = LoaderSpec(batch_size=len(index.columns("train")), workers=1, threads=1)
    with train_loader(index, "train", ClipSpec(num_frames=4), AugmentSpec(size_px=32), spec) as loader:
        batch = next(loader.epoch(0))
        plans = loader.sampler.batch(0, 0, loader.batch_size)
        bad = index[next(iter(plans)).video_id].path
        FaultyReads(tmp_path, monkeypatch).begin(bad, "segv")
        pictures.of_training(loader, feed(batch, "cpu"), batch.epoch, batch.position)
        pictures.close()
    crash = "crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert said == [f"warning: {tmp_path / TRAIN_CLIPS}: without a frame: {index.root / bad}: {crash}"]
    with Image.open(tmp_path / TRAIN_CLIPS) as picture:
        assert picture.height > 6 * 112, "a row for each clip of the batch"
