"""How clips are made out of a video, in sentences, formulas and worked examples: for programs without r3d-fast.

The sentences say what `pipelines.sampler` computes; the examples are computed by it.
"""

from __future__ import annotations

import numpy as np

from pipelines.sampler import ClipSampler, VideoColumns, eval_geometry
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec, Spec

_SIZES = ((240, 320), (360, 640), (640, 360))  # height, width in px of the worked examples
_SHORT = {"repeat": "int(i * F / T)", "loop": "(i * stride) mod F", "edge": "min(i * stride, F - 1)"}


class FramesExample(Spec):
    """A video of `video_frames` frames: the numbers of the frames of each of its clips."""

    video_frames: int
    clips: tuple[tuple[int, ...], ...]


class PixelsExample(Spec):
    """A frame of `height` x `width` px: its [height, width] after resizing, and the corner [y, x] of each window."""

    height: int
    width: int
    resized: tuple[int, int]
    windows: tuple[tuple[int, int], ...]


class ClipRecipe(Spec):
    """What a program does to get the model's input out of a video, and probabilities out of its logits."""

    frames: str
    frames_examples: tuple[FramesExample, ...]
    pixels: str
    pixels_examples: tuple[PixelsExample, ...]
    values: str
    probabilities: str


def clip_recipe(clip: ClipSpec, augment: AugmentSpec) -> ClipRecipe:
    """The recipe for the clips that evaluation takes with `clip` and `augment`."""
    span = clip.span if clip.sampling == "consecutive" else clip.num_frames
    step = clip.num_frames * clip.stride
    lengths = sorted({max(1, span // 2), span, 3 * step + 1, 187})  # 187: the average of UCF-101
    return ClipRecipe(
        frames=_frames(clip),
        frames_examples=tuple(FramesExample(video_frames=n, clips=_clips(n, clip)) for n in lengths),
        pixels=_pixels(augment),
        pixels_examples=tuple(_pixels_example(height, width, augment) for height, width in _SIZES),
        values=(
            f"value = (pixel * {augment.value_max} / 255 - mean) / std for the channels R, G, B with mean "
            f"{list(augment.mean)} and std {list(augment.std)}; float32, axes clip, channel, frame, height, width"
        ),
        probabilities=(
            "the softmax of the logits of each clip, averaged over the clips of a video; the order is that of classes"
        ),
    )


def _frames(clip: ClipSpec) -> str:
    """Which frames the clips of a video have."""
    count = clip.num_frames
    begin = f"F is the number of frames of the video, numbered from 0; i = 0..{count - 1}; T = {count}"
    short = _SHORT[clip.short]
    if clip.sampling == "segments":
        views = clip.views
        where = "F/T * 1/2" if views == 1 else f"F/T * (v + 1)/({views} + 1)"
        many = "one clip" if views == 1 else f"{views} clips, v = 0..{int(views) - 1}"
        short = short.replace(" * stride", "")
        return f"{begin}. A video has {many}: frame int({where} + F/T * i). If F < T: frame {short}"
    begin += f"; stride = {clip.stride}; span = {clip.span} frames, from the first to the last of a clip"
    if isinstance(clip.views, str):
        step = count * clip.stride
        ends = "as long as b < F" if clip.views == "all" else "as long as b < F - 1, or b = 0 and F = 1"
        return (
            f"{begin}. A video has a clip for each window of {step} frames (T * stride); window v begins at "
            f"b = v * {step}, {ends}: frame b + i * stride, and where fewer than span frames are left, frame "
            "b + (i * stride) mod (F - b)"
        )
    many, start = "one clip", "int((F - span) / 2)"
    if clip.views > 1:
        many = f"{clip.views} clips, v = 0..{clip.views - 1}"
        start = f"int((F - span) * v / {clip.views - 1} + 0.5)"
    return f"{begin}. A video has {many}: frame {start} + i * stride. If F < span: frame {short}"


def _clips(num_frames: int, clip: ClipSpec) -> tuple[tuple[int, ...], ...]:
    one = np.ones(1, np.int64)
    video = VideoColumns(one * 0, one * 0, one * num_frames, one * 240, one * 320)
    sampler = ClipSampler(video, clip, AugmentSpec(), seed=0, train=False, shard=ShardSpec())
    return tuple(tuple(sampler.plan(0, position).frames.tolist()) for position in range(sampler.num_clips))


def _pixels(augment: AugmentSpec) -> str:
    """How a frame becomes the pixels that the model sees."""
    size, crops = augment.size_px, augment.eval_crops
    side = eval_geometry(size, size, augment)[0][0]
    windows = {
        1: f"the centre: corner (y, x) = (round((height - {size}) / 2), round((width - {size}) / 2)), halves to even",
        3: "three: the beginning, the centre and the end of the long side, each a clip of its own",
        10: "ten: the four corners, the centre, and the same mirrored left to right, each a clip of its own",
    }[crops]
    return (
        f"an RGB frame, upright. Its short side becomes {side} px and its long side int(long * {side} / short) px, "
        "bilinear with antialiasing, as in Pillow's resize. Of that the model sees a window of "
        f"{size} x {size} px: {windows}"
    )


def _pixels_example(height: int, width: int, augment: AugmentSpec) -> PixelsExample:
    places = [eval_geometry(height, width, augment, crop) for crop in range(augment.eval_crops)]
    return PixelsExample(height=height, width=width, resized=places[0][0], windows=tuple(place[1] for place in places))
