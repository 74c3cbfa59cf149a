"""The index that a study trains on: of a folder, of an index file, or of the demo's motions, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import DataError
from pipelines.index.locations import find_index
from pipelines.index.video_index import VideoIndex
from pipelines.output.temporary import temporary_folder
from r3d_fast.demo.videos import make_demo_dataset

MOTIONS = "the demo's motions"
_TRAIN, _TEST = 16, 8  # videos of each of the eight motions


@contextmanager
def opened_index(data: Path | None, say: Callable[[str], None]) -> Iterator[VideoIndex]:
    """The index `data`, or that of the folder `data`: the one that lies beside it, else one made for as long as this.

    None: 128 training and 64 test videos of the demo's motions, there until this ends. Raises DataError where there is
    nothing at `data`, or nothing to index there.
    """
    if data is not None and not data.exists():
        raise DataError(f"{data}: no such file or folder; expected an index or a folder of videos")
    with temporary_folder() as folder:
        if data is None:
            say(f"making {_TRAIN + _TEST} videos of each motion")
            make_demo_dataset(folder / "motions", videos_per_class=_TRAIN, test_per_class=_TEST)
            yield VideoIndex.build(folder / "motions", index=folder / "motions.r3dindex")
        elif data.is_file():
            yield VideoIndex.open(data)
        elif found := find_index(data):
            yield VideoIndex.open(found, data)
        else:
            yield VideoIndex.build(data, index=folder / "videos.r3dindex")
