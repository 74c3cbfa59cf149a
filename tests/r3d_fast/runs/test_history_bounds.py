"""Files in a run folder that never end, or that would fill the memory, are left out and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import run_files

from pipelines.errors import UsageError
from r3d_fast.runs.fold_results import read_folds
from r3d_fast.runs.history import has_steps, read_history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_files.write_run(tmp_path / "run", ["cat", "dog"], videos=20, epochs=1)


def as_pipe(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def as_device(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/zero")


def as_huge(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(2**40)


@pytest.mark.parametrize("damage", [as_pipe, as_device, as_huge])
@pytest.mark.parametrize("name", ["config.yaml", "env.json", "plan.json", "evaluation/predictions.jsonl"])
def test_a_file_that_never_ends_is_named_and_the_others_are_read(
    run: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run / name)
    history = read_history(run)
    assert len(history.steps) == run_files.STEPS_PER_EPOCH
    assert any(Path(name).name in problem for problem in history.problems)


def test_metrics_that_are_a_pipe_are_no_records(run: Path) -> None:
    as_pipe(run / "metrics.jsonl")
    assert read_history(run).records == ()
    assert has_steps(run)  # it can't be told


def test_aliases_in_a_config_are_counted(run: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    (run / "config.yaml").write_text("\n".join(["a0: &a0 lol", *levels]))
    history = read_history(run)
    assert history.config == {}
    assert any("config.yaml: " in problem and "more than 100 aliases" in problem for problem in history.problems)


def test_folds_that_are_a_pipe_are_an_error(tmp_path: Path) -> None:
    as_pipe(tmp_path / "folds.json")
    with pytest.raises(UsageError, match=r"folds\.json: can't be read .*it is a FIFO"):
        read_folds(tmp_path)
    (tmp_path / "folds.json").unlink()
    (tmp_path / "folds.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"folds\.json: can't be read"):
        read_folds(tmp_path)
