"""The rows of a video in an index file, and the VideoRecord that they stand for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.bitstreams.packet_flags import START
from pipelines.errors import IndexFileError
from pipelines.index.index_file import IndexFile, encoded
from pipelines.video.orientation import Orientation
from pipelines.video.packets import PacketTable
from pipelines.video.parameters import StreamParameters
from pipelines.video.record import Span, VideoRecord

WHOLE = (-1.0, -1.0)  # the begin and end of a video that is a whole file
MOST_PIXELS = (2**31 - 1) // 8  # of a frame: FFmpeg makes no larger ones (av_image_check_size)
Key = tuple[str, float, float]  # the path of a video's file, and its begin and end in seconds
Row = tuple[Any, ...]
# The columns of the table `videos` that are fields of VideoRecord, with their types; `label` and `split` come last.
_TYPES: dict[str, type] = {
    "path": str, "size": int, "mtime_ns": int, "num_frames": int, "height": int, "width": int, "codec": str,
    "decoder": str, "pix_fmt": str, "fps": float, "container": str, "parameters": str, "orientation": int,
    "checksum": str, "note": str, "begin_seconds": float, "end_seconds": float, "corrupt": int, "label": int,
    "split": str,
}  # fmt: skip
FIELDS = tuple(_TYPES)
_EXPECTED = tuple(_TYPES.values())
_ONE_VIDEO = (
    f"SELECT {', '.join(f'videos.{name}' for name in FIELDS)}, digest, extradata, packets "
    "FROM videos JOIN packets ON packets.id = videos.id WHERE videos.id = ?"
)
_AT = {name: place for place, name in enumerate(FIELDS)}


def shown_key(path: str, span: Span | None) -> str:
    """The name of a video in lists and messages: its path; for a part of a file also the times, ``PATH#t=10,20``.

    The times are in seconds, in the form of a W3C media fragment.
    """
    return path if span is None else f"{path}#t={span[0]:g},{span[1]:g}"


def key_of(path: str, span: Span | None) -> Key:
    """What tells a video from the others of an index."""
    return (path, *(span or WHOLE))


def span_of(begin: float, end: float) -> Span | None:
    """The part of a file from `begin` to `end` in seconds; None for a whole file, whose end is -1."""
    return None if end < 0 else (begin, end)


def rows_of(record: VideoRecord) -> tuple[Row, Row]:
    """The rows of `record`: FIELDS in the table `videos`, and the header and the packet table in `packets`."""
    values: dict[str, Any] = {name: getattr(record, name) for name in FIELDS}
    values |= {"parameters": record.parameters.to_json(), "orientation": record.orientation.code}
    values |= {name: float(values[name]) for name, kind in _TYPES.items() if kind is float}
    return tuple(values.values()), (record.extradata, record.table)


def row_digest(fields: Row, packets: Row) -> bytes:
    """The SHA-256 of the two rows of a video."""
    return hashlib.sha256(encoded((*fields, *packets))).digest()


def read_rows(file: IndexFile, video: int) -> tuple[Row, Row]:
    """The two rows of `video` in an index file, as `rows_of` gave them. Raises IndexFileError if they are damaged."""
    for row in file.rows(_ONE_VIDEO, video + 1):
        fields_row, (digest, *packets) = row[: len(FIELDS)], row[len(FIELDS) :]
        if all(isinstance(value, bytes) for value in packets) and digest == row_digest(fields_row, tuple(packets)):
            check_fields(fields_row)
            return fields_row, tuple(packets)
    raise IndexFileError(f"video {video} is damaged")


def record_of(fields: Row, packets: Row, video: int) -> VideoRecord:
    """The record of `video`, by its two rows. Raises IndexFileError if they are not those of any video."""
    values = dict(zip(FIELDS, fields, strict=True))
    try:
        values["parameters"] = StreamParameters.from_json(values["parameters"])
        values["orientation"] = Orientation.of_code(values["orientation"])
        extradata, table = packets
        record = VideoRecord(**values, extradata=extradata, table=table, video_id=video)
        _check_packets(record, record.packets)
    except (ValueError, RecursionError) as error:
        raise IndexFileError(f"video {video} is damaged: {error}") from error
    return record


def check_fields(row: Sequence[Any]) -> None:
    """Raise IndexFileError if a row of FIELDS has values that no video has."""
    if tuple(map(type, row)) != _EXPECTED:
        raise IndexFileError("a video has values of other types than an index")
    path, size, _, frames, height, width = row[:6]
    sound = size > 0 and frames > 0 and 0 < height * width <= MOST_PIXELS and height > 0
    sound = sound and 0 <= row[_AT["orientation"]] < 8 and row[_AT["label"]] >= 0 and row[_AT["corrupt"]] >= -1
    begin, end = row[_AT["begin_seconds"]], row[_AT["end_seconds"]]
    sound = sound and ((begin, end) == WHOLE or (-math.inf < begin < end < math.inf and end >= 0))
    sound = sound and 0 <= row[_AT["fps"]] < math.inf
    if not sound:
        raise IndexFileError("a video has values out of range")
    if not is_below_root(path):
        raise IndexFileError("a path leads out of the folder of the videos")


def is_below_root(path: str) -> bool:
    """Whether a path that is relative to a folder stays inside it, by its text."""
    return bool(path) and path[0] != "/" and "\0" not in path and (".." not in path or ".." not in path.split("/"))


def _check_packets(record: VideoRecord, table: PacketTable) -> None:
    """Raise ValueError if the packets of a record can't be those of its file."""
    if table.num_frames != record.num_frames or not len(table.offset):
        raise ValueError(f"its packet table has {table.num_frames} frames")
    if table.addressable and (int(table.offset.min()) < 0 or int((table.offset + table.size).max()) > record.size):
        raise ValueError("its packets lie outside its file")
    first = int(np.argmax(table.flags & START != 0))
    if not table.ordinal and (not table.flags[first] & START or first > int(table.frame_packet.min())):
        raise ValueError("its packets begin without a key frame")
