"""`train --nproc N`: Paddle's launcher as a child, with what it lacks: signals, exit codes, one clear voice."""

from __future__ import annotations

import ctypes
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
from r3d_fast.files import make_folder, write_file

_REPORTS = "R3D_FAST_REPORTS"  # where ranks leave their process numbers, exit codes and results
_PR_SET_PDEATHSIG = 1
_TOLD = "r3d-fast: "


def rank_and_count() -> tuple[int, int]:
    """(rank of this process, number of ranks) as the launcher said; (0, 1) where nobody launched it."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0), int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def tell_launcher(name: str, text: str) -> None:
    """Leave `text` under `name` for the process that started the ranks, if one did."""
    folder = os.environ.get(_REPORTS)
    if folder:
        with suppress(UsageError):  # whoever wanted to know has gone
            write_file(Path(folder) / name, text.encode())


def tell_exit_code(code: int) -> None:
    """Leave the exit code of this rank: the launcher makes its own of it."""
    tell_launcher(f"code-{rank_and_count()[0]}", str(code))


def is_launched() -> bool:
    """Whether this process is a rank of `train --nproc`, which prints the result."""
    return bool(os.environ.get(_REPORTS))


def launch(arguments: Sequence[str], count: int, logs: Path, echo: Callable[[str], Any]) -> int:
    """Run `r3d-fast ARGUMENTS` as `count` ranks on this machine; the exit code on which they ended.

    What rank 0 says goes to stderr as it comes, its result to `echo`; everything is kept in `logs`. SIGINT and SIGTERM
    go on to the ranks, a second one ends them at once. Raises UsageError where `logs` can't be written,
    EnvironmentProblem where the launcher itself failed.
    """
    if rank_and_count()[1] > 1:
        raise UsageError("--nproc: this process is one of several already; leave --nproc out under a launcher")
    make_folder(logs, "choose another --run")
    with tempfile.TemporaryDirectory(prefix="r3d-fast-") as reports:
        job = _Job(logs, Path(reports), count)
        try:
            status = job.run(arguments)
        finally:
            for pattern in ("envlog.*", "backup_env.*", "default.*.log"):  # the whole environment, secrets included
                for path in logs.glob(pattern):
                    path.unlink()
        return job.conclude(status, echo)


class _Job:
    def __init__(self, logs: Path, reports: Path, count: int) -> None:
        self._logs, self._reports, self._count = logs, reports, count
        self._signals = 0

    def run(self, arguments: Sequence[str]) -> int:
        """The exit code of the launcher, once everybody is gone."""
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(self._count)]
        command += ["--host", "127.0.0.1", "--log_dir", str(self._logs), "--log_overwrite", "1"]
        command += [sys.executable, "-u", "-m", "r3d_fast", *arguments]
        environment = {**os.environ, _REPORTS: str(self._reports)}
        environment.setdefault("GLOG_minloglevel", "2")  # Paddle's store tells of each connection
        log = self._logs / "workerlog.0"
        log.unlink(missing_ok=True)
        with (self._logs / "launch.log").open("w") as output:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=_end_with_parent,
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
        """The exit code of the job, its result or its error said."""
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
                f"the launcher ended with {status} before any rank could say why; see {self._logs}; "
                f"its last line: {tail[-1] if tail else ''}"
            )
        if 0 not in codes:  # it could not say what the others ended for
            rank = min(codes)
            text = (self._logs / f"workerlog.{rank}").read_text(encoding="utf-8", errors="replace")
            said = [line.removeprefix(_TOLD) for line in text.splitlines() if line.startswith(_TOLD)]
            print(f"{_TOLD}rank {rank}: {said[-1] if said else f'ended with {codes[rank]}'}", file=sys.stderr)
        return codes.get(0) or next((code for code in codes.values() if code), 1)

    def _note(self, number: int, frame: Any) -> None:
        self._signals += 1

    def _pass_on(self, child: subprocess.Popen[bytes], *, first: bool) -> None:
        """Tell the ranks themselves: the launcher would give them 30 s, whatever a step takes."""
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
    """Write what `log` holds past `offset` to stderr; where it ends now."""
    if not log.exists():
        return offset
    with log.open("rb") as file:
        file.seek(offset)
        shutil.copyfileobj(file, sys.stderr.buffer)
        sys.stderr.flush()
        return file.tell()


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
