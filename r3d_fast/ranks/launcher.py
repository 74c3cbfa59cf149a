"""`train --nproc N`: starts Paddle's launcher as a child process, and adds what it lacks.

It passes signals on to the ranks, ends with the exit code of the ranks, and shows only the output of the first rank.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.machine.processes import end_with_parent
from r3d_fast.files import make_folder, write_file

_REPORTS = "R3D_FAST_REPORTS"  # the folder in which ranks leave their process numbers, exit codes and results
_PREFIX = "r3d-fast: "


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


def launch(arguments: Sequence[str], count: int, logs: Path, echo: Callable[[str], Any]) -> int:
    """Run `r3d-fast ARGUMENTS` as `count` ranks on this machine; returns the exit code that they ended with.

    The output of rank 0 goes to stderr as it comes, its result to `echo`; the output of all ranks is kept in `logs`.
    SIGINT and SIGTERM are passed on to the ranks; the second signal ends them at once. Raises UsageError where `logs`
    can't be written, EnvironmentProblem where the launcher itself failed.
    """
    if rank_and_count()[1] > 1:
        raise UsageError("--nproc: this process was started by a launcher already; leave --nproc out")
    make_folder(logs, "choose another --run")
    with tempfile.TemporaryDirectory(prefix="r3d-fast-") as reports:
        job = _Job(logs, Path(reports), count)
        try:
            status = job.run(arguments)
        finally:
            # These files of the launcher hold the whole environment, secrets too.
            for pattern in ("envlog.*", "backup_env.*", "default.*.log"):
                for path in logs.glob(pattern):
                    path.unlink()
        return job.conclude(status, echo)


class _Job:
    """The launcher and its ranks, from start to end."""

    def __init__(self, logs: Path, reports: Path, count: int) -> None:
        self._logs, self._reports, self._count = logs, reports, count
        self._signals = 0

    def run(self, arguments: Sequence[str]) -> int:
        """Run the launcher until it and all ranks have ended; returns the exit code of the launcher."""
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(self._count)]
        command += ["--host", "127.0.0.1", "--log_dir", str(self._logs), "--log_overwrite", "1"]
        command += [sys.executable, "-u", "-m", "r3d_fast", *arguments]
        environment = {**os.environ, _REPORTS: str(self._reports)}
        environment.setdefault("GLOG_minloglevel", "2")  # else Paddle's store logs each connection
        log = self._logs / "workerlog.0"
        log.unlink(missing_ok=True)
        with (self._logs / "launch.log").open("w") as output:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
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
            echo(self._read("result"))
            return 0
        if self._signals > 1:
            return 128 + signal.SIGTERM
        if not codes:
            if self._signals:
                return 128 + signal.SIGTERM
            tail = (self._logs / "launch.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise EnvironmentProblem(
                f"Paddle's launcher ended with exit code {status} before any rank reported an error; see "
                f"{self._logs}; its last line: {tail[-1] if tail else ''}"
            )
        if 0 not in codes:  # rank 0 was killed before it could show the error of another rank
            rank = min(codes)
            text = (self._logs / f"workerlog.{rank}").read_text(encoding="utf-8", errors="replace")
            messages = [line.removeprefix(_PREFIX) for line in text.splitlines() if line.startswith(_PREFIX)]
            message = messages[-1] if messages else f"ended with exit code {codes[rank]}"
            print(f"{_PREFIX}rank {rank}: {message}", file=sys.stderr)
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
