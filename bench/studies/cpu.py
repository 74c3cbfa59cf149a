"""Training and evaluation of the reference's ResNet-18 on the CPU: plain Paddle, r3d-fast, PyTorch, in turns."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

import click
import numpy as np

from bench.measuring.machine import commit, describe
from bench.reporting.results import spread
from pipelines.errors import EnvironmentProblem
from pipelines.machine.cpus import usable_cpus

BATCH = 8
CLIP = (3, 16, 112, 112)
CLASSES = 101
MODES = ("train", "eval")
PLAIN, OURS, TORCH = "paddle", "r3d-fast", "torch"
_TOLERANCE = 1e-4  # of ours against plain Paddle: the first loss, the largest logit


def measure(mode: str, *, rounds: int, threads: int) -> dict[str, Any]:
    """Seconds of each contender's steps of `BATCH` clips, one step each a round, and their ratios to plain Paddle's.

    Each contender is a process of its own, with as many threads; ratios are taken within a round. Raises
    EnvironmentProblem if one ends early or r3d-fast's first value is not plain Paddle's.
    """
    names = [PLAIN, OURS, *([TORCH] if find_spec("torch") else [])]
    processes = {name: _start(name, mode, threads) for name in names}
    try:
        first = {name: _ask(name, processes[name]) for name in names}
        difference = abs(first[OURS]["value"] - first[PLAIN]["value"])
        if difference > _TOLERANCE:
            raise EnvironmentProblem(
                f"{mode}: {OURS} gives {first[OURS]['value']}, plain Paddle {first[PLAIN]['value']}"
            )
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                seconds[name].append(_ask(name, processes[name])["seconds"])
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    result: dict[str, Any] = {"mode": mode, "threads": threads, "batch": BATCH, "difference": difference}
    for name in names:
        ratios = [plain / own for plain, own in zip(seconds[PLAIN], seconds[name], strict=True)]
        median, low, high = spread(ratios)
        clips = BATCH / spread(seconds[name])[0]
        result[name] = {
            "seconds": seconds[name],
            "clips_per_second": clips,
            "ratio": {"median": median, "low": low, "high": high},
        }
    return result


def _start(name: str, mode: str, threads: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "bench.studies.cpu", "--contender", name, "--mode", mode]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _ask(name: str, process: subprocess.Popen[str]) -> dict[str, float]:
    stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    try:
        stdin.write("step\n")
        stdin.flush()
    except BrokenPipeError:
        pass  # what follows says so
    line = stdout.readline()
    if not line:
        raise EnvironmentProblem(
            f"{name} ended early; try: python -m bench.studies.cpu --contender {name}, and press Enter"
        )
    return cast(dict[str, float], json.loads(line))


def serve(name: str, mode: str) -> None:
    """A step and its figures on stdout for each line on stdin."""
    step = _runner(name, mode)
    for _ in sys.stdin:
        begin = time.perf_counter()
        value = step()
        print(json.dumps({"seconds": time.perf_counter() - begin, "value": value}), flush=True)


def _runner(name: str, mode: str) -> Callable[[], float]:
    if name == TORCH:
        from bench.studies.torch_model import runner

        return runner(mode, int(os.environ["OMP_NUM_THREADS"]), BATCH, CLIP, CLASSES)
    from r3d_fast.acceleration.cpu import accelerate_training, traced
    from r3d_fast.backend.paddle import choose_device, import_paddle
    from r3d_fast.models.architectures import build_model

    paddle = import_paddle()
    choose_device("cpu")
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=CLASSES)
    clips = paddle.to_tensor(np.random.default_rng(0).standard_normal((BATCH, *CLIP), dtype=np.float32))
    labels = paddle.arange(BATCH)
    optimizer = paddle.optimizer.Momentum(
        1e-3, 0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-3)
    )
    if mode == "eval":
        model.eval()
    faster = accelerate_training if mode == "train" else traced
    forward = faster(model) if name == OURS else model

    def train() -> float:
        loss = paddle.nn.functional.cross_entropy(forward(clips), labels)
        value = float(loss)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return value

    def evaluate() -> float:
        with paddle.no_grad():
            return float(forward(clips).abs().max())

    return train if mode == "train" else evaluate


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="F", help="Write all figures as JSON.")
@click.option("--mode", type=click.Choice([*MODES, "both"]), default="both", show_default=True, help="What to measure.")
@click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Steps of each contender.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of each contender (default: usable CPUs).")
@click.option("--contender", type=click.Choice([PLAIN, OURS, TORCH]), hidden=True)
def main(json_file: Path | None, mode: str, rounds: int, threads: int | None, contender: str | None) -> None:
    """Measure training and evaluation on the CPU beside plain Paddle and, if installed, PyTorch."""
    if contender is not None:
        serve(contender, "train" if mode == "both" else mode)
        return
    modes = MODES if mode == "both" else (mode,)
    results = [measure(one, rounds=rounds, threads=threads or usable_cpus()) for one in modes]
    for result in results:
        for name in (PLAIN, OURS, TORCH):
            if name in result:
                ratio = result[name]["ratio"]
                print(
                    f"{result['mode']:5s}  {name:8s}  {result[name]['clips_per_second']:6.2f} clips/s  "
                    f"{ratio['median']:5.2f} x plain Paddle ({ratio['low']:.2f} to {ratio['high']:.2f})"
                )
    if json_file is not None:
        json_file.write_text(json.dumps(as_report(results), indent=2) + "\n", encoding="utf-8")


def as_report(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `measure` gave as `bench report` prints it."""
    values: dict[str, Any] = {
        "kind": "training and evaluation on the CPU",
        "command": shlex.join(["python", "-m", "bench.studies.cpu", *(Path(word).name for word in sys.argv[1:])]),
        "commit": commit(Path(__file__).parent),
        "machine": describe().in_words(),
        "versions": describe().versions,
        "batch": BATCH,
        "threads": results[0]["threads"],
    }
    for result in results:
        mode = result["mode"]
        values[f"{mode}: difference of the first values"] = result["difference"]
        for name in (PLAIN, OURS, TORCH):
            if name in result:
                ratio = {key: round(value, 2) for key, value in result[name]["ratio"].items()}
                values[f"{mode}, {name}"] = {
                    "clips/s": round(result[name]["clips_per_second"], 2),
                    "x plain Paddle, median, low, high": list(ratio.values()),
                    "seconds a step": [round(value, 3) for value in result[name]["seconds"]],
                }
    return values


if __name__ == "__main__":
    main()
