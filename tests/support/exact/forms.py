"""The forms that a video of one encoder and container comes in: plain, tagged, turned, cut, edited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av

from exact import boxes
from exact.encoders import Additions, Encoding, write
from exact.muxers import Muxer
from exact.truth import Truth, truth_of

# AVCOL_*: bt709 matrix, primaries and transfer; range 1 is 16..235, 2 is 0..255.
BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
FULL_RANGE = {**BT709, "color_range": 2}
LATE = 250  # frames before the first one of a video that starts late
TURNS = {
    "turned 90": Additions(degrees=90),
    "turned 180": Additions(degrees=180),
    "turned 270": Additions(degrees=270),
    "mirrored": Additions(mirrored=True),
}
BRIEF = [("tagged full range", Additions(colours=FULL_RANGE))]
ADDITIONS = [
    *BRIEF,
    ("tagged bt709", Additions(colours=BT709)),
    ("starts late", Additions(start=LATE)),
    *TURNS.items(),
]
CUT_AT = 0.6  # of the bytes
PLAIN = "plain"


class Form(NamedTuple):
    """A file to be judged: the name of its form, where it lies, whether bytes of its end are missing."""

    name: str
    path: Path
    is_cut: bool = False


def written(folder: Path, encoding: Encoding, muxer: Muxer, *, brief: bool = False) -> Iterator[tuple[Form, Truth]]:
    """The video in each form that FFmpeg can write, with its truth; nothing if it can't be written or read.

    The first one is plain. Forms that the container does not keep are left out. If `brief` there are two forms.
    """
    plain = folder / f"plain.{muxer.suffix}"
    truth = _attempt(plain, encoding, muxer)
    if truth is None or truth.error or not truth.frames:
        return
    yield Form(PLAIN, plain), truth
    for name, additions in BRIEF if brief else ADDITIONS:
        path = folder / f"{name.replace(' ', '_')}.{muxer.suffix}"
        other = _attempt(path, encoding, muxer, additions)
        if other is None or other.error or not other.frames:
            continue
        if name in TURNS and not other.turned:
            break  # the container keeps none
        yield Form(name, path), other
    if brief:
        return
    yield from _edited(folder, plain, muxer, len(truth.frames))
    yield from _cut(folder, plain, encoding, muxer)


def _attempt(path: Path, encoding: Encoding, muxer: Muxer, additions: Additions | None = None) -> Truth | None:
    """The truth of the video that is written to `path`; None if it can't be written."""
    additions = additions or Additions()
    options = {**muxer.options, **additions.options}
    try:
        write(path, encoding, muxer.format, Additions(**{**additions.__dict__, "options": options}))
    except (av.FFmpegError, OSError, ValueError, TypeError, OverflowError):
        return None
    return truth_of(path) if path.is_file() and path.stat().st_size else None


def _edited(folder: Path, plain: Path, muxer: Muxer, frames: int) -> Iterator[tuple[Form, Truth]]:
    """The plain file with boxes changed, where it has boxes."""
    if not muxer.is_boxes:
        return
    data = plain.read_bytes()
    for name, change in {
        "tagged by the container": lambda: boxes.with_colours(data, matrix=1, full_range=True),
        "edited": lambda: boxes.with_edit_list(data, hide_first=3, hide_last=4, frames=frames),
        "edited at the end": lambda: boxes.with_edit_list(data, hide_first=0, hide_last=4, frames=frames),
    }.items():
        try:
            changed = change()
        except (ValueError, StopIteration):
            continue
        path = folder / f"{name.replace(' ', '_')}.{muxer.suffix}"
        path.write_bytes(changed)
        truth = truth_of(path)
        if truth.frames and not truth.error:
            yield Form(name, path), truth


def _cut(folder: Path, plain: Path, encoding: Encoding, muxer: Muxer) -> Iterator[tuple[Form, Truth]]:
    """The plain file without its last bytes; where the index is at the end also one with the index before it."""
    sources = {"cut": plain}
    if muxer.is_boxes:
        path = folder / f"index_first.{muxer.suffix}"
        if _attempt(path, encoding, muxer, Additions(options={"movflags": "+faststart"})) is not None:
            sources["cut, index first"] = path
    for name, source in sources.items():
        data = source.read_bytes()
        path = folder / f"{name.replace(', ', '_').replace(' ', '_')}.{muxer.suffix}"
        path.write_bytes(data[: int(CUT_AT * len(data))])
        yield Form(name, path, is_cut=True), truth_of(path)
