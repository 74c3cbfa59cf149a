"""Prediction of many files beside its ceiling: the same decoding and the same forward passes with nothing around them.

A round measures, one after the other:
- decode: a loader that is warm makes every clip of the files, as `predict` has them made, and nobody computes;
- model: the network computes as many clips in batches as large, and nobody decodes;
- predict: `Predictor.stream` from the list of files to the last result, looking at the files, starting and ending
  decoders included; the model is open, and its graph traced in a call before.
On a CPU decoding and computing share the cores, so that a clip can't take less than both together: the ceiling is
1 / (1/decode + 1/model) clips/s of the round. On a GPU they go on side by side, and the slower one is the ceiling.
What comes once is reported apart: opening the model, and the first call, which traces.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from bench.measuring.machine import commit, describe
from bench.reporting.results import spread
from pipelines.errors import DataError
from pipelines.machine.cpus import usable_cpus

_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "clips" / "UCF-101"
CLASSES = 101


def measure(data: Path, *, config: str, model: Path | None, rounds: int) -> dict[str, Any]:
    """Clips/s of each round and their medians; of `model`, or of an untrained one of the shipped `config`.

    Raises DataError where `data` has no video, or one that can't be read.
    """
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.video_paths import find_videos

    videos = list(find_videos([str(data)]))
    with tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as folder:
        path = model or _untrained(Path(folder) / "model", config)
        begin = perf_counter()
        predictor = Predictor(path)
        opened = perf_counter()
        found = predictor(videos)
        first = perf_counter()
        bad = [item for item in found if item.error]
        if bad:
            raise DataError(f"{bad[0].video}: {bad[0].error}; expected videos that can all be read")
        with closing(_Decoding(predictor, videos, Path(folder))) as decoding:
            parts = {
                "decode": decoding.run,
                "model": _computing(predictor, decoding),
                "predict": lambda: _count(predictor.stream(videos)),
            }
            figures = _in_turns(parts, rounds)
    together = predictor.device == "cpu"
    ceilings = [
        1 / (1 / decode + 1 / model) if together else min(decode, model)
        for decode, model in zip(figures["decode"], figures["model"], strict=True)
    ]
    ratios = [own / ceiling for own, ceiling in zip(figures["predict"], ceilings, strict=True)]
    return {
        "videos": len(videos),
        "device": predictor.device,
        "open_seconds": opened - begin,
        "first_call_seconds": first - opened,
        "clips_per_second": {**figures, "ceiling": ceilings},
        "ratio": dict(zip(("median", "low", "high"), spread(ratios), strict=True)),
    }


def _count(items: Any) -> int:
    return sum(1 for _ in items)


def _in_turns(parts: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Clips/s of each part by round."""
    figures: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, run in parts.items():
            begin = perf_counter()
            clips = run()
            figures[name].append(clips / (perf_counter() - begin))
    return figures


class _Decoding:
    """The loader that `predict` has made for these videos, kept."""

    def __init__(self, predictor: Any, videos: list[str], folder: Path) -> None:
        from pipelines.datasets.entries import Dataset, Entry
        from pipelines.index.video_index import write_index
        from r3d_fast.loaders import clip_loader
        from r3d_fast.prediction.clip_logits import clip_spec, default_batch

        network = predictor.network
        entries = tuple(
            sorted((Entry(str(Path(v).resolve()).lstrip("/"), 0, "") for v in videos), key=lambda e: e.path)
        )
        data = Dataset("files", network.classes, entries, (), ())
        index = write_index(folder / "index", Path("/"), data, workers=1)
        self.batch = default_batch(network)
        self._loader = clip_loader(
            index, network.device, network.clip_dtype, clip=clip_spec(network), augment=network.config.augment,
            loader=network.config.loader.model_copy(update={"batch_size": self.batch}), split=None, train=False,
        )  # fmt: skip
        self.run()

    def run(self) -> int:
        """Make every clip; how many."""
        clips = 0
        for batch in self._loader.epoch(0):
            self.last = batch.clips
            clips += int(batch.is_real.sum())
        return clips

    def close(self) -> None:
        """End the decoders."""
        self._loader.close()


def _computing(predictor: Any, decoding: _Decoding) -> Callable[[], int]:
    clips = len(decoding._loader.sampler.videos)

    def run() -> int:
        for _ in range(-(-clips // decoding.batch)):
            predictor.network(decoding.last)
        return -(-clips // decoding.batch) * decoding.batch

    return run


def _untrained(folder: Path, config: str) -> Path:
    from r3d_fast.backend.precision import settle
    from r3d_fast.config.config import load_config
    from r3d_fast.weights.checkpoint import FORMAT, Checkpoint, save_checkpoint
    from r3d_fast.weights.stored_model import new_model

    chosen = settle(load_config(config, []))[2]
    weights = {key: value.numpy() for key, value in new_model(chosen, CLASSES).state_dict().items()}
    classes = [f"class {number}" for number in range(CLASSES)]
    state = {"format": FORMAT, "config": chosen.model_dump(mode="json"), "classes": classes}
    save_checkpoint(folder, Checkpoint(weights, {}, state))
    return folder


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=_DEFAULT, metavar="DIR", help="Folder of videos.")
@click.option("--config", default="ucf101_r3d18", show_default=True, help="Shipped config of the untrained model.")
@click.option("--model", type=click.Path(path_type=Path), help="A run or an exported folder instead of that.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="F", help="Write all figures as JSON.")
def main(data: Path, config: str, model: Path | None, rounds: int, json_file: Path | None) -> None:
    """Measure prediction of the videos under DIR beside its ceiling."""
    result = measure(data, config=config, model=model, rounds=rounds)
    for name, values in result["clips_per_second"].items():
        median, low, high = spread(values)
        print(f"{name:8} {median:7.2f} clips/s ({low:.2f} to {high:.2f})")
    ratio = result["ratio"]
    print(f"predict / ceiling: {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}), {rounds} rounds")
    print(f"opened in {result['open_seconds']:.1f} s, first call {result['first_call_seconds']:.1f} s")
    if json_file is not None:
        json_file.write_text(json.dumps(as_report(result, config), indent=2) + "\n", encoding="utf-8")


def as_report(result: dict[str, Any], config: str) -> dict[str, Any]:
    """What `measure` gave as `bench report` prints it."""
    rates = {name: [round(value, 2) for value in values] for name, values in result["clips_per_second"].items()}
    return {
        "kind": "prediction of many files beside its ceiling",
        "command": shlex.join(["python", "-m", "bench.studies.predict", *(Path(word).name for word in sys.argv[1:])]),
        "commit": commit(Path(__file__).parent),
        "machine": describe().in_words(),
        "versions": describe().versions,
        "config": config,
        "videos": result["videos"],
        "cpus": usable_cpus(),
        "predict / ceiling, median, low, high": [round(value, 3) for value in result["ratio"].values()],
        **{f"{name}, clips/s a round": values for name, values in rates.items()},
        "seconds to open the model": round(result["open_seconds"], 2),
        "seconds of the first call": round(result["first_call_seconds"], 2),
    }


if __name__ == "__main__":
    main()
