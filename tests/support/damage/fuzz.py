"""Puts damaged files into a folder and lets the product work on it: index it, read it, load clips, predict.

Each file must be refused with a reason, or give an error, or the frames of `container.decode`; the others in the folder
must not feel it, and the process that does the work must not crash, hang or take memory without bound.
`python -m damage.fuzz --count 10000` tries that; see `--help`. A seed that failed stays in `seeds.txt`.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

import av.logging
import crew
import numpy as np
from exact.readers import CLIP, PIXELS, ShownClips, clip_fault, evaluation_plan
from exact.truth import Truth, is_steady, truth_of, truth_past_errors
from numpy.typing import NDArray

from damage.mutations import MUTATIONS, mutated
from damage.torture import sound_files
from pipelines.datasets.video_files import is_video_name
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.sampler import ClipPlan
from pipelines.specs import AugmentSpec, LoaderSpec
from pipelines.video.probe import probe_video
from r3d_fast.prediction.clip_logits import answers

SEEDS = Path(__file__).with_name("seeds.txt")
TIMEOUT_SECONDS = 180.0  # for one step with one folder
MOST_FRAMES = 400  # of a video that is compared; damage can make a file look long
MOST_BYTES = 1 << 28
MOST_MEMORY = 3 << 30  # bytes that the process, or one that it starts, may take
_FOLDER = 25  # damaged files in a folder


class Mutant(NamedTuple):
    """A file that is damaged: the path of the sound one, how it is damaged, and the seed of that."""

    path: str
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{Path(self.path).name}, {self.kind}, seed {self.seed}"


class Folder(NamedTuple):
    """Damaged files that lie in one folder, beside a sound one."""

    mutants: tuple[Mutant, ...]
    sound: str


def sources(folder: Path, more: Iterable[Path] = ()) -> list[Path]:
    """The sound files that are damaged: generated ones of every kind in `folder`, and all videos below `more`."""
    found = sorted(sound_files(folder).values())
    for place in more:
        found += sorted(path for path in place.rglob("*") if path.is_file() and is_video_name(path.name))
    return found


def mutants(files: list[Path], count: int, seed: int) -> list[Mutant]:
    """`count` mutants of all files and kinds, drawn by the seed."""
    draw, kinds = Random(seed), sorted(MUTATIONS)
    return [Mutant(str(files[n % len(files)]), draw.choice(kinds), draw.getrandbits(32)) for n in range(count)]


def known_mutants(files: list[Path]) -> list[Mutant]:
    """Those that failed once, as far as their sound files are there."""
    by_name = {path.name: str(path) for path in files}
    lines = [line for line in SEEDS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    parts = [line.rsplit(", ", 2) for line in lines]
    return [Mutant(by_name[n], kind, int(seed.removeprefix("seed "))) for n, kind, seed in parts if n in by_name]


def in_folders(found: list[Mutant], sound: Path) -> list[Folder]:
    """The mutants in folders, each with the file `sound` beside them."""
    return [Folder(tuple(found[at : at + _FOLDER]), str(sound)) for at in range(0, len(found), _FOLDER)]


def finds(
    folders: Iterable[Folder], *, processes: int, fates: Counter[str], seconds: float | None = None
) -> Iterator[str]:
    """What is wrong, in a line each; `fates` counts what became of the files. It ends after `seconds`, if given."""
    end = None if seconds is None else monotonic() + seconds

    def until_then() -> Iterator[Folder]:
        for folder in folders:
            if end is not None and monotonic() > end:
                return
            yield folder

    for outcome in crew.run(work_on, until_then(), processes=processes, timeout_seconds=TIMEOUT_SECONDS):
        if outcome.failure:
            names = "; ".join(map(str, outcome.task.mutants))
            yield f"{outcome.failure} while {outcome.stage or 'starting'}: one of {names}"
            continue
        found, lines = outcome.result
        fates.update(found)
        yield from lines


def work_on(folder: Folder, say: Callable[[str], None]) -> tuple[Counter[str], list[str]]:
    """(what became of the files, what is wrong) of one folder. It runs in a process of its own."""
    av.logging.set_libav_level(av.logging.PANIC)
    with TemporaryDirectory(prefix="r3d-fuzz-") as temporary:
        root = Path(temporary) / "videos"
        (root / "a").mkdir(parents=True)
        paths = {"": root / "a" / f"sound{Path(folder.sound).suffix}"}
        paths[""].write_bytes(Path(folder.sound).read_bytes())
        for number, mutant in enumerate(folder.mutants):
            paths[str(mutant)] = root / "a" / f"{number:03}{Path(mutant.path).suffix}"
            data = mutated(Path(mutant.path).read_bytes(), mutant.kind, mutant.seed)
            paths[str(mutant)].write_bytes(data)
        return _Work(folder, root, paths, say).done()


class _Work:
    """One folder of damaged files, and what was found out about them so far."""

    def __init__(self, folder: Folder, root: Path, paths: dict[str, Path], say: Callable[[str], None]) -> None:
        self.root, self.say = root, say
        self.names = {path: name for name, path in paths.items()}
        self.sound = {str(mutant): mutant.path for mutant in folder.mutants} | {"": folder.sound}
        self.truths: dict[str, Truth] = {}
        self.found: list[str] = []
        self.fates: dict[str, str] = {}

    def done(self) -> tuple[Counter[str], list[str]]:
        for path, name in self.names.items():
            self.say(f"decoding {name or 'the sound file'} by PyAV")
            truth = truth_of(path, MOST_FRAMES, MOST_BYTES)
            if is_steady(path, truth, MOST_FRAMES, MOST_BYTES) and len(truth.sizes) <= 1:
                self.truths[name] = truth
        self.say("indexing")
        index = VideoIndex.build(self.root, val_fraction=0.0, workers=2, allow_partial=True)
        self._seen("indexing", [index[i].path for i in range(len(index))] + [item.path for item in index.quarantined])
        if not any(record.path.startswith("a/sound") for record in map(index.__getitem__, range(len(index)))):
            self.found.append("the sound file is not in the index")
        for train in (True, False):
            self.say("loading for training" if train else "loading for evaluation")
            self._load(index, train)
        self.say("predicting")
        self._predict()
        self.say("measuring")
        # Of this process not getrusage, which counts the one that it was forked from.
        own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        for most in (int(own.split()[1]) << 10, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10):
            if most > MOST_MEMORY:
                self.found.append(f"{most >> 20} MiB of memory for {'; '.join(filter(None, self.sound))}")
        return Counter(self.fates.get(name, "refused") for name in self.sound if name), self.found

    def _seen(self, step: str, names: Iterable[str]) -> None:
        """Note the files of which a step said nothing, and those of which it spoke twice."""
        counts = Counter(self.root / name for name in names)
        for path, name in self.names.items():
            if counts[path] != 1:
                self.found.append(f"{name or 'sound file'}: {counts[path]} times in what {step} says")

    def _load(self, index: VideoIndex, train: bool) -> None:
        # By the graph, which can be computed exactly: what FFmpeg's scaler makes of noise is compared only roughly.
        augment = AugmentSpec.model_validate({**PIXELS, "resize": "graph"})
        spec = LoaderSpec(batch_size=4, workers=1, threads=1, decoder="pyav")
        with ClipLoader(index, clip=CLIP, augment=augment, loader=spec, split=None, train=train) as loader:
            for number, batch in enumerate(loader):
                shown = np.asarray(np.from_dlpack(batch.clips), np.float64)
                for row, plan in enumerate(loader.sampler.batch(batch.epoch, number, spec.batch_size)):
                    name = self.names[self.root / index[plan.video_id].path]
                    if not plan.is_real:
                        continue
                    if not batch.is_real[row]:
                        self._failed(name, "loading")
                        continue
                    self._check(name, "loading", shown[row], plan, augment)

    def _predict(self) -> None:
        network = ShownClips()
        spec = network.config.augment
        given, shown = list(answers(network, self.names)), 0
        self._seen("predicting", [str(Path(answer.video).relative_to(self.root)) for answer in given])
        for answer in given:
            name = self.names[Path(answer.video)]
            if answer.error:
                self._failed(name, "predicting")
                shown += bool(len(answer.frames))  # the network got a black clip
                continue
            plan = evaluation_plan(answer.frames, self.truths[name], spec) if self._is_known(name) else None
            if plan is not None:
                self._check(name, "predicting", network.clips[shown], plan, spec)
            shown += 1

    def _is_known(self, name: str) -> bool:
        """Whether it is known which frames a file has. Of those that have none, it is: a clip is a fault then."""
        truth = self.truths.get(name)
        return truth is not None and len(truth.frames) < MOST_FRAMES and not truth.too_large

    def _failed(self, name: str, step: str) -> None:
        if not name:
            self.found.append(f"the sound file fails in {step}")
        self.fates.setdefault(name, "fails")

    def _check(self, name: str, step: str, clip: NDArray[np.float64], plan: ClipPlan, spec: AugmentSpec) -> None:
        """Note a fault of a clip.

        Each frame may be that of the undamaged file too, which its packets still say. After an error, with which the
        truth ends, it may be the one that decoding gives past the error.
        """
        if not self._is_known(name):
            self.fates[name] = "not comparable"
            return
        self.fates[name] = "read"
        fault = clip_fault(clip, self.truths[name], plan, spec)
        if not fault:
            return
        truths = [self.truths[name], truth_of(Path(self.sound[name]), MOST_FRAMES, MOST_BYTES)]
        if truths[0].error:
            path = next(path for path, known in self.names.items() if known == name)
            truths.append(truth_past_errors(path, probe_video(path, allow_partial=True).packets.frame_packet))
        for at in range(len(plan.frames)):
            frame, one = clip[at : at + 1], replace(plan, frames=plan.frames[at : at + 1])
            if all(clip_fault(frame, truth, one, spec) for truth in truths):
                self.found.append(f"{name or 'sound file'}, {step}, frame {plan.frames[at]}: {fault}")
                return


def _told(folders: list[Folder]) -> Iterator[Folder]:
    """The folders; how many have been given out is printed now and then."""
    for number, folder in enumerate(folders):
        if number and number % 20 == 0:
            print(f"{number} of {len(folders)} folders", file=sys.stderr, flush=True)
        yield folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="damage.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="files to damage")
    parser.add_argument("--seed", type=int, default=0, help="other damages for each seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="folders at once")
    parser.add_argument("more", type=Path, nargs="*", help="folders of videos to damage, besides generated ones")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="r3d-fuzz-") as temporary:
        files = sources(Path(temporary), arguments.more)
        drawn = known_mutants(files) + mutants(files, arguments.count, arguments.seed)
        fates: Counter[str] = Counter()
        found = 0
        folders = _told(in_folders(drawn, files[0]))
        for line in finds(folders, processes=arguments.jobs, fates=fates):
            found += 1
            print(line, flush=True)
    shown = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
    print(f"{len(drawn)} damaged files of {len(files)} sound ones: {shown}; {found} finds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
