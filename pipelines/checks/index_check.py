"""Checks the data set of an index: its classes and splits, its files, and their copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.checks.check import Check, ClassVideos, Copies, PartedGroup, Spread, Trouble
from pipelines.checks.copies import find_copies, likely_copies
from pipelines.checks.full_decode import CHANGED, UNREADABLE, Decoded, IndexedFile, decode_all
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import BACK, require_regular
from pipelines.containers.notes import CONCEALED_ERRORS, DAMAGED, DAMAGED_PACKETS
from pipelines.datasets.split_names import SPLITS
from pipelines.errors import DataError, IndexFileError, VideoError
from pipelines.index.changes import find_changes
from pipelines.index.video_index import FileState, VideoIndex

OnCheck = Callable[[str, int, int], None]  # called with the name of a task, how much of it is done, and all of it


def check_index(
    index: VideoIndex, *, full: bool = False, show: OnCheck | None = None, workers: int | None = None
) -> Check:
    """What is known about the data set of `index`.

    Each file is looked at, and files that look like copies are read. With `full` every file is decoded as well, which
    takes about as long as an epoch of evaluation, by `workers` processes (None: one for each usable CPU). `show` is
    told how far the work is. Raises EnvironmentProblem where no process can be started.
    """
    files, names = index.file_states(), index.names()
    unreadable = _unreadable(index, files) + _without_table(index, names)
    decoded = _decoded(index, files, {item.name for item in unreadable}, show, workers) if full else None
    unreadable += [Trouble(item.path, item.reason, item.detail) for item in decoded or () if item.reason]
    known = _known_corrupt(index, names) if decoded is None else []
    corrupt = [item for item in decoded or known if item.corrupt]
    frames, rates = index.columns().num_frames, index.frame_rates()
    timed = rates > 0
    timed_names = [name for name, has_rate in zip(names, timed.tolist(), strict=True) if has_rate]
    return Check(
        index=str(index.path),
        root=str(index.root),
        splits=_split_sizes(index),
        rule=index.rule,
        classes=_classes(index),
        lengths=_spread(frames[timed] / rates[timed], timed_names),
        rates=_spread(rates[timed], timed_names),
        sizes=dict(index.counts("size")),
        codecs=dict(index.counts("codec")),
        notes={note: tuple(those) for note, those in index.noted().items()},
        ignored=index.ignored,
        left_out=tuple(Trouble(item.path, item.reason, item.detail) for item in index.quarantined),
        missing=tuple(item.name for item in index.missing),
        unreadable=tuple(sorted(unreadable, key=lambda item: item.name)),
        corrupt={item.path: item.corrupt for item in corrupt},
        copies=_copies(index, files, show),
        parted_groups=_parted_groups(index, names),
        unindexed=_unindexed(index),
        decoded=None if decoded is None else len(decoded),
        frames={item.path: item.frames for item in corrupt},
        quarantined={names[number]: reason for number, reason in index.known_bad.items()},
        proven=tuple(Trouble(item.path, item.reason, item.detail) for item in decoded or () if item.is_proven),
    )


def _split_sizes(index: VideoIndex) -> dict[str, int]:
    return {split: len(index.columns(split)) for split in sorted(index.splits, key=SPLITS.index)}


def _classes(index: VideoIndex) -> tuple[ClassVideos, ...]:
    counts = {split: Counter(index.columns(split).label.tolist()) for split in index.splits}
    return tuple(
        ClassVideos(name, {split: counts[split][label] for split in index.splits if counts[split][label]})
        for label, name in enumerate(index.classes)
    )


def _spread(values: NDArray[np.float64], names: Sequence[str]) -> Spread | None:
    if not len(values):
        return None
    low, high = int(values.argmin()), int(values.argmax())
    return Spread(float(values[low]), float(np.median(values)), float(values[high]), names[low], names[high])


def _unreadable(index: VideoIndex, files: Sequence[FileState]) -> list[Trouble]:
    """The files that are not there any more, or have another size than when they were indexed."""
    found = []
    for path, size in {file.path: file.size for file in files}.items():
        try:
            status = (index.root / path).stat()
            require_regular(str(index.root / path), status, BACK)
            now = status.st_size
        except VideoError as error:
            found.append(Trouble(path, error.reason, error.detail))
            continue
        except OSError as error:
            found.append(Trouble(path, UNREADABLE, reason_of(error)))
            continue
        if now != size:
            found.append(Trouble(path, CHANGED, f"it has {now} bytes, and had {size}: index it again"))
    return found


def _unindexed(index: VideoIndex) -> tuple[str, ...]:
    """The files that came since the folder was indexed; none if it can't be listed: its files are unreadable then."""
    try:
        return find_changes(index).new
    except DataError:
        return ()


def _without_table(index: VideoIndex, names: Sequence[str]) -> list[Trouble]:
    """The videos whose packet table is damaged, or says of packets that they lie outside of their file."""
    found = []
    for number, name in enumerate(names):
        try:
            _ = index[number]
        except IndexFileError:
            found.append(Trouble(name, "damaged packet table", "index the folder again"))
    return found


def _known_corrupt(index: VideoIndex, names: Sequence[str]) -> list[Decoded]:
    """The videos of which the index knows how many frames are damaged, since it decoded them."""
    number_of = {name: number for number, name in enumerate(names)}
    noted = [name for note in (CONCEALED_ERRORS, DAMAGED_PACKETS, DAMAGED) for name in index.noted().get(note, ())]
    records = {name: index[number_of[name]] for name in noted}
    return [Decoded(name, record.num_frames, record.corrupt) for name, record in records.items() if record.corrupt > 0]


def _decoded(
    index: VideoIndex, files: Sequence[FileState], without: set[str], show: OnCheck | None, workers: int | None
) -> list[Decoded]:
    """What decoding each file of the index gives, once for all its parts; those `without` are left out."""
    first: dict[str, int] = {}
    for number, file in enumerate(files):
        if file.path not in without:
            first.setdefault(file.path, number)
    those = [IndexedFile.of(index[number]) for number in first.values()]
    return decode_all(those, index.root, done=_counted("decoded", len(those), show), workers=workers)


def _copies(index: VideoIndex, files: Sequence[FileState], show: OnCheck | None) -> tuple[Copies, ...]:
    """The copies, each path with the split and the class of its first video."""
    number = {file.path: i for i, file in reversed(list(enumerate(files)))}
    split = {i: name for name in index.splits for i in index.columns(name).video_id.tolist()}
    labels = index.columns().label
    count = sum(map(len, likely_copies(files)))
    return tuple(
        Copies(
            paths,
            tuple(split[number[path]] for path in paths),
            tuple(index.classes[labels[number[path]]] for path in paths),
        )
        for paths in find_copies(index, _counted("compared", count, show))
    )


def _parted_groups(index: VideoIndex, names: Sequence[str]) -> tuple[PartedGroup, ...]:
    groups = index.groups()
    sides: dict[str, dict[str, str]] = {}
    for split in index.splits:
        for number in index.columns(split).video_id.tolist():
            if groups[number]:
                sides.setdefault(groups[number], {}).setdefault(split, names[number])
    return tuple(PartedGroup(group, videos) for group, videos in sorted(sides.items()) if len(videos) > 1)


def _counted(task: str, total: int, show: OnCheck | None) -> Callable[[], None]:
    """A function that tells `show` at each call that one more of `total` steps of a task is done."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if show is not None:
            show(task, done, total)

    return step
