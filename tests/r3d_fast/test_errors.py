from __future__ import annotations

import pickle

import pytest

from pipelines.errors import ExitCode, FrameError, R3DFastError, UsageError, VideoError
from r3d_fast.cli import run_cli
from r3d_fast.errors import CheckpointError, DivergedError, RankFailed, Stopped, error_classes, exit_code_table, refusal


def test_every_error_class_ends_a_command_with_a_code_of_the_table() -> None:
    codes = {kind: ExitCode(kind.exit_code) for kind in error_classes()}
    assert codes[UsageError] == 2
    assert codes[VideoError] == codes[FrameError] == 3
    assert codes[CheckpointError] == 5
    assert codes[DivergedError] == 6
    assert codes[Stopped] == 75


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_an_error_becomes_its_exit_code_and_one_line(
    kind: type[R3DFastError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = {VideoError: VideoError("a.avi", "empty"), FrameError: FrameError("a.avi", "empty")}.get(kind)
    error = error or (RankFailed(7, "what happened") if kind is RankFailed else kind("what happened"))

    def command(**_: object) -> None:
        raise error

    assert run_cli(command, [], "r3d-fast") == error.exit_code
    assert capsys.readouterr().err == f"r3d-fast: {error}\n"


def test_the_table_has_a_line_for_each_code_and_each_class() -> None:
    table = exit_code_table()
    for code in ExitCode:
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {code.value} |")]
        assert len(line) > 30
    for kind in error_classes():
        assert f".errors.{kind.__name__}` | {int(kind.exit_code)} |" in table


def test_an_error_of_a_video_crosses_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(FrameError("a.avi", "truncated", "frame 7")))  # noqa: S301 - our own bytes
    assert (error.path, error.reason, error.detail) == ("a.avi", "truncated", "frame 7")
    assert str(error) == "a.avi: truncated: frame 7"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "a"), "a: No space left on device; make room there, or choose another"),
        (OSError(30, "Read-only file system"), "Read-only file system; mount its disk for writing, or choose"),
        (NotADirectoryError(20, "Not a directory", b"f/x"), "f/x: Not a directory; a part of the path is a file"),
        (RuntimeError("Symlink loop from '/a'"), "'/a': its links lead in a circle: remove them"),
        (ValueError("x"), ""),
        (RuntimeError("x"), ""),
        (FileNotFoundError(2, "No such file or directory", "a"), ""),
    ],
)
def test_what_the_system_refuses_is_said_with_a_remedy(error: Exception, said: str) -> None:
    assert refusal(error).startswith(said)
    assert bool(refusal(error)) == bool(said)


def test_a_name_that_is_no_utf_8_is_said() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "runs/\udcff".encode()
    assert refusal(caught.value) == "runs/\udcff: this name is not UTF-8, which this command needs; rename it"
