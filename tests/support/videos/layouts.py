"""Makes the folders and lists of data sets for tests, and gives labels and splits of a recognised one."""

from __future__ import annotations

import shutil
from pathlib import Path

from clips import write_stamped_video

from pipelines.datasets.entries import Dataset


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def videos(root: Path, *paths: str) -> Path:
    """Write a real video of 5 frames, the same for all, to each path: VP8 where it ends in .webm, else MPEG-4."""
    made: dict[str, Path] = {}
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        codec = "vp8" if path.endswith(".webm") else "mpeg4"
        if codec in made:
            shutil.copy(made[codec], root / path)
        else:
            made[codec] = write_stamped_video(root / path, num_frames=5, codec=codec)
    return root


def lines(file: Path, *rows: str, end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(row + end for row in rows).encode())
    return file


def ucf(folder: Path, train: list[str], test: list[str], classes: tuple[str, ...] = ("Lunges", "Punch")) -> Path:
    lines(folder / "classInd.txt", *(f"{i} {name}" for i, name in enumerate(classes, 1)))
    lines(folder / "trainlist01.txt", *train)
    lines(folder / "testlist01.txt", *test)
    return folder


def labels(data: Dataset) -> dict[str, tuple[str, str]]:
    return {entry.path: (data.classes[entry.label], entry.split) for entry in data.entries}


def split_of(data: Dataset) -> dict[str, str]:
    return {entry.path: entry.split for entry in data.entries}
