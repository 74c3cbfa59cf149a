"""Whole runs in fp16 as far as a CPU goes: skipped steps, the scale, float32 checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from claimed import claim_gpu
from runs import assert_same, cut, each_checkpoint, last_checkpoint, last_checkpoint_at, records

from pipelines.index.video_index import VideoIndex
from r3d_fast import train as train_function
from r3d_fast.backend.precision import Precision
from r3d_fast.errors import DivergedError
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.training.loss_scale import LossScaler
from r3d_fast.training.schedule import learning_rate

STEPS = 3 * 4  # epochs x batches of 6 out of 24 videos


@pytest.fixture
def fp16_o2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs that would be fp32 here go the whole way of fp16 O2, but for the kernels; each checkpoint is waited for."""
    claim_gpu(monkeypatch)
    module = sys.modules[train_function.__module__]  # r3d_fast.training.train is the function
    monkeypatch.setattr(module, "resolve_auto", lambda config: ("cpu", Precision("fp16", "O2"), config))
    monkeypatch.setattr(LossScaler, "FIRST", 2.0**18)  # the first steps overflow
    monkeypatch.setattr(LossScaler, "GROWTH_STEPS", 4)
    with each_checkpoint():
        yield


def test_a_resumed_fp16_run_ends_with_the_same_bits_and_the_same_scale(
    index: VideoIndex, tmp_path: Path, fp16_o2: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.tiny_config(index, "train.keep_checkpoints=100")
    whole = train_function(config, run=tmp_path / "whole")
    assert "training in fp16 O2, auto" in capsys.readouterr().err
    assert whole.steps == STEPS
    first, last = last_checkpoint_at(tmp_path / "whole", 6), last_checkpoint(tmp_path / "whole").state
    assert first["scaler"]["scale"] < 2.0**18
    assert first["skipped"] > 0
    assert (first["precision"], last["precision"]) == ("fp16 O2", "fp16 O2")
    cut(tmp_path / "whole", tmp_path / "resumed", 6)
    train_function(config, run=tmp_path / "resumed", resume=True)
    assert "going on at step 6" in capsys.readouterr().err
    assert_same(tmp_path / "resumed", tmp_path / "whole")
    again = last_checkpoint(tmp_path / "resumed").state
    assert (again["scaler"], again["skipped"]) == (last["scaler"], last["skipped"])


def test_skipped_steps_do_not_advance_the_schedule(index: VideoIndex, tmp_path: Path, fp16_o2: None) -> None:
    config = tiny.tiny_config(index)
    train_function(config, run=tmp_path / "run")
    steps = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    skipped = [r["skipped"] for r in steps]
    assert skipped[0] == 1
    assert skipped[-1] < STEPS
    for number, record in enumerate(steps):
        before = skipped[number - 1] if number else 0
        assert record["lr"] == learning_rate(
            number - before, base=config.optimizer.lr, steps_per_epoch=4, epochs=3, spec=config.schedule
        )
        if record["skipped"] > before:
            assert steps[min(number + 1, STEPS - 1)]["loss_scale"] <= record["loss_scale"]


def test_a_checkpoint_of_fp16_holds_float32_weights_that_any_device_loads(
    index: VideoIndex,
    tmp_path: Path,
    fp16_o2: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny.tiny_config(index, "train.keep_checkpoints=100")
    train_function(config, run=tmp_path / "run")
    checkpoint = last_checkpoint(tmp_path / "run")
    assert {array.dtype for array in checkpoint.weights.values()} == {np.dtype(np.float32)}
    assert {array.dtype for array in checkpoint.optimizer.values()} == {np.dtype(np.float32)}
    rounded = checkpoint.weights["head.fc.weight"].astype(np.float16).astype(np.float32)
    assert (rounded != checkpoint.weights["head.fc.weight"]).any()
    evaluation, _ = evaluate(tmp_path / "run", config)
    assert evaluation.num_evaluated == 16
    monkeypatch.undo()
    cut(tmp_path / "run", tmp_path / "moved", 6)
    capsys.readouterr()
    assert train_function(config, run=tmp_path / "moved", resume=True).steps == STEPS
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert warnings == [f"warning: {tmp_path / 'moved'}: was trained in fp16 O2 so far, goes on in fp32"]
    assert last_checkpoint(tmp_path / "moved").state["precision"] == "fp32"


def test_a_scale_that_collapses_ends_the_run(
    index: VideoIndex, tmp_path: Path, fp16_o2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScaler, "FIRST", 2.0**40)
    monkeypatch.setattr(LossScaler, "LEAST", 2.0**40)
    config = tiny.tiny_config(index, "train.epochs=20")
    with pytest.raises(DivergedError, match=r"gradients were not a number in 20 steps in a row .*lower optimizer.lr"):
        train_function(config, run=tmp_path / "run")
    assert all(r["loss"] is not None for r in records(tmp_path / "run") if r["kind"] == "train")
