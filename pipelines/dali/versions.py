"""Handles the differences between versions of DALI. It looks for each feature and never compares version numbers."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.errors import EnvironmentProblem
from pipelines.video.remuxer import write_matroska

# The errors that a DALI pipeline raises if it can't decode or augment (error_reporting.cc).
DALI_ERRORS = (RuntimeError, MemoryError, ValueError, IndexError)
# What the video decoder is told beside its inputs, where its version has such an argument.
_DECODER = {"pad_mode": "none", "affine": False}
# One grey frame of 16x16 px in each codec.
_SAMPLES = {
    "vp8": base64.b64decode("EAIAnQEqEAAQAABHCIWFiIWEiAICAAYZaAAA"),
    "vp9": base64.b64decode("gkmDQgAA8AD2ADgkHBhKAAAwYAAAN4A="),
    "mjpeg": base64.b64decode(
        "/9j/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQH/wAARCAAQABADASIA"
        "AhEAAxEA/9oADAMBAAIRAxEAPwAooooA/9k="
    ),
}


def import_dali() -> tuple[ModuleType, ModuleType, Any]:
    """(nvidia.dali.fn, nvidia.dali.types, Pipeline). Raises EnvironmentProblem if DALI is not installed."""
    try:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline
    except ImportError as error:
        raise EnvironmentProblem(
            f"NVIDIA DALI can't be imported ({error}); install it with: pip install 'r3d-fast[cpu]' (any machine), "
            "'r3d-fast[cuda11]' (V100) or 'r3d-fast[cuda12]' (newer GPUs)"
        ) from error
    return fn, types, Pipeline


def import_pipeline() -> tuple[Any, Any]:
    """(nvidia.dali.pipeline_def, Pipeline). Raises EnvironmentProblem if DALI is not installed."""
    _, _, Pipeline = import_dali()
    from nvidia.dali import pipeline_def

    return pipeline_def, Pipeline


def executor_options(pipeline: Any) -> dict[str, bool]:
    """The options of `pipeline` that choose the executor which never overwrites an output that is still held.

    DALI's older executor writes later batches into the buffers of earlier ones. Empty if there is only one executor.
    """
    return {"exec_dynamic": True} if "exec_dynamic" in inspect.signature(pipeline.__init__).parameters else {}


def video_decoder() -> Callable[..., Any]:
    """DALI's video decoder, an operator to be called with (encoded, frames=..., device="cpu" or "mixed").

    A frame number past the end is an error, never a black frame. The threads that wait for NVDEC are not pinned to
    cores, on which the decoding processes work.

    On a GPU each picture that is sent is decoded, mapped, converted to RGB and waited for, also those that the clip
    does not show: of UCF-101 about 99 for a clip of 16 `segments`. The argument `build_index` would avoid that, but
    DALI 1.53 and 2.x take no notice of it (dali/operators/video/decoder/video_decoder_base.h, CreateDecoder).

    Raises EnvironmentProblem if this DALI has no decoder that takes frame numbers.
    """
    fn, _, _ = import_dali()
    for module in (fn, getattr(fn, "experimental", None)):
        operator: Any = getattr(getattr(module, "decoders", None), "video", None)
        arguments = inspect.signature(operator).parameters if operator is not None else {}
        if "frames" in arguments:
            return partial(operator, **{name: value for name, value in _DECODER.items() if name in arguments})
    raise EnvironmentProblem("this NVIDIA DALI has no video decoder that takes frame numbers: install 1.53 or later")


@cache
def cpu_video_codecs() -> frozenset[str]:
    """The codecs that DALI decodes exactly on this CPU: those of vp8, vp9 and mjpeg that work here.

    Each is tried on a tiny video, once in a process. H.264 and HEVC are never among them, although some versions take
    them: these guess how far frames are reordered, and fail on HEVC with B-frames.
    """
    try:
        video_decoder()
    except EnvironmentProblem:
        return frozenset()
    return frozenset(codec for codec in _SAMPLES if _decodes_on_cpu(codec))


def _decodes_on_cpu(codec: str) -> bool:
    fn, types, Pipeline = import_dali()
    video = np.frombuffer(write_matroska([(0, _SAMPLES[codec])], codec=codec, width=16, height=16), np.uint8)
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, **executor_options(Pipeline))
    with pipeline:
        encoded = fn.external_source(source=lambda: [video], dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(video_decoder()(encoded, frames=[0], device="cpu"))
    try:
        pipeline.build()
        (frames,) = pipeline.run()
        return bool(np.array(frames.at(0)).shape == (1, 16, 16, 3))
    except DALI_ERRORS:
        return False
