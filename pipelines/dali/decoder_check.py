"""Checks on one video whether DALI decodes the right frames, before DALI is used for others of the same kind.

Decoders that count frames wrongly give wrong frames without an error, for instance with hidden frames of VP9 and AV1,
with B-frames, or with other versions of the driver. So some frames of the video are compared with the frames that PyAV
gives for the same numbers, and with their neighbours. Their colours are compared too: a converter that takes another
matrix or range than PyAV's gives other colours everywhere.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.versions import DALI_ERRORS, executor_options, import_dali, video_decoder
from pipelines.machine.device import device_number
from pipelines.video.decoder import read_frames
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import remux

# Mean absolute differences, of 255. Two colour converters differ by up to 2.5 (tests/pipelines/video/test_remuxer.py).
# Where nothing moves, a frame differs by less than 0.5 from the next.
_MAX_COLOUR = 10.0
_REST = 0.5
_GROUPS = 4
# The largest systematic difference of a colour that is allowed, of 255; see _colour_error. Over 48 clips of UCF-101,
# DALI as it converts on a CPU and on a GPU is off by up to 3.1. A wrong range is off by 7.7 or more, in the median by
# 17; BT.601 in place of BT.709 in the median by 8.8, and where colours are pale by less than 5.
_MAX_SHIFT = 5.0
_BLOCK_PX = 16


class DaliFailed(Exception):
    """DALI gave no frames of a video, so that none was compared. The message is the telling line of its own."""


@cache
def wrong_frames(record: VideoRecord, root: str, device: str) -> str:
    """Why DALI must not decode a video, in words: its frames differ from PyAV's, or it fails; empty if they are right.

    The result is kept, so each video is checked once in a process. `device` is "cpu" or "gpu:N". Raises VideoError or
    FrameError if the video can't be read or remuxed.
    """
    try:
        return differing_frames(record, root, device)
    except DaliFailed as failed:
        return str(failed)


def differing_frames(record: VideoRecord, root: str, device: str) -> str:
    """How the frames that DALI decodes differ from PyAV's, in words; empty if they are the same.

    Raises DaliFailed where DALI gives no frames, and what `wrong_frames` raises.
    """
    frames = np.array(_telling_frames(record.num_frames), np.int32)
    beside = sorted({int(k) for n in frames for k in (n - 1, n, n + 1) if 0 <= k < record.num_frames})
    video = remux(record, frames, root=root)
    shown = dict(zip(beside, read_frames(record, beside, root=root), strict=True))
    try:
        decoded = decode_by_dali(video.data, video.frames, device)
    except DALI_ERRORS as error:
        raise DaliFailed(telling_line(error)) from error
    decoded = record.orientation.turned(decoded)
    for frame, found in zip(frames.tolist(), decoded, strict=True):
        reason = _compare(found, frame, shown)
        if reason:
            return f"{record.path}: {reason}"
    shift = _colour_error(decoded, np.stack([shown[frame] for frame in frames.tolist()]))
    return f"{record.path}: its colours differ by up to {shift:.1f} of 255" if shift > _MAX_SHIFT else ""


def decode_by_dali(data: NDArray[np.uint8], numbers: NDArray[np.int32], device: str) -> NDArray[np.uint8]:
    """The frames of an encoded video, decoded by DALI on `device`: uint8 [T, H, W, 3], RGB.

    `data` is the video, uint8 [bytes]; `numbers` int32 [T] are the 0-based numbers of the frames. Raises one of
    DALI_ERRORS where DALI fails.
    """
    fn, types, Pipeline = import_dali()
    number = device_number(device)
    pipeline = Pipeline(
        batch_size=1, num_threads=1, device_id=number, prefetch_queue_depth=1, **executor_options(Pipeline)
    )
    with pipeline:
        encoded = fn.external_source(source=lambda: [data], dtype=types.UINT8, ndim=1)
        frames = fn.external_source(source=lambda: [numbers], dtype=types.INT32, ndim=1)
        pipeline.set_outputs(video_decoder()(encoded, frames=frames, device="cpu" if number is None else "mixed"))
    pipeline.build()
    (output,) = pipeline.run()
    if number is not None:
        output = output.as_cpu()
    return np.array(output.at(0))


def telling_line(error: Exception) -> str:
    """The line of DALI's message, which is a page long, that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "ssert" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]


def _telling_frames(num_frames: int) -> list[int]:
    """The numbers of the frames to compare: the first two, the last two, and pairs between."""
    starts = np.linspace(0, max(0, num_frames - 2), _GROUPS).astype(int)
    return sorted({int(number) for start in starts for number in (start, min(start + 1, num_frames - 1))})


def _compare(found: NDArray[np.uint8], frame: int, shown: dict[int, NDArray[np.uint8]]) -> str:
    """What is wrong with DALI's frame `found`, in words; empty if nothing is. `shown` are PyAV's frames by number."""
    right = shown[frame]
    if found.shape != right.shape:
        return f"frame {frame} has shape {found.shape}, expected {right.shape}"
    # Frames are compared without their mean, since colour converters, and the frames of a fade, differ in brightness.
    own = _distance(found, right)
    for other in (frame - 1, frame + 1):
        if other in shown:
            motion = _distance(shown[other], right)
            if motion > _REST and own > _distance(found, shown[other]) + motion / 4:
                return f"frame {other} comes where {frame} is wanted"
    colour = float(np.abs(found.astype(np.int16) - right).mean())
    if colour > _MAX_COLOUR:
        return f"frame {frame} differs by {colour:.1f} of 255"
    return ""


def _colour_error(found: NDArray[np.uint8], right: NDArray[np.uint8]) -> float:
    """The largest systematic difference, of 255, between the colours of frames uint8 [T, H, W, 3].

    The difference of the mean colours of blocks is fitted by a linear function of the colour, as a wrong matrix or
    range is one. So edges, which each converter rounds in its own way, hardly count.
    """
    colours = _block_means(found)
    terms = np.concatenate([colours, np.ones((len(colours), 1))], axis=1)
    fit, *_ = np.linalg.lstsq(terms, _block_means(right) - colours, rcond=None)
    return float(np.abs(terms @ fit).max())


def _block_means(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean colour of each whole block of frames uint8 [T, H, W, 3], float64 [B, 3]."""
    count, height, width, _ = frames.shape
    high, wide = min(_BLOCK_PX, height), min(_BLOCK_PX, width)
    rows, columns = height // high, width // wide
    cut = frames[:, : rows * high, : columns * wide].reshape(count, rows, high, columns, wide, 3)
    means: NDArray[np.float64] = cut.mean(axis=(2, 4), dtype=np.float64)
    return means.reshape(-1, 3)


def _distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean absolute difference of two frames, of 255, apart from a difference of their means."""
    difference = one.astype(np.float32) - other
    return float(np.abs(difference - difference.mean(axis=(0, 1))).mean())
