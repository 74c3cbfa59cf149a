"""`bench studies predict`: prediction of many files beside its ceiling, the same work with nothing around it.

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

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.measuring.turns import Say
from bench.reporting.figures import spread
from bench.reporting.results import StudyReport, study_report
from bench.videos.selection import OWN_CLIPS, video_folder
from pipelines.errors import DataError
from pipelines.machine.cpus import usable_cpus
from pipelines.output.temporary import temporary_folder

if TYPE_CHECKING:
    from r3d_fast.prediction.predictor import Predictor

CLASSES = 101
PARTS = ("decode", "model", "predict", "ceiling")
_SHARE = "predict / ceiling, median, low, high"


def measure_prediction(
    data: Path | None, *, config: str, model: Path | None, rounds: int, command: str, say: Say
) -> StudyReport:
    """A report of predicting the videos of `data` (None: bench's own) by `model`, or by an untrained one of `config`.

    Raises DataError where `data` has no video, or one that can't be read.
    """
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.video_paths import find_videos

    with temporary_folder() as folder:
        path = model or untrained_model(folder / "model", config)
        begin = perf_counter()
        predictor = Predictor(path)
        seconds_to_open = perf_counter() - begin
        with video_folder(data, say) as root:
            videos = list(find_videos([str(root)]))
            begin = perf_counter()
            bad = [found for found in predictor(videos) if found.error]
            seconds_of_first_call = perf_counter() - begin
            if bad:
                raise DataError(f"{bad[0].video}: {bad[0].error}; expected videos that can all be read")
            rates = measure_rates(predictor, videos, folder, rounds, say)
    shares = [own / ceiling for own, ceiling in zip(rates["predict"], rates["ceiling"], strict=True)]
    figures = {
        "data": OWN_CLIPS if data is None else data.name,
        "config": config,
        "device": predictor.device,
        "videos": len(videos),
        "cpus": usable_cpus(),
        _SHARE: [round(value, 3) for value in spread(shares)],
        **{_of_round(name): [round(value, 2) for value in values] for name, values in rates.items()},
        "seconds to open the model": round(seconds_to_open, 2),
        "seconds of the first call": round(seconds_of_first_call, 2),
    }
    return study_report("prediction of many files beside its ceiling", command, figures)


def summary(report: StudyReport) -> str:
    """A line a part, then prediction's share of the ceiling, and what comes once."""
    values = report.values
    lines = []
    for name in PARTS:
        median, low, high = spread(values[_of_round(name)])
        lines.append(f"{name:8} {median:7.2f} clips/s ({low:.2f} to {high:.2f})")
    median, low, high = values[_SHARE]
    rounds = len(values[_of_round("predict")])
    opened, first = (values[name] for name in ("seconds to open the model", "seconds of the first call"))
    lines.append(f"predict / ceiling: {median:.3f} ({low:.3f} to {high:.3f}), {rounds} rounds")
    lines.append(f"opened in {opened:.1f} s, first call {first:.1f} s")
    return "\n".join(lines)


def measure_rates(
    predictor: Predictor, videos: Sequence[str], folder: Path, rounds: int, say: Say
) -> dict[str, list[float]]:
    """Clips/s of each of PARTS, a value a round. `folder` is for files that are needed meanwhile."""
    with closing(_Decoding(predictor, videos, folder)) as decoding:
        parts: dict[str, Callable[[], int]] = {
            "decode": decoding.run,
            "model": _computing(predictor, decoding),
            "predict": lambda: _count(predictor.stream(videos)),
        }
        rates: dict[str, list[float]] = {name: [] for name in parts}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name, run in parts.items():
                begin = perf_counter()
                clips = run()
                rates[name].append(clips / (perf_counter() - begin))
    together = predictor.device == "cpu"
    rates["ceiling"] = [
        1 / (1 / decode + 1 / model) if together else min(decode, model)
        for decode, model in zip(rates["decode"], rates["model"], strict=True)
    ]
    return rates


def untrained_model(folder: Path, config: str) -> Path:
    """`folder`, now a checkpoint of an untrained model of the shipped `config` with 101 classes."""
    from r3d_fast.config.config import load_config
    from r3d_fast.training.train import resolve_auto
    from r3d_fast.weights.checkpoint import FORMAT, Checkpoint, save_checkpoint
    from r3d_fast.weights.stored_model import new_model

    chosen = resolve_auto(load_config(config, []))[2]
    model = new_model(chosen.model, CLASSES, chosen.train.seed)
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    classes = [f"class {number}" for number in range(CLASSES)]
    state = {"format": FORMAT, "config": chosen.model_dump(mode="json"), "classes": classes}
    save_checkpoint(folder, Checkpoint(weights, {}, state))
    return folder


class _Decoding:
    """The loader that `predict` has made for these videos, kept."""

    def __init__(self, predictor: Predictor, videos: Sequence[str], folder: Path) -> None:
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
        self.clips = self.run()

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


def _computing(predictor: Predictor, decoding: _Decoding) -> Callable[[], int]:
    """A function that computes as many clips as `decoding` makes, rounded up to whole batches, and returns the number.

    Each batch is the one that was decoded last.
    """
    batches = -(-decoding.clips // decoding.batch)

    def run() -> int:
        for _ in range(batches):
            predictor.network(decoding.last)
        return batches * decoding.batch

    return run


def _of_round(part: str) -> str:
    """The name under which a report keeps the rates of a part."""
    return f"{part}, clips/s a round"


def _count(items: Iterable[Any]) -> int:
    return sum(1 for _ in items)
