"""Cuts a part out of the record of a whole video: the frames that are shown from one second to another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np

from pipelines.containers.clock import FrameClock, Times, TimeStamps
from pipelines.containers.notes import ENDS_EARLY
from pipelines.errors import VideoError
from pipelines.video.record import Span, VideoRecord
from pipelines.video.sequence import FrameSequence

_CUT_SLACK_SECONDS = 1.0  # a cut file may be this much too long: tools cut at the next key frame or audio packet
_ROUNDING_SECONDS = 1e-5  # containers round times: the frame at 10 s may have the time 9.999999


def part_of(
    path: str, record: VideoRecord, stamps: TimeStamps, span: Span, *, uncut: bool = False, damaged: Sequence[int] = (),
) -> VideoRecord:  # fmt: skip
    """The record of the frames in `span`; `stamps` are those of the file. Raises VideoError if there are none.

    `damaged` are the numbers of all damaged frames of the file, as far as `record` says how many there are.
    A file that is hardly longer than the span counts as cut to it already, unless it is `uncut`. Where one picture
    stands still through the whole span, it is that frame.
    """
    begin, end = span
    record = replace(record, begin_seconds=begin, end_seconds=end)
    times, finish = frame_times(path, record, stamps)
    if not uncut and finish - times[0] <= end - begin + _CUT_SLACK_SECONDS:
        return record
    first, last = np.searchsorted(times + _ROUNDING_SECONDS, [begin, end]).tolist()
    if first == last:
        if first == 0 or begin + _ROUNDING_SECONDS >= finish:
            raise VideoError(path, "no frame in its range", f"{begin:g} to {end:g} s of {finish:.1f} s")
        first -= 1
    notes = [record.note] * bool(record.note) + [ENDS_EARLY] * bool(finish + float(stamps.base.step) < end)
    table = record.packets.part(first, last)
    corrupt = sum(first <= number < last for number in damaged) if record.corrupt >= 0 else -1
    return replace(record, num_frames=table.num_frames, table=table.to_bytes(), note="; ".join(notes), corrupt=corrupt)


def frame_times(path: str, record: VideoRecord, stamps: TimeStamps) -> tuple[Times, float]:
    """When each frame of the whole file `record` is shown, float64 [F], and when the last one ends, in seconds.

    These are the times that FrameSequence gives. They follow from the stamps of the packets. Where a packet has none,
    or does not tell which frame it gives, and in an AVI with dropped frames, where it matters how long the decoder
    keeps each frame, the file is decoded.
    """
    table, base = record.packets, stamps.base
    clock = FrameClock(base)
    if stamps.ticks is None or table.ordinal or len(stamps.ticks) != len(table.offset):
        return _decoded_times(path, record)
    ticks = stamps.ticks[table.frame_packet]
    durations = np.zeros_like(ticks) if stamps.durations is None else stamps.durations[table.frame_packet]
    if base.by_chunk:
        ticks = np.sort(ticks)  # of reordered frames each is shown in the turn of another one
        if np.any(np.diff(ticks) != round(base.step / base.tick)):
            return _decoded_times(path, record)
    times = [clock.seconds(*stamp) for stamp in zip(ticks.tolist(), durations.tolist(), strict=True)]
    return np.array(times), clock.end


def _decoded_times(path: str, record: VideoRecord) -> tuple[Times, float]:
    """What `frame_times` says, by decoding the file. Frames that it does not give any more have no stamp."""
    with FrameSequence(path, max_pixels=record.height * record.width) as video:
        with suppress(VideoError):
            times = [shown.seconds for shown in islice(video, record.num_frames)]
        times += [video.clock.seconds(None) for _ in range(record.num_frames - len(times))]
        return np.array(times), video.clock.end
