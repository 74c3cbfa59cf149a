"""`train --nproc N`: starts Paddle's launcher as a child process, and adds what it lacks.

It passes signals on to the ranks, ends with the exit code of the ranks, and shows only the output of the first rank.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.machine.processes import end_with_parent
from pipelines.output.files import write_file
from pipelines.output.folders import make_folder
from pipelines.output.places import Hint, write_errors
from pipelines.output.temporary import temporary_folder
from r3d_fast.console import tell

_REPORTS = "R3D_FAST_REPORTS"  # the folder in which ranks leave their process numbers, exit codes and results
_PREFIX = "r3d-fast: "
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENVIRONMENTS = ("envlog.*", "backup_env.*", "default.*.log")  # files of the launcher
_TAIL = 8  # lines of a log that are shown


def rank_and_count() -> tuple[int, int]:
    """(rank of this process, number of ranks) from the launcher's environment variables; (0, 1) without a launcher."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0), int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def tell_launcher(name: str, text: str) -> None:
    """Leave `text` under `name` for the process that started the ranks, if one did."""
    folder = os.environ.get(_REPORTS)
    if folder:
        with suppress(UsageError):  # the starting process has ended and removed the folder
            write_file(Path(folder) / name, text.encode())


def tell_exit_code(code: int) -> None:
    """Leave the exit code of this rank for the process that started the ranks: Paddle's launcher replaces it."""
    tell_launcher(f"code-{rank_and_count()[0]}", str(code))


def is_launched() -> bool:
    """Whether this process is a rank of `train --nproc`, which prints the result."""
    return bool(os.environ.get(_REPORTS))


def launch(
    arguments: Sequence[str], count: int, logs: Path, echo: Callable[[str], Any], hint: Hint = "choose another --run"
) -> int:
    """Run `r3d-fast ARGUMENTS` as `count` ranks on this machine; returns the exit code that they ended with.

    The output of rank 0 goes to stderr as it comes, the lines of its result to `echo`; the output of all ranks is kept
    in `logs`, a folder within that of the run, unless the run could not start. SIGINT, SIGTERM and SIGHUP are passed on
    to the ranks; the second signal ends them at once. Raises UsageError, which ends in `hint`, where `logs` can't be
    written, EnvironmentProblem where the launcher itself failed.
    """
    if rank_and_count()[1] > 1:
        raise UsageError("--nproc: this process was started by a launcher already; leave --nproc out")
    missing = [place for place in (logs, *logs.parents) if not place.exists()]
    make_folder(logs, hint)
    try:
        with temporary_folder() as private:
            job = _Job(logs, private, count, hint)
            return job.conclude(job.run(arguments), echo)
    finally:
        if not (logs.parent / "config.yaml").exists():
            shutil.rmtree(logs, ignore_errors=True)
            for place in missing[1:]:
                with suppress(OSError):
                    place.rmdir()


def hide_environment() -> None:
    """Let only this user read the files in which Paddle's launcher, if it started this process, keeps the environment.

    It writes them beside its logs, where all may read them, and the environment has passwords and keys.
    """
    folder = os.environ.get("PADDLE_LOG_DIR")
    if folder and not is_launched():
        for pattern in _ENVIRONMENTS:
            for path in Path(folder).glob(pattern):
                with suppress(OSError):
                    if not path.is_symlink():
                        path.chmod(0o600)


class _Job:
    """The launcher and its ranks, from start to end."""

    def __init__(self, logs: Path, private: Path, count: int, hint: Hint) -> None:
        """`private` is a folder that only this user may read: the launcher writes the whole environment there."""
        self._logs, self._reports, self._launcher, self._count = logs, private / "reports", private / "launcher", count
        self._signals = 0
        for folder in (self._reports, self._launcher):
            folder.mkdir()
        with write_errors(logs, hint):
            for name in ("launch.log", *(f"workerlog.{rank}" for rank in range(count))):
                (logs / name).unlink(missing_ok=True)
                (logs / name).open("xb").close()
                (self._launcher / name).symlink_to((logs / name).absolute())

    def run(self, arguments: Sequence[str]) -> int:
        """Run the launcher until it and all ranks have ended; returns the exit code of the launcher."""
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(self._count)]
        command += ["--host", "127.0.0.1", "--log_dir", str(self._launcher), "--log_overwrite", "1"]
        command += [sys.executable, "-u", "-m", "r3d_fast", *arguments]
        environment = {**os.environ, _REPORTS: str(self._reports)}
        environment.setdefault("GLOG_minloglevel", "2")  # else Paddle's store logs each connection
        log = self._logs / "workerlog.0"
        with (self._logs / "launch.log").open("r+b") as output:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        passed = offset = 0
        try:
            while True:
                over = child.poll() is not None
                if passed < self._signals:
                    self._pass_on(child, first=passed == 0)
                    passed = self._signals
                offset = _copy(log, offset)
                if over:
                    return child.returncode
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                child.terminate()
            for number, handler in before.items():
                signal.signal(number, handler)

    def conclude(self, status: int, echo: Callable[[str], Any]) -> int:
        """The exit code of the job; shows its result, or its error where rank 0 has not shown it."""
        codes = {rank: int(code) for rank in range(self._count) if (code := self._read(f"code-{rank}"))}
        if status == 0 and not any(codes.values()):
            for line in self._read("result").split("\n"):
                echo(line)
            return 0
        if self._signals > 1:
            return 128 + signal.SIGTERM
        if not codes:
            if self._signals:
                return 128 + signal.SIGTERM
            for name in ("launch.log", "workerlog.0"):
                lines = (self._logs / name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                tell(f"the last lines of {name}:", *lines[-_TAIL:])
            raise EnvironmentProblem(
                f"Paddle's launcher ended with exit code {status} before any rank reported an error; its last lines "
                "are above; run r3d-fast doctor"
            )
        if 0 not in codes:  # rank 0 was killed before it could show the error of another rank
            rank = min(codes)
            text = (self._logs / f"workerlog.{rank}").read_text(encoding="utf-8", errors="replace")
            messages = [line.removeprefix(_PREFIX) for line in text.splitlines() if line.startswith(_PREFIX)]
            message = messages[-1] if messages else f"ended with exit code {codes[rank]}"
            tell(f"{_PREFIX}rank {rank}: {message}")
        return codes.get(0) or next((code for code in codes.values() if code), 1)

    def _note(self, number: int, frame: Any) -> None:
        self._signals += 1

    def _pass_on(self, child: subprocess.Popen[bytes], *, first: bool) -> None:
        """Signal the ranks directly: the launcher would kill them after 30 s, even within a long step."""
        pids = [int(pid) for rank in range(self._count) if (pid := self._read(f"pid-{rank}"))]
        if not pids:
            child.terminate()
        for number in pids:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM if first else signal.SIGKILL)

    def _read(self, name: str) -> str:
        path = self._reports / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def _copy(log: Path, offset: int) -> int:
    """Copy the part of `log` after `offset` to stderr; returns where the log ends now."""
    if not log.exists():
        return offset
    with log.open("rb") as file:
        file.seek(offset)
        shutil.copyfileobj(file, sys.stderr.buffer)
        sys.stderr.flush()
        return file.tell()
