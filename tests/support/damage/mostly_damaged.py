"""A video that decodes with most of its frames damaged."""

from __future__ import annotations

from pathlib import Path
from random import Random

import clips

from pipelines.index.probe_pool import probe_all
from pipelines.video.record import VideoRecord


def write_mostly_damaged(path: Path) -> tuple[int, int]:
    """Write an MPEG-4 AVI whose frames all decode, more than half of them damaged; (damaged frames, all frames)."""
    clips.write_packed_mpeg4(path, num_frames=30, b_frames=2, gop=100)
    sound = path.read_bytes()
    begin, end = sound.find(b"movi"), sound.rfind(b"idx1")
    for seed in range(100):
        data, draw = bytearray(sound), Random(seed)
        for _ in range(40):
            data[draw.randrange(begin + (end - begin) // 4, end)] = draw.randrange(256)
        path.write_bytes(data)
        (result,) = probe_all([str(path)], Path(), workers=0)
        if isinstance(result, VideoRecord) and result.corrupt > result.num_frames / 2:
            return result.corrupt, result.num_frames
    raise AssertionError("no such damage")
