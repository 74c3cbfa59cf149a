"""`bench train throughput`: clips a second of training, of the model without data, and of the data without a model.

"synthetic" trains on one batch that lies on the device already, "loader" makes clips that nobody uses, "training" takes
clips from the loader into the same step. They are measured in turns.

There is one model at a time, which synthetic and training train on in turns, so that a batch that fits into a GPU's
memory when it is trained on fits here too. Turns still follow on each other (A B C A B C), which is what makes them
comparable on a busy machine; and a step takes as long whatever weights it finds. The model is gone before the next
precision or layout makes its own.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.loader.handover import make_loader, require_gpu, routing_of, settle
from bench.measuring.gpu_use import GpuSampler
from bench.measuring.turns import GPU_TURN_SECONDS, WARM_BATCHES, Pace, Say, Turn, batches_lasting, take_turns
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING, MeasuredRun, figures_of
from bench.reporting.results import TRAIN_KIND, ThroughputReport, throughput_report
from bench.training.trainers import (
    LoaderContender,
    SyntheticContender,
    TrainedModel,
    TrainingContender,
    check_batch,
    check_losses,
)
from bench.videos.selection import VideoSelection, described, selected_videos
from pipelines.errors import EnvironmentProblem, R3DFastError, UsageError
from pipelines.loader import ClipLoader
from pipelines.machine.cpus import usable_cpus
from r3d_fast.backend.precision import PrecisionName, choose_precision
from r3d_fast.config.config import LAYOUT_OF, Config, load_config

_CPU_BATCH = 8
_CHECKED_STEPS, _MOST_STEPS = 3, 12
_GPU_BATCH = 64
_CPU_STEPS = 2  # of a turn
_LOADER_SECONDS = 1.0  # a turn of its own is as long at least, on a GPU all turns are longer
_AHEAD = 1.5  # a loader that is so many times as fast as the model never lets its queue run empty
Case = tuple[str, str]  # precision, layout
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16")
_PADDED = "-padded"
# Those among which training on a GPU chooses by a trial; padded: the stem has a fourth channel, of zeros.
LAYOUTS = ("NCDHW", "NDHWC", f"NDHWC{_PADDED}")


@dataclass(frozen=True)
class TrainingSettings:
    """What to measure: the config `source` with `overrides`, at each of `precisions` and `layouts`.

    `data` None: clips of bench's own. `batch_size` None: 8 on the CPU, 64 on a GPU, if `overrides` say nothing.
    `layouts` empty: the config's on the CPU, both on a GPU. Each contender has `rounds` turns of `steps` steps; None: 2
    on the CPU, on a GPU as many as last 2 seconds.
    """

    source: str = "ucf101_r3d18"
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    videos: int | None = None  # no more than so many of them
    selection: Path | None = None  # the folder where the choice of them is kept
    device: str = "cpu"
    precisions: tuple[str, ...] = ("fp32",)
    layouts: tuple[str, ...] = ()
    batch_size: int | None = None
    rounds: int = 7
    steps: int | None = None

    @property
    def turn(self) -> dict[str, float]:
        """How long a turn is, as reports say it: a number of steps, or of seconds at least."""
        if self.steps is not None:
            return {"steps_a_turn": self.steps}
        return {"steps_a_turn": _CPU_STEPS} if self.device == "cpu" else {"seconds_a_turn": GPU_TURN_SECONDS}


def measure_training(
    settings: TrainingSettings,
    command: str,
    say: Say = lambda _: None,
    keep: Callable[[ThroughputReport], None] = lambda _: None,
) -> ThroughputReport:
    """The report of a whole measurement, which names `command` as its own; `say` is told what goes on.

    `keep` is given the report of what is measured so far after each round. Precisions that this device does not have
    are left out, and the report says so. Raises what stands in the way of the rest: ConfigError, DataError,
    EnvironmentProblem, UsageError; DivergedError for a loss that is no number.
    """
    configs = configs_of(settings)
    left_out = _prepare(settings, configs)
    runs: list[MeasuredRun] = []
    with selected_videos(settings.data, say, settings.videos, settings.selection) as clips:
        values = _described_settings(settings, next(iter(configs.values())), clips)

        def report(*measured: MeasuredRun) -> ThroughputReport:
            extra = {"not measured": left_out} if left_out else {}
            return throughput_report(TRAIN_KIND, command, values, measured, excluded=clips.excluded, extra=extra)

        def note(run: MeasuredRun) -> None:
            keep(report(*runs, run))

        for case, config in configs.items():
            if case[0] not in left_out:
                runs.append(_run(settings, config, clips, case, say, note))
                gc.collect()  # the model, before the next is made
        return report(*runs)


def _described_settings(settings: TrainingSettings, config: Config, clips: VideoSelection) -> dict[str, Any]:
    """What the report says of the settings; JSON values."""
    return {
        **described(settings.data, clips),
        "config": Path(settings.source).name,
        "model": config.model.name,
        "width": config.model.width,
        "classes": len(clips.index.classes),
        "device": settings.device,
        "batch_size": config.loader.batch_size,
        "num_frames": config.clip.num_frames,
        "size_px": config.augment.size_px,
        **settings.turn,
        "rounds": settings.rounds,
    }


def configs_of(settings: TrainingSettings) -> dict[Case, Config]:
    """The config of each precision and layout; the command's own options have the last word.

    Raises ConfigError, and UsageError for a layout that the device doesn't have.
    """
    on_cpu = settings.device == "cpu"
    first = [f"loader.batch_size={_CPU_BATCH if on_cpu else _GPU_BATCH}"]
    last = [f"train.device={settings.device}"]
    last += [] if settings.batch_size is None else [f"loader.batch_size={settings.batch_size}"]
    wanted = settings.layouts
    if not wanted:
        own = load_config(settings.source, [*first, *settings.overrides, *last]).model.data_format
        wanted = (own if own in LAYOUTS else "NCDHW",) if on_cpu else LAYOUTS[:2]
    if on_cpu and any(layout.endswith(_PADDED) for layout in wanted):
        raise UsageError(f"--layout {','.join(wanted)}: a stem is padded on a GPU alone; add --device gpu")
    axes = {str(name): layout for name, layout in LAYOUT_OF.items()}
    formats = {layout: layout.removesuffix(_PADDED) for layout in wanted}
    sets = {layout: [f"model.data_format={name}", f"augment.layout={axes[name]}"] for layout, name in formats.items()}
    return {
        (precision, layout): load_config(settings.source, [*first, *settings.overrides, *last, *sets[layout]])
        for precision in settings.precisions
        for layout in wanted
    }


def _prepare(settings: TrainingSettings, configs: Mapping[Case, Config]) -> dict[str, str]:
    """Make the device Paddle's; the precisions that it does not have, and why. Raises where it has none of them."""
    from r3d_fast.backend.paddle import choose_device

    if settings.device != "cpu":
        require_gpu()
    choose_device(settings.device)
    problems: dict[str, R3DFastError] = {}
    for (precision, _), config in configs.items():
        try:
            choose_precision(_named(precision), settings.device, config.train.amp_level)
        except (EnvironmentProblem, UsageError) as error:
            problems[precision] = error
    if len(problems) == len(settings.precisions):
        raise problems[settings.precisions[0]]
    return {precision: str(problem) for precision, problem in problems.items()}


def _run(
    settings: TrainingSettings,
    config: Config,
    clips: VideoSelection,
    case: Case,
    say: Say,
    note: Callable[[MeasuredRun], None],
) -> MeasuredRun:
    """The three contenders at one precision and layout; `note` is given the figures so far after each round."""
    where = ", ".join(case)
    precision = choose_precision(_named(case[0]), settings.device, config.train.amp_level)
    dtype = precision.clip_dtype
    with ExitStack() as opened:
        loaders = []
        for _ in range(2):
            loader = make_loader(
                clips.index, config.clip, config.augment, config.loader, split=None, device=settings.device, dtype=dtype
            )
            opened.callback(loader.close)
            loaders.append(loader)
        say(f"{where}: checking the first steps")
        batch = next(loaders[0].epoch(0))
        check_batch(batch, config, settings.device, dtype)
        data = LoaderContender(loaders[0])
        model = TrainedModel(
            config, len(clips.index.classes), settings.device, precision, padded_stem=case[1].endswith(_PADDED)
        )
        synthetic, training = SyntheticContender(model, batch), TrainingContender(model, loaders[1])
        if settings.device != "cpu":
            settle(loaders[0], partial(data.make, 1))
        paces = _paces(synthetic, data, settings)
        if settings.device != "cpu":
            settle(loaders[1], partial(training.make, 1))
        samplers = {name: GpuSampler() for name in paces} if settings.device != "cpu" else {}

        routed = {LOADER: loaders[0], TRAINING: loaders[1]} if samplers else {}

        def measured(turns: dict[str, list[Turn]]) -> MeasuredRun:
            losses = {trained.name: trained.losses for trained in (synthetic, training)}
            return _measured(config, case, turns, losses, samplers, routed)

        def check_and_note(turns: dict[str, list[Turn]]) -> None:
            for trained in (synthetic, training):
                check_losses(trained)
            note(measured(turns))

        turns = take_turns(
            (synthetic, data, training), settings.rounds, lambda name: paces[name],
            lambda text: say(f"{where}: {text}"), samplers, check_and_note,
        )  # fmt: skip
        return measured(turns)


def _measured(
    config: Config,
    case: Case,
    turns: Mapping[str, Sequence[Turn]],
    losses: Mapping[str, Sequence[float]],
    samplers: Mapping[str, GpuSampler],
    routed: Mapping[str, ClipLoader],
) -> MeasuredRun:
    """The figures of `turns`, with what else is known of each contender by its name."""
    figures = tuple(
        figures_of(
            name, own, config.clip.num_frames,
            waited=_waited(own),
            step_ms=_step_ms(own),
            loss=(losses[name][0], losses[name][-1]) if name in losses else (),
            gpu=samplers[name].use() if name in samplers else None,
            routing=routing_of(routed[name]) if name in routed else None,
        )
        for name, own in turns.items()
    )  # fmt: skip
    workers = config.loader.workers
    return MeasuredRun(config.clip.sampling, usable_cpus() if workers == "auto" else workers, figures, *case)


def _named(precision: str) -> PrecisionName:
    found: PrecisionName = next(name for name in PRECISIONS if name == precision)
    return found


def _paces(synthetic: SyntheticContender, data: LoaderContender, settings: TrainingSettings) -> dict[str, Pace]:
    """The number of steps or batches that each contender makes in a turn, and how many it makes before to warm up.

    Before that, a few steps check that the model learns. The model alone warms up with one step, as nothing is prepared
    ahead of it. Training starts with a full queue of batches. Where the loader is at least `_AHEAD` times as fast as
    the model the queue stays full, so one step is enough; elsewhere training warms up until the queue is used up.
    """
    step = math.inf
    # The first steps in fp16 may find the scale of the loss and move nothing.
    while len(synthetic.losses) < _CHECKED_STEPS or (len(synthetic.losses) < _MOST_STEPS and not synthetic.learns):
        begin = perf_counter()
        synthetic.make(1)
        step = perf_counter() - begin  # of the last: the first one searches for algorithms
    check_losses(synthetic)
    seconds = settings.turn.get("seconds_a_turn", 0.0)
    steps = int(settings.turn.get("steps_a_turn", math.ceil(seconds / step)))
    loads = max(steps, batches_lasting(max(seconds, _LOADER_SECONDS), data))
    warm = 1 if _AHEAD * max(seconds, _LOADER_SECONDS) / loads < step else WARM_BATCHES
    return {SYNTHETIC: Pace(steps, 1), LOADER: Pace(loads), TRAINING: Pace(steps, warm)}


def _waited(turns: Sequence[Turn]) -> tuple[float, ...]:
    """The share of each turn in which it waited for data; empty for those that don't."""
    return tuple(
        min(1.0, turn.costs["waited_seconds"] / turn.seconds) for turn in turns if "waited_seconds" in turn.costs
    )


def _step_ms(turns: Sequence[Turn]) -> tuple[float, ...]:
    return tuple(1000 * turn.costs["step_seconds"] / turn.costs["steps"] for turn in turns if turn.costs.get("steps"))
