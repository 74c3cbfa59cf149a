from __future__ import annotations

import csv
import json
import math
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import tiny
from from_config import a_model
from runs import assert_same, each_checkpoint, last_checkpoint, records, start, wait_for_step
from waiting import PATIENCE

from pipelines.errors import DataError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast import train as train_function
from r3d_fast.backend.feed import feed
from r3d_fast.backend.precision import Precision
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import DivergedError
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.optimizer import new_optimizer
from r3d_fast.learning.step import TrainStep
from r3d_fast.models.classifier import Classifier
from r3d_fast.runs.fold_results import resume_command
from r3d_fast.runs.folder import RunFolder
from r3d_fast.weights.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint

STEPS = 3 * 4  # epochs x batches of 6 out of 24 videos


@pytest.fixture(scope="module")
def finished(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with each_checkpoint():
        assert train_function(tiny.tiny_config(index), run=run).steps == STEPS
    return run


def test_a_run_leaves_what_the_readme_promises(finished: Path, index: VideoIndex) -> None:
    names = {path.name for path in finished.iterdir()} - {".lock"}
    of_the_run = {"config.yaml", "env.json", "plan.json", "metrics.jsonl", "metrics.csv", "checkpoints", "best"}
    assert names == of_the_run | {"evaluation", "train_clips.png", "eval_clips.png"}
    written = records(finished)
    assert [r["step"] for r in written if r["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [r["epoch"] for r in written if r["kind"] == "eval"] == [1, 2, 3]
    assert all(r["count"] == 16 for r in written if r["kind"] == "eval")
    with (finished / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["kind"], int(r["step"])) for r in rows] == [(r["kind"], r["step"]) for r in written]
    assert [float(r["loss"]) for r in rows] == [r["loss"] for r in written]
    assert len(list_checkpoints(finished)) == 2
    environment = json.loads((finished / "env.json").read_text(encoding="utf-8"))
    assert environment["versions"]["numpy"] == np.__version__


def test_the_best_checkpoint_is_the_best_evaluation(finished: Path) -> None:
    evaluations = [r for r in records(finished) if r["kind"] == "eval"]
    best = max(evaluations, key=lambda r: (r["top1"], -r["loss"]))
    state = load_checkpoint(finished / "best").state
    assert (state["best_top1"], state["best_step"]) == (best["top1"], best["step"])


def test_training_learns_the_motions(index: VideoIndex, tmp_path: Path) -> None:
    config = tiny.tiny_config(index, "train.epochs=12", "train.eval_every_epochs=12", "model.width=8")
    train_function(config, run=tmp_path / "run")
    losses = [r["loss"] for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_same_seed_gives_the_same_bits(index: VideoIndex, finished: Path, tmp_path: Path) -> None:
    child = start(index, tmp_path / "again", resume=False)
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert "best top1" in out
    assert_same(tmp_path / "again", finished)


def test_each_batch_is_shown_before_it_is_trained_on(index: VideoIndex, finished: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def on_batch(batch: Batch) -> None:
        done = len(records(tmp_path / "run", "train"))
        seen.append((batch.epoch, batch.position, done))

    train_function(tiny.tiny_config(index), run=tmp_path / "run", on_batch=on_batch)
    assert seen == [(step // 4, 6 * (step % 4 + 1), step) for step in range(STEPS)]
    assert_same(tmp_path / "run", finished)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_checkpoint_and_says_how_to_go_on(
    index: VideoIndex, finished: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "stopped"
    child = start(index, run, "train.checkpoint_every_steps=1000", resume=False)
    wait_for_step(run, 2, child)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert "Traceback" not in err
    assert "stopping after this batch; a second signal stops at once\n" in err
    assert f"continue with: r3d-fast train --resume {run}" in err
    assert last_checkpoint(run).state["step"] >= 2
    done = tiny.call("train", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert_same(run, finished)


def test_a_damaged_newest_checkpoint_costs_its_steps_only(index: VideoIndex, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    newest = list_checkpoints(run)[-1] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    done = tiny.call("train", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert "SHA-256 differs from the manifest" in done.stderr
    assert "going on at step" in done.stderr
    assert_same(run, finished)


def test_moments_outlive_a_resumption_that_has_no_step_left_to_take(
    index: VideoIndex, finished: Path, tmp_path: Path
) -> None:
    """As after a kill between the last step of an epoch and its evaluation; Paddle makes moments at the first step."""
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    point = last_checkpoint(run)
    state = {**point.state, "epoch": 2, "position": 24}
    save_checkpoint(list_checkpoints(run)[-1], Checkpoint(point.weights, point.optimizer, state))
    train_function(tiny.tiny_config(index), run=run, resume=True)
    after = last_checkpoint(run)
    assert after.state["epoch"] == 3
    assert point.optimizer
    assert after.optimizer.keys() == point.optimizer.keys()
    for name, moment in point.optimizer.items():
        np.testing.assert_array_equal(after.optimizer[name], moment, err_msg=name)


def test_a_run_is_not_overwritten(index: VideoIndex, finished: Path) -> None:
    said = f"holds a run already; choose another --run, or continue with: r3d-fast train --resume {finished}"
    with pytest.raises(UsageError, match=said):
        train_function(tiny.tiny_config(index), run=finished)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("loader.seed=5", r"loader.seed: 0 -> 5"),
        ("clip.num_frames=5", r"clip.num_frames: 4 -> 5"),
        ("optimizer.lr=0.5", r"optimizer.lr: 0.02 -> 0.5"),
    ],
)
def test_another_setup_does_not_resume(index: VideoIndex, finished: Path, change: str, shown: str) -> None:
    with pytest.raises(UsageError, match="can't be continued with another setup: .*" + shown):
        train_function(tiny.tiny_config(index, change), run=finished, resume=True)


def test_another_data_set_does_not_resume_and_the_remedies_are_named_and_help(
    finished: Path, index: VideoIndex, tmp_path: Path
) -> None:
    run, data, path = tmp_path / "run", tmp_path / "data", tmp_path / "data.r3dindex"
    shutil.copytree(finished, run)
    shutil.copytree(index.root, data)
    gone = next((data / "train" / "left").iterdir())
    content = gone.read_bytes()
    gone.unlink()
    other = VideoIndex.build(data, index=path, workers=0, val_fraction=0.5, allow_partial=True)
    with pytest.raises(UsageError) as caught:
        train_function(tiny.tiny_config(other), run=run, resume=True)
    said = str(caught.value)
    assert f"the videos, labels or splits in {path} have changed since the run began" in said
    assert "(then 24 videos to train on and 16 to evaluate on, now 23 videos to train on and 16 to evaluate on)" in said
    assert "undo these changes" not in said
    new = f"-o init.weights={list_checkpoints(run)[-1]}"
    assert (
        f"start a new run from its weights on what is there now: r3d-fast train -c {run}/config.yaml {new}; or " in said
    )
    again = said.rpartition("index them as before: r3d-fast ")[2]
    assert again == f"data index {data} --val-fraction 0.5 --allow-partial --anew"
    with pytest.raises(UsageError, match=r"another setup: loader.seed: 0 -> 5; undo .* Also: .* have changed since"):
        train_function(tiny.tiny_config(other, "loader.seed=5"), run=run, resume=True)
    gone.write_bytes(content)
    done = tiny.call(*again.split())
    assert done.returncode == 0, done.stderr
    assert train_function(tiny.tiny_config(VideoIndex.open(path)), run=run, resume=True).steps == 12


def test_more_epochs_go_on_from_a_finished_run(index: VideoIndex, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    shutil.copytree(finished, run)
    result = train_function(tiny.tiny_config(index, "train.epochs=4"), run=run, resume=True)
    assert result.steps == STEPS + 4


def test_a_run_folder_in_use_is_left_alone(index: VideoIndex, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        done = tiny.call("train", "-c", "demo", "--run", tmp_path / "run", *tiny.options(tiny.overrides(index)))
    assert done.returncode == 2
    assert "the run folder is in use by another process" in done.stderr


@pytest.fixture
def damaged(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """The data set with a third of its training videos gone after indexing."""
    shutil.copytree(index.root, tmp_path / "data")
    copy = VideoIndex.build(tmp_path / "data", index=tmp_path / "data.r3dindex", workers=0)
    for path in sorted((tmp_path / "data" / "train").rglob("001.avi")):
        path.unlink()
    return copy


def test_too_many_unreadable_videos_end_the_run(damaged: VideoIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 24 training videos can't be read, more than data.max_bad_fraction 0.01"):
        train_function(tiny.tiny_config(damaged), run=tmp_path / "run")


def test_steps_before_too_many_unreadable_videos_are_not_lost(index: VideoIndex, tmp_path: Path) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    copy = VideoIndex.build(tmp_path / "data", index=tmp_path / "data.r3dindex", workers=0)
    config, run = tiny.tiny_config(copy), tmp_path / "run"
    taken: list[int] = []

    def delete_after_two(batch: Batch) -> None:
        taken.append(batch.position)
        if len(taken) == 2:
            for path in (tmp_path / "data" / "train").rglob("*.avi"):
                path.unlink()

    with pytest.raises(DataError, match=r"can.t be read, more than data.max_bad_fraction") as caught:
        train_function(config, run=run, on_batch=delete_after_two)
    remedy = re.escape(f"; continue with: {resume_command(run)} -o data.max_bad_fraction=")
    assert re.search(rf"{remedy}0\.\d+$", str(caught.value))
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(index.root, tmp_path / "data")
    assert last_checkpoint(run).state["step"] >= 2
    assert train_function(config, run=run, resume=True).steps == STEPS


def test_allowed_unreadable_videos_count_nowhere(damaged: VideoIndex, tmp_path: Path) -> None:
    config = tiny.tiny_config(damaged, "data.max_bad_fraction=0.5", "train.epochs=1", "schedule.warmup_epochs=0")
    train_function(config, run=tmp_path / "run")
    steps = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert sum(r["count"] for r in steps) == 24 - 8


def test_a_loss_that_is_no_number_ends_the_run(index: VideoIndex, tmp_path: Path) -> None:
    config = tiny.tiny_config(index, "optimizer.lr=1.0e+38", "schedule.warmup_epochs=0", "train.epochs=20")
    with pytest.raises(DivergedError, match=r"NaN or infinite in 20 steps in a row, .*lower optimizer.lr") as caught:
        train_function(config, run=tmp_path / "run")
    assert caught.value.exit_code == 6
    bad = [record for record in records(tmp_path / "run", "train") if "videos" in record]
    assert (len(bad), {len(record["videos"]) for record in bad}) == (20, {6})
    assert f"up to step {bad[-1]['step']} (videos {', '.join(bad[-1]['videos'][:4])}, ...;" in str(caught.value)
    assert set(bad[-1]["videos"]) <= {index[video].path for video in range(len(index))}


def test_rows_that_are_not_real_move_nothing(index: VideoIndex) -> None:
    """A step on 4 real rows and 2 blank ones equals a step on the 4 alone; batch norm in evaluation mode."""
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(6, 3, 4, 16, 16)).astype(np.float32)
    labels = rng.integers(0, 8, 6)
    real = np.array([1, 1, 0, 1, 0, 1], bool)
    after = []
    for rows, flags in ((np.arange(6), real), (np.flatnonzero(real), np.ones(4, bool))):
        config = tiny.tiny_config(index)
        model = a_model(config, 8)
        model.eval()
        batch = Batch(clips[rows], labels[rows], rows, flags, 0, 0, ())
        step = TrainStep(model, new_optimizer(config.optimizer, model), Precision(), LossScaler(enabled=False), "cpu")
        after.append((step(feed(batch, "cpu")).loss, model.state_dict()["head.fc.weight"].numpy()))
    assert math.isclose(after[0][0], after[1][0], rel_tol=1e-5)
    np.testing.assert_allclose(after[0][1], after[1][1], rtol=1e-5, atol=1e-6)


def test_a_second_signal_stops_at_once(index: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = start(
        index, run, "train.epochs=50", "clip.num_frames=8", "augment.size_px=64", "model.width=32", resume=False
    )
    wait_for_step(run, 1, child)
    assert child.stderr is not None
    child.send_signal(signal.SIGTERM)
    while "a second signal stops at once" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE)
    assert child.returncode in (130, 75)


def test_memory_that_runs_out_ends_the_run_with_4_and_the_batch_that_fits(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = Classifier.forward

    def greedy(self: Any, clips: Any) -> Any:
        if clips.shape[0] > 2:
            paddle.empty([2**44])  # Paddle's own error
        return forward(self, clips)

    monkeypatch.setattr(Classifier, "forward", greedy)
    monkeypatch.setattr(
        "r3d_fast.acceleration.cpu.accelerate_training", lambda model: model
    )  # a graph does not call `forward`
    options = tiny.options(tiny.overrides(index))
    code = run_cli(cli, ["train", "-c", "demo", "--run", str(tmp_path / "run"), *options], "r3d-fast")
    assert code == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "r3d-fast: out of memory on the CPU: a batch of 6 clips does not fit; a batch of 1 fits: "
        "-o loader.batch_size=1 -o train.accumulate=6 (the same steps, except for batch norm)"
    )


def test_weights_are_the_same_in_either_data_format(index: VideoIndex, finished: Path) -> None:
    first, _ = evaluate(str(finished), tiny.tiny_config(index, "model.data_format=NCDHW"))
    last, _ = evaluate(finished, tiny.tiny_config(index, "model.data_format=NDHWC"))
    logs = [[row for _, _, row in evaluation.scores.predictions()] for evaluation in (first, last)]
    np.testing.assert_allclose(logs[0], logs[1], atol=1e-4)
    assert np.ptp(logs[0], axis=0).max() > 1e-3


def test_a_precision_that_is_not_to_be_had_gives_way_in_evaluation(
    index: VideoIndex, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation, _ = evaluate(finished, tiny.tiny_config(index, "train.precision=bf16"))
    plain, _ = evaluate(finished, tiny.tiny_config(index))
    assert evaluation.video["loss"] == plain.video["loss"]
    warned = (
        f"warning: {finished / 'best' / 'model.safetensors'}: train.precision bf16 is not available here; using fp32\n"
    )
    assert capsys.readouterr().err == warned


def test_another_precision_does_not_resume_when_it_is_asked_for(index: VideoIndex, finished: Path) -> None:
    with pytest.raises(UsageError, match=r'train\.precision: "auto" -> "fp32"'):
        train_function(tiny.tiny_config(index, "train.precision=fp32"), run=finished, resume=True)


def test_the_rate_is_in_proportion_to_the_clips_of_a_step(index: VideoIndex, tmp_path: Path) -> None:
    """Goyal et al. 2017, arXiv:1706.02677: lr 0.02 for steps of 48 clips is 0.01 for two batches of 12 each."""
    scaled = ("optimizer.lr_for_batch=48", "loader.batch_size=12", "train.accumulate=2")
    flat = ("schedule={kind: constant, warmup_epochs: 0}", "train.epochs=1", "train.log_every_steps=1")
    train_function(tiny.tiny_config(index, *scaled, *flat, "optimizer.lr=0.02"), run=tmp_path / "run")
    assert [record["lr"] for record in records(tmp_path / "run") if record["kind"] == "train"] == [0.01]
