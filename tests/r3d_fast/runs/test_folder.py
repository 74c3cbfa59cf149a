from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import tiny

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.cli import cli, run_cli
from r3d_fast.runs.folder import RunFolder


def test_a_new_an_empty_and_an_own_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "new"):
        with RunFolder(tmp_path / name):
            assert (tmp_path / name / "checkpoints").is_dir()


@pytest.mark.parametrize("name", ["env.json", "train", ".hidden"])
def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name == "train" else (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError) as error, RunFolder(tmp_path):
        pass
    assert str(error.value) == (
        f"{tmp_path}: holds 1 files or folders that are no run's, such as {name}; "
        "expected a new folder, an empty one or the folder of a run; choose another --run"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_training_into_the_data_set_is_refused(index: VideoIndex, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in index.root.iterdir())
    arguments = ["train", "-c", "demo", "--run", str(index.root), *tiny.options(tiny.overrides(index))]
    assert run_cli(cli, list(map(str, arguments)), "r3d-fast") == 2
    assert "expected a new folder, an empty one or the folder of a run" in capsys.readouterr().err
    assert sorted(path.name for path in index.root.iterdir()) == before


_PLANTED = [
    "metrics.jsonl",
    "config.yaml",
    ".lock",
    "env.json",
    "checkpoints",
    "checkpoints/step-00000001",
    "evaluation",
    "wandb",
    "visualdl",
]


@pytest.mark.parametrize("name", _PLANTED)
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_somebody_planted_in_a_run_is_refused_before_the_work_and_untouched(
    index: VideoIndex, tmp_path: Path, name: str, kind: str
) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    (run / name).parent.mkdir(parents=True)
    (run / ".lock" if name != ".lock" else run / "metrics.csv").touch()
    victim.write_text("mine")
    if kind == "link":
        (run / name).symlink_to(victim)
    else:
        os.mkfifo(run / name)
    what = "a symbolic link" if kind == "link" else "a FIFO"
    with pytest.raises(UsageError, match=rf"{re.escape(str(run / name))}: it is {what}; expected .*: remove it"):
        RunFolder(run)
    assert victim.read_text() == "mine"
    assert (run / name).is_symlink() == (kind == "link")


@pytest.mark.parametrize("name", ["wandb/latest-run", "mlflow/0/run/metrics/loss", "visualdl/vdlrecords.log"])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "fifo"])
def test_a_link_out_of_the_curves_of_a_run_is_refused_before_the_work_and_untouched(
    tmp_path: Path, name: str, kind: str
) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    (run / name).parent.mkdir(parents=True)
    (run / ".lock").touch()
    if kind == "fifo":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(victim)
    if kind == "file":
        victim.write_text("mine")
    elif kind == "folder":
        victim.mkdir()
    what = "a FIFO" if kind == "fifo" else "a symbolic link out of"
    with pytest.raises(UsageError, match=rf"{re.escape(str(run / name))}: it is {what}.*remove it; choose another"):
        RunFolder(run)
    assert os.path.lexists(victim) == (kind in ("file", "folder"))


def test_the_links_that_wandb_makes_are_taken(tmp_path: Path) -> None:
    logs = tmp_path / "run" / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    (logs / "debug.log").touch()
    (logs / "debug-core.log").symlink_to(tmp_path / "cache" / "core.log")
    (logs.parents[1] / "latest-run").symlink_to("offline-run-1")
    (logs.parents[1] / "debug.log").symlink_to(logs / "debug.log")
    with RunFolder(tmp_path / "run"):
        pass
