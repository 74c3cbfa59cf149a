"""Runs the loader and a training under faults for long: `python -m soak`. Prints figures, and says what differs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import tiny

from soak.loader_soak import soak_loader
from soak.training_soak import STEPS_AN_EVALUATION, soak_training

_LEAK = 1.0  # MiB a 1,000 clips or steps
# MiB an evaluation on a CPU. Paddle 3.3.1 keeps 0.27 each time it makes what runs the training's graph anew, as it does
# after an evaluation, whatever the size of the model; the rest is pages that are only partly free.
_EVALUATION = 0.7


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--clips", type=int, default=50_000, help="clips that the loader gives under kills")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the training under kills")
    parser.add_argument("--every", type=int, default=50, help="batches, and steps, between two kills in the mean")
    parser.add_argument("--seed", type=int, default=0, help="other moments for each seed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="r3d-soak-") as temporary:
        folder = Path(temporary)
        index = tiny.make_tiny(folder)
        loading = soak_loader(index, arguments.clips, seed=arguments.seed, every=arguments.every, say=_say)
        print(
            f"loader: {loading.clips} clips, {loading.kills} processes killed, {loading.stops} stopped, "
            f"{loading.different} batches differ; {loading.usage.growth(1000):+.2f} MiB a 1,000 clips, "
            f"{min(loading.usage.files)} to {max(loading.usage.files)} open files; {loading.seconds:.0f} s",
            flush=True,
        )
        training = soak_training(index, folder, arguments.steps, seed=arguments.seed, every=arguments.every, say=_say)
        print(
            f"training: {training.steps} steps, {training.kills} kills, "
            f"{training.difference or 'the same bits as without'}; {training.usage.growth(1000):+.2f} MiB a 1,000 "
            f"steps, {min(training.usage.files)} to {max(training.usage.files)} open files; {training.seconds:.0f} s"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"loader": asdict(loading), "training": asdict(training)}, indent=1))
    leaks = (
        loading.usage.growth(1000) > _LEAK
        or training.usage.growth(1000) > _LEAK + _EVALUATION * 1000 / STEPS_AN_EVALUATION
    )
    return 1 if loading.different or training.difference or leaks else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
