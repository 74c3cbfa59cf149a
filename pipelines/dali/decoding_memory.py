"""What decoding by NVDEC takes of a GPU's memory, counted before anything is decoded.

So DALI holds it (1.53 to 2.4, dali/operators/video):
- Before the first clip of a batch is decoded, each clip that DALI decodes gets a decoder of its own
  (decoder/video_decoder_base.h, SetupImpl) with 8 frames in RGB (frames_decoder_gpu.h, num_decode_surfaces_).
- Beside these lie the frames that the clip shows, and copies of their part in the box: one that is cut out, one in the
  order of the clip, and for a turned video two more (graph.py).
- Each thread decodes in a session of NVDEC, which holds up to 20 pictures in the size that they are coded in and 2 that
  come out, all in NV12, 1.5 bytes for a pixel (frames_decoder_gpu.cc, GetDecoder). Sessions are kept: as many of one
  size as there are threads, or one for each clip where none is found again, and 100 in all (CACHE_SIZE_LIMIT).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pipelines.dali_limits import is_cut_from_units
from pipelines.machine.memory import free_gpu_memory
from pipelines.machine.nvdec import DALI_CODECS
from pipelines.sampler import ClipPlan
from pipelines.video.orientation import UPRIGHT

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex
    from pipelines.stream import ClipStream

_log = logging.getLogger(__name__)
_SLOTS = 8  # frames in RGB of each decoder
_SURFACES = 22  # pictures of a session: 20, which DALI takes where the driver names no number, and 2 that come out
_MOST_SESSIONS = 100
_SHARE = 4  # decoding gets one part in so many of the memory that is free; the model needs the rest


def clip_bytes(size: tuple[int, int], box: tuple[int, int], frames: int, *, turned: bool = False) -> int:
    """The bytes of GPU memory that DALI takes to decode a clip of `frames` frames.

    `size` is that of the frames of the video, `box` that of the part that the clip shows, each (height, width) in px.
    """
    copies = 4 if turned else 2
    return 3 * frames * (math.prod(size) + copies * math.prod(box)) + 3 * _SLOTS * math.prod(size)


def sessions_bytes(sizes: Iterable[tuple[str, int, int]], threads: int) -> int:
    """The bytes of GPU memory of the sessions of NVDEC that may be kept for videos of `sizes`: (codec, width, height).

    Sizes are in px, of the frames as stored. With more sizes than sessions are kept, the largest ones count.
    """
    left, total = _MOST_SESSIONS, 0
    by_pixels = sorted(sizes, key=lambda one: one[1] * one[2], reverse=True)
    for codec, width, height in by_pixels:
        unit = DALI_CODECS[codec]
        sessions = min(left, _MOST_SESSIONS if is_cut_from_units(codec, width, height) else threads)
        coded = -(-width // unit) * unit * (-(-height // unit) * unit)
        total += sessions * _SURFACES * coded * 3 // 2
        left -= sessions
    return total


def bytes_for_batch(number: int, sizes: Iterable[tuple[str, int, int]], threads: int) -> int | None:
    """The bytes of GPU `number` that all clips of a batch together may take to be decoded; None if nobody knows.

    It is a quarter of the memory that is free now, without that of the sessions for `sizes`; 0 if they take all of it.
    """
    free = free_gpu_memory(number)
    return None if free is None else max(0, free // _SHARE - sessions_bytes(sizes, threads))


class _Size(NamedTuple):
    """The size of a video's frames in px, and whether DALI has to turn them."""

    height: int
    width: int
    is_turned: bool


class DecodingMemory:
    """Counts what the clips of a batch take of the GPU's memory, if DALI decodes them.

    `room` is what they may take together, in bytes; it is infinite on the CPU, and where every batch fits.
    """

    def __init__(self, stream: ClipStream, index: VideoIndex) -> None:
        """Of the clips of `stream`, whose videos `index` has."""
        self._stream, self._index = stream, index
        self._sizes: dict[int, _Size | None] = {}  # by video; None: DALI does not decode it
        self._told = False
        self.room = math.inf
        if stream.limits is not None and stream.limits.batch_bytes is not None:
            columns, frames = index.columns(stream.split), stream.clip.num_frames
            largest = int((columns.height * columns.width).max())
            if (
                stream.batch_size * clip_bytes((1, largest), (1, largest), frames, turned=True)
                > stream.limits.batch_bytes
            ):
                self.room = stream.limits.batch_bytes

    def of_clip(self, plan: ClipPlan) -> int:
        """The bytes that the clip of `plan` takes; 0 if PyAV decodes it anyway, or if it is padding."""
        size = self._size(plan.video_id) if plan.is_real else None
        if size is None:
            return 0
        return clip_bytes((size.height, size.width), plan.box[2:], len(plan.frames), turned=size.is_turned)

    def tell_once(self, plan: ClipPlan) -> None:
        """Say, the first time, that the clip of `plan` found no room, with the figures."""
        size = self._size(plan.video_id)
        if not self._told and size is not None:
            self._told = True
            _log.warning(
                "%s: to decode a clip of its %dx%d px, NVDEC takes %.0f MB of the GPU's memory; the clips of a batch "
                "get %.0f MB together, a quarter of what was free without the sessions: PyAV decodes those beyond that",
                self._index[plan.video_id].path, size.width, size.height, self.of_clip(plan) / 1e6, self.room / 1e6,
            )  # fmt: skip

    def _size(self, video_id: int) -> _Size | None:
        if video_id not in self._sizes:
            record = self._index[video_id]
            assert self._stream.limits is not None
            size = _Size(record.height, record.width, record.orientation != UPRIGHT)
            self._sizes[video_id] = None if self._stream.limits.refuses(record) else size
        return self._sizes[video_id]
