"""Work for processes of their own that ends or blocks them: what a job does is its name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from pipelines.isolation.process import Tell


class OddWork(NamedTuple):
    """Does jobs by their names; `folder` is where those that happen once leave a mark."""

    folder: str

    def __call__(self, job: str, tell: Tell) -> str:
        """The name of `job` in capitals, unless it ends or blocks this process."""
        name, _, number = job.partition(" ")
        if name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "dies-once" and self._first_time(job):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "exits":
            os._exit(int(number))
        if name == "blocks":
            time.sleep(3600)
        if name == "tells":
            for done in range(int(number)):
                tell(done / int(number))
                time.sleep(0.2)
        if name == "reads":
            for _ in range(int(number)):
                (Path(self.folder) / "slow").read_bytes()
                time.sleep(0.2)
        if name == "fails":
            raise KeyError(number)
        return job.upper()

    def _first_time(self, job: str) -> bool:
        mark = Path(self.folder) / job
        is_first = not mark.exists()
        mark.touch()
        return is_first


class StartOnce:
    """Work whose process is killed while it starts, for the first `times` processes."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = str(folder), times

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        """Be made by `_start` in the process."""
        return _start, (self.folder, self.times)

    def __call__(self, job: str, tell: Tell) -> str:
        """The name of `job`, in this process."""
        return job.upper()


def _start(folder: str, times: int) -> OddWork:
    if len(list(Path(folder).iterdir())) < times:
        (Path(folder) / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return OddWork(folder)
