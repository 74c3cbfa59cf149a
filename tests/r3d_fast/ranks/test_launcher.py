from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ranks
from runs import wait_for_step
from waiting import wait_until
from written import names

from pipelines.index.video_index import VideoIndex
from r3d_fast.ranks.launcher import _Job, hide_environment

_SECRET = "s3cret-of-the-environment"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder for temporary files of the processes that the test starts, which have a secret."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("SOME_API_KEY", _SECRET)
    return folder


def readable_secrets(folder: Path) -> list[str]:
    """The files below `folder` that hold the secret and that others may reach."""
    found = []
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(above, name).stat().st_mode & 0o077]
        found += [
            f"{above}/{name}"
            for name in files
            if Path(above, name).stat().st_mode & 0o077 and _SECRET.encode() in Path(above, name).read_bytes()
        ]
    return found


@pytest.mark.slow
def test_no_secret_of_the_environment_is_left_after_a_kill(index: VideoIndex, tmp_path: Path, temporary: Path) -> None:
    run = tmp_path / "run"
    child = ranks.start(index, run, 2, "train.epochs=60")
    wait_for_step(run, 1, child)
    assert readable_secrets(run) == readable_secrets(temporary) == []
    assert any(_SECRET in path.read_text() for path in temporary.rglob("envlog.*"))  # or this test would test nothing
    pids = ranks.rank_pids(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), "the end of the ranks")
    for path in (path for path in run.rglob("*") if path.is_file()):
        assert _SECRET.encode() not in path.read_bytes(), path
    assert readable_secrets(temporary) == []


def test_a_start_that_fails_leaves_no_logs_and_says_why(index: VideoIndex, tmp_path: Path, temporary: Path) -> None:
    done = ranks.train(index, tmp_path / "deep" / "run", 2, "data.eval_split=none")
    assert done.returncode == 3, done.stderr
    assert "none" in done.stderr
    assert names(tmp_path) == ["temporary"]
    assert names(temporary) == []


def test_logs_are_never_written_through_a_link(tmp_path: Path) -> None:
    victim, logs, private = tmp_path / "victim", tmp_path / "ranks", tmp_path / "private"
    victim.write_text("mine")
    for folder in (logs, private):
        folder.mkdir()
    (logs / "workerlog.0").symlink_to(victim)
    os.mkfifo(logs / "launch.log")
    _Job(logs, private, 2, "")
    assert victim.read_text() == "mine"
    assert all((logs / name).is_file() and not (logs / name).is_symlink() for name in names(logs))


def test_what_another_launcher_wrote_of_the_environment_is_for_this_user_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("envlog.0", "backup_env.0.json", "default.abcdef.log", "workerlog.0"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    monkeypatch.setenv("PADDLE_LOG_DIR", str(tmp_path))
    hide_environment()
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077} == {"workerlog.0"}
