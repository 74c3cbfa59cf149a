"""A start that fails before its first step leaves nothing, and the corrected one works in the same folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny
from runs import records

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.errors import CheckpointError
from r3d_fast.runs.folder import RunFolder
from r3d_fast.weights.checkpoint import step_folder
from r3d_fast.weights.stored_model import read_weights

ONE_EPOCH = ("train.epochs=1", "schedule.warmup_epochs=0")


def train(capsys: pytest.CaptureFixture[str], run: Path, *overrides: str) -> tuple[int, str]:
    """(exit code, stderr) of `r3d-fast train` in the folder `run`."""
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "--run", run, *tiny.options(list(overrides)))
    return code, err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["schedule.warmup_epochs=1"], 2, "schedule.warmup_epochs 1, train.epochs 1: expected a warmup shorter than"),
        (["schedule.warmup_epochs=0.99"], 2, "expected a warmup shorter than training"),  # 0.99 epochs are all 4 steps
        (["optimizer.lr=1e308", "optimizer.lr_for_batch=1"], 2, "expected step >= 0, a finite base > 0"),
        (["init.freeze_until=layer9"], 2, "init.freeze_until 'layer9': no such part"),
        (["init.weights=absent.safetensors"], 2, "init.weights absent.safetensors: no such file or folder"),
        (["model.name=r3d19"], 2, "did you mean 'r3d1"),
        (["model.conv1_t_size=4"], 2, "conv1_t_size 4: expected an odd number"),
        (["data.train_split=absent"], 3, "absent"),
        (["loader.batch_size=100"], 2, "loader.batch_size 100 is more than the 24 clips"),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    run = tmp_path / "runs" / "run"
    found, err = train(capsys, run, *tiny.overrides(index, *ONE_EPOCH, *options))
    assert (found, said in err) == (code, True), err
    assert not (tmp_path / "runs").exists()


def test_a_start_without_a_readable_video_is_followed_by_a_corrected_one_in_the_same_folder(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, hidden = tmp_path / "run", index.root.with_name("hidden")
    index.root.rename(hidden)
    try:
        index.root.mkdir()
        code, err = train(capsys, run, *tiny.overrides(index, *ONE_EPOCH))
    finally:
        index.root.rmdir()
        hidden.rename(index.root)
    assert code == 3, err
    assert records(run) == []
    code, err = train(capsys, run, *tiny.overrides(index, *ONE_EPOCH))
    assert code == 0, err
    assert len(records(run, "train")) == 4
    code, err = train(capsys, run, *tiny.overrides(index, *ONE_EPOCH))
    assert code == 2
    assert "holds a run already" in err


def test_what_can_not_be_told_to_be_no_run_is_not_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"kind": "layout", "step": 0}\n')
    with RunFolder(run) as folder:
        folder.require_new()
        for content in (b'{"kind": "train", "step": 1}\n', b'{"kind": "eval"', b"\xff\n"):
            (run / "metrics.jsonl").write_bytes(content)
            with pytest.raises(UsageError, match="holds a run already"):
                folder.require_new()
        (run / "metrics.jsonl").unlink()
        os.mkfifo(run / "metrics.jsonl")
        with pytest.raises(UsageError, match="holds a run already"):
            folder.require_new()


def test_a_checkpoint_that_no_training_wrote_is_not_gone_on_from(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    tiny.untrained(step_folder(run, 3))
    config = tiny.tiny_config(index)
    with RunFolder(run) as folder, pytest.raises(CheckpointError, match=r"has no index_digest: no training wrote it"):
        folder.find_checkpoint(config, index)
    assert read_weights(run).file.parent == step_folder(run, 3)
