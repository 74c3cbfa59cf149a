"""Finds the videos and all else under a folder, without opening a file."""

from __future__ import annotations

import heapq
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.text_files import escaped
from pipelines.datasets.video_files import is_video_name
from pipelines.errors import DataError
from pipelines.input.regular_files import kind_of
from pipelines.plain_text import plain


@dataclass
class FolderWalk:
    """Collects everything under `root`, by its path relative to `root`. Hidden files and folders are skipped."""

    root: Path
    follow_links: bool
    videos: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    to_scan: list[str] = field(default_factory=lambda: [""])
    linked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.real_root = self.root.resolve()

    def run(self) -> None:
        """Fill the sets. Real folders come before linked ones, so that a video gets a path without links if it can."""
        seen: set[tuple[int, int]] = set()
        while self.to_scan or self.linked:
            folder = self.to_scan.pop() if self.to_scan else heapq.heappop(self.linked)
            full = self.root / folder
            try:
                status = full.stat()
                if (status.st_dev, status.st_ino) in seen:
                    self.left_out[folder] = "link to a folder that is searched already"
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(full) as scan:
                    items = sorted(scan, key=lambda item: item.name)
            except OSError as problem:
                if not folder:
                    raise DataError(
                        f"{escaped(self.root)}: {problem.strerror}; expected a readable folder"
                    ) from problem
                self.left_out[folder] = "unreadable folder"
                continue
            self.folders.add(folder)
            for item in items:
                if not item.name.startswith("."):
                    self.take(item, f"{folder}/{item.name}" if folder else item.name)

    def take(self, item: os.DirEntry[str], path: str) -> None:
        """Put one item into `to_scan`, `linked`, `videos`, `left_out` or `others`, by its name and type.

        No item is opened, since opening a FIFO would wait for ever.
        """
        try:
            path.encode()
            # Only links and special files need a stat. A stat of every file would be slow on network disks.
            if item.is_file(follow_symlinks=False) or item.is_dir(follow_symlinks=False):
                mode = stat.S_IFREG if item.is_file() else stat.S_IFDIR
            else:
                mode = item.stat().st_mode
        except UnicodeEncodeError:
            self.left_out[plain(path)] = "file name is not valid UTF-8"
            return
        except OSError:
            self.left_out[path] = "broken link" if item.is_symlink() else "unreadable"
            return
        is_video = is_video_name(path) and not stat.S_ISDIR(mode)
        if not is_video and not stat.S_ISDIR(mode):
            self.others["." + path.rpartition(".")[2].lower() if "." in item.name else "no extension"] += 1
        elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # also behind a link: no option takes it
            self.left_out[path] = f"not a regular file ({'link to a ' * item.is_symlink()}{kind_of(mode)})"
        elif item.is_symlink() and not self.follow_links and not self.is_inside(item):
            self.left_out[path] = "symlink outside ROOT (--follow-links takes it)"
        elif not is_video and item.is_symlink():
            heapq.heappush(self.linked, path)
        elif not is_video:
            self.to_scan.append(path)
        else:
            self.videos.add(path)

    def is_inside(self, item: os.DirEntry[str]) -> bool:
        """Whether the link leads to something under the root."""
        return Path(item.path).resolve().is_relative_to(self.real_root)
