"""Judges what the project makes of a file by the frames that it really has."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from resizing import triangle

from exact.truth import Truth, uncut_frames
from pipelines.errors import FrameError, VideoError
from pipelines.video.decoder import Cut, FrameReader, read_frames
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord

EXACT, DEMUXED, REFUSED, NOTED, SILENT, VARIES, WRONG = (
    "exact", "demuxed", "refused", "noted", "silent", "varies", "wrong",
)  # fmt: skip
# Reasons to refuse a whole file, which FFmpeg decodes.
GOOD_REASONS = {"frame size changes"}
CUT_REASONS = {"truncated", "does not decode"}  # those of a file that lacks its end
ODD = ("damaged", "cut short")  # what the note of a file says that may lack pictures, where its container can't tell
SCALED_PX = 48
# How far a scaled crop may be from that of the whole RGB picture, of 255: the mean of the pixels, that of a colour, and
# that of the brightness. Crops at odd places shift the colours by half a pixel, so their colours differ more.
SCALED_MEAN, SCALED_COLOUR, SCALED_BRIGHTNESS = 3.0, 2.5, 0.75
_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green, blue; ITU-R BT.601


class Verdict(NamedTuple):
    """One of the words above, and why."""

    mark: str
    reason: str = ""


def judge(path: Path, truth: Truth, seed: int, *, allow_partial: bool = False) -> Verdict:
    """The verdict on a whole file."""
    try:
        record = probe_video(path, allow_partial=allow_partial)
    except VideoError as error:
        said = f"{error.reason}: {error.detail}" if error.detail else error.reason
        return Verdict(REFUSED if error.reason in GOOD_REASONS or not truth.frames else WRONG, f"refused, {said}")
    except Exception as error:
        return Verdict(WRONG, f"indexing raises {type(error).__name__}: {error}")
    return compare(record, truth, seed)


def judge_cut(path: Path, truth: Truth, whole_frames: int, seed: int, *, allow_partial: bool) -> Verdict:
    """The verdict on a file whose end is missing; `whole_frames` is the number of frames that it had."""
    try:
        record = probe_video(path, allow_partial=allow_partial)
    except VideoError as error:
        said = f"{error.reason}: {error.detail}" if error.detail else error.reason
        honest = not truth.frames or not uncut_frames(path) or (not allow_partial and error.reason in CUT_REASONS)
        return Verdict(REFUSED if honest else WRONG, f"refused, {said}")
    except Exception as error:
        return Verdict(WRONG, f"indexing raises {type(error).__name__}: {error}")
    if "truncated" in record.note and record.num_frames == uncut_frames(path) > 0:
        truth = replace(truth, frames=truth.frames[: record.num_frames])
    verdict = compare(record, truth, seed)
    if verdict.mark == WRONG or len(truth.frames) == whole_frames or not truth.frames:
        return verdict
    if "truncated" in record.note:
        return verdict if allow_partial else Verdict(WRONG, "taken without the option, noted as truncated")
    if any(word in record.note for word in ODD):
        return Verdict(NOTED, record.note)
    told = "decoding fails" if truth.error else "a packet is flagged" if truth.damaged else ""
    return Verdict(WRONG if told else SILENT, f"taken without a word{', though ' * bool(told)}{told}")


def compare(record: VideoRecord, truth: Truth, seed: int, root: str | Path = "") -> Verdict:
    """Whether count, size and frames of the record are those of the truth."""
    count = len(truth.frames)
    if record.num_frames != count:
        return Verdict(WRONG, f"{record.num_frames} frames instead of {count}")
    shape = (record.height, record.width, 3)
    if truth.sizes != {shape}:
        return Verdict(WRONG, f"size {shape} instead of {truth.sizes}")
    draw = random.Random(seed)
    numbers = list(range(count))
    draw.shuffle(numbers)
    single = {0, count // 2, count - 1, *(draw.randrange(count) for _ in range(2))}
    for wanted in (numbers, *([number] for number in sorted(single))):
        try:
            frames = read_frames(record, wanted, root=root)
        except FrameError as error:
            return Verdict(WRONG, f"indexed, but reading fails: {error.reason}: {error.detail}")
        except Exception as error:
            return Verdict(WRONG, f"reading raises {type(error).__name__}: {error}")
        for number, frame in zip(wanted, frames, strict=True):
            if not np.array_equal(frame, truth.frames[number]):
                off = np.abs(frame.astype(np.int16) - truth.frames[number]).mean()
                return Verdict(
                    WRONG, f"frame {number} of {count} differs by {off:.2f} of 255 when {len(wanted)} are read"
                )
    fault = _scaled(record, truth, count // 2, str(root))
    if fault:
        return Verdict(WRONG, fault)
    by_packets = record.packets.addressable and not record.packets.ordinal
    return Verdict(EXACT if by_packets else DEMUXED)


def _scaled(record: VideoRecord, truth: Truth, number: int, root: str) -> str:
    """What is wrong with a crop that training's scaler makes, "" if nothing."""
    height, width = record.height, record.width
    box = (height // 8, width // 8, height // 2, width // 2)
    out = np.empty((1, SCALED_PX, SCALED_PX, 3), np.uint8)
    try:
        FrameReader().fill(record, [Cut([number], box, SCALED_PX, out)], root=root)
    except Exception as error:
        return f"scaling raises {type(error).__name__}: {error}"
    return too_far(out[0] - scaled(truth.frames[number], box), SCALED_MEAN)


def too_far(off: NDArray[np.float64], most: float) -> str:
    """How colours [..., 3] of a scaled crop are off, "" if that is within the tolerance; `most` is that of the mean."""
    mean, colours = float(np.abs(off).mean()), off.reshape(-1, 3).mean(axis=0)
    colour, brightness = float(np.abs(colours).max()), abs(float(colours @ _BRIGHTNESS))
    if mean <= most and colour <= SCALED_COLOUR and brightness <= SCALED_BRIGHTNESS:
        return ""
    return f"scaled crop differs by {mean:.2f} of 255, a colour by {colour:.2f}, brightness by {brightness:.2f}"


def scaled(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """The box of a picture, resized to SCALED_PX in RGB."""
    y, x, height, width = box
    rows, columns = triangle(height, SCALED_PX), triangle(width, SCALED_PX)
    part = pixels[y : y + height, x : x + width].astype(np.float64)
    return np.einsum("ih,hwc,jw->ijc", rows, part, columns, optimize=True)
