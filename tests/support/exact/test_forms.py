"""A short form of `make exact`: one video for each kind of decoder, container and way to read, in all its forms."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from exact.encoders import Encoding
from exact.forms import ADDITIONS, PLAIN, TURNS
from exact.matrix import Pair, Row, judged
from exact.muxers import Muxer
from exact.table import faults
from exact.verdicts import REFUSED

FRAGMENTS = Muxer("mp4 fragments", "mp4", {"movflags": "frag_keyframe+empty_moov"})
# encoder, pixel format, container: between them all ways in which packets are listed, frames counted and read.
PAIRS = [
    ("mpeg4", "yuv420p", Muxer("avi", "avi")),  # counted by headers
    ("mpeg4", "yuv420p", Muxer("mp4", "mp4")),
    ("libx264", "yuv420p", Muxer("mov", "mov")),  # counted by the container
    ("libx264", "yuv420p", FRAGMENTS),
    ("libx264", "yuv420p", Muxer("flv", "flv")),
    ("libx264", "yuv420p", Muxer("mpegts", "mpegts")),
    ("libx265", "yuv420p", Muxer("mp4", "mp4")),
    ("libvpx", "yuv420p", Muxer("webm", "webm")),  # hidden pictures
    ("libvpx-vp9", "yuv420p", Muxer("matroska", "matroska")),
    ("libsvtav1", "yuv420p", Muxer("mp4", "mp4")),
    ("mpeg2video", "yuv420p", Muxer("mpeg", "mpeg")),  # packets in parts
    ("mjpeg", "yuvj420p", Muxer("avi", "avi")),
    ("wmv2", "yuv420p", Muxer("asf", "asf")),
    ("h263", "yuv420p", Muxer("3gp", "3gp")),
    ("prores", "yuv422p10le", Muxer("mov", "mov")),  # tags of value 0
    ("png", "rgb24", Muxer("avi", "avi")),  # needs the fourcc
    ("qtrle", "rgb24", Muxer("mov", "mov")),  # needs the bits a sample
    ("rawvideo", "yuyv422", Muxer("avi", "avi")),  # needs the pixel format
    ("utvideo", "yuv420p", Muxer("avi", "avi")),  # needs the extradata and the fourcc
    ("smc", "pal8", Muxer("mov", "mov")),  # needs the palette
    ("ffv1", "yuv420p10le", Muxer("nut", "nut")),
    ("gif", "rgb8", Muxer("gif", "gif")),
]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    pairs = [Pair(Encoding(encoder, pix_fmt), muxer) for encoder, pix_fmt, muxer in PAIRS]
    return list(judged(pairs, processes=len(os.sched_getaffinity(0))))


def test_every_form_gives_the_frames_of_a_full_decode(rows: list[Row]) -> None:
    assert faults(rows) == []
    assert len(rows) == len(PAIRS)
    assert all(row.verdicts[PLAIN].mark in ("exact", "demuxed") for row in rows)


def test_the_forms_are_there(rows: list[Row]) -> None:
    forms = Counter(form for row in rows for form in row.verdicts)
    assert {PLAIN, *dict(ADDITIONS), *TURNS, "edited", "edited at the end", "tagged by the container"} <= set(forms)
    assert forms["turned 90"] > 5
    cut = [verdict.mark for row in rows for form, verdict in row.verdicts.items() if form == "cut, index first"]
    assert cut.count(REFUSED) == len(cut) > 3
