"""Names of videos, which may hold anything, as names of files and as text."""

from __future__ import annotations

import os
from pathlib import Path

from r3d_fast.files import make_folder

_LONGEST_STEM = 180  # bytes; file systems take 255, and there come a suffix and a number


class FileNames:
    """Names for files in one folder, made of names of videos; each is given once."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """Make the folder. Raises UsageError where it can't be."""
        self._folder, self._suffix = folder, suffix
        self._taken: set[str] = set()
        make_folder(folder)

    def of(self, video: str) -> Path:
        """The file for a video: `FOLDER/NAMEsuffix`, of a second one of that name `FOLDER/NAME-2suffix`."""
        name = os.path.splitext(os.path.basename(video))[0]  # noqa: PTH119, PTH122 - a name may hold anything
        plain = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name).strip().lstrip(".-")
        stem = plain.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore") or "video"
        chosen, number = stem, 1
        while chosen.lower() in self._taken:
            number += 1
            chosen = f"{stem}-{number}"
        self._taken.add(chosen.lower())
        return self._folder / f"{chosen}{self._suffix}"


def plain_text(name: str) -> str:
    """`name` as valid UTF-8: bytes of a file's name that are none become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
