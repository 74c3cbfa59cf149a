"""Cuts a part out of the record of a whole video: the frames that are shown from one second to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipelines.containers.clock import TimeStamps, frame_times
from pipelines.errors import VideoError
from pipelines.video.record import Span, VideoRecord

_CUT_SLACK_SECONDS = 1.0  # a cut file may be this much too long: tools cut at the next key frame or audio packet
_ROUNDING_SECONDS = 1e-5  # containers round times: the frame at 10 s may have the time 9.999999


def part_of(path: str, record: VideoRecord, stamps: TimeStamps, span: Span) -> VideoRecord:
    """The record of the frames in `span`; `stamps` are those of the file. Raises VideoError if there are none."""
    begin, end = span
    table = record.packets
    times = frame_times(stamps, len(table.offset), None if table.ordinal else table.frame_packet, table.num_frames)
    record = replace(record, begin_seconds=begin, end_seconds=end)
    gap = stamps.step
    if times[-1] - times[0] + gap <= end - begin + _CUT_SLACK_SECONDS:
        return record
    first, last = np.searchsorted(times + _ROUNDING_SECONDS, [begin, end]).tolist()
    if first == last:
        raise VideoError(path, "no frame in its range", f"{begin:g} to {end:g} s of {times[-1] + gap:.1f} s")
    notes = [record.note] * bool(record.note) + ["ends before its range"] * bool(times[-1] + 2 * gap < end)
    table = table.part(first, last)
    return replace(record, num_frames=table.num_frames, table=table.to_bytes(), note="; ".join(notes))
