"""What a clip is, how it is augmented and how it is loaded: frozen specs that check themselves on construction."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Triple = tuple[float, float, float]
Pair = tuple[float, float]
JitterShare = Annotated[float, Field(ge=0.0, le=10.0)]


class Spec(BaseModel):
    """A frozen pydantic model: unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClipSpec(Spec):
    """Which frames of a video make a clip.

    `segments`: one frame out of each of `num_frames` equal parts of the video, a random one in training, the middle one
    in evaluation (the reference recipe). `consecutive`: `num_frames` frames, `stride` apart, from a random start in
    training, evenly spread windows in evaluation (Hara et al. 2018, arXiv:1711.09577, section 3.2).
    """

    num_frames: Positive = Field(16, description="frames a clip (T)")
    sampling: Literal["segments", "consecutive"] = Field(
        "segments", description="one frame out of each of T equal parts, or T frames `stride` apart"
    )
    stride: Positive = Field(1, description="distance between frames of a consecutive clip, in frames")
    short: Literal["repeat", "loop", "edge"] = Field(
        "repeat",
        description="what a video shorter than the clip gives: each frame repeated evenly (0 0 1 1 ..), the video "
        "played again (0 1 0 1 ..), or its last frame held (0 1 1 1 ..)",
    )
    views: Positive | Literal["all"] = Field(
        1, description="clips a video in evaluation; 'all': every non-overlapping consecutive window"
    )

    @model_validator(mode="after")
    def _check(self) -> ClipSpec:
        if self.sampling == "segments" and self.stride != 1:
            raise ValueError(f"stride {self.stride} has no meaning for segments sampling; expected 1")
        if self.sampling == "segments" and self.views == "all":
            raise ValueError("views 'all' needs sampling 'consecutive': segments clips span the whole video")
        return self

    @property
    def span(self) -> int:
        """Frames from the first to the last frame of a consecutive clip, both included."""
        return (self.num_frames - 1) * self.stride + 1


class AugmentSpec(Spec):
    """How frames become the model's input.

    Training draws a crop by the rule of `crop`, resizes it to `size_px` and mirrors it. `scales`, the reference recipe:
    its height and width are `scales` of the short side (their indices in `scales` differ by at most `max_scale_step`),
    at one of `positions`. `resized`: torchvision's RandomResizedCrop, as PySlowFast and MMAction train on video; its
    area and aspect lie within `area` and `aspect`, its place is anywhere.

    `brightness`, `contrast`, `saturation` and `hue` jitter the colours of a training clip, all frames alike, with the
    ranges of torchvision's ColorJitter. That one applies the four in a random order; here it is always saturation, hue,
    contrast, brightness, cut to 0..255 at the end, and contrast is about the grey of 128, not the picture's mean.

    Evaluation resizes the short side to `size_px` and takes the centre, or as many crops as `eval_crops` says; it
    ignores crop and colours. Pixels are then
    scaled from 0..255 to 0..`value_max`, `mean` is subtracted and the result divided by `std`.
    """

    size_px: Annotated[int, Field(ge=8, le=1024)] = Field(112, description="side of the square clip (S)")
    crop: Literal["scales", "resized"] = Field(
        "scales",
        description="how a training crop is drawn. scales: by scales, max_scale_step, positions and snap_px; resized: "
        "by area and aspect, anywhere in the frame",
    )
    area: Pair = Field(
        (0.08, 1.0), description="of crop resized: least and largest share of the frame's area; drawn uniformly"
    )
    aspect: Pair = Field(
        (3 / 4, 4 / 3), description="of crop resized: least and largest width / height; drawn log-uniformly"
    )
    scales: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1.0, 0.875, 0.75, 0.66), description="sides of a training crop, as shares of the short side"
    )
    max_scale_step: Annotated[int, Field(ge=0)] = Field(1, description="0: square crops only")
    positions: Literal["grid13", "corners5"] = Field(
        "grid13",
        description="corners5: 4 corners and centre; grid13: these, 4 edge middles and 4 quarter points",
    )
    snap_px: Annotated[int, Field(ge=0)] = Field(
        3, description="a crop side nearer than this to size_px becomes size_px"
    )
    mirror: Fraction = Field(0.5, description="probability of a left-right flip, once a clip")
    brightness: JitterShare = Field(
        0.0,
        description="training clips are made brighter or darker by a factor from max(0, 1 - v) to 1 + v, drawn once a "
        "clip; 0: off",
    )
    contrast: JitterShare = Field(0.0, description="likewise: pixels' distance from the grey of 128; 0: off")
    saturation: JitterShare = Field(0.0, description="likewise: pixels' distance from their own grey; 0: off")
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0,
        description="training clips' hue is turned by -v to v, drawn once a clip, in turns (0.5: half around); 0: off",
    )
    value_max: Literal[1, 255] = Field(1, description="pixels are scaled from 0..255 to 0..value_max")
    mean: Triple = Field((0.485, 0.456, 0.406), description="subtracted from each channel, R G B")
    std: Triple = Field((0.229, 0.224, 0.225), description="each channel is divided by it, R G B")
    eval_crops: Literal[1, 3, 10] = Field(
        1,
        description="crops of each evaluated clip. 1: the centre; 3: beginning, centre and end of the long side; 10: "
        "corners and centre of the clip at 8/7 of the size, and their mirror images",
    )
    resize: Literal["decoder", "graph"] = Field(
        "decoder",
        description="who resizes a training crop. decoder: FFmpeg's scaler, in the pass that converts colours, several "
        "times cheaper, colour at half resolution; graph: DALI, as evaluation always does",
    )
    layout: Literal["NCTHW", "NTHWC"] = Field("NCTHW", description="axes of a batch; goes with model.data_format")

    @model_validator(mode="after")
    def _check(self) -> AugmentSpec:
        if any(not 0.0 < s <= 1.0 for s in self.scales):
            raise ValueError(f"scales {self.scales}: each is a share of the short side, expected 0 < scale <= 1")
        if any(s <= 0.0 for s in self.std):
            raise ValueError(f"std {self.std}: expected three numbers > 0")
        if not 0.0 < self.area[0] <= self.area[1] <= 1.0:
            raise ValueError(f"area {self.area}: shares of the frame's area, expected 0 < least <= largest <= 1")
        if not 0.01 <= self.aspect[0] <= self.aspect[1] <= 100.0:
            raise ValueError(f"aspect {self.aspect}: width / height, expected 0.01 <= least <= largest <= 100")
        for name in ("area", "aspect"):
            value = getattr(self, name)
            if self.crop != "resized" and value != type(self).model_fields[name].default:
                raise ValueError(f"{name} {value} has a meaning for crop resized only, got {self.crop}")
        return self

    @property
    def jitters(self) -> bool:
        """Whether the colours of training clips change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class ShardSpec(Spec):
    """Shard `index` of `count`: it takes clips index, index + count, ... of the epoch's order."""

    index: Annotated[int, Field(ge=0)] = 0
    count: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> ShardSpec:
        if self.index >= self.count:
            raise ValueError(f"shard index {self.index} of {self.count}: expected 0..{self.count - 1}")
        return self


class LoaderSpec(Spec):
    """How clips are loaded: who works, how far ahead, in which order.

    Up to (prefetch + repeats) x batch_size clips lie in memory: uint8 T x S x S x 3 bytes each in training, 0.6 MB by
    default; T x crop x 3 where the graph resizes.
    """

    batch_size: Positive = Field(
        64, description="clips a batch (N): of one shard for ClipLoader; for train and eval of all processes together"
    )
    decoder: Literal["auto", "pyav", "dali", "hybrid"] = Field(
        "auto",
        description="pyav: PyAV decodes, on the CPU; dali: DALI what it can (on a GPU by NVDEC, else MJPEG, VP8 and "
        "VP9) and PyAV the rest; hybrid: both share each batch; auto: on a GPU the fastest of the three, measured in "
        "the first batches, else pyav",
    )
    dali_share: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["auto"] = Field(
        "auto",
        description="share of a hybrid batch that DALI decodes; auto: measured in the first batches and logged, and "
        "evaluation is left to PyAV, so that no metric depends on a measurement",
    )
    workers: Annotated[int, Field(ge=0, le=512)] | Literal["auto"] = Field(
        "auto", description="decoding processes; 0: decode in the calling process; auto: one a usable CPU"
    )
    threads: Annotated[int, Field(ge=1, le=512)] | Literal["auto"] = Field(
        "auto", description="DALI's threads; auto: one a usable CPU, and at least two for each engine of NVDEC"
    )
    prefetch: Annotated[int, Field(ge=1, le=64)] = Field(2, description="batches made ahead")
    repeats: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="clips of a video in an epoch, all out of one decode pass but with frames and crops of their own, "
        "one in each of as many successive batches; an epoch is as many times longer. Cheaper a clip; successive "
        "batches show the same videos. Evaluation ignores it",
    )
    timeout_seconds: Annotated[float, Field(gt=0.0)] = Field(
        30.0, description="a worker that gives no clip for so long is replaced; three times on one video: a bad video"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of order, frames, crops, mirrors and colours")

    @model_validator(mode="after")
    def _check(self) -> LoaderSpec:
        if self.dali_share != "auto" and self.decoder != "hybrid":
            raise ValueError(f"dali_share {self.dali_share} has a meaning for decoder hybrid only, got {self.decoder}")
        return self
