"""Reads damaged files: each is refused, or gives an error, or gives the frames of `container.decode`.

`python -m damage.torture` looks for files that do none of these; see `--help`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av.logging
import crew
import numpy as np
from exact.encoders import Additions, Encoding, write
from exact.readers import sequence_faults
from exact.truth import Truth, steady_truth_of, truth_of, uncut_frames
from numpy.typing import NDArray
from oddities import write_oddities

from damage.mutations import MUTATIONS, mutated
from pipelines.errors import VideoError
from pipelines.video.decoder import Cut, FrameReader
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord

TIMEOUT_SECONDS = 60.0
MOST_FRAMES = 100  # that are compared; damage can make a file look long
MOST_BYTES = 1 << 28  # of the frames of a truth; damage can make pictures look large
SOUND = {  # the files that are damaged: name -> encoder, pixel format, muxer, suffix, options of the container
    "mpeg4 avi": ("mpeg4", "yuv420p", "avi", "avi", {}),
    "mpeg4 mp4": ("mpeg4", "yuv420p", "mp4", "mp4", {}),
    "h264 mp4": ("libx264", "yuv420p", "mp4", "mp4", {}),
    "h264 index first": ("libx264", "yuv420p", "mp4", "mp4", {"movflags": "+faststart"}),
    "h264 fragments": ("libx264", "yuv420p", "mp4", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "h264 mkv": ("libx264", "yuv420p", "matroska", "mkv", {}),
    "h264 flv": ("libx264", "yuv420p", "flv", "flv", {}),
    "h264 ts": ("libx264", "yuv420p", "mpegts", "ts", {}),
    "hevc mp4": ("libx265", "yuv420p", "mp4", "mp4", {}),
    "vp8 webm": ("libvpx", "yuv420p", "webm", "webm", {}),
    "vp9 webm": ("libvpx-vp9", "yuv420p", "webm", "webm", {}),
    "av1 mp4": ("libsvtav1", "yuv420p", "mp4", "mp4", {}),
    "mpeg2 ts": ("mpeg2video", "yuv420p", "mpegts", "ts", {}),
    "mpeg1 mpg": ("mpeg1video", "yuv420p", "mpeg", "mpg", {}),
    "mjpeg avi": ("mjpeg", "yuvj420p", "avi", "avi", {}),
    "wmv2 asf": ("wmv2", "yuv420p", "asf", "wmv", {}),
    "msmpeg4 avi": ("msmpeg4", "yuv420p", "avi", "avi", {}),
    "h263 3gp": ("h263", "yuv420p", "3gp", "3gp", {}),
    "prores mov": ("prores", "yuv422p10le", "mov", "mov", {}),
    "png avi": ("png", "rgb24", "avi", "avi", {}),
    "qtrle mov": ("qtrle", "rgb24", "mov", "mov", {}),
    "raw avi": ("rawvideo", "yuyv422", "avi", "avi", {}),
    "ffv1 mkv": ("ffv1", "yuv420p", "matroska", "mkv", {}),
    "flv1 flv": ("flv", "yuv420p", "flv", "flv", {}),
}


class Damage(NamedTuple):
    """A damaged file: the name of the sound one and its path, how it is damaged, and the seed of that."""

    name: str
    path: str
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.name}, {self.kind}, seed {self.seed}"


class Find(NamedTuple):
    """What is wrong with how a damaged file is read."""

    damage: Damage
    fault: str


def sound_files(folder: Path) -> dict[str, Path]:
    """The files that are damaged, by name: one for each way to read, and the odd ones. They are the same each time."""
    files = write_oddities(folder)
    for name, (encoder, pix_fmt, muxer, suffix, options) in SOUND.items():
        files[name] = folder / f"{name.replace(' ', '_')}.{suffix}"
        write(files[name], Encoding(encoder, pix_fmt), muxer, Additions(options=options))
    return files


def damages(files: dict[str, Path], count: int, seed: int = 0) -> list[Damage]:
    """`count` damages of all files and kinds, drawn by the seed."""
    draw = Random(seed)
    names, kinds = sorted(files), sorted(MUTATIONS)
    found = []
    for number in range(count):
        name = names[number % len(names)]
        found.append(Damage(name, str(files[name]), draw.choice(kinds), draw.getrandbits(32)))
    return found


def finds(tasks: Iterable[Damage], *, processes: int, unsure: Counter[str] | None = None) -> Iterator[Find]:
    """The finds among the damages. `unsure` counts files by what became of them: refused, read, or not comparable."""
    for outcome in crew.run(read_damaged, tasks, processes=processes, timeout_seconds=TIMEOUT_SECONDS):
        if outcome.failure:
            yield Find(outcome.task, f"{outcome.failure} while {outcome.stage or 'starting'}")
            continue
        fate, faults = outcome.result
        if unsure is not None:
            unsure[fate] += 1
        yield from (Find(outcome.task, fault) for fault in faults)


def read_damaged(damage: Damage, say: Callable[[str], None]) -> tuple[str, list[str]]:
    """What becomes of a damaged file, in a word, and what is wrong with that. It runs in a process of its own."""
    av.logging.set_libav_level(av.logging.PANIC)
    with TemporaryDirectory(prefix="r3d-torture-") as folder:
        path = Path(folder) / Path(damage.path).name
        path.write_bytes(mutated(Path(damage.path).read_bytes(), damage.kind, damage.seed))
        say("decoding by PyAV")
        truth = steady_truth_of(path, MOST_FRAMES, MOST_BYTES)
        if truth is None:
            return "truth varies", []
        say("indexing")
        try:
            record = probe_video(path, allow_partial=True)
        except VideoError:
            fate, faults = "refused", []
        except Exception as error:
            fate, faults = "wrong", [f"indexing raises {type(error).__name__}: {error}"]
        else:
            say("reading")
            known = truth
            if "truncated" in record.note and record.num_frames == uncut_frames(path):
                known = replace(truth, frames=truth.frames[: record.num_frames])
            fate, faults = _read(record, known, Path(damage.path), damage.seed)
        if len(truth.frames) < MOST_FRAMES:
            say("reading in a row")
            try:
                faults += [f"in a row: {fault}" for fault in sequence_faults(path, truth)]
            except Exception as error:
                faults.append(f"in a row: {type(error).__name__}: {error}")
        return "wrong" if faults else fate, faults


def _read(record: VideoRecord, truth: Truth, sound: Path, seed: int) -> tuple[str, list[str]]:
    """How reading an indexed file goes: all frames at once, and some alone.

    Where headers count the frames, damage elsewhere in the file shows only if all of it is decoded. Then a frame may be
    the one of the undamaged file at `sound`, which is what the part of the file that is read still says.
    """
    count, true = record.num_frames, len(truth.frames)
    known, reader = min(count, true), FrameReader()
    if true < MOST_FRAMES and count != true and not truth.too_large:
        honest = count > true and (truth.error or not _frames(reader, record, list(range(count))))
        if not honest:
            return "wrong", [f"indexed with {count} frames instead of {true}, note {record.note!r}"]
    draw = Random(seed)
    order = list(range(known))
    draw.shuffle(order)
    asked = [order, *([draw.randrange(known)] for _ in range(3 if known else 0))]
    fates: set[str] = set()
    for wanted in asked:
        try:
            frames = _frames(reader, record, wanted)
        except Exception as error:
            return "wrong", [f"reading {wanted} raises {type(error).__name__}: {error}"]
        fates |= {"read" if frames else "fails"}
        other = [number for number, frame in frames.items() if not np.array_equal(frame, truth.frames[number])]
        intact = truth_of(sound).frames if other else []
        for number in other:
            if number >= len(intact) or not np.array_equal(frames[number], intact[number]):
                return "wrong", [f"frame {number} of {count} differs when {len(wanted)} are read, note {record.note!r}"]
            fates |= {"undamaged frames"}
    return " or ".join(sorted(fates)) or "read", []


def _frames(reader: FrameReader, record: VideoRecord, wanted: list[int]) -> dict[int, NDArray[np.uint8]]:
    """The frames by their numbers; none if reading gives an error. They are scaled too, as training does."""
    try:
        frames = reader.read(record, wanted)
        small = np.empty((len(wanted), 32, 32, 3), np.uint8)
        reader.fill(record, [Cut(wanted, (0, 0, record.height, record.width), 32, small)])
    except VideoError:
        return {}
    return dict(zip(wanted, frames, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="damage.torture", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="files to damage")
    parser.add_argument("--seed", type=int, default=0, help="other damages for each seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="write the files that were found there")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="r3d-torture-") as folder:
        tasks = damages(sound_files(Path(folder)), arguments.count, arguments.seed)
        fates: Counter[str] = Counter()
        found = 0
        for find in finds(tasks, processes=arguments.jobs, unsure=fates):
            found += 1
            print(f"{find.damage}: {find.fault}", flush=True)
            if arguments.keep:
                keep(find.damage, Path(arguments.keep))
    shown = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
    print(f"{arguments.count} files: {shown}; {found} finds")
    return 1 if found else 0


def keep(damage: Damage, folder: Path) -> Path:
    """Write a damaged file to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(damage.path)
    path = folder / f"{source.stem}_{damage.kind.replace(' ', '_')}_{damage.seed}{source.suffix}"
    path.write_bytes(mutated(source.read_bytes(), damage.kind, damage.seed))
    return path


if __name__ == "__main__":
    sys.exit(main())
