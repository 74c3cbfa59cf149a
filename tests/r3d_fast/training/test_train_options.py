"""Runs with every training option on: the same bits again and after kills, averages stored, early ends;
in fp16, as far as a CPU goes: skipped steps, the scale, float32 checkpoints.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from claimed import claim_gpu
from from_config import a_learner
from runs import assert_same, cut, each_checkpoint, last_checkpoint, last_checkpoint_at, records, start, wait_for_step

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast import train as train_function
from r3d_fast.backend.feed import feed
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config, load_config
from r3d_fast.errors import DivergedError
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.mixing import Mix
from r3d_fast.learning.schedule import learning_rate
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.training import trainer
from r3d_fast.weights.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from r3d_fast.weights.stored_model import restore

OPTIONS = (
    "optimizer={name: adamw, lr: 0.004, weight_decay: 0.05, decay: weights, clip_norm: 0.5}",
    "schedule={kind: plateau, gamma: 0.5, patience_evals: 0, warmup_epochs: 1}",
    "train.accumulate=3",  # of 4 batches an epoch: steps of three and of one
    "train.label_smoothing=0.1",
    "train.mixup_alpha=0.4",
    "train.cutmix_alpha=1.0",
    "train.ema_decay=0.9",
    "init.freeze_until=layer1",
    "train.checkpoint_every_steps=1",
    "train.keep_checkpoints=100",
    "train.epochs=5",
    "model.dropout=0.3",
)
STEPS = 5 * 2
FP16_STEPS = 3 * 4  # epochs x batches of 6 out of 24 videos


@pytest.fixture(scope="module")
def finished(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all options on that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with each_checkpoint():
        assert train_function(tiny.tiny_config(index, *OPTIONS), run=run).steps == STEPS
    return run


def of_kind(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in records(run) if record["kind"] == kind]


def timeless(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in ("seconds", "config")}


def test_the_same_seed_gives_the_same_bits_with_every_option(index: VideoIndex, finished: Path, tmp_path: Path) -> None:
    child = start(index, tmp_path / "again", *OPTIONS, resume=False)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert_same(tmp_path / "again", finished)
    assert timeless(last_checkpoint(tmp_path / "again").state) == timeless(last_checkpoint(finished).state)


def test_a_killed_run_ends_with_the_same_bits_with_every_option(
    index: VideoIndex, finished: Path, tmp_path: Path
) -> None:
    run, rng, kills = tmp_path / "killed", random.Random(1), 0
    for target in (1, 3, 6):
        child = start(index, run, *OPTIONS)
        wait_for_step(run, target, child)
        time.sleep(rng.uniform(0.0, 0.1))
        if child.poll() is None:
            child.kill()
            kills += 1
        child.communicate(timeout=60)
    child = start(index, run, *OPTIONS)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert kills >= 2
    assert_same(run, finished)
    assert timeless(last_checkpoint(run).state) == timeless(last_checkpoint(finished).state)


@pytest.mark.parametrize("step", [1, 2, 9])  # within an epoch, at its end, and before the last step
def test_a_run_goes_on_from_any_checkpoint_to_the_same_bits(
    index: VideoIndex, finished: Path, tmp_path: Path, step: int
) -> None:
    cut(finished, tmp_path / "cut", step)
    train_function(tiny.tiny_config(index, *OPTIONS), run=tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", finished)
    assert timeless(last_checkpoint(tmp_path / "cut").state) == timeless(last_checkpoint(finished).state)


def test_an_epochs_last_step_takes_the_batches_that_are_left(finished: Path) -> None:
    steps = of_kind(finished, "train")
    assert [record["count"] for record in steps] == [18, 6] * 5
    assert [last_checkpoint_at(finished, step)["position"] for step in (1, 2, 3)] == [18, 0, 18]
    assert all(record["grad_norm"] > 0 for record in steps)


def test_a_plateau_follows_the_evaluations_of_the_run(index: VideoIndex, finished: Path) -> None:
    config = tiny.tiny_config(index, *OPTIONS)
    best, falls, expected = np.inf, 0, []
    for number, record in enumerate(records(finished)):
        if record["kind"] == "train":
            expected.append(
                learning_rate(
                    record["step"] - 1, base=0.004, steps_per_epoch=2, epochs=5, spec=config.schedule, falls=falls
                )
            )
            assert record["lr"] == expected[-1], number
        else:
            better = record["loss"] < best * (1 - 1e-4)
            best, falls = (record["loss"], falls) if better else (best, falls + 1)
    assert last_checkpoint(finished).state["falls"] == falls


def test_a_plateau_can_follow_the_loss_of_clips(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = ("clip.sampling=consecutive", "clip.stride=1", "clip.views=3", "train.epochs=4")
    schedule = "schedule={kind: plateau, watch: clip_loss, patience_evals: 0, threshold: 0.2}"
    config = tiny.tiny_config(index, *windows, schedule)
    train_function(config, run=tmp_path / "run")
    told = capsys.readouterr().err
    best, falls = np.inf, 0
    for record in of_kind(tmp_path / "run", "eval"):
        assert record["clip_loss"] > record["loss"]  # the loss of a mean of softmaxes is below the mean of the losses
        assert f"loss {record['loss']:.4f}, of clips {record['clip_loss']:.4f}  (16 videos)" in told
        better = record["clip_loss"] < best * (1 - 0.2)
        best, falls = (record["clip_loss"], falls) if better else (best, falls + 1)
    state = last_checkpoint(tmp_path / "run").state
    assert (state["plateau_best"], state["falls"]) == (best, falls)
    shutil.rmtree(tmp_path / "run" / "best")  # without it the last checkpoint is evaluated
    evaluation, _ = evaluate(tmp_path / "run")
    assert evaluation.clip["loss"] == pytest.approx(record["clip_loss"], rel=1e-5)


def test_frozen_parts_of_a_run_stay_as_they_were(finished: Path) -> None:
    first, last = (load_checkpoint(list_checkpoints(finished)[i]) for i in (0, -1))
    for key in ("backbone.stem.0.conv.weight", "backbone.stem.0.bn._mean", "backbone.stem.0.bn._variance"):
        np.testing.assert_array_equal(first.weights[key], last.weights[key], err_msg=key)
        np.testing.assert_array_equal(last.optimizer[f"{key}|raw"], last.weights[key], err_msg=key)
    assert (first.weights["backbone.layer1.0.block.1.weight"] != last.weights["backbone.layer1.0.block.1.weight"]).any()
    assert not [key for key in last.optimizer if key.startswith("backbone.stem") and "moment" in key]


def test_what_is_evaluated_stored_and_predicted_with_are_the_averages(index: VideoIndex, finished: Path) -> None:
    point = last_checkpoint(finished)
    assert point.state["ema_updates"] == STEPS
    before, raw = load_checkpoint(list_checkpoints(finished)[-2]), "head.fc.weight|raw"
    assert (point.optimizer[raw] != point.weights["head.fc.weight"]).any()
    decay = min(0.9, STEPS / (9 + STEPS))
    expected = decay * before.weights["head.fc.weight"] + (1 - decay) * point.optimizer[raw]
    np.testing.assert_allclose(point.weights["head.fc.weight"], expected, rtol=1e-4, atol=1e-6)
    last = list_checkpoints(finished)[-1]
    evaluation, _ = evaluate(last, tiny.tiny_config(index, *OPTIONS))
    assert evaluation.video["loss"] == pytest.approx(of_kind(finished, "eval")[-1]["loss"], rel=1e-6)
    best = load_checkpoint(finished / "best")
    for restored in (restore(finished), Predictor(finished, device="cpu").network.restored):
        assert restored.weights == finished / "best" / "model.safetensors"
        np.testing.assert_array_equal(
            restored.model.state_dict()["head.fc.weight"].numpy(), best.weights["head.fc.weight"]
        )


@pytest.mark.parametrize("change", ["train.ema_decay=null", "train.accumulate=1", "train.mixup_alpha=0.5"])
def test_another_option_does_not_resume(index: VideoIndex, finished: Path, change: str) -> None:
    with pytest.raises(UsageError, match=change.partition("=")[0]):
        train_function(tiny.tiny_config(index, *OPTIONS, change), run=finished, resume=True)


def test_a_run_without_progress_stops_early_and_goes_on_when_it_may(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("optimizer.lr=1.0e-9", "optimizer.weight_decay=0", "train.epochs=6", "schedule.warmup_epochs=0")
    free = ("init.freeze_until=head", "train.early_stop_evals=2")  # batch norms stay too: each top1 is the first
    result = train_function(tiny.tiny_config(index, *still, *free), run=tmp_path / "run")
    assert result.steps == 3 * 4
    said = "stopped after step 12, epoch 4: no better top1 in 2 evaluations (train.early_stop_evals 2)"
    assert said in capsys.readouterr().err
    assert last_checkpoint(tmp_path / "run").state["evals_since_best"] == 2
    again = train_function(tiny.tiny_config(index, *still, *free), run=tmp_path / "run", resume=True)
    assert (again.steps, again.best_top1) == (12, result.best_top1)
    assert said in capsys.readouterr().err
    more = tiny.tiny_config(index, *still, *free, "train.early_stop_evals=4")
    assert train_function(more, run=tmp_path / "run", resume=True).steps == 5 * 4


def test_a_run_whose_time_is_up_ends_evaluated_and_goes_on_to_the_same_bits(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = (
        "schedule={kind: plateau, patience_evals: 0, warmup_epochs: 0}",
        "train.epochs=2",
        "train.accumulate=2",
        "train.checkpoint_every_steps=1000",
    )
    whole = train_function(tiny.tiny_config(index, *plain), run=tmp_path / "whole")
    run = tmp_path / "short"
    result = train_function(tiny.tiny_config(index, *plain, "train.max_minutes=1.0e-7"), run=run)
    assert (result.steps, whole.steps) == (1, 4)
    said = r"stopped after step 1, epoch 1: \d\.\d minutes are over \(train.max_minutes 1e-07\)"
    assert re.search(said, capsys.readouterr().err)
    assert [(r["epoch"], r["step"]) for r in of_kind(run, "eval")] == [(1, 1)]
    point = last_checkpoint(run)
    assert (point.state["position"], point.state["best_step"]) == (12, 1)
    assert point.state["plateau_best"] is None  # an evaluation that comes of the limit is none of the schedule's
    assert (run / "best" / "model.safetensors").is_file()
    shutil.copytree(run, tmp_path / "copy")
    state = {**point.state, "seconds": 5000.0}
    save_checkpoint(list_checkpoints(run)[-1], Checkpoint(point.weights, point.optimizer, state))
    assert train_function(tiny.tiny_config(index, *plain), run=run, resume=True).steps == 4
    for name, array in last_checkpoint(tmp_path / "whole").weights.items():
        np.testing.assert_array_equal(last_checkpoint(run).weights[name], array, err_msg=name)
    assert last_checkpoint(run).state["seconds"] > 5000.0
    for key in ("plateau_best", "plateau_waited", "falls"):
        assert last_checkpoint(run).state[key] == last_checkpoint(tmp_path / "whole").state[key]
    done = tiny.call(
        "train", "--resume", tmp_path / "copy", "-o", "train.max_minutes=2.0e-7", *tiny.options(["train.device=cpu"])
    )
    assert done.returncode == 0, done.stderr
    assert "minutes are over" in done.stderr


def test_top1_counts_against_the_label_that_a_clip_holds_more_of(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips wholly replaced by their partners, labels too: the same batches in another order."""
    config = tiny.tiny_config(index, "train.epochs=1", "optimizer.lr=1.0e-9", "schedule.warmup_epochs=0")
    train_function(config, run=tmp_path / "plain")
    monkeypatch.setattr(trainer, "draw_mix", lambda batch, spec, size_px: Mix(np.arange(6)[::-1].copy(), 0.0))
    train_function(config, run=tmp_path / "mixed")
    plain, mixed = of_kind(tmp_path / "plain", "train"), of_kind(tmp_path / "mixed", "train")
    assert [record["top1"] for record in mixed] == [record["top1"] for record in plain]
    assert [r["loss"] for r in mixed] == pytest.approx([r["loss"] for r in plain], rel=1e-4)


def test_a_skipped_step_does_not_move_the_average(index: VideoIndex) -> None:
    config = tiny.tiny_config(index, *OPTIONS, "train.accumulate=1", "init.freeze_until=null")
    learner = a_learner(config.in_data_format("NCDHW"), 8, Precision(), "cpu")
    assert learner.ema is not None
    clips = np.random.default_rng(0).normal(size=(6, 3, 4, 16, 16)).astype(np.float32)
    for broken, updates in ((False, 1), (True, 1), (False, 2)):
        before = learner.ema.arrays()
        shown = np.where(broken, np.nan, clips).astype(np.float32)
        batch = Batch(shown, np.arange(6), np.arange(6), np.ones(6, bool), 0, 6, ())
        assert learner.step(feed(batch, "cpu"), 0.01).applied is not broken
        moved = any((array != before[name]).any() for name, array in learner.ema.arrays().items())
        assert (moved, learner.ema.updates) == (not broken, updates)


def test_a_part_that_does_not_exist_ends_with_2_and_the_nearest_name(index: VideoIndex, tmp_path: Path) -> None:
    options = tiny.options(tiny.overrides(index, "init.freeze_until=layre4"))
    done = tiny.call("train", "-c", "demo", "--run", tmp_path / "run", *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "expected one of stem, layer1, layer2, layer3, layer4, head; did you mean 'layer4'?"
    )


@contextmanager
def as_fp16_o2() -> Iterator[None]:
    """Runs that would be fp32 here go the whole way of fp16 O2, but for the kernels; each checkpoint is waited for."""
    with pytest.MonkeyPatch.context() as patch, each_checkpoint():
        claim_gpu(patch)
        module = sys.modules[train_function.__module__]  # r3d_fast.training.train is the function
        patch.setattr(module, "resolve_auto", lambda config: ("cpu", Precision("fp16", "O2"), config))
        patch.setattr(LossScaler, "FIRST", 2.0**18)  # the first steps overflow
        patch.setattr(LossScaler, "GROWTH_STEPS", 4)
        yield


@pytest.fixture
def fp16_o2() -> Iterator[None]:
    with as_fp16_o2():
        yield


def fp16_config(index: VideoIndex) -> Config:
    return tiny.tiny_config(index, "train.keep_checkpoints=100")


@pytest.fixture(scope="module")
def finished_fp16(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "fp16"
    with as_fp16_o2():
        assert train_function(fp16_config(index), run=run).steps == FP16_STEPS
    return run


def test_a_resumed_fp16_run_ends_with_the_same_bits_and_the_same_scale(
    index: VideoIndex, finished_fp16: Path, tmp_path: Path, fp16_o2: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = last_checkpoint_at(finished_fp16, 6), last_checkpoint(finished_fp16).state
    assert first["scaler"]["scale"] < 2.0**18
    assert first["skipped"] > 0
    assert (first["precision"], last["precision"]) == ("fp16 O2", "fp16 O2")
    cut(finished_fp16, tmp_path / "resumed", 6)
    train_function(fp16_config(index), run=tmp_path / "resumed", resume=True)
    told = capsys.readouterr().err
    assert "going on at step 6" in told
    assert "training in fp16 O2, NCDHW" in told
    assert_same(tmp_path / "resumed", finished_fp16)
    again = last_checkpoint(tmp_path / "resumed").state
    assert (again["scaler"], again["skipped"]) == (last["scaler"], last["skipped"])


def test_skipped_steps_do_not_advance_the_schedule(index: VideoIndex, finished_fp16: Path) -> None:
    config = fp16_config(index)
    steps = of_kind(finished_fp16, "train")
    skipped = [r["skipped"] for r in steps]
    assert skipped[0] == 1
    assert skipped[-1] < FP16_STEPS
    for number, record in enumerate(steps):
        before = skipped[number - 1] if number else 0
        assert record["lr"] == learning_rate(
            number - before, base=config.optimizer.lr, steps_per_epoch=4, epochs=3, spec=config.schedule
        )
        if record["skipped"] > before:
            assert steps[min(number + 1, FP16_STEPS - 1)]["loss_scale"] <= record["loss_scale"]


def test_a_checkpoint_of_fp16_holds_float32_weights_that_any_device_loads(
    index: VideoIndex, finished_fp16: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fp16_config(index)
    checkpoint = last_checkpoint(finished_fp16)
    assert {array.dtype for array in checkpoint.weights.values()} == {np.dtype(np.float32)}
    assert {array.dtype for array in checkpoint.optimizer.values()} == {np.dtype(np.float32)}
    rounded = checkpoint.weights["head.fc.weight"].astype(np.float16).astype(np.float32)
    assert (rounded != checkpoint.weights["head.fc.weight"]).any()
    with as_fp16_o2():
        evaluation, _ = evaluate(finished_fp16, config)
    assert evaluation.num_evaluated == 16
    cut(finished_fp16, tmp_path / "moved", 6)
    capsys.readouterr()
    assert train_function(config, run=tmp_path / "moved", resume=True).steps == FP16_STEPS
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert warnings == [f"warning: {tmp_path / 'moved'}: was trained in fp16 O2 so far, goes on in fp32"]
    assert last_checkpoint(tmp_path / "moved").state["precision"] == "fp32"


def test_a_scale_that_collapses_ends_the_run(
    index: VideoIndex, tmp_path: Path, fp16_o2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScaler, "FIRST", 2.0**40)
    monkeypatch.setattr(LossScaler, "LEAST", 2.0**40)
    config = tiny.tiny_config(index, "train.epochs=20")
    with pytest.raises(
        DivergedError, match=r"gradients were NaN or infinite in 20 steps in a row, .*lower optimizer.lr"
    ):
        train_function(config, run=tmp_path / "run")
    assert all(r["loss"] is not None for r in records(tmp_path / "run") if r["kind"] == "train")


def test_how_to_wait_for_the_gpu_is_told_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    module, told = sys.modules[train_function.__module__], []
    monkeypatch.setattr(module, "choose_device", lambda *arguments: told.append(arguments) or "cpu")
    for more in ([], ["train.gpu_wait=spin", "train.device=auto"]):
        module.resolve_auto(load_config("demo", [*tiny.OVERRIDES, *more]))
    assert told == [("cpu", "sleep"), ("auto", "spin")]
