"""Finds out whether the files of a data set have changed since it was indexed."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.datasets.folder_walk import FolderWalk
from pipelines.index.video_index import VideoIndex


class Changes(NamedTuple):
    """The paths under the root, sorted, of files that are new, gone, or of another size than they were."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        """How many there are of each kind, such as "2 new, 1 gone"; "" for none."""
        return ", ".join(f"{len(paths)} {kind}" for kind, paths in self._asdict().items() if paths)


def find_changes(index: VideoIndex) -> Changes:
    """What has changed under the root of `index`. No file is opened.

    Where lists say which videos are used, others are not new. Raises DataError if the root can't be listed.
    """
    walk = FolderWalk(index.root, bool(index.options.get("follow_links", False)))
    walk.run()
    sizes = {file.path: file.size for file in index.file_states()}
    known = sizes.keys() | {item.path.partition("#t=")[0] for item in index.quarantined}
    new = set() if index.lists else walk.videos - known
    gone = sizes.keys() - walk.videos
    changed = {path for path in sizes.keys() - gone if (index.root / path).stat().st_size != sizes[path]}
    return Changes(*(tuple(sorted(paths)) for paths in (new, gone, changed)))
