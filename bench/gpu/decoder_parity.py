"""Whether DALI's decoder gives PyAV's frames: of real videos, and of each codec and size that can be made here.

Run as a process, `FILE DATA DEVICE N`: N videos spread over DATA, and those of bench/videos/odd_sizes.py. It writes
JSON again and again, so that what ends it (a decoder may crash) leaves the table so far and the video that it was at.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.gpu.findings import decoder_in_words, why_unusable
from bench.videos.odd_sizes import OddVideo, odd_videos, write_odd_video
from pipelines.dali.decoder_check import DaliFailed, differing_frames
from pipelines.dali.routing import limits_of_device
from pipelines.dali.versions import DALI_ERRORS, executor_options, import_dali, video_decoder
from pipelines.dali_limits import DaliLimits, VideoKind
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ExitCode, R3DFastError
from pipelines.index.video_index import VideoIndex, write_index
from pipelines.machine.device import device_number
from pipelines.machine.gpu_wait import choose_gpu_wait
from pipelines.output.files import write_json
from pipelines.output.temporary import temporary_folder
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import remux

RIGHT, WRONG, FAILED, REFUSED, UNREADABLE = "right", "wrong", "failed", "refused", "unreadable"
_SESSION_CLIPS = {"gpu": 8, "cpu": 1}  # in a batch, by device; a CPU has no sessions, and only tries this itself
_SESSION_BATCHES = 6
_FRAMES = 16
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Verdict:
    """What came of a video: `kind` is its codec, pixel format and traits; `why` is empty where it is right.

    `verdict` is "failed" where DALI gave no frames, "wrong" where it gave others than PyAV.
    """

    video: str
    kind: str
    verdict: str
    why: str = ""


def check_parity(data: Path, device: str, videos: int, keep: Keep) -> dict[str, Any]:
    """The table of all videos, and ms a clip by size; JSON values. `keep` is given it again and again.

    `device` is cpu or gpu. Raises DataError where there are no videos.
    """
    limits = limits_of_device(device)
    found: dict[str, Any] = {"device": device, "codecs": sorted(limits.codecs), "real": [], "made": [], "sessions": []}
    with temporary_folder() as folder:
        made, unmade = _make(folder / "made" / "a")
        found["not made"] = unmade
        index = VideoIndex.build(folder / "made", index=folder / "made.index", workers=1, val_fraction=0.0)
        _judge(index, limits, device, found, "made", keep)
        for video in made:
            record = next(r for r in _records(index) if Path(r.path).name == made[video].name)
            if not limits.refuses(record):
                found["at"] = f"{video.name}, decoded again and again"
                keep(found)
                found["sessions"].append(_session(video, record, str(index.root), device))
                found["at"] = ""
                keep(found)
        real = _spread(data, videos, folder / "real.index")
        found["real"] += [asdict(Verdict(q.path, "", UNREADABLE, q.reason)) for q in real.quarantined]
        _judge(real, limits, device, found, "real", keep)
    return found


def _make(folder: Path) -> tuple[dict[OddVideo, Path], list[str]]:
    """(the videos that could be made; those that couldn't, and why)."""
    folder.mkdir(parents=True)
    made, unmade = {}, []
    for video in odd_videos():
        try:
            made[video] = write_odd_video(folder, video)
        except (OSError, ValueError) as error:  # PyAV's errors are among these
            unmade.append(f"{video.name}: {error}")
    return made, unmade


def _spread(data: Path, videos: int, place: Path) -> VideoIndex:
    """An index, at `place`, of no more than `videos` of the videos in `data`, spread over all of them."""
    dataset = recognise_dataset(data, val_fraction=0.0)
    if not dataset.entries:
        raise DataError(f"{data}: no video in it; expected some to decode")
    entries = sorted(dataset.entries, key=lambda entry: entry.path)
    count = min(videos, len(entries))
    chosen = tuple(entries[k * len(entries) // count] for k in range(count))
    return write_index(place, data, replace(dataset, entries=chosen), workers=1)


def _records(index: VideoIndex) -> Iterator[VideoRecord]:
    return (index[number] for number in range(len(index)))


def _judge(index: VideoIndex, limits: DaliLimits, device: str, found: dict[str, Any], key: str, keep: Keep) -> None:
    """Compare each video of `index`, and note what came of it in `found`, beneath `key`."""
    counted: Counter[str] = Counter()
    for record in _records(index):
        found["at"] = record.path
        keep(found)
        verdict = judge(record, limits, str(index.root), device)
        counted[verdict.verdict] += 1
        found[key].append(asdict(verdict))
        if verdict.verdict != RIGHT:
            print(f"{verdict.verdict}: {verdict.video}: {verdict.why}", flush=True)
    found["at"] = ""
    keep(found)
    print(f"{key}: {', '.join(f'{count} {what}' for what, count in sorted(counted.items())) or 'none'}", flush=True)


def judge(record: VideoRecord, limits: DaliLimits, root: str, device: str) -> Verdict:
    """What came of one video."""
    kind = str(VideoKind.of(record))
    if reason := limits.refuses(record):
        return Verdict(record.path, kind, REFUSED, reason)
    try:
        wrong = differing_frames(record, root, device)
    except DaliFailed as failed:
        return Verdict(record.path, kind, FAILED, str(failed))
    except R3DFastError as error:
        return Verdict(record.path, kind, UNREADABLE, str(error))
    return Verdict(record.path, kind, WRONG if wrong else RIGHT, wrong.removeprefix(f"{record.path}: "))


def _session(video: OddVideo, record: VideoRecord, root: str, device: str) -> dict[str, Any]:
    """Milliseconds a clip of `_FRAMES` frames, a value a batch, of a pipeline that decodes one video over and over.

    DALI keeps sessions of NVDEC and looks for them by the coded size, so that sizes which are no multiples of the coded
    unit may pay for a new one each time.
    """
    timed: dict[str, Any] = {"video": video.name, "multiple of 16": video.is_whole, "ms a clip": []}
    try:
        timed["ms a clip"] = [round(ms, 3) for ms in _decode_again(record, root, device)]
        print(f"{video.name}: {median(timed['ms a clip']):.2f} ms a clip", flush=True)
    except DALI_ERRORS as error:
        timed["problem"] = str(error).strip().splitlines()[-1][:200]
    return timed


def _decode_again(record: VideoRecord, root: str, device: str) -> Sequence[float]:
    """Milliseconds a clip of each batch after the first, which starts the sessions."""
    fn, types, Pipeline = import_dali()
    number = device_number(device)
    clips = _SESSION_CLIPS["cpu" if number is None else "gpu"]
    frames = np.unique(np.linspace(0, record.num_frames - 1, _FRAMES).astype(np.int32))
    mini = remux(record, frames, root=root)
    pipeline = Pipeline(
        batch_size=clips, num_threads=2, device_id=number, prefetch_queue_depth=1, **executor_options(Pipeline)
    )
    with pipeline:
        encoded = fn.external_source(source=lambda: [mini.data] * clips, dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(source=lambda: [mini.frames] * clips, dtype=types.INT32, ndim=1)
        pipeline.set_outputs(video_decoder()(encoded, frames=numbers, device="cpu" if number is None else "mixed"))
    pipeline.build()
    ms = []
    for _ in range(_SESSION_BATCHES + 1):
        begin = perf_counter()
        (output,) = pipeline.run()
        if number is not None:
            output.as_cpu()  # waits for the GPU
        ms.append(1000 * (perf_counter() - begin) / clips)
    return ms[1:]


def _main(file: str, data: str, device: str, videos: str) -> None:
    if (number := device_number(device)) is not None:
        choose_gpu_wait(number)  # as the loader waits
    found = check_parity(Path(data), device, int(videos), lambda found: write_json(Path(file), found))
    if why := why_unusable(found):
        print(f"{decoder_in_words(device)} could not be used: {why}")
        sys.exit(ExitCode.ENVIRONMENT)


if __name__ == "__main__":
    _main(*sys.argv[1:])
