"""The DALI graph, which turns the samples that the workers made into the input of the model.

The way of one clip:
1. A worker reads the packets that the clip needs (`workers/clip_source.py`). It writes to the slot of the clip either
   the frames that PyAV decoded, uint8 [T, h, w, 3], cut to the crop box or scaled to S x S px; or encoded bytes, which
   are a small video of these packets.
2. `_frames`: a batch may hold both. Frames are copied to the device. Bytes are decoded there (on a GPU by NVDEC, which
   decodes and converts each picture of the small video, not only those that the clip shows), the box is cut out, the
   frames are put into the order of the clip, and those that are stored turned or mirrored are turned upright.
3. `augment`: antialiased bilinear resize of the window that becomes S x S px, then change of colours, then mirror,
   scale, normalise and transpose, to float32 or float16 [3, T, S, S] or [T, S, S, 3]. The resize is left out if every
   box is S x S px already, the change of colours unless training changes them.
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
from pipelines.video.orientation import UPRIGHT

# DALI wants frames and bytes of every sample: these stand in for the one that a sample does not have.
_NO_FRAMES = np.zeros((1, 1, 1, 3), np.uint8)
_NO_BYTES = np.zeros(1, np.uint8)


def augment(
    frames: Any, region: tuple[Any, Any] | None, mirror: Any, spec: AugmentSpec, dtype: str = "float32",
    jitter: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """The part of the graph that makes clips of `dtype` in `spec.layout` out of frames uint8 [T, h, w, 3] (FHWC).

    The clips are on the device where the frames are. `region` is (start, end), each (y, x) in px of the frames, float32
    [2]: this region is resized to S x S px. It is None if the frames are S x S px already.

    `jitter` has the fields of a Jitter by name, one number for each clip, hue in degrees; None leaves the colours as
    they are. A pixel p, R G B of 0..255, becomes b (c J p + (1 - c) 128) with brightness b and contrast c, rounded to a
    whole number of 0..255 once, at the end. J works in YIQ (luma .299 .587 .114): it turns the plane of I and Q by the
    hue and scales it by the saturation, as DALI's color_twist does (dali/operators/image/color/color_twist.h). Luma
    does not change, so the result is close to a turn of the hue in HSV, but not the same.
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
    to_pixels = 255.0 / spec.value_max  # DALI wants mean and std for pixels of 0..255
    return fn.crop_mirror_normalize(
        clips,
        mirror=mirror,
        mean=[value * to_pixels for value in spec.mean],
        std=[value * to_pixels for value in spec.std],
        dtype=types.FLOAT if dtype == "float32" else types.FLOAT16,
        output_layout="CFHW" if spec.layout == "NCTHW" else "FHWC",
    )


class ClipPipeline:
    """A DALI pipeline that turns the samples of a batch into clips, one batch at a time.

    `feed` starts the work and returns at once; `clips` waits for the result. DALI reads the arrays in place, so they
    must not be changed until `clips` has returned.
    """

    def __init__(self, stream: ClipStream, *, threads: int) -> None:
        """Build the graph. Raises one of DALI_ERRORS if DALI can't, for instance on a GPU without free memory."""
        self._stream = stream
        self._pipeline = define_pipeline(stream, threads=threads)
        self._pipeline.build()

    def feed(self, data: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> None:
        """Start on a batch; `data` has the frames, uint8 [T, h, w, 3], or the encoded bytes of each sample."""
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
            turns = [sample.orientation for sample in samples]
            feed("is_turned", np.array([turn != UPRIGHT for turn in turns]))
            feed("transposes", np.array([turn.transposes for turn in turns]))
            feed("flips", np.array([(turn.flips_x, turn.flips_y) for turn in turns], np.int32))
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
        """The clips of the batch that was fed, a DLPack object [N, ...] on the device.

        It is complete when this returns, whatever CUDA stream reads it. Its memory is not written again while it, or an
        array made from it by DLPack, is held, since DALI's executor does not reuse outputs that are in use.
        """
        (clips,) = self._pipeline.outputs()
        return clips.as_tensor()


def define_pipeline(stream: ClipStream, *, threads: int) -> Any:
    """The DALI pipeline for `stream`, not built yet. Up to here no GPU is needed, so tests can look at the graph."""
    pipeline_def, Pipeline = import_pipeline()
    # With conditionals, each sample of a batch is decoded or copied, as its flag says.
    mixes = stream.limits is not None
    make = pipeline_def(enable_conditionals=True)(_clips_of) if mixes else pipeline_def(_clips_of)
    return make(
        stream, batch_size=stream.batch_size, num_threads=threads, device_id=device_number(stream.device),
        prefetch_queue_depth=1, **executor_options(Pipeline),
    )  # fmt: skip


def _resizes(stream: ClipStream) -> bool:
    """Whether clips may come in another size than S x S px: if they are encoded, or not scaled by FFmpeg's scaler."""
    return stream.limits is not None or not stream.scaled


def _jitters(stream: ClipStream) -> bool:
    """Whether the colours of the clips are changed."""
    return stream.train and stream.augment.jitters


def _jitter_inputs(samples: Sequence[Sample]) -> dict[str, NDArray[np.float32]]:
    """The jitter of the samples as DALI takes it: for each field float32 [N, 1], hue in degrees."""
    values = {name: [[getattr(sample.jitter, name)] for sample in samples] for name in Jitter._fields}
    inputs = {name: np.array(value, np.float32) for name, value in values.items()}
    return {**inputs, "hue": inputs["hue"] * np.float32(360.0)}


def _regions(samples: Sequence[Sample], size_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(starts, ends) of the windows in the upright frames before the resize: (y, x) in px, each float32 [N, 2]."""
    sizes = [sample.orientation.size(*sample.box[2:]) if sample.numbers else sample.shape[1:3] for sample in samples]
    frames = np.array(sizes, np.float64)
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
    """The frames of each sample, uint8 [T, h, w, 3], on the device of the stream, decoded here or by PyAV."""
    fn, types, _ = import_dali()
    on_gpu = device_number(stream.device) is not None
    frames = fn.external_source(name="frames", layout="FHWC", dtype=types.UINT8, ndim=4, no_copy=True)
    if stream.limits is None:
        return frames.gpu() if on_gpu else frames
    is_encoded = _flag("is_encoded")
    if is_encoded:  # noqa: SIM108 - DALI turns an `if` statement into branches, but no conditional expression
        chosen = _decode("mixed" if on_gpu else "cpu")
    else:
        chosen = frames.gpu() if on_gpu else fn.copy(frames)
    return chosen


def _decode(device: str) -> Any:
    """The frames of encoded clips, uint8 [T, h, w, 3]: decoded, cut to the box, in the order of the clip, upright."""
    fn, types, _ = import_dali()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    frames = video_decoder()(encoded, frames=_input("numbers", types.INT32), device=device)
    frames = fn.slice(frames, _input("box_start", types.INT32), _input("box_shape", types.INT32), axes=[1, 2])
    frames = fn.sequence_rearrange(frames, new_order=_input("order", types.INT32))
    return _upright(fn.reshape(frames, layout="FHWC"))  # DALI 1.53 loses the layout on the way


def _upright(frames: Any) -> Any:
    """The frames, uint8 [T, h, w, 3], turned as the sample's Orientation says. Those of other clips are not copied."""
    if _flag("is_turned"):  # noqa: SIM108 - as above
        upright = _turned(frames)
    else:
        upright = frames
    return upright


def _turned(frames: Any) -> Any:
    fn, types, _ = import_dali()
    flips = _input("flips", types.INT32)
    if _flag("transposes"):
        turned = fn.transpose(frames, perm=[0, 2, 1, 3], transpose_layout=False, output_layout="FHWC")
    else:
        turned = frames
    return fn.flip(turned, horizontal=flips[0], vertical=flips[1])


def _flag(name: str) -> Any:
    fn, types, _ = import_dali()
    return fn.external_source(name=name, dtype=types.BOOL, ndim=0)


def _input(name: str, dtype: Any) -> Any:
    fn, _, _ = import_dali()
    return fn.external_source(name=name, dtype=dtype, ndim=1)
