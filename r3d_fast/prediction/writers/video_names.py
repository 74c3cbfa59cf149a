"""Valid file names and valid text made from the names of videos, which may hold any bytes."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.output.folders import make_folder

_LONGEST_STEM = 180  # bytes; file systems allow 255, and a number and a suffix are added


def is_folder_name(place: Path) -> bool:
    """Whether `place` is a folder, or is called like one that is to be made: its name has no ending."""
    return place.is_dir() or not place.suffix


class FileNames:
    """Gives files in one folder the names of videos, and never the same name twice."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """Create the folder. Raises UsageError where that fails."""
        self._folder, self._suffix = folder, suffix
        self._taken: set[str] = set()
        make_folder(folder)

    def of(self, video: str) -> Path:
        """The path of the file for `video`: FOLDER/NAME.mp4, or FOLDER/NAME-2.mp4 for a second video of that name."""
        name = os.path.splitext(os.path.basename(video))[0]  # noqa: PTH119, PTH122 - a name may hold anything
        plain = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name).strip().lstrip(".-")
        stem = plain.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore") or "video"
        chosen, number = stem, 1
        while chosen.lower() in self._taken:
            number += 1
            chosen = f"{stem}-{number}"
        self._taken.add(chosen.lower())
        return self._folder / f"{chosen}{self._suffix}"
