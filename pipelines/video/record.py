"""VideoRecord: what the index knows of one video, enough to read any of its frames without opening a container."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.video.packets import PacketTable


@dataclass(frozen=True)
class VideoRecord:
    """One video. `num_frames` is counted as a full decode gives them, never taken from a header.

    `height` and `width` in px are those of the decoded frames; `size` in bytes and `mtime_ns` tell whether the file
    changed since; `table` is the packed packets.PacketTable. A record may be of a part of its file only, from
    `begin_seconds` to before `end_seconds` (both -1: all of it): then its frames are those of the part alone.
    """

    path: str
    size: int
    mtime_ns: int
    num_frames: int
    height: int
    width: int
    codec: str
    decoder: str
    pix_fmt: str
    fps: float
    container: str
    extradata: bytes
    table: bytes
    note: str = ""
    begin_seconds: float = -1.0
    end_seconds: float = -1.0
    video_id: int = -1
    label: int = -1
    split: str = ""

    @property
    def span(self) -> Span | None:
        """The part of the file that this is, in seconds; None for a whole file."""
        return None if self.end_seconds < 0 else (self.begin_seconds, self.end_seconds)

    @cached_property
    def packets(self) -> PacketTable:
        """The packet table, unpacked once."""
        return PacketTable.from_bytes(self.table)


Span = tuple[float, float]  # seconds from the start of a file: the first that counts, the first that no longer does
