"""Decides what each clip of an epoch shows: ClipSampler gives the ClipPlan at a position of an epoch.

The plan depends only on the seed, the epoch and the position, and all random choices are made here. Random numbers come
straight from the Philox generator (see draws.py), because NumPy's distributions may change between versions. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.batches import EpochBatches
from pipelines.class_balance import balanced_rows
from pipelines.draws import below, between, random_words
from pipelines.errors import DataError
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

# Each kind of random choice has its own stream of numbers, so that a new kind does not change the others.
_ORDER, _FRAMES, _CROP, _MIRROR, _JITTER = range(5)
_TRIES = 10  # how often a crop that does not fit into its frame is drawn, as in torchvision


@dataclass(frozen=True)
class VideoColumns:
    """What the sampler knows of the V videos that it draws from: arrays int64 [V], row i of each for the same video."""

    video_id: NDArray[np.int64]
    label: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.video_id)


class Jitter(NamedTuple):
    """How the colours of a clip are changed: three factors, and the turn of the hue, where 1.0 is a full turn.

    The defaults change nothing. The formula is in `pipelines.dali.graph.augment`.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


NO_JITTER = Jitter()


@dataclass(frozen=True)
class ClipPlan:
    """What one clip shows, and how it is made out of its video.

    The clip has the frames with the numbers `frames`, int32 [T], of video `video_id`. Of each frame `box` (y, x,
    height, width) in px is cut out and resized to `resized` (height, width) px. The model sees the S x S px of that
    whose corner is `window` (y, x), mirrored if `mirror` is true, their colours changed by `jitter`. `is_real` is False
    for the clips that pad the last batch of an evaluation.
    """

    video_id: int
    label: int
    frames: NDArray[np.int32] = field(repr=False)
    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    window: tuple[int, int]
    mirror: bool
    is_real: bool = True
    jitter: Jitter = NO_JITTER


def segment_frames(
    num_frames: int, spec: ClipSpec, words: NDArray[np.uint64] | None, view: int = 0
) -> NDArray[np.int32]:
    """The frame numbers of a `segments` clip, int32 [T]: one frame out of each of T equal parts of the video.

    In training, with random `words`, part i of a video of F frames gives frame i*a + randint(0, a), where a = F // T.
    In evaluation `words` is None, and view v of V gives frame int(F/T*(v+1)/(V+1) + F/T*i) of part i; a single view
    takes the middle of each part. Source: the reference recipe of justld/3D-ResNets_paddle.
    """
    count = spec.num_frames
    if num_frames < count:
        return _fill(num_frames, np.arange(count), spec)
    if words is not None:
        part = num_frames // count
        return (np.arange(count) * part + below(words[:count], part)).astype(np.int32)
    views = 1 if isinstance(spec.views, str) else spec.views
    part_length = num_frames / count
    return (part_length * (view + 1) / (views + 1) + part_length * np.arange(count)).astype(np.int32)


def consecutive_frames(
    num_frames: int, spec: ClipSpec, words: NDArray[np.uint64] | None, view: int = 0
) -> NDArray[np.int32]:
    """The frame numbers of a `consecutive` clip, int32 [T], `stride` apart.

    In training, with random `words`, all starts are equally likely; without `reach_end` the last of them is left out,
    if there is another. In evaluation `words` is None: the V views are spread evenly over the video, and a single view
    lies in its middle. With views 'all' and 'paper' the views follow one another without overlap, and the last one
    repeats its frames if the video ends too early (Hara et al. 2018, arXiv:1711.09577, section 3.2).
    """
    steps = np.arange(spec.num_frames) * spec.stride
    if spec.takes_windows and words is None:
        begin = view * spec.num_frames * spec.stride
        left = num_frames - begin
        return (begin + (steps if left >= spec.span else steps % max(left, 1))).astype(np.int32)
    room = num_frames - spec.span
    if room < 0:
        return _fill(num_frames, steps, spec)
    if words is not None:
        start = int(below(words[:1], room + 1 if spec.reach_end else max(1, room))[0])
    else:
        views = 1 if isinstance(spec.views, str) else spec.views
        start = room // 2 if views == 1 else int(room * view / (views - 1) + 0.5)
    return (start + steps).astype(np.int32)


def count_views(num_frames: NDArray[np.int64], spec: ClipSpec) -> NDArray[np.int64]:
    """The number of views of videos with `num_frames` frames in an evaluation, both int64 [V].

    With views 'all' the views begin at the frames 0, L, 2L, ..., where L is the length of the clip times its stride.
    With 'paper' none begins at the last frame, except in a video of one frame: this is range(1, F, 16) in the code of
    Hara et al. 2018 (kenshohara/3D-ResNets-PyTorch, branch CVPR2018, datasets/), which counts frames from 1. So of
    clips of 16 frames a video of 33 frames has three with 'all' and two with 'paper'.
    """
    if isinstance(spec.views, int):
        return np.full(len(num_frames), spec.views, np.int64)
    last_start = num_frames - 1 if spec.views == "all" else num_frames - 2
    return np.maximum(1, last_start // (spec.num_frames * spec.stride) + 1)


def _fill(num_frames: int, steps: NDArray[np.int64], spec: ClipSpec) -> NDArray[np.int32]:
    """The frame numbers of a clip of a video that is shorter than it, int32 [T], by the rule `spec.short`."""
    if spec.short == "loop":
        return (steps % num_frames).astype(np.int32)
    if spec.short == "edge":
        return np.minimum(steps, num_frames - 1).astype(np.int32)
    return (np.arange(len(steps)) * num_frames // len(steps)).astype(np.int32)


def crop_sizes(height: int, width: int, spec: AugmentSpec) -> list[tuple[int, int]]:
    """The possible (height, width) in px of a training crop with crop `scales`; all are equally likely."""
    short = min(height, width)
    sides = [int(short * scale) for scale in spec.scales]
    sides = [
        spec.size_px if abs(side - spec.size_px) < spec.snap_px and spec.size_px <= short else side for side in sides
    ]
    sides = [max(1, side) for side in sides]
    return [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= spec.max_scale_step]


def crop_positions(positions: str) -> list[tuple[int, int]]:
    """The possible (y, x) of a training crop, in quarters of the room between the crop and the frame."""
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    if positions == "corners5":
        return corners
    return [*corners, (0, 2), (2, 0), (2, 4), (4, 2), (1, 1), (1, 3), (3, 1), (3, 3)]


def train_box(height: int, width: int, spec: AugmentSpec, words: NDArray[np.uint64]) -> tuple[int, int, int, int]:
    """A training crop (y, x, height, width) in px with crop `scales`; `words` uint64 [2] choose size and position.

    With the scales and positions of Hara et al. 2018 its edges are within 1 px of those in their code, which makes the
    side of a central crop even: 168 px in place of 169.
    """
    sizes = crop_sizes(height, width, spec)
    h, w = sizes[int(below(words[:1], len(sizes))[0])]
    places = crop_positions(spec.positions)
    y, x = places[int(below(words[1:2], len(places))[0])]
    return round(y * (height - h) / 4), round(x * (width - w) / 4), h, w


def resized_box(height: int, width: int, spec: AugmentSpec, words: NDArray[np.uint64]) -> tuple[int, int, int, int]:
    """A training crop (y, x, height, width) in px, drawn from `words` uint64 [22] as torchvision's RandomResizedCrop.

    Its share of the frame's area is drawn uniformly from `spec.area`, its width / height log-uniformly from
    `spec.aspect`, and its position uniformly. Ten such crops are drawn, and the first that fits into the frame is
    taken. If none fits, it is the largest central box whose aspect is as near to that of the frame as `spec.aspect`
    allows.
    """
    low, high = spec.aspect
    areas = between(words[:_TRIES], *spec.area) * (height * width)
    logs = between(words[_TRIES : 2 * _TRIES], math.log(low), math.log(high))
    for area, log in zip(areas.tolist(), logs.tolist(), strict=True):
        # math.exp because NumPy's differs between CPUs. Where C libraries differ in the last digit, rounding hides it.
        aspect = math.exp(log)
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            y, x = words[2 * _TRIES :]
            return int(below(y, height - h + 1)), int(below(x, width - w + 1)), h, w
    aspect = min(max(width / height, low), high)
    h = min(height, max(1, round(width / aspect)))
    w = min(width, max(1, round(height * aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


def draw_jitter(spec: AugmentSpec, words: NDArray[np.uint64]) -> Jitter:
    """The change of colours of a training clip, drawn as by torchvision's ColorJitter from `words` uint64 [4].

    A factor is drawn uniformly from max(0, 1 - v) to 1 + v, and the hue from -v to v, where v is the field of `spec`
    with the same name.
    """
    shares = (spec.brightness, spec.contrast, spec.saturation)
    limits = [(max(0.0, 1.0 - share), 1.0 + share) for share in shares] + [(-spec.hue, spec.hue)]
    return Jitter(*(float(between(word, *limit)) for word, limit in zip(words, limits, strict=True)))


def eval_geometry(
    height: int, width: int, spec: AugmentSpec, crop: int = 0
) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """How evaluation makes crop number `crop` of a frame: ((resized height, width), (window y, x), mirror), in px.

    `crop` is 0 .. `spec.eval_crops` - 1. With one or three crops the short side of the frame is resized to `size_px`;
    one crop is the centre, three are beginning, centre and end of the long side (Feichtenhofer et al. 2019,
    arXiv:1812.03982, section 4.1). With ten crops the short side is resized to 8/7 of `size_px`, as 256 px for 224 px;
    the crops are the four corners and the centre, and then the same mirrored (Wang et al. 2016, arXiv:1608.00859,
    section 3.3). A central window is rounded to the nearest px, half a px to the even one, as in the code of Hara et
    al. 2018 and in the reference run: 37 px of room are 18 px before and 19 px after.
    """
    short, size = min(height, width), spec.size_px
    side = round(size * 8 / 7) if spec.eval_crops == 10 else size
    resized = (height * side // short, width * side // short)
    room = resized[0] - size, resized[1] - size
    if spec.eval_crops == 10:
        y, x = crop_positions("corners5")[crop % 5]
    elif spec.eval_crops == 3:
        y, x = (2 * crop, 2) if height > width else (2, 2 * crop)
    else:
        y, x = 2, 2
    return resized, (round(room[0] * y / 4), round(room[1] * x / 4)), crop >= 5


class ClipSampler:
    """Gives the plan of the clip at each position of an epoch.

    An epoch of training has every video `repeats` times, and each epoch has a new random order. An evaluation has every
    crop of every view of every video, in the order of the index. Positions count clips over all shards: shard k of n
    takes positions k, k+n, k+2n, ...

    With `repeats` > 1 an epoch consists of rounds of `repeats` batches (of `batch_size` on every shard). All batches of
    a round show the same videos, each with other frames, crops and mirrors. `last_batch` is the rule of
    `LoaderSpec.last_batch` for the videos that do not fill a batch in training.

    If `balanced`, an epoch of training is as long, but shows the classes equally often, as `balanced_rows` draws their
    videos.
    """

    def __init__(
        self, videos: VideoColumns, clip: ClipSpec, augment: AugmentSpec, *, seed: int, train: bool, shard: ShardSpec,
        repeats: int = 1, batch_size: int = 1, last_batch: Literal["drop", "spread"] = "drop",
        balanced: bool = False,
    ) -> None:  # fmt: skip
        if len(videos) == 0:
            raise DataError("no videos to draw clips from: the split is empty; expected at least one indexed video")
        self.videos, self.clip, self.augment = videos, clip, augment
        self.seed, self.train, self.shard = seed, train, shard
        self.repeats = repeats if train else 1
        self._last_batch, self._batch_size, self._balanced = last_batch, batch_size, balanced
        self.views = np.ones(len(videos), np.int64) if train else count_views(videos.num_frames, clip)
        self.crops = 1 if train else augment.eval_crops
        self._ends = np.cumsum(self.views * self.crops)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def num_clips(self) -> int:
        """The number of clips in an epoch, over all shards."""
        if self.repeats > 1:
            batches = self.batches(self._batch_size)
            return batches.start(len(batches))
        return int(self._ends[-1])

    def batches(self, batch_size: int) -> EpochBatches:
        """How an epoch is divided into batches of at most `batch_size` clips a shard; evaluation pads the last one."""
        last = self._last_batch if self.train else "pad"
        return EpochBatches(int(self._ends[-1]), batch_size * self.shard.count, last, self.repeats)

    def num_batches(self, batch_size: int) -> int:
        """The number of batches in an epoch, the same on every shard."""
        return len(self.batches(batch_size))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The videos of an epoch in their order, int64 [V]: their rows in `videos`. If balanced, some occur again."""
        if not self.train:
            return np.arange(len(self.videos))
        if self._order is None or self._order[0] != epoch:
            words = random_words(len(self.videos), self.seed, epoch, _ORDER)
            order = np.argsort(words, kind="stable")
            self._order = epoch, balanced_rows(self.videos.label, self.seed, epoch)[order] if self._balanced else order
        return self._order[1]

    def plan(self, epoch: int, position: int) -> ClipPlan:
        """The plan of the clip at `position` of `epoch`, both 0-based. Past the end of an evaluation it is not real."""
        real = position < self.num_clips
        if self.train:
            place = self.batches(self._batch_size).place(position)
            row, view, crop = int(self.order(epoch)[place % len(self.videos)]), 0, 0
        else:
            position = min(position, self.num_clips - 1)
            row = int(np.searchsorted(self._ends, position, side="right"))
            view, crop = divmod(position - int(self._ends[row] - self.views[row] * self.crops), self.crops)
        videos = self.videos
        num_frames, height, width = int(videos.num_frames[row]), int(videos.height[row]), int(videos.width[row])
        choose = segment_frames if self.clip.sampling == "segments" else consecutive_frames
        if self.train:
            key = (self.seed, epoch, position)
            frames = choose(num_frames, self.clip, random_words(self.clip.num_frames, *key, _FRAMES))
            box = self._train_box(height, width, key)
            resized, window = (self.augment.size_px, self.augment.size_px), (0, 0)
            mirror = bool(int(random_words(1, *key, _MIRROR)[0]) < self.augment.mirror * 2.0**64)
            jitter = draw_jitter(self.augment, random_words(4, *key, _JITTER)) if self.augment.jitters else NO_JITTER
        else:
            frames = choose(num_frames, self.clip, None, view)
            box, jitter = (0, 0, height, width), NO_JITTER
            resized, window, mirror = eval_geometry(height, width, self.augment, crop)
        return ClipPlan(
            int(videos.video_id[row]), int(videos.label[row]), frames, box, resized, window, mirror, real, jitter
        )

    def _train_box(self, height: int, width: int, key: tuple[int, int, int]) -> tuple[int, int, int, int]:
        if self.augment.crop == "resized":
            return resized_box(height, width, self.augment, random_words(2 * _TRIES + 2, *key, _CROP))
        return train_box(height, width, self.augment, random_words(2, *key, _CROP))

    def batch(self, epoch: int, number: int, batch_size: int) -> Iterator[ClipPlan]:
        """The plans of the clips in batch `number` (0-based) of `epoch` on this shard."""
        for position in self.positions(number, batch_size):
            yield self.plan(epoch, position)

    def positions(self, number: int, batch_size: int) -> range:
        """The positions in an epoch of the clips in batch `number` (0-based) on this shard."""
        batches = self.batches(batch_size)
        return range(batches.start(number) + self.shard.index, batches.start(number + 1), self.shard.count)
