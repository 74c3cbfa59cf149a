from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import paddle
import pytest
import tiny
from runs import assert_same, each_checkpoint, last_checkpoint, records, wait_for_step
from small_disk import mounted
from waiting import wait_until

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as train_function
from r3d_fast.cli import cli, run_cli
from r3d_fast.learning.learner import seed_batch
from r3d_fast.models.classifier import Head
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.runs.folder import RunFolder, written_config
from r3d_fast.weights.checkpoint import Checkpoint, list_checkpoints

STEPS = 12  # 3 epochs of 24 videos in batches of 6
# Checkpoints at every step, and dropout, which draws random numbers.
EAGER = ("train.checkpoint_every_steps=1", "model.dropout=0.3", "train.eval_every_epochs=2")
LIMIT = 2**20  # bytes a file: logs and the loader's memory fit, weights of width 32 do not


@pytest.fixture(scope="module")
def whole(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with each_checkpoint():
        train_function(tiny.tiny_config(index, *EAGER), run=run)
    return run


@pytest.fixture
def started(index: VideoIndex) -> Iterator[Any]:
    """A function that starts `train` in a process group of its own; what is left of them is killed."""
    children = []

    def start(run: Path, *more: str) -> subprocess.Popen[str]:
        options = tiny.options(tiny.overrides(index, *EAGER, *more))
        words = tiny.command("train", "-c", "demo", "--run", run, "--resume", "auto", *options)
        child = subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": str(tiny.REPO)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def processes_of(group: int) -> list[str]:
    """The processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue
        state, _, _, session = rest.split()[:4]
        if int(session) == group and state not in "ZX":
            found.append(name)
    return found


def assert_nobody_left(group: int) -> None:
    wait_until(lambda: not processes_of(group), "the end of all processes of the run")


@pytest.mark.slow
def test_kill_9_at_random_moments_with_a_checkpoint_at_every_step_and_dropout(
    started: Any, whole: Path, tmp_path: Path
) -> None:
    """Before the first step too. `bench studies resume` does the same with checkpoints that take long to write."""
    run, rng, killed = tmp_path / "killed", random.Random(7), 0
    for _ in range(10):
        child = started(run)
        more = rng.randint(0, 2)
        wait_for_step(run, min(len(records(run, "train")) + more, STEPS), child)
        time.sleep(rng.uniform(0.0, 0.05 if more else 2.5))  # starting takes as long
        if child.poll() is None:
            child.kill()
            child.communicate()
            assert_nobody_left(child.pid)  # its workers do not outlive it
            killed += 1
    assert killed
    child = started(run)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert_same(run, whole)
    left = {path.suffix for path in (run / "checkpoints").iterdir()} | {path.suffix for path in run.glob("best*")}
    assert left == {""}
    earlier = json.loads((run / "env.json").read_text(encoding="utf-8"))["earlier"]
    assert 1 <= len(earlier) <= killed
    assert {"versions", "cpu", "gpus", "driver", "commit"} <= earlier[0].keys()


def test_what_was_drawn_before_does_not_matter_to_dropout(index: VideoIndex, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny.tiny_config(index, *EAGER, "train.keep_checkpoints=100")
    with each_checkpoint():
        train_function(config, run=run)
    for folder in list_checkpoints(run)[5:]:
        shutil.rmtree(folder)
    paddle.nn.functional.dropout(paddle.ones([5]))
    train_function(config, run=run, resume=True)
    assert_same(run, whole)


def test_every_batch_draws_numbers_of_its_own() -> None:
    places = ((0, 0, 6, 0), (0, 0, 12, 0), (0, 1, 6, 0), (1, 0, 6, 0), (0, 0, 6, 1))

    def draw(place: tuple[int, ...]) -> tuple[float, ...]:
        seed_batch(*place)
        return tuple(paddle.nn.functional.dropout(paddle.ones([64])).tolist())

    assert len({draw(place) for place in places}) == len(places)
    assert [draw(place) for place in places] == [draw(place) for place in places]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_and_leaves_no_process(
    started: Any, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal does, and a scheduler that ends a job."""
    run = tmp_path / "a run"
    child = started(run)
    wait_for_step(run, 2, child)
    if number == signal.SIGINT:
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 75, err
    assert "Traceback" not in err
    assert_nobody_left(child.pid)
    last = last_checkpoint(run).state
    assert (last["step"], last["records"]) == (len(records(run, "train")), len(records(run)))
    (line,) = [line for line in err.splitlines() if "continue with: " in line]
    command = line.partition("continue with: r3d-fast ")[2]
    assert command == f"train --resume '{run}'"
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    done = tiny.call(*words.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert_same(run, whole)


def test_the_command_that_continues_a_run_knows_of_more_epochs(index: VideoIndex, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    train_function(tiny.tiny_config(index, *EAGER, "train.epochs=4"), run=tmp_path / "run", resume=True)
    assert "epochs: 4" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")


@pytest.fixture
def full_between(monkeypatch: pytest.MonkeyPatch, limit: Any) -> Any:
    """A function: from the `first` checkpoint handed over until the `last` no file may grow beyond `size` bytes.

    Each refusal is waited for.
    """

    def full(first: int, last: int, size: int) -> None:
        submit, handed = CheckpointWriter.submit, itertools.count(1)

        def submit_and_wait(self: CheckpointWriter, checkpoint: Checkpoint, *, best: bool = False) -> None:
            number = next(handed)
            if number == first:
                limit(size)
            elif number == last:
                limit()
            if number < first:
                submit(self, checkpoint, best=best)
                self.finish()
                return
            submit(self, checkpoint, best=best)
            if number < last:
                with self._changed:
                    assert self._changed.wait_for(lambda: self._refused, 60)

        monkeypatch.setattr(CheckpointWriter, "submit", submit_and_wait)

    return full


def test_a_full_disk_costs_no_step_once_there_is_room_again(
    index: VideoIndex, whole: Path, tmp_path: Path, full_between: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    full_between(3, 6, 1)  # logs do not fit either
    train_function(tiny.tiny_config(index, *EAGER), run=run)
    err = capsys.readouterr().err
    assert err.count("metrics wait until the disk takes them") == 1
    assert err.count("the checkpoint before it stays, and saving is tried again") == 1
    assert err.count("the disk takes checkpoints again") == 1
    assert_same(run, whole)


def test_a_disk_that_stays_full_ends_with_5_and_the_last_good_checkpoint(
    index: VideoIndex,
    tmp_path: Path,
    full_between: Any,
    limit: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    full_between(4, 1000, LIMIT)
    more = ("model.width=32", "clip.num_frames=2")
    options = tiny.options(tiny.overrides(index, *EAGER, *more))
    code = run_cli(cli, ["train", "-c", "demo", "--run", str(run), *options], "r3d-fast")
    err = capsys.readouterr().err
    assert code == 5, err
    assert err.count("the checkpoint before it stays") == 1
    saved = run / "checkpoints" / "step-000000003"
    assert err.splitlines()[-1] == (
        f"r3d-fast: {run / 'best'}: the last checkpoint can't be written (File too large); saved is {saved}, and what "
        "came after it has to be trained again; raise the limit of a file's size (ulimit -f), then continue with: "
        f"r3d-fast train --resume {run}"
    )
    assert len(records(run, "train")) == STEPS  # it trained to the end
    assert last_checkpoint(run).state["step"] == 3
    limit()
    monkeypatch.undo()
    train_function(tiny.tiny_config(index, *EAGER, *more), run=run, resume=True)
    assert "going on at step 3" in capsys.readouterr().err
    assert [r["step"] for r in records(run) if r["kind"] == "train"] == list(range(1, STEPS + 1))


def test_a_run_folder_that_cannot_be_written_is_said_before_the_first_step(
    index: VideoIndex, tmp_path: Path, limit: Any
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/run: can't be written: a part of the path is a file; choose") as caught:
        train_function(tiny.tiny_config(index), run=tmp_path / "file" / "run")
    assert caught.value.exit_code == 2
    limit(0)
    with pytest.raises(UsageError, match=r"full: can't be written: File too large; .*, or choose another --run"):
        RunFolder(tmp_path / "full")
    limit()
    assert not (tmp_path / "full").exists()
    with RunFolder(tmp_path / "full"):
        pass


def test_a_read_only_disk_is_said_before_the_first_step(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(UsageError, match=r"run: can't be written: Read-only file system; .*, or choose another --run"),
    ):
        RunFolder(disk / "run")


def test_a_run_that_can_not_go_on_for_its_disk_says_what_helps_there(
    index: VideoIndex, whole: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "size=64m") as disk:
        run, filler = disk / "run", disk / "filler"
        shutil.copytree(whole, run)
        again = ("train", "--resume", run, *tiny.options(["train.epochs=4"]))
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(2**20)):
                pass
        done = tiny.call(*again)
        assert done.returncode == 2, done.stderr
        full = "No space left on device; make room there, then run the same again"
        assert done.stderr.splitlines()[-1] == f"r3d-fast: {run}: can't be written: {full}"
        filler.unlink()
        remount = ["mount", "-o", "remount,ro", disk]
        subprocess.run(remount, check=True)
        done = tiny.call(*again)
        assert done.returncode == 2, done.stderr
        read_only = "Read-only file system; mount its disk for writing, then run the same again"
        assert done.stderr.splitlines()[-1] == f"r3d-fast: {run}: can't be written: {read_only}"
        subprocess.run([*remount[:2], "remount,rw", disk], check=True)
        done = tiny.call(*again)
        assert done.returncode == 0, done.stderr
        assert last_checkpoint(run).state["step"] == 4 * STEPS // 3


def test_damage_is_passed_over_set_aside_and_never_kept_instead_of_a_good_one(
    index: VideoIndex, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    good, newest = list_checkpoints(run)[-2:]
    content = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(content[: len(content) // 2])
    leftover = run / "checkpoints" / "step-000000099.tmp"
    leftover.mkdir()
    done = tiny.call(
        "train", "-c", "demo", "--run", run, "--resume", "auto",
        *tiny.options(tiny.overrides(index, *EAGER, "train.keep_checkpoints=1")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"warning: {newest / 'model.safetensors'}: {len(content) // 2} bytes, the manifest says" in done.stderr
    assert f"warning: {good}: is not damaged, and is used instead" in done.stderr
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [newest.name, newest.name + ".damaged"]
    assert_same(run, whole)


def test_a_damaged_best_checkpoint_is_said_when_the_run_goes_on(index: VideoIndex, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    weights = run / "best" / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    done = tiny.call(
        "train", "-c", "demo", "--run", run, "--resume", "auto", *tiny.options(tiny.overrides(index, *EAGER))
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith(f"warning: {weights}: "))
    assert line.endswith("; until a better one is written, `eval` and `predict` take the newest checkpoint of the run")


def test_a_file_in_the_place_of_the_best_checkpoint_is_said_and_makes_room(
    index: VideoIndex, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "best")
    (run / "best").write_text("mine")
    config = written_config(run)
    assert config is not None
    with RunFolder(run) as folder:
        found = folder.find_checkpoint(config, index)
    assert found is not None
    (complaint,) = found[1]
    assert complaint.startswith(f"{run / 'best'}: not a complete checkpoint (it is a file; ")
    assert (run / "best.damaged").read_text() == "mine"
    assert not (run / "best").exists()


def test_memory_that_runs_out_in_the_middle_of_a_run_costs_no_step(
    index: VideoIndex, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = Head.forward, []

    def greedy(self: Any, features: Any) -> Any:
        if self.training:
            calls.append(features.shape[0])
            if len(calls) > 3 and features.shape[0] > 2:  # batch norms have seen the clips when memory runs out
                paddle.empty([2**44])  # Paddle's own error
        return forward(self, features)

    monkeypatch.setattr(Head, "forward", greedy)
    config, run = tiny.tiny_config(index, *EAGER, "train.checkpoint_every_steps=1000"), tmp_path / "run"
    with pytest.raises(EnvironmentProblem, match=r"a batch of 6 clips does not fit; .*; continue with: r3d-fast train"):
        train_function(config, run=run)
    assert last_checkpoint(run).state["step"] == 3
    monkeypatch.undo()
    train_function(tiny.tiny_config(index, *EAGER), run=run, resume=True)
    assert_same(run, whole)


def test_standard_error_that_nobody_reads_does_not_end_a_run(index: VideoIndex, tmp_path: Path) -> None:
    options = tiny.options(
        tiny.overrides(index, "train.epochs=1", "schedule.warmup_epochs=0", "train.log_every_steps=1")
    )
    command = tiny.command("train", "-c", "demo", "--run", tmp_path / "run", *options)
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(tiny.REPO)}
    done = subprocess.run(command, env=environment, stdout=writer, stderr=writer, timeout=240, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert last_checkpoint(tmp_path / "run").state["step"] == 4


def test_a_dumb_locale_shows_what_it_can(index: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "läuft"
    options = tiny.options(tiny.overrides(index, "train.epochs=1", "schedule.warmup_epochs=0"))
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "r3d_fast", "train", "-c", "demo", "--run", str(run), *options],
        env={**os.environ, "PYTHONPATH": str(tiny.REPO), **plain}, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"best top1" in done.stdout
    assert b"Traceback" not in done.stderr
