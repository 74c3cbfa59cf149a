from __future__ import annotations

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
