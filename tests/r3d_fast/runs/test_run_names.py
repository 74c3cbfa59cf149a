from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from r3d_fast.runs.run_names import check_run_name, claimed_run, newest_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begin(folder: Path) -> None:
    (folder / "config.yaml").touch()


def test_runs_of_one_name_are_numbered_and_the_last_is_the_newest() -> None:
    assert newest_run("a") is None
    for expected in ("a", "a-2", "a-3"):
        with claimed_run("a") as folder:
            begin(folder)
        assert folder == Path("runs") / expected
        assert newest_run("a") == folder
    with claimed_run("b") as folder:
        assert folder == Path("runs/b")


def test_a_run_that_did_not_begin_leaves_no_folder() -> None:
    with suppress(KeyboardInterrupt), claimed_run("a") as folder:
        (folder / ".lock").touch()
        (folder / "checkpoints").mkdir()
        raise KeyboardInterrupt
    assert not folder.parent.exists()
    with claimed_run("a") as folder:
        (folder / "notes.txt").write_text("mine")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_runs_that_begin_at_once_have_folders_of_their_own() -> None:
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: stack.enter_context(claimed_run("a")), range(8)))
        assert len(set(folders)) == 8


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected the name of a folder in runs/"):
        check_run_name(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser can write anywhere")
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o555)
    with pytest.raises(UsageError, match=r"runs.*choose another place with --run"), claimed_run("a"):
        pass
