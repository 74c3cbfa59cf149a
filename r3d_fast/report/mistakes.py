"""The videos that a model gets wrong, or nearly so, with some of their frames."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import EnvironmentProblem, R3DFastError, VideoError
from pipelines.index.video_index import VideoIndex
from pipelines.isolation.chosen_frames import Chosen, Pixels, read_apart
from pipelines.video.record import VideoRecord
from r3d_fast.report.class_tables import fraction
from r3d_fast.report.clip_pictures import jpeg_uri, smaller

_FRAMES, _HEIGHT, _GAP = 4, 90, 2  # of a strip; the height, and what is between two frames, in px
_PATIENCE = 20.0  # seconds that reading frames may take in all
_STALL = 10.0  # seconds that a process may do nothing with a video


@dataclass(frozen=True)
class Judged:
    """A video of the evaluation: its class, and what the model took it for; probabilities are fractions.

    `label_probability` is that of the right class, None where it is not known. `strip` is a JPEG of some of its frames
    as a data URI, "" where they can't be shown, for the reason `why`; `width` and `height` are its size in px.
    """

    video: str
    label: str
    predicted: str
    probability: float
    label_probability: float | None
    strip: str = ""
    width: int = 0
    height: int = 0
    why: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the model is right."""
        return self.label == self.predicted


def judged_videos(predictions: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """The lines of predictions.jsonl that have a prediction; lines that are damaged are left out."""
    found = []
    for line in predictions:
        top = line.get("top")
        best = top[0] if isinstance(top, list) and top and isinstance(top[0], dict) else {}
        video, label, predicted = line.get("video"), line.get("label"), line.get("predicted")
        probability = fraction(best.get("probability"))
        if probability is not None and isinstance(video, str) and isinstance(label, str) and isinstance(predicted, str):
            found.append(Judged(video, label, predicted, probability, fraction(line.get("label_probability"))))
    return found


def worst_videos(judged: Sequence[Judged], most: int) -> tuple[list[Judged], list[Judged]]:
    """(the most confident mistakes, the hardest of the other videos), each at most `most`, the worst first.

    The hardest are those whose right class has the lowest probability, whether the model is right or not. Those that it
    is right about with more than 90 % are not hard.
    """
    mistakes = sorted((one for one in judged if not one.is_right), key=lambda one: -one.probability)[:most]
    shown = {one.video for one in mistakes}
    others = [
        (one.label_probability, one)
        for one in judged
        if one.video not in shown and one.label_probability is not None and one.label_probability <= 0.9
    ]
    return mistakes, [one for _, one in sorted(others, key=lambda pair: pair[0])[:most]]


def with_strips(videos: Sequence[Judged], index: VideoIndex | None) -> list[Judged]:
    """The same videos with strips of their frames, read by `index`; None: the index is not there any more."""
    if index is None:
        return [replace(one, why="the index of the data set is not there any more") for one in videos]
    numbers = {name: number for number, name in enumerate(index.names())} if videos else {}
    records = [index[numbers[one.video]] for one in videos if one.video in numbers]
    strips = _strips(records, index.root)
    return [
        _with_strip(one, next(strips)) if one.video in numbers else replace(one, why="no longer in the index")
        for one in videos
    ]


def _strips(records: Sequence[VideoRecord], root: Path) -> Iterator[list[Pixels] | str]:
    """For each of `records` some frames of it, as high as a strip, or why there are none."""
    end = time.monotonic() + _PATIENCE
    results = read_apart([_chosen(record) for record in records], root, stall_seconds=_STALL)
    for _ in records:
        if time.monotonic() > end:
            break
        try:
            found = next(results)
        except EnvironmentProblem as error:
            yield from repeat(str(error))
        yield str(found) if isinstance(found, VideoError) else found
    yield from repeat(f"not read: the frames of the others took more than {_PATIENCE:.0f} s")


def _chosen(record: VideoRecord) -> Chosen:
    """The frames of a video that its strip shows."""
    places = np.unique(((np.arange(_FRAMES) + 0.5) * record.num_frames / _FRAMES).astype(int))
    width = max(1, min(4 * _HEIGHT, round(record.width * _HEIGHT / record.height)))
    return Chosen(record, tuple(places.tolist()), partial(smaller, width=width, height=_HEIGHT))


def _with_strip(one: Judged, found: list[Pixels] | str) -> Judged:
    """`one` with the frames that were `found`, or why there are none."""
    from PIL import Image  # takes a tenth of a second

    if isinstance(found, str):
        return replace(one, why=found)
    gap = np.full((_HEIGHT, _GAP, 3), 128, np.uint8)
    strip = Image.fromarray(np.hstack([part for frame in found for part in (gap, frame)][1:]))
    return replace(one, strip=jpeg_uri(strip), width=strip.width, height=strip.height)


def opened_index(figures: Mapping[str, Any], settings: Mapping[str, Any]) -> VideoIndex | None:
    """The index that `figures` (figures.json) name, or `settings` (section `data` of config.yaml); None where gone."""
    for source in (figures, settings):
        path, root = source.get("index"), source.get("root")
        if isinstance(path, str) and Path(path).is_file():
            try:
                return VideoIndex.open(path, root if isinstance(root, str) and Path(root).is_dir() else None)
            except R3DFastError:
                continue
    return None
