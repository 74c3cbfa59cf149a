"""Judges every encoder in every container, in each form."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av.logging
import crew

from exact.encoders import Encoding, encoding_of, pixel_formats
from exact.forms import PLAIN, written
from exact.muxers import Muxer
from exact.truth import is_steady
from exact.verdicts import VARIES, WRONG, Verdict, judge, judge_cut

WRITING = "writing"
TIMEOUT_SECONDS = 60.0  # for one form of a video


class Pair(NamedTuple):
    """An encoding in a container, in all forms or in few.

    `kept` is a folder for the files, "" if they are to be thrown away.
    """

    encoding: Encoding
    muxer: Muxer
    brief: bool = False
    kept: str = ""


class Row(NamedTuple):
    """The verdicts on a pair, by form; none if FFmpeg can't write the pair, or not read what it wrote."""

    pair: Pair
    verdicts: dict[str, Verdict]


def judged(pairs: list[Pair], *, processes: int) -> Iterator[Row]:
    """The row of each pair, as they come."""
    for outcome in crew.run(judge_pair, pairs, processes=processes, timeout_seconds=TIMEOUT_SECONDS):
        if not outcome.failure:
            yield Row(outcome.task, outcome.result)
        elif outcome.stage in ("", WRITING):
            yield Row(outcome.task, {})  # the encoder or the muxer brought the process down
        else:
            yield Row(outcome.task, {outcome.stage: Verdict(WRONG, outcome.failure)})


def judge_pair(pair: Pair, say: Callable[[str], None]) -> dict[str, Verdict]:
    """The verdicts on the forms of a pair. It runs in a process of its own."""
    av.logging.set_libav_level(av.logging.PANIC)
    verdicts: dict[str, Verdict] = {}
    seed = zlib.crc32(f"{pair.encoding} {pair.muxer.name}".encode())
    with TemporaryDirectory(prefix="r3d-exact-") as temporary:
        folder = Path(temporary)
        if pair.kept:
            name = f"{pair.encoding.encoder}-{pair.encoding.pix_fmt}-{pair.muxer.name.replace(' ', '_')}"
            folder = Path(pair.kept) / name
            folder.mkdir(parents=True, exist_ok=True)
        say(WRITING)
        whole = 0
        for form, truth in written(folder, pair.encoding, pair.muxer, brief=pair.brief):
            say(form.name)
            if form.name == PLAIN:
                whole = len(truth.frames)
            if form.is_cut and not is_steady(form.path, truth):
                verdicts[form.name] = Verdict(VARIES, "the frames of container.decode depend on when they are let go")
            elif form.is_cut:
                for name, partial in ((form.name, False), (f"{form.name}, allowed", True)):
                    verdicts[name] = judge_cut(form.path, truth, whole, seed, allow_partial=partial)
            else:
                verdicts[form.name] = judge(form.path, truth, seed)
            say(WRITING)
    return verdicts


def usable(encoder: str, say: Callable[[str], None]) -> list[Encoding]:
    """The encodings of an encoder, with each pixel format that it really takes. It runs in a process of its own."""
    av.logging.set_libav_level(av.logging.PANIC)
    return [found for name in pixel_formats(encoder) if (found := encoding_of(encoder, name)) is not None]
