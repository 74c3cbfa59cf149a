"""VideoRecord: what the index stores about one video, enough to read any of its frames without opening a container."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.video.orientation import UPRIGHT, Orientation
from pipelines.video.packets import PacketTable
from pipelines.video.parameters import AS_PLAIN, StreamParameters


@dataclass(frozen=True, repr=False)
class VideoRecord:
    """One video of an index.

    `num_frames` is the number of frames that decoding the whole video gives; it never comes from a header of the file.
    `height` and `width` in px are those of the frames as they are shown, upright; `orientation` turns a decoded frame
    to that. `size` in bytes, `mtime_ns` and `checksum`, the CRC-32 of the file, show whether it has changed since it
    was indexed. `parameters` and `extradata`, the header, are what a decoder has to know. `table` is a
    packets.PacketTable as bytes. `note` says what is odd about the file, in parts that are separated by "; ".
    `corrupt` is how many of the frames the decoder marks as damaged when it decodes the whole file; -1 where the file
    was not decoded to find out.

    The record may be of a part of its file, from `begin_seconds` to before `end_seconds` (both -1: of the whole file);
    then it has only the frames of that part.
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
    parameters: StreamParameters = AS_PLAIN
    orientation: Orientation = UPRIGHT
    checksum: str = ""
    note: str = ""
    begin_seconds: float = -1.0
    end_seconds: float = -1.0
    corrupt: int = -1
    video_id: int = -1
    label: int = -1
    split: str = ""

    def __repr__(self) -> str:
        """What the video is, in two lines, without the header and the packet table."""
        part = "" if self.span is None else f", part {self.begin_seconds:g} to {self.end_seconds:g} s"
        note = f", note={self.note!r}" if self.note else ""
        return (
            f"VideoRecord({self.path!r}{part}, video_id={self.video_id}, label={self.label}, split={self.split!r},\n"
            f"            {self.num_frames} frames of {self.width}x{self.height} px, {self.fps:.4g} fps, {self.codec} "
            f"({self.pix_fmt}) in {self.container}, {self.size} bytes{note})"
        )

    @property
    def span(self) -> Span | None:
        """The part of the file that the record is of, (begin, end) in seconds; None for a whole file."""
        return None if self.end_seconds < 0 else (self.begin_seconds, self.end_seconds)

    @property
    def notes(self) -> tuple[str, ...]:
        """The parts of `note`, each an odd fact about the file."""
        return tuple(self.note.split("; ")) if self.note else ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in px of the frames as they come out of the decoder, not turned."""
        return self.orientation.size(self.height, self.width)

    @cached_property
    def packets(self) -> PacketTable:
        """The packet table; `table` is decoded once."""
        return PacketTable.from_bytes(self.table)


Span = tuple[float, float]  # a part of a file, in seconds from its start: from the first time to before the second one
