"""The settings of a clip, of its augmentation and of the loader, as frozen models that check their values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Triple = tuple[float, float, float]
Pair = tuple[float, float]
# The limits of these three are far above what is of use: a damaged or hostile file must not ask for all the memory.
Frames = Annotated[int, Field(ge=1, le=4096)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
Views = Annotated[int, Field(ge=1, le=10_000)] | Literal["all", "paper"]
LONGEST_WAIT = 1e6  # seconds; what waits can't be told to wait for centuries
DEFAULT_BATCH = 64  # clips, as in the reference recipe
JitterShare = Annotated[float, Field(ge=0.0, le=10.0)]


class Spec(BaseModel):
    """A frozen pydantic model: unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClipSpec(Spec):
    """Which frames of a video make a clip.

    With sampling `segments` the video is divided into `num_frames` equal parts, and the clip has one frame of each: a
    random one in training, the middle one in evaluation. This is the reference recipe. With `consecutive` the clip is
    `num_frames` frames that are `stride` apart. Training starts it at a random frame; evaluation spreads the clips of
    a video evenly over it (Hara et al. 2018, arXiv:1711.09577, section 3.2).
    """

    num_frames: Frames = Field(16, description="frames in a clip (T)")
    sampling: Literal["segments", "consecutive"] = Field(
        "segments",
        description="segments: one frame out of each of T equal parts of the video; consecutive: T frames, `stride` "
        "apart",
    )
    stride: Annotated[int, Field(ge=1, le=65536)] = Field(
        1, description="distance between the frames of a consecutive clip, in frames"
    )
    short: Literal["repeat", "loop", "edge"] = Field(
        "repeat",
        description="how a video that is shorter than the clip fills it. repeat: each frame several times (0 0 1 1 "
        "..); loop: the video again from its start (0 1 0 1 ..); edge: the last frame until the end (0 1 1 1 ..)",
    )
    reach_end: bool = Field(
        True,
        description="whether a training clip of consecutive frames may reach the last frame of its video. false: the "
        "last frame that it reaches is the one before, as in the code of Hara et al. 2018 (branch CVPR2018)",
    )
    views: Views = Field(
        1,
        description="clips of each video in evaluation; all: as many consecutive clips as cover the video without "
        "overlap; paper: the same without a last clip that begins at the last frame, as in the code of Hara et al. "
        "2018 (branch CVPR2018)",
    )

    @model_validator(mode="after")
    def _check(self) -> ClipSpec:
        if self.sampling == "segments" and self.stride != 1:
            raise ValueError(f"stride {self.stride} has no meaning for segments sampling; expected 1")
        if self.sampling == "segments" and not self.reach_end:
            raise ValueError("reach_end false has no meaning for segments sampling; expected true")
        if self.sampling == "segments" and self.takes_windows:
            raise ValueError(
                f"views {self.views!r} needs sampling 'consecutive': a clip of segments spans the whole video"
            )
        return self

    @property
    def takes_windows(self) -> bool:
        """Whether the views of a video are windows that follow one another, as many as its length gives."""
        return isinstance(self.views, str)

    @property
    def span(self) -> int:
        """The number of frames from the first to the last one of a consecutive clip, both included."""
        return (self.num_frames - 1) * self.stride + 1


class AugmentSpec(Spec):
    """How the frames of a clip become the input of the model.

    Training draws a random crop, resizes it to `size_px` and mirrors it with probability `mirror`. With crop `scales`,
    the reference recipe, the height and the width of the crop are two of the `scales` of the short side, whose indices
    differ by at most `max_scale_step`, and the crop lies at one of the `positions`. Crop `resized` is torchvision's
    RandomResizedCrop, with which PySlowFast and MMAction train on video: area and aspect are drawn from `area` and
    `aspect`, and the crop lies anywhere in the frame.

    `brightness`, `contrast`, `saturation` and `hue` change the colours of a training clip, all its frames alike, within
    the ranges of torchvision's ColorJitter. There are two differences: torchvision applies the four in a random order,
    here it is always saturation, hue, contrast, brightness, cut to 0..255 at the end; and contrast is measured from
    the grey of 128 instead of the mean of the picture.

    Evaluation resizes the short side to `size_px` and takes the centre, or as many crops as `eval_crops` says. It does
    not use the settings of training crops and colours.

    Last, in training and evaluation, pixels are scaled from 0..255 to 0..`value_max`, `mean` is subtracted and the
    result is divided by `std`.
    """

    size_px: Annotated[int, Field(ge=8, le=1024)] = Field(112, description="side of the square clip (S)")
    crop: Literal["scales", "resized"] = Field(
        "scales",
        description="how a training crop is drawn. scales: from scales, max_scale_step, positions and snap_px; "
        "resized: from area and aspect, anywhere in the frame",
    )
    area: Pair = Field(
        (0.08, 1.0),
        description="with crop resized: smallest and largest area of a crop, as shares of the frame's area; drawn "
        "uniformly",
    )
    aspect: Pair = Field(
        (3 / 4, 4 / 3),
        description="with crop resized: smallest and largest width / height of a crop; drawn log-uniformly",
    )
    scales: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        (1.0, 0.875, 0.75, 0.66),
        description="with crop scales: the possible sides of a crop, as shares of the short side of the frame",
    )
    max_scale_step: Annotated[int, Field(ge=0)] = Field(
        1,
        description="with crop scales: how many places apart in scales height and width may be; 0: square crops only",
    )
    positions: Literal["grid13", "corners5"] = Field(
        "grid13",
        description="with crop scales: where a crop may lie. corners5: 4 corners and the centre; grid13: these, the 4 "
        "middles of the edges and 4 points between centre and corners",
    )
    snap_px: Annotated[int, Field(ge=0)] = Field(
        3, description="with crop scales: a side that is less than this many px from size_px becomes size_px"
    )
    mirror: Fraction = Field(0.5, description="probability that a training clip is flipped left to right")
    brightness: JitterShare = Field(
        0.0,
        description="v > 0: the pixels of a training clip are multiplied by a factor drawn from max(0, 1 - v) to "
        "1 + v, one for each clip; 0: off",
    )
    contrast: JitterShare = Field(
        0.0, description="as brightness, for the distance of the pixels from the grey of 128; 0: off"
    )
    saturation: JitterShare = Field(
        0.0, description="as brightness, for the distance of each pixel from its own grey; 0: off"
    )
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0,
        description="v > 0: the hue of a training clip is turned by an angle drawn from -v to v, one for each clip; "
        "0.5 is half a turn; 0: off",
    )
    value_max: Literal[1, 255] = Field(1, description="pixels are scaled from 0..255 to 0..value_max")
    mean: Triple = Field((0.485, 0.456, 0.406), description="subtracted from each channel, R G B")
    std: Triple = Field((0.229, 0.224, 0.225), description="each channel is divided by it, R G B")
    eval_crops: Literal[1, 3, 10] = Field(
        1,
        description="crops of each clip in evaluation. 1: the centre; 3: beginning, centre and end of the long side; "
        "10: corners and centre of the clip resized to 8/7 of size_px, and their mirror images",
    )
    resize: Literal["decoder", "graph"] = Field(
        "decoder",
        description="what resizes a training crop. decoder: FFmpeg's scaler while it converts colours, several times "
        "cheaper, but colour keeps only half the resolution; graph: DALI, as always in evaluation",
    )
    layout: Literal["NCTHW", "NTHWC"] = Field(
        "NCTHW", description="order of the axes of a batch; must fit model.data_format"
    )

    @model_validator(mode="after")
    def _check(self) -> AugmentSpec:
        if any(not 0.0 < s <= 1.0 for s in self.scales):
            raise ValueError(f"scales {self.scales}: expected shares of the short side, 0 < scale <= 1")
        if any(s <= 0.0 for s in self.std):
            raise ValueError(f"std {self.std}: expected three numbers > 0")
        if not 0.0 < self.area[0] <= self.area[1] <= 1.0:
            raise ValueError(f"area {self.area}: expected shares of the frame's area, 0 < smallest <= largest <= 1")
        if not 0.01 <= self.aspect[0] <= self.aspect[1] <= 100.0:
            raise ValueError(f"aspect {self.aspect}: expected width / height, 0.01 <= smallest <= largest <= 100")
        for name in ("area", "aspect"):
            value = getattr(self, name)
            if self.crop != "resized" and value != type(self).model_fields[name].default:
                raise ValueError(f"{name} {value} has no meaning for crop {self.crop!r}; leave it out")
        return self

    @property
    def jitters(self) -> bool:
        """Whether the colours of training clips are changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class ShardSpec(Spec):
    """Which part of an epoch one process takes: the clips at positions index, index + count, index + 2 count, ..."""

    index: Annotated[int, Field(ge=0)] = 0
    count: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> ShardSpec:
        if self.index >= self.count:
            raise ValueError(f"shard index {self.index} of {self.count}: expected 0..{self.count - 1}")
        return self


class LoaderSpec(Spec):
    """How clips are loaded: by which decoder, by how many processes, how far ahead and in which order.

    Up to (prefetch + repeats) x batch_size clips lie in memory. In training a clip takes T x S x S x 3 bytes, 0.6 MB by
    default; where the graph resizes, it takes T x height x width of the crop x 3 bytes.
    """

    batch_size: BatchSize | Literal["auto"] = Field(
        DEFAULT_BATCH,
        description="clips in a batch (N). For train and eval: of all processes together; for ClipLoader: of its "
        "shard. auto: for training as many as fit into the free memory, measured before the run begins, and no more "
        "than optimizer.lr_for_batch",
    )
    last_batch: Literal["drop", "spread"] = Field(
        "drop",
        description="training clips that do not fill a batch. drop: they are left out, others in each epoch, as in the "
        "reference recipe; spread: there is one batch more, and all batches become equally large, give or take one "
        "clip, so that every video is used in every epoch",
    )
    decoder: Literal["auto", "pyav", "dali", "hybrid"] = Field(
        "auto",
        description="what decodes the videos. pyav: PyAV, on the CPU; dali: DALI where it can (on a GPU by NVDEC, on "
        "the CPU MJPEG, VP8 and VP9), PyAV the rest; hybrid: each batch is shared between the two; auto: on a GPU the "
        "fastest of these three, measured in the first batches, on the CPU pyav",
    )
    dali_share: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["auto"] = Field(
        "auto",
        description="with decoder hybrid: the share of each batch that DALI decodes. auto: measured in the first "
        "batches of training and logged; evaluation then uses PyAV alone, so that no metric depends on a measurement",
    )
    workers: Annotated[int, Field(ge=0, le=512)] | Literal["auto"] = Field(
        "auto", description="decoding processes. 0: decode in the calling process; auto: one for each usable CPU"
    )
    threads: Annotated[int, Field(ge=1, le=512)] | Literal["auto"] = Field(
        "auto",
        description="threads of DALI. auto: one for each usable CPU, on a GPU one for each decoding process; where "
        "NVDEC decodes, two or one for each of its engines, whichever is faster in the first batches",
    )
    prefetch: Annotated[int, Field(ge=1, le=64)] = Field(2, description="batches made ahead of the one in use")
    repeats: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="training clips of each video in an epoch. A video is decoded once for all of them; each has its "
        "own frames and crop and goes into another of the next batches. An epoch becomes this many times longer. "
        "Clips become cheaper, but successive batches show the same videos",
    )
    timeout_seconds: Annotated[float, Field(gt=0.0, le=LONGEST_WAIT)] = Field(
        30.0,
        description="a worker that gives no clip for this long is replaced; a video that does this three times counts "
        "as a bad one",
    )
    io_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        3,
        description="how often a video is read again after a passing error of the system, such as EIO or ESTALE, after "
        "0.1, 0.4, 1.6, ... seconds, but for no longer than half of timeout_seconds; then it counts as a bad clip this "
        "time",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of all random choices: order, frames, crops, mirrors and colours"
    )

    def batch_size_or(self, default: int) -> int:
        """`batch_size`, or `default` where it is "auto"."""
        return default if self.batch_size == "auto" else self.batch_size

    @model_validator(mode="after")
    def _check(self) -> LoaderSpec:
        if self.dali_share != "auto" and self.decoder != "hybrid":
            raise ValueError(
                f"dali_share {self.dali_share} has no meaning for decoder {self.decoder!r}; leave it out, or choose "
                "decoder hybrid"
            )
        return self
