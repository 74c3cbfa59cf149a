from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from written import REPO, names

from pipelines.errors import UsageError
from pipelines.output.hidden import delete_unheld
from pipelines.output.temporary import is_temporary, temporary_folder

_HOLDS = """
import signal, sys
from pipelines.output.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "f").write_text("x")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """(a process that holds a temporary folder, that folder)."""
    child = subprocess.Popen([sys.executable, "-c", _HOLDS], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().rstrip())


def test_a_temporary_folder_is_private_and_gone_after_the_block(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == place
        assert is_temporary(folder / "f")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "f").write_text("x")
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        raise KeyboardInterrupt
    assert names(place) == []
    assert not is_temporary(folder / "f")
    assert not is_temporary(place / "f")


def test_a_folder_that_another_process_takes_for_a_leftover_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(**names: str) -> str:
        made.append(_make(**names))
        if len(made) < 3:
            delete_unheld(Path(made[-1]), folders=True)
        return made[-1]

    _make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", make)
    with temporary_folder() as folder:
        assert folder.is_dir()
    assert (len(made), names(place)) == (3, [])


def test_the_folder_of_a_killed_process_is_deleted_by_the_next_one_that_of_a_living_one_is_not(place: Path) -> None:
    killed, left = holder()
    living, held = holder()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "deep" / "f").is_file()
    with temporary_folder() as own:
        assert names(place) == sorted([own.name, held.name])
    living.kill()
    living.communicate()
    with temporary_folder():
        assert not held.exists()


def test_what_is_no_folder_of_ours_is_left_alone(place: Path) -> None:
    (place / "theirs").mkdir()
    (place / "theirs" / "f").write_text("x")
    (place / "r3d-fast-link.tmp").symlink_to(place / "theirs")
    (place / "r3d-fast-file.tmp").write_text("x")
    (place / "r3d-fast-folder").mkdir()
    before = names(place)
    with temporary_folder():
        pass
    assert names(place) == before
    assert (place / "theirs" / "f").read_text() == "x"
    if os.geteuid() == 0:
        other = place / "r3d-fast-other.tmp"
        other.mkdir()
        os.chown(other, 12345, 12345)
        with temporary_folder():
            assert other.exists()


def test_where_none_can_be_made_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "no"))
    with pytest.raises(UsageError, match=r"no/r3d-fast-\*: can't be written: .*set TMPDIR"), temporary_folder():
        pass
