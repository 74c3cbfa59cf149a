"""Finds the files of an index that have the same bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.index.video_index import FileState, VideoIndex

_WINDOW = 1 << 22  # bytes that are held at once


def find_copies(index: VideoIndex, read: Callable[[], None] | None = None) -> list[tuple[str, ...]]:
    """The paths of the files that have the same bytes as others, those that are the same together; sorted.

    Files of the same size and checksum (CRC-32) are read, and compared by SHA-256. One that can't be read is no copy.
    `read` is called after each.
    """
    found: list[tuple[str, ...]] = []
    for paths in likely_copies(index.file_states()):
        same: dict[bytes, list[str]] = defaultdict(list)
        for path in paths:
            if digest := _digest(index.root / path):
                same[digest].append(path)
            if read is not None:
                read()
        found += (tuple(those) for those in same.values() if len(those) > 1)
    return sorted(found)


def likely_copies(files: Sequence[FileState]) -> list[tuple[str, ...]]:
    """The paths of the files that had the same size and checksum when they were indexed, those that did together."""
    alike: dict[tuple[int, str], set[str]] = defaultdict(set)
    for file in files:
        if file.checksum:
            alike[file.size, file.checksum].add(file.path)
    return [tuple(sorted(paths)) for paths in alike.values() if len(paths) > 1]


def _digest(path: Path) -> bytes:
    """The SHA-256 of the file at `path`; empty if it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_WINDOW):
                digest.update(data)
    except OSError:
        return b""
    return digest.digest()
