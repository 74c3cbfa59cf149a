"""Chooses the videos that speed is measured on, once for all parts. Run as a process, `FILE DATA FOLDER VIDEOS`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

from bench.videos.selection import keep_selection
from pipelines.output.files import write_json


def _choose(file: str, data: str, folder: str, videos: str) -> None:
    begin = perf_counter()
    selection = keep_selection(Path(data), Path(folder), int(videos))
    seconds, excluded = round(perf_counter() - begin, 1), len(selection.excluded)
    number = len(selection.index)
    write_json(Path(file), {"videos": number, "excluded": selection.excluded, "seconds": seconds})
    print(f"{number} videos, {excluded} excluded, in {seconds:g} s")


if __name__ == "__main__":
    _choose(*sys.argv[1:])
