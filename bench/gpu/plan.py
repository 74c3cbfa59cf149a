"""What `bench gpu` does: processes in their order, each with its command line and the longest that it may take."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.errors import UsageError
from pipelines.machine.gpu_wait import VARIABLE

STEPS = ("machine", "doctor", "kernels", "parity", "loader", "tests", "train", "full")
PERSISTENT = "FLAGS_cudnn_batchnorm_spatial_persistent"
_TESTED = (  # the files with tests marked `gpu`
    "tests/faults/test_gpu.py", "tests/pipelines/dali", "tests/pipelines/test_loader_devices.py",
    "tests/pipelines/test_sampler_jitter.py",
    "tests/pipelines/workers/test_clip_source_turned.py", "tests/r3d_fast/acceleration",
    "tests/r3d_fast/backend", "tests/r3d_fast/models", "tests/r3d_fast/runs", "tests/r3d_fast/training",
    "tests/r3d_fast/learning", "tests/bench/loader", "tests/bench/training",
)  # fmt: skip
_PARITY_VIDEOS = 200
_BATCH, _SMALL_BATCH = 64, 16
_CHECKOUT = Path(__file__).resolve().parents[2]
# NVIDIA's tensor cores take fp16 from compute capability 7.0 on, bf16 from 8.0 on.
_HALVES = (("fp16", 70), ("bf16", 80))
# Those among which training chooses by a trial in half precision; in float32 it is the first.
_LAYOUTS = ("NCDHW", "NDHWC", "NDHWC-padded")
_PROGRAMS = {"bench.cli": "bench", "r3d_fast": "r3d-fast"}
Need = Literal["nothing", "gpu", "paddle"]


@dataclass(frozen=True)
class GpuSettings:
    """What was asked for. `steps` empty: all but `full`, and those that are done already are kept.

    Speed is measured on `videos` of the videos in `data`, which are no more than there are.
    """

    data: Path
    out: Path
    lists: Path | None = None
    split: int = 1
    videos: int = 640
    steps: tuple[str, ...] = ()
    full: bool = False

    @property
    def chosen(self) -> tuple[str, ...]:
        """The steps to run, in their order."""
        asked = self.steps or STEPS[:-1]
        return tuple(step for step in STEPS if step in asked or (step == "full" and self.full))

    @property
    def batch(self) -> int:
        """The clips in a batch where speed is measured: 64, with fewer videos the largest power of two of them."""
        return min(_BATCH, 1 << self.videos.bit_length() - 1)


@dataclass(frozen=True)
class Card:
    """The first GPU: its name and architecture (70 for a V100), and how many decoders it has; 0 where unknown.

    `problem` says why there is no GPU to use, and is empty where there is one; `to_do` says what to do about it.
    """

    name: str = ""
    arch: int = 0
    engines: int = 0
    problem: str = ""
    to_do: str = ""

    @property
    def device(self) -> str:
        """Where things are measured."""
        return "cpu" if self.problem else "gpu"

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that are measured: float32, and the half precisions that the card has."""
        return ("fp32", *(name for name, least in _HALVES if self.arch >= least and not self.problem))


V100 = Card("Tesla V100", 70, 1)


@dataclass(frozen=True)
class Part:
    """One process. `needs` is what must be usable, else it is left out; `minutes` None: as long as it takes.

    `name` is the name of its log and of its results.
    """

    step: str
    name: str
    command: tuple[str, ...]
    minutes: float | None
    needs: Need = "gpu"
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None  # where it runs

    @property
    def shown(self) -> str:
        """The command as one would type it."""
        words = list(self.command)
        if words[:2] == [sys.executable, "-m"]:
            words = [_PROGRAMS[words[2]]] if words[2] in _PROGRAMS else ["python", "-m", words[2]]
            words += self.command[3:]
        return self._with_environment(words)

    @property
    def pasted(self) -> str:
        """The command for a shell, where it is to be run by hand: with this interpreter, and in the right folder."""
        line = self._with_environment(self.command)
        return line if self.folder is None else f"(cd {shlex.quote(str(self.folder))} && {line})"

    def _with_environment(self, words: Sequence[str]) -> str:
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(words)])


def check_steps(names: Sequence[str]) -> tuple[str, ...]:
    """The names of steps as they were given. Raises UsageError for one that there isn't, or that is there twice."""
    if not set(names) <= set(STEPS) or len(set(names)) < len(names) or not names:
        raise UsageError(f"--steps {','.join(names)}: expected one or more of {', '.join(STEPS)}, each once")
    return tuple(names)


def plan(settings: GpuSettings, card: Card) -> list[Part]:
    """The processes of the chosen steps, in their order."""
    makers = {
        "machine": _machine, "doctor": _doctor, "kernels": _kernels, "parity": _parity, "loader": _loader,
        "tests": _tests, "train": _train, "full": _full,
    }  # fmt: skip
    return [part for step in settings.chosen for part in makers[step](settings, card)]


def results_file(out: Path, name: str) -> Path:
    """Where the results of the part `name` are."""
    return out / "results" / f"{name}.json"


def tests_file(out: Path) -> Path:
    """Where pytest writes what became of each test."""
    return out / "results" / "tests.xml"


def _module(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *map(str, arguments))


def _machine(settings: GpuSettings, card: Card) -> list[Part]:
    file = results_file(settings.out, "machine")
    return [Part("machine", "machine", _module("bench.gpu.inventory", file), 1, "nothing")]


def _doctor(settings: GpuSettings, card: Card) -> list[Part]:
    file = results_file(settings.out, "doctor")
    return [Part("doctor", "doctor", _module("bench.gpu.diagnosis", file), 2, "nothing")]


def _kernels(settings: GpuSettings, card: Card) -> list[Part]:
    """The flag holds for a whole process, so that each value of it has one of its own."""
    need: Need = "nothing" if card.problem else "paddle"

    def part(name: str, only: str, minutes: float, flag: str) -> Part:
        command = _module("bench.gpu.kernels", results_file(settings.out, name), card.device, card.arch, only)
        return Part("kernels", name, command, minutes, need, {PERSISTENT: flag})

    parts = [part("kernels", "all", 5, "0")]
    return parts if card.problem else [*parts, part("kernels_persistent", "norm", 1, "1")]


def _parity(settings: GpuSettings, card: Card) -> list[Part]:
    file = results_file(settings.out, "parity")
    command = _module("bench.gpu.decoder_parity", file, settings.data, card.device, _PARITY_VIDEOS)
    return [Part("parity", "parity", command, 4, "nothing" if card.problem else "gpu")]


def _video_choice(settings: GpuSettings, step: str) -> Part:
    """What chooses the videos for all parts of `step` and those after it, so that it is in the time of none of them."""
    file = results_file(settings.out, "videos")
    command = _module("bench.videos.choice", file, settings.data, _choice(settings), settings.videos)
    return Part(step, "videos", command, 10)


def _choice(settings: GpuSettings) -> Path:
    return settings.out / "videos"


def _on_videos(settings: GpuSettings) -> tuple[object, ...]:
    return "--data", settings.data, "--videos", settings.videos, "--selection", _choice(settings)


def _loader(settings: GpuSettings, card: Card) -> list[Part]:
    """Two sizes of a batch are compared where there are videos enough for both."""
    engines = max(1, card.engines)
    threads = f"{engines},{2 * engines}"
    parts = [_video_choice(settings, "loader"), _of_loader(settings, _BATCH, "pyav,dali,hybrid", threads, 8)]
    if settings.batch == _BATCH:
        parts.append(_of_loader(settings, _SMALL_BATCH, "pyav,dali", threads, 5))
    return parts


def _of_loader(settings: GpuSettings, batch: int, decoders: str, threads: str, minutes: float) -> Part:
    name = f"loader_{batch}"
    command = _module(
        "bench.cli", "loader", "throughput", *_on_videos(settings), "--device", "gpu", "--sampling", "segments",
        "--batch-size", min(batch, settings.batch), "--rounds", 5, "--decoder", decoders, "--threads", threads,
        "--json", results_file(settings.out, name),
    )  # fmt: skip
    return Part("loader", name, command, minutes)


def _tests(settings: GpuSettings, card: Card) -> list[Part]:
    command = _module("pytest", "-m", "gpu and not slow", "-q", f"--junitxml={tests_file(settings.out)}", *_TESTED)
    required = {"R3D_REQUIRE_GPU": "1", "R3D_REAL_CLIPS": str(settings.data)}
    return [Part("tests", "tests", command, 6, "gpu", required, _CHECKOUT)]


def _train(settings: GpuSettings, card: Card) -> list[Part]:
    """A process a case, so that one that runs out of memory takes no other with it; the last one spins."""
    best = "fp16" if "fp16" in card.precisions else "fp32"
    cases = [(half, layout, "sleep") for half in reversed(card.precisions[1:]) for layout in _LAYOUTS]
    cases += [("fp32", layout, "sleep") for layout in _LAYOUTS[:2]]
    first = [] if "loader" in settings.chosen else [_video_choice(settings, "train")]
    return [*first, *(_of_training(settings, *case) for case in [*cases, (best, "NDHWC", "spin")])]


def _of_training(settings: GpuSettings, precision: str, layout: str, wait: str) -> Part:
    name = f"train_{precision}_{layout}" + "_spin" * (wait == "spin")
    command = _module(
        "bench.cli", "train", "throughput", "-c", "ucf101_r3d18", *_on_videos(settings), "--device", "gpu",
        "--precision", precision, "--layout", layout, "--rounds", 5, "--batch-size", settings.batch,
        "--json", results_file(settings.out, name),
    )  # fmt: skip
    return Part("train", name, command, 3, "paddle", {VARIABLE: wait})


def _full(settings: GpuSettings, card: Card) -> list[Part]:
    out = settings.out
    index, run, eval_json = out / "data.r3dindex", out / "run", results_file(out, "full_eval")
    lists = () if settings.lists is None else ("--lists", settings.lists, "--split", settings.split)
    train = _module(
        "r3d_fast", "train", "-c", "ucf101_r3d18", "-o", f"data.root={settings.data}", "-o", f"data.index={index}",
        "--run", run, "--resume", "auto",
    )  # fmt: skip
    return [
        Part("full", "full_index", _module("r3d_fast", "data", "index", settings.data, *lists, "--index", index), None),
        Part("full", "full_train", train, None, "paddle"),
        Part("full", "full_eval", _module("r3d_fast", "eval", "--run", run, "--json", eval_json), None, "paddle"),
    ]
