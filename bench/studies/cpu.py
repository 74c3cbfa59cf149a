"""`bench studies cpu`: training and evaluation of the reference's ResNet-18 by plain Paddle, r3d-fast and PyTorch."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import IO, Any, cast

from bench.measuring.fresh_python import last_line, python_command, python_environment
from bench.reporting.figures import spread
from bench.reporting.results import StudyReport, study_report
from bench.studies.cpu_contender import BATCH, FAST, PLAIN, TORCH
from pipelines.errors import EnvironmentProblem

MODES = ("train", "eval")
_TOLERANCE = 1e-4  # of r3d-fast against plain Paddle: the first loss, the largest logit
_RATIO = "x plain Paddle, median, low, high"


def measure_cpu(modes: Sequence[str], *, rounds: int, threads: int, command: str) -> StudyReport:
    """A report of `modes`, each measured by `measure_mode`. Raises what that raises."""
    figures: dict[str, Any] = {"batch": BATCH, "threads": threads}
    for mode in modes:
        seconds, difference = measure_mode(mode, rounds=rounds, threads=threads)
        figures[f"{mode}: difference of the first values"] = difference
        for name, own in seconds.items():
            ratios = spread([plain / one for plain, one in zip(seconds[PLAIN], own, strict=True)])
            figures[f"{mode}, {name}"] = {
                "clips/s": round(BATCH / spread(own)[0], 2),
                _RATIO: [round(value, 2) for value in ratios],
                "seconds a step": [round(value, 3) for value in own],
            }
    return study_report("training and evaluation on the CPU", command, figures)


def summary(report: StudyReport) -> str:
    """A line a mode and contender."""
    lines = []
    for mode in MODES:
        for name in (PLAIN, FAST, TORCH):
            figures = report.values.get(f"{mode}, {name}")
            if figures is not None:
                ratio, low, high = figures[_RATIO]
                rate = f"{mode:5s}  {name:8s}  {figures['clips/s']:6.2f} clips/s"
                lines.append(f"{rate}  {ratio:5.2f} x plain Paddle ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


def measure_mode(mode: str, *, rounds: int, threads: int) -> tuple[dict[str, list[float]], float]:
    """(seconds of each contender's steps of `BATCH` clips, by name; how far r3d-fast's first value is from Paddle's).

    The contenders are processes of their own with as many threads, and take one step each a round, in turns. PyTorch
    is one where it is installed. Raises EnvironmentProblem if one ends early or the values differ by more than 1e-4.
    """
    names = [PLAIN, FAST, *([TORCH] if find_spec("torch") else [])]
    with ExitStack() as running:
        contenders = {name: running.enter_context(_contender(name, mode, threads)) for name in names}
        first = {name: contender.step()["value"] for name, contender in contenders.items()}
        difference = abs(first[FAST] - first[PLAIN])
        if difference > _TOLERANCE:
            raise EnvironmentProblem(f"{mode}: {FAST} gives {first[FAST]}, plain Paddle {first[PLAIN]}")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, contender in contenders.items():
                seconds[name].append(contender.step()["seconds"])
    return seconds, difference


class _Contender:
    """A contender's process, and the file that its stderr goes to."""

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._name, self._process, self._errors = name, process, errors

    def step(self) -> dict[str, float]:
        """Seconds and value of one more step. Raises EnvironmentProblem, with its last words, where it has ended."""
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        try:
            stdin.write("step\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # what follows says so
        line = stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise EnvironmentProblem(f"{self._name} ended early: {last_line(self._errors.read())}")
        return cast(dict[str, float], json.loads(line))


@contextmanager
def _contender(name: str, mode: str, threads: int) -> Iterator[_Contender]:
    """The contender, its process ended afterwards."""
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            python_command("bench.studies.cpu_contender", name, mode),
            env=python_environment(OMP_NUM_THREADS=str(threads)), stdin=pipe, stdout=pipe, stderr=errors, text=True,
        )  # fmt: skip
        try:
            yield _Contender(name, process, errors)
        finally:
            process.kill()
            process.communicate()
