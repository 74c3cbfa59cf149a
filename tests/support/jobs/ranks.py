"""Starts jobs of several processes with Paddle's launcher and gloo. As a script, this file is the program of a rank."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from from_config import a_learner, eval_clips, train_clips

from pipelines.errors import DataError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast.backend.feed import feed
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision
from r3d_fast.evaluation.evaluate import evaluate_model
from r3d_fast.learning.learner import seed_batch
from r3d_fast.loaders import open_index
from r3d_fast.ranks.group import Group, join_group

LIMIT = 240.0
STEPS = 3


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(tiny.REPO), str(Path(__file__).parent)])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}


def free_port() -> int:
    """A port of 20,000 to 29,999 that nobody listens at. The system gives none of these to a connection of its own."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def launcher(count: int, logs: Path, *command: str | Path) -> list[str]:
    start = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", count, "--host", "127.0.0.1"]
    return [str(part) for part in (*start, "--log_dir", logs, sys.executable, *command)]


def launch(count: int, logs: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """The finished job that ran `python COMMAND` in `count` processes, started by Paddle's launcher alone."""
    return subprocess.run(
        launcher(count, logs, *command), env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )


def train_command(index: VideoIndex, run: Path, count: int, *more: str) -> list[str]:
    command = tiny.command("train", "-c", "demo", "--run", run, "--resume", "auto", "--nproc", str(count))
    return [*command, *tiny.options(tiny.overrides(index, *more))]


def start(index: VideoIndex, run: Path, count: int, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        train_command(index, run, count, *more), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def train(index: VideoIndex, run: Path, count: int, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        train_command(index, run, count, *more), env=environment(), capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip


def rank_pids(parent: int) -> dict[int, int]:
    """The process id of each rank below `parent`, found by the rank in its environment."""
    pids, todo = {}, [parent]
    while todo:
        for child in map(int, Path(f"/proc/{todo.pop()}/task").glob("*/children").__next__().read_text().split()):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks = [value for value in variables if value.startswith(b"PADDLE_TRAINER_ID=")]
            if ranks:
                pids[int(ranks[0].split(b"=")[1])] = child
            else:
                todo.append(child)
    return pids


def batches(options: list[str], data: Path, group: Group) -> list[Batch]:
    """The first three batches of the training data, in the last of which some clips are set to be not real.

    These are positions 1, 3, 4 and 5 of the batch, so ranks have different numbers of real clips.
    """
    config = tiny.load_config("demo", [*tiny.OVERRIDES, *options, f"data.root={data}/data"])
    with train_clips(config, open_index(config.data), group) as loader:
        found = [batch for batch, _ in zip(loader.epoch(0), range(STEPS), strict=False)]
    for position in range(6):
        if position % 2 == 1 or position == 4:  # uneven among 2 and among 3 ranks
            row, rank = divmod(position, group.count)
            if rank == group.index:
                found[2].is_real[row] = False
    return found


def one_rank(data: Path, group: Group) -> dict[str, Any]:
    """Arrays by name: gradients of whole batches, the state after some steps, dropout's draws, an evaluation."""
    paddle = import_paddle()
    group.connect("cpu")
    config = tiny.tiny_config(VideoIndex.open(data / "data.r3dindex"), "eval.batch_size=5")
    index = open_index(config.data)
    learner = a_learner(config, len(index.classes), Precision(), "cpu", group=group)
    out: dict[str, Any] = {}
    found = batches([], data, group)
    out["videos"] = np.concatenate([batch.video_ids for batch in found])
    step = learner._step
    for number, batch in enumerate(found):  # with batch norm in evaluation mode: its batch is that of one rank
        learner.model.eval()
        fed = feed(batch, "cpu")
        loss, _ = step._backward(fed)
        rows = int(batch.is_real.sum())
        loss = loss.reshape([1]) * rows
        gradients = [p.grad for p in step._parameters if p.grad is not None]
        group.add_up([*gradients, loss], [])
        whole = group.total(rows)
        out[f"loss.{number}"] = loss.item() / whole
        for gradient in gradients:  # as if each row of each rank were real
            paddle.assign(gradient * (len(batch.labels) / whole), output=gradient)
        for place, gradient in enumerate(gradients):
            out[f"gradient.{number}.{place}"] = gradient.numpy()
        step._clear()
    for number, batch in enumerate(found):
        learner.step(feed(batch, "cpu"), 0.1)
        seed_batch(7, 0, number, group.index)
        out[f"draw.{number}"] = paddle.rand([4]).numpy()
    out |= {f"before.{name}": array for name, array in learner.arrays()[0].items()}
    fed, last = feed(found[0], "cpu"), group.index == group.count - 1
    broken = fed._replace(weights=fed.weights * float("nan")) if last else fed
    first = learner.step(broken, 0.1)
    hook = step._parameters[0].register_hook(lambda gradient: gradient * (float("inf") if last else 1.0))
    second = learner.step(fed, 0.1)  # its loss is a number everywhere
    hook.remove()
    out |= {"applied": [first.applied, second.applied], "broken": [first.loss, second.loss]}
    weights, moments = learner.arrays()
    out |= {f"after.{name}": array for name, array in weights.items()} | {f"m.{k}": a for k, a in moments.items()}
    with eval_clips(config, index, group) as loader:
        out["eval_batches"] = len(loader)
        evaluation = evaluate_model(learner.model, loader, len(index.classes), "cpu", group=group)
    for kind, figures in (("clip", evaluation.clip), ("video", evaluation.video)):
        out |= {f"{kind}.{key}": figures[key] for key in ("loss", "top1", "top5", "count", "confusion")}  # type: ignore[literal-required]
    return out


def main(what: str, data: Path, out: Path) -> None:
    with join_group(2.0) as group:
        if what == "steps":
            np.savez(out / f"rank{group.index}.npz", **one_rank(data, group))
        elif what == "error" and group.index == 1:
            raise DataError("the disk of this rank is gone")
        else:
            group.exchange("here")


if __name__ == "__main__":
    from r3d_fast.cli import run_cli

    def command(args: list[str], **options: Any) -> None:
        main(args[0], Path(args[1]), Path(args[2]))

    sys.exit(run_cli(command, sys.argv[1:], "rank"))
