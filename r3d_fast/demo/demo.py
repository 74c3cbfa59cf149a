"""The demo: generates videos in which only the motion tells the class, indexes them, trains, evaluates and predicts."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import load_config
from r3d_fast.console import as_time, counted, quoted
from r3d_fast.demo.videos import CLASSES, make_demo_dataset
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.progress import Progress
from r3d_fast.training.train import train

Say = Callable[[str], None]


def run_demo(folder: Path, say: Say) -> float:
    """Run the demo in `folder`, where all its files go, and return top1 (a fraction) on the unseen videos.

    `say` gets a line of text for each step.
    """
    start = time.monotonic()
    data, run = folder / "data", folder / "run"
    say(f"1. Making videos of {len(CLASSES)} motions in {data}: random textures, so that a single frame says nothing")
    bar: list[Progress] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress("videos", total, 0, max(1, total // 4)))
        bar[0].step(done=done)
        if done == total:
            bar[0].__exit__(None, None, None)

    make_demo_dataset(data, videos_per_class=36, test_per_class=8, progress=progress)
    index = VideoIndex.build(data, index=folder / "data.r3dindex")
    splits = ", ".join(f"{count} {split}" for split, count in index.counts("split"))
    say(f"2. Indexed {len(index)} videos ({splits}), {int(index.columns().num_frames.sum())} frames: {index.path}")

    config = load_config("demo", [f"data.root={data}", f"data.index={index.path}"])
    epochs = counted(config.train.epochs, "epoch")
    say(f"3. Training {config.model.name} for {epochs} straight from the .avi files: {run}")
    if run.exists():
        shutil.rmtree(run)  # so that the demo trains from scratch each time
    train(config, run=run)

    evaluation, _ = evaluate(run, config)
    top1 = evaluation.video["top1"] or 0.0
    say(f"4. On {evaluation.num_evaluated} unseen videos: top1 {100 * top1:.1f} % (chance: {100 / len(CLASSES):.1f} %)")

    video = sorted((data / "test" / "rotate_left").glob("*.avi"))[0]
    (prediction,) = Predictor(run)([video], top=3)
    named = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
    say(f"5. {video}: {named}")
    say(f"Done in {as_time(time.monotonic() - start)}. What it made:")
    for path, what in (
        (data, "the videos"),
        (index.path, "their index"),
        (run / "best", "the best weights, for `r3d-fast predict`"),
        (run / "report.html", "curves, classes and mistakes, to open in a browser"),
        (run / "metrics.csv", "loss, top1 and speed of every step"),
        (run / "config.yaml", "every setting"),
    ):
        say(f"  {path}: {what}")
    say(f"Try: {quoted('r3d-fast', 'predict', run, video)}")
    sys.stdout.flush()
    return top1
