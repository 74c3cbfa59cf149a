from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from runs import records

from pipelines.errors import DataError, EnvironmentProblem, UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train
from r3d_fast.config.config import Config, dump_config
from r3d_fast.errors import Stopped
from r3d_fast.runs.fold_results import resume_command, spread, stored_folds
from r3d_fast.runs.folder import RunFolder
from r3d_fast.training.folds import train_folds
from r3d_fast.training.train import TrainResult

FAST = ("train.epochs=2", "train.eval_every_epochs=2", "train.report=false", "schedule.warmup_epochs=0")


def arguments(index: VideoIndex, run: Path, *more: object) -> list[object]:
    return ["train", "-c", "demo", "--run", run, *tiny.options(tiny.overrides(index, *FAST)), *more]


def test_each_fold_is_trained_and_tested_and_a_stopped_one_goes_on(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path
) -> None:
    run = tmp_path / "my run"
    code, out, err = tiny.said(capsys, *arguments(index, run, "--folds", "2"))
    assert code == 0, err
    found = json.loads((run / "folds.json").read_text(encoding="utf-8"))
    assert (found["folds"], [result["fold"] for result in found["results"]]) == (2, [1, 2])
    assert sum(result["tested"] for result in found["results"]) == 24  # the test videos of the folders are in no fold
    last = [result["last_top1"] for result in found["results"]]
    assert last == [records(run / f"fold-{k}", "eval")[-1]["top1"] for k in (1, 2)]
    assert found["last_top1"]["mean"] == statistics.fmean(last)
    assert f"last top1: mean {100 * statistics.fmean(last):.2f} %, deviation {100 * statistics.stdev(last):.2f}" in out
    assert f"figures:  '{run}/folds.json'\n" in out
    code, shown, err = tiny.said(capsys, "watch", "--once", run)
    assert code == 0, err
    figures = "; ".join(line for line in out.splitlines() if " top1: mean " in line)
    assert shown.endswith(f"{run}: all 2 folds have ended: {figures}\n")
    # What has ended gives its result at once, without --folds too, and nothing is trained again.
    before = [records(run / f"fold-{k}") for k in (1, 2)]
    code, again, err = tiny.said(capsys, "train", "--resume", run)
    assert (code, again) == (0, out), err
    assert [records(run / f"fold-{k}") for k in (1, 2)] == before
    code, _, err = tiny.said(capsys, *arguments(index, run, "--folds", "3", "--resume", "auto"))
    assert (code, "was begun with 2 folds, not 3" in err) == (2, True)
    code, _, err = tiny.said(capsys, *arguments(index, run))
    said = f"fold-1: holds a run already; choose another --run, or continue with: r3d-fast train --resume '{run}'\n"
    assert (code, said in err) == (2, True)


def test_a_fold_that_is_stopped_names_the_command_for_all(index: VideoIndex, tmp_path: Path) -> None:
    """The second fold is stopped as by a signal."""
    begun: list[Path] = []

    def train_fold(config: Config, *, run: Path, on_begin: Callable[[], None]) -> TrainResult:
        begun.append(run)
        on_begin()
        assert config.data.train_split == f"without-fold-{len(begun)}-of-3"
        assert config.data.eval_split == f"fold-{len(begun)}-of-3"
        if len(begun) == 2:
            raise Stopped(f"stopped by a signal after step 5; continue with: {resume_command(run)}")
        return TrainResult(run, 4, 0.5, 0.25)

    run = tmp_path / "run"
    command = f"r3d-fast train --resume {run}"
    with pytest.raises(Stopped, match=re.escape(f"after step 5; continue with: {command}") + "$"):
        train_folds(tiny.tiny_config(index), run, 3, train_fold)
    assert stored_folds(run) == 3
    assert len(json.loads((run / "folds.json").read_text(encoding="utf-8"))["results"]) == 1
    assert (run / "config.yaml").is_file()


def test_what_can_t_be_folded_is_said_before_anything_is_written(index: VideoIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="25 folds of 24 videos in 24 groups"):
        train_folds(tiny.tiny_config(index), tmp_path / "run", 25, train)
    assert not (tmp_path / "run").exists()
    (tmp_path / "single" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds a single run, not folds"):
        train_folds(tiny.tiny_config(index), tmp_path / "single", 2, train)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "folds.json").write_text("{")
    with pytest.raises(UsageError, match=r"folds\.json: can't be read"):
        stored_folds(tmp_path / "damaged")


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each file below `folder`, by its path, and each empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def test_a_start_that_is_refused_leaves_the_folds_as_they_were(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, out, err = tiny.said(capsys, *arguments(index, run, "--folds", "2"))
    assert code == 0, err
    before = files_of(run)

    def refused(*given: object) -> str:
        code, _, err = tiny.said(capsys, *given)
        assert (code, files_of(run) == before) == (2, True), err
        return err.splitlines()[-1]

    assert "fold-1: holds a run already; " in refused(*arguments(index, run))
    assert "holds a run already" in refused(*arguments(index, run, "--folds", "2"))
    said = refused("train", "--resume", run, "--lr", "0.5")
    assert "fold-1/checkpoints/step-" in said
    assert "optimizer.lr: " in said
    assert f"({run}/config.yaml has none)" in said
    for name in (".", "fold-2"):
        with RunFolder(run / name, of_folds=name == "."):
            assert "the run folder is in use by another process" in refused("train", "--resume", run)
    shutil.rmtree(run / "fold-1")  # what would be trained anew must not be begun either where another fold is refused
    before = files_of(run)
    assert "fold-2/checkpoints/step-" in refused("train", "--resume", run, "--lr", "0.5")
    code, again, err = tiny.said(capsys, "train", "--resume", run)
    assert (code, again) == (0, out), err


def test_a_fold_that_can_t_go_on_leaves_what_is_known_of_the_others(index: VideoIndex, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tiny.tiny_config(index)

    def train_fold(config: Config, *, run: Path, on_begin: Callable[[], None]) -> TrainResult:
        on_begin()
        return TrainResult(run, 4, 0.5, 0.25)

    def fail(config: Config, *, run: Path, on_begin: Callable[[], None]) -> TrainResult:
        if run.name == "fold-2":
            raise EnvironmentProblem("no memory")
        return train_fold(config, run=run, on_begin=on_begin)

    train_folds(config, run, 3, train_fold)
    before = files_of(run)
    with pytest.raises(EnvironmentProblem):
        train_folds(config, run, 3, fail, resume=True)
    assert files_of(run) == before


@pytest.mark.parametrize("more", [(), ("--folds", "2"), ("--nproc", "2")])
def test_a_folder_with_a_config_of_the_user_is_refused_and_left_as_it_was(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path, more: tuple[str, ...]
) -> None:
    own, config = tmp_path / "own", tmp_path / "own" / "config.yaml"
    own.mkdir()
    config.write_text("# mine\n" + dump_config(tiny.tiny_config(index, *FAST)), encoding="utf-8")
    for others in range(2):
        if others:  # of another program: a folder of checkpoints alone makes it no run of ours
            (own / "checkpoints").mkdir()
            (own / "checkpoints" / "theirs.bin").write_bytes(b"x")
        before = files_of(own)
        code, _, err = tiny.said(capsys, "train", "-c", config, "--run", own, *more)
        assert (code, f"{own}: holds {1 + others} files or folders that are no run's" in err) == (2, True), err
        assert files_of(own) == before
    assert not (own / ".lock").exists()


@pytest.mark.parametrize("more", [(), ("--folds", "2")])
def test_a_start_from_weights_of_no_use_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    options = tiny.options(tiny.overrides(index, *FAST, "init.weights=damaged.safetensors"))
    for place in ("--name", "--run"):
        code, _, err = tiny.said(capsys, "train", "-c", "demo", place, "mine", *options, *more)
        assert code != 0
        assert "damaged.safetensors: not a readable safetensors file" in err
        assert [path.name for path in tmp_path.iterdir()] == ["damaged.safetensors"]


def test_several_processes_are_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path
) -> None:
    code, _, err = tiny.said(capsys, *arguments(index, tmp_path / "run", "--folds", "4", "--nproc", "2"))
    assert (code, err.count("r3d-fast: 4 folds are trained by one process")) == (2, 1)
    assert "-o data.train_split=without-fold-1-of-4 -o data.eval_split=fold-1-of-4" in err


def test_the_spread_is_that_of_a_sample() -> None:
    assert spread([0.5, 0.7, 0.6]) == {"mean": 0.6, "deviation": pytest.approx(0.1), "low": 0.5, "high": 0.7}
    assert spread([0.5])["deviation"] == 0.0
