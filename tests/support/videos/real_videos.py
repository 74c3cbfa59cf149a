"""Where the real videos are, and some of them, spread over all."""

from __future__ import annotations

from pathlib import Path

from pipelines.datasets.video_files import is_video_name
from pipelines.index.video_index import VideoIndex


def find_real_videos(root: Path) -> Path | None:
    """The folder of real videos, a folder a class: UCF-101/ in `root`, or `root` itself; None if it is neither."""
    if (root / "UCF-101").is_dir():
        return root / "UCF-101"
    return root if any(is_video_name(path.name) for path in root.glob("*/*")) else None


def index_some(videos: Path, folder: Path, count: int = 96) -> VideoIndex:
    """An index of no more than `count` of the videos, spread over all; of links to them in `folder`."""
    paths = sorted(path for path in videos.glob("*/*") if is_video_name(path.name))
    for k in range(min(count, len(paths))):
        path = paths[k * len(paths) // min(count, len(paths))]
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).symlink_to(path.resolve())
    return VideoIndex.build(folder, workers=1, val_fraction=0.0, follow_links=True, allow_partial=True)
