"""The DALI graph: samples in, model input out.

One clip on its way: the source gives uint8 [T, h, w, 3], the plan's crop box, cut where frames are copied anyway, or
encoded bytes -> DALI decodes those and cuts the box
-> antialiased bilinear resize, of which only the window of S x S px is computed -> mirror, scale, normalise, transpose
-> float32 [3, T, S, S] or [T, S, S, 3]. Where the decoder's scaler has brought the box to S x S px, there is no resize.
The augment step is the same for every source and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.compat import executor_options, import_dali, import_pipeline, video_decoder
from pipelines.source import ClipStream, Sample
from pipelines.specs import AugmentSpec

# What stands where a sample of the other kind has its data.
_NO_FRAMES = np.zeros((1, 1, 1, 3), np.uint8)
_NO_BYTES = np.zeros(1, np.uint8)


def augment(frames: Any, region: tuple[Any, Any] | None, mirror: Any, spec: AugmentSpec) -> Any:
    """Clips float32, laid out as `spec.layout`, of `frames` uint8 [T, h, w, 3] (layout FHWC).

    `region`: (y, x) in px of the frames where it begins and where it ends, float32 [2] each; it becomes S x S px. None:
    frames are S x S px as they come.
    """
    fn, types, _ = import_dali()
    clips = frames
    if region is not None:
        start, end = region
        clips = fn.resize(
            clips, size=[spec.size_px, spec.size_px], roi_start=start, roi_end=end,
            interp_type=types.INTERP_LINEAR, antialias=True,
        )  # fmt: skip
    to_pixels = 255.0 / spec.value_max  # DALI normalises pixels of 0..255
    return fn.crop_mirror_normalize(
        clips,
        mirror=mirror,
        mean=[value * to_pixels for value in spec.mean],
        std=[value * to_pixels for value in spec.std],
        dtype=types.FLOAT,
        output_layout="CFHW" if spec.layout == "NCTHW" else "FHWC",
    )


class ClipPipeline:
    """A DALI pipeline that turns a batch's samples into clips; one batch is at work at a time.

    `feed` starts and returns at once, `clips` waits for what was fed. The arrays that are fed are read in place: they
    must stay as they are until `clips` has returned.
    """

    def __init__(self, stream: ClipStream, *, threads: int) -> None:
        pipeline_def, Pipeline = import_pipeline()
        self._stream = stream
        self._mixed = stream.decoder == "dali"
        # Conditionals: each sample of a batch takes the branch that its flag says.
        define = pipeline_def(enable_conditionals=True)(_clips_of) if self._mixed else pipeline_def(_clips_of)
        self._pipeline = define(
            stream, batch_size=stream.batch_size, num_threads=threads, device_id=None, prefetch_queue_depth=1,
            **executor_options(Pipeline),
        )  # fmt: skip
        self._pipeline.build()

    def feed(self, data: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> None:
        """Start on a batch: `data` of each sample is its frames uint8 [T, h, w, 3], or its encoded bytes."""
        feed = self._pipeline.feed_input
        if self._mixed:
            encoded = [bool(sample.numbers) for sample in samples]
            feed("is_encoded", np.array(encoded))
            feed("frames", [_NO_FRAMES if flag else one for flag, one in zip(encoded, data, strict=True)])
            feed("encoded", [one if flag else _NO_BYTES for flag, one in zip(encoded, data, strict=True)])
            feed("numbers", [np.array(sample.numbers or (0,), np.int32) for sample in samples])
            feed("order", [np.array(sample.order or (0,), np.int32) for sample in samples])
            feed("box_start", np.array([sample.box[:2] for sample in samples], np.int32))
            feed("box_shape", np.array([sample.box[2:] for sample in samples], np.int32))
        else:
            feed("frames", list(data))
        feed("mirror", np.array([[sample.mirror] for sample in samples], np.int32))
        if not self._stream.scaled:
            start, end = _regions(samples, self._stream.augment.size_px)
            feed("region_start", start)
            feed("region_end", end)
        self._pipeline.schedule_run()

    def clips(self) -> Any:
        """The clips of the batch that was fed: a DLPack object, float32 [N, ...], that belongs to whoever holds it."""
        (clips,) = self._pipeline.outputs()
        return clips.as_tensor()


def _regions(samples: Sequence[Sample], size_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the window of each sample begins and ends in its frames before the resize, (y, x) in px, float32 [N, 2]."""
    frames = np.array([sample.box[2:] if sample.numbers else sample.shape[1:3] for sample in samples], np.float64)
    scale = frames / np.array([sample.resized for sample in samples])
    window = np.array([sample.window for sample in samples])
    return (window * scale).astype(np.float32), ((window + size_px) * scale).astype(np.float32)


def _clips_of(stream: ClipStream) -> Any:
    """The graph's output for the samples of `stream`."""
    fn, types, _ = import_dali()
    frames = fn.external_source(name="frames", layout="FHWC", dtype=types.UINT8, ndim=4, no_copy=True)
    if stream.decoder == "dali":
        is_encoded = fn.external_source(name="is_encoded", dtype=types.BOOL, ndim=0)
        if is_encoded:  # noqa: SIM108 - DALI takes such a statement apart, not an expression
            frames = _decode()
        else:
            frames = fn.copy(frames)
    region = None
    if not stream.scaled:
        region = _input("region_start", types.FLOAT), _input("region_end", types.FLOAT)
    return augment(frames, region, _input("mirror", types.INT32), stream.augment)


def _decode() -> Any:
    """Frames uint8 [T, h, w, 3] out of encoded clips: decoded, the box cut, shown in the clip's order."""
    fn, types, _ = import_dali()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    frames = video_decoder()(encoded, frames=_input("numbers", types.INT32), device="cpu")
    frames = fn.slice(frames, _input("box_start", types.INT32), _input("box_shape", types.INT32), axes=[1, 2])
    frames = fn.sequence_rearrange(frames, new_order=_input("order", types.INT32))
    return fn.reshape(frames, layout="FHWC")  # DALI 1.53 has lost it by then


def _input(name: str, dtype: Any) -> Any:
    fn, _, _ = import_dali()
    return fn.external_source(name=name, dtype=dtype, ndim=1)
