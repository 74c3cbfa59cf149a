"""The DALI graph: samples in, model input out.

One clip on its way from disk:
1. A worker reads the packets the clip needs (`source.py`) and puts into its slot either frames uint8 [T, h, w, 3] that
   PyAV decoded, cut to the plan's crop box or scaled to S x S px, or encoded bytes: a small video of those packets.
2. `_frames`: a batch mixes both; each sample takes its branch. Frames are copied to the device; bytes are decoded there
   (NVDEC on a GPU), the box cut, the frames put in the clip's order.
3. `augment`: antialiased bilinear resize, of which only the window of S x S px is computed -> colours -> mirror, scale,
   normalise, transpose -> float32 or float16 [3, T, S, S] or [T, S, S, 3]. No resize where every box is S x S px
   already, no change of colours unless training jitters them.
4. `ClipPipeline.clips` gives the batch as one DLPack object that lies on the device.
The graph is the same for every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.versions import executor_options, import_dali, import_pipeline, video_decoder
from pipelines.machine.device import device_number
from pipelines.sampler import Jitter
from pipelines.specs import AugmentSpec
from pipelines.stream import ClipStream, Sample

# What stands where a sample of the other kind has its data.
_NO_FRAMES = np.zeros((1, 1, 1, 3), np.uint8)
_NO_BYTES = np.zeros(1, np.uint8)


def augment(
    frames: Any, region: tuple[Any, Any] | None, mirror: Any, spec: AugmentSpec, dtype: str = "float32",
    jitter: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Clips of `dtype`, laid out as `spec.layout`, of `frames` uint8 [T, h, w, 3] (layout FHWC), where those are.

    `region`: (y, x) in px of the frames where it begins and where it ends, float32 [2] each; it becomes S x S px. None:
    frames are S x S px as they come.

    `jitter`: the fields of a Jitter by name, a number a clip each, hue in degrees. None: colours stay. A pixel p, R G B
    of 0..255, becomes b (c J p + (1 - c) 128), rounded to whole numbers of 0..255 once, at the end. J turns the plane
    of I and Q by the hue and scales it by the saturation, in YIQ of luma .299 .587 .114: what DALI's color_twist does
    (dali/operators/image/color/color_twist.h). Luma stays as it is, so this is near a turn of HSV's hue, not the same.
    """
    fn, types, _ = import_dali()
    clips = frames
    if region is not None:
        start, end = region
        clips = fn.resize(
            clips, size=[spec.size_px, spec.size_px], roi_start=start, roi_end=end,
            interp_type=types.INTERP_LINEAR, antialias=True,
        )  # fmt: skip
    if jitter is not None:
        clips = fn.color_twist(clips, **jitter)
    to_pixels = 255.0 / spec.value_max  # DALI normalises pixels of 0..255
    return fn.crop_mirror_normalize(
        clips,
        mirror=mirror,
        mean=[value * to_pixels for value in spec.mean],
        std=[value * to_pixels for value in spec.std],
        dtype=types.FLOAT if dtype == "float32" else types.FLOAT16,
        output_layout="CFHW" if spec.layout == "NCTHW" else "FHWC",
    )


class ClipPipeline:
    """A DALI pipeline that turns a batch's samples into clips; one batch is at work at a time.

    `feed` starts and returns at once, `clips` waits for what was fed. The arrays that are fed are read in place: they
    must stay as they are until `clips` has returned.
    """

    def __init__(self, stream: ClipStream, *, threads: int) -> None:
        """Build the graph. Raises one of DALI_ERRORS where DALI can't, as on a GPU that is out of memory."""
        self._stream = stream
        self._pipeline = define_pipeline(stream, threads=threads)
        self._pipeline.build()

    def feed(self, data: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> None:
        """Start on a batch: `data` of each sample is its frames uint8 [T, h, w, 3], or its encoded bytes."""
        feed = self._pipeline.feed_input
        if self._stream.limits is not None:
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
        if _resizes(self._stream):
            start, end = _regions(samples, self._stream.augment.size_px)
            feed("region_start", start)
            feed("region_end", end)
        if _jitters(self._stream):
            for name, values in _jitter_inputs(samples).items():
                feed(name, values)
        self._pipeline.schedule_run()

    def clips(self) -> Any:
        """The clips of the batch that was fed: a DLPack object [N, ...] on the device.

        It is complete when this returns, whatever stream reads it, and its memory is never written again while it, or
        what was made of it by DLPack, is held: the executor does not reuse what has left it.
        """
        (clips,) = self._pipeline.outputs()
        return clips.as_tensor()


def define_pipeline(stream: ClipStream, *, threads: int) -> Any:
    """The DALI pipeline for `stream`, not built yet: what can be known of its graph without a GPU."""
    pipeline_def, Pipeline = import_pipeline()
    # Conditionals: each sample of a batch takes the branch that its flag says.
    mixes = stream.limits is not None
    make = pipeline_def(enable_conditionals=True)(_clips_of) if mixes else pipeline_def(_clips_of)
    return make(
        stream, batch_size=stream.batch_size, num_threads=threads, device_id=device_number(stream.device),
        prefetch_queue_depth=1, **executor_options(Pipeline),
    )  # fmt: skip


def _resizes(stream: ClipStream) -> bool:
    """Whether a clip may come in another size than S x S px: encoded, or not scaled by PyAV."""
    return stream.limits is not None or not stream.scaled


def _jitters(stream: ClipStream) -> bool:
    """Whether the colours of clips change."""
    return stream.train and stream.augment.jitters


def _jitter_inputs(samples: Sequence[Sample]) -> dict[str, NDArray[np.float32]]:
    """The jitter of each sample as DALI takes it, by field, float32 [N, 1]; hue in degrees."""
    values = {name: [[getattr(sample.jitter, name)] for sample in samples] for name in Jitter._fields}
    inputs = {name: np.array(value, np.float32) for name, value in values.items()}
    return {**inputs, "hue": inputs["hue"] * np.float32(360.0)}


def _regions(samples: Sequence[Sample], size_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the window of each sample begins and ends in its frames before the resize, (y, x) in px, float32 [N, 2]."""
    frames = np.array([sample.box[2:] if sample.numbers else sample.shape[1:3] for sample in samples], np.float64)
    scale = frames / np.array([sample.resized for sample in samples])
    window = np.array([sample.window for sample in samples])
    return (window * scale).astype(np.float32), ((window + size_px) * scale).astype(np.float32)


def _clips_of(stream: ClipStream) -> Any:
    """The graph's output for the samples of `stream`."""
    _, types, _ = import_dali()
    region = None
    if _resizes(stream):
        region = _input("region_start", types.FLOAT), _input("region_end", types.FLOAT)
    jitter = None
    if _jitters(stream):
        jitter = {name: _input(name, types.FLOAT) for name in Jitter._fields}
    return augment(_frames(stream), region, _input("mirror", types.INT32), stream.augment, stream.dtype, jitter)


def _frames(stream: ClipStream) -> Any:
    """Frames uint8 [T, h, w, 3] of each sample on the stream's device, decoded here or by PyAV."""
    fn, types, _ = import_dali()
    on_gpu = device_number(stream.device) is not None
    frames = fn.external_source(name="frames", layout="FHWC", dtype=types.UINT8, ndim=4, no_copy=True)
    if stream.limits is None:
        return frames.gpu() if on_gpu else frames
    is_encoded = fn.external_source(name="is_encoded", dtype=types.BOOL, ndim=0)
    if is_encoded:  # noqa: SIM108 - DALI takes such a statement apart, not an expression
        chosen = _decode("mixed" if on_gpu else "cpu")
    else:
        chosen = frames.gpu() if on_gpu else fn.copy(frames)
    return chosen


def _decode(device: str) -> Any:
    """Frames uint8 [T, h, w, 3] out of encoded clips: decoded, the box cut, shown in the clip's order."""
    fn, types, _ = import_dali()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    frames = video_decoder()(encoded, frames=_input("numbers", types.INT32), device=device)
    frames = fn.slice(frames, _input("box_start", types.INT32), _input("box_shape", types.INT32), axes=[1, 2])
    frames = fn.sequence_rearrange(frames, new_order=_input("order", types.INT32))
    return fn.reshape(frames, layout="FHWC")  # DALI 1.53 has lost it by then


def _input(name: str, dtype: Any) -> Any:
    fn, _, _ = import_dali()
    return fn.external_source(name=name, dtype=dtype, ndim=1)
