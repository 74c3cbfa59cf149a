"""VideoRecord: what the index stores about one video, enough to read any of its frames without opening a container."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.video.packets import PacketTable


@dataclass(frozen=True)
class VideoRecord:
    """One video of an index.

    `num_frames` is the number of frames that decoding the whole video gives; it never comes from a header of the file.
    `height` and `width` in px are those of the decoded frames. `size` in bytes and `mtime_ns` show whether the file has
    changed since it was indexed. `table` is a packets.PacketTable as bytes. The record may be of a part of its file,
    from `begin_seconds` to before `end_seconds` (both -1: of the whole file); then it has only the frames of that part.
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
        """The part of the file that the record is of, (begin, end) in seconds; None for a whole file."""
        return None if self.end_seconds < 0 else (self.begin_seconds, self.end_seconds)

    @cached_property
    def packets(self) -> PacketTable:
        """The packet table; `table` is decoded once."""
        return PacketTable.from_bytes(self.table)


Span = tuple[float, float]  # a part of a file, in seconds from its start: from the first time to before the second one
