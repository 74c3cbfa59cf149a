"""(epoch, position) -> ClipPlan: a pure function of the seed, NumPy only, no I/O. Nothing is random after it.

Draws are raw Philox words, so that no version of NumPy's distributions can change them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.draws import below, between, random_words
from pipelines.errors import DataError
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

# Each kind of draw has a stream of its own, so that a new one never shifts the others.
_ORDER, _FRAMES, _CROP, _MIRROR, _JITTER = range(5)
_TRIES = 10  # to draw a resized crop that lies inside its frame, as torchvision


@dataclass(frozen=True)
class VideoColumns:
    """What the sampler knows of the videos it draws from; all arrays are [V] and aligned."""

    video_id: NDArray[np.int64]
    label: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.video_id)


class Jitter(NamedTuple):
    """How the colours of a clip change: three factors, and the turn of the hue, 1.0 being once around.

    As it stands nothing changes. `pipelines.dali.graph.augment` says what becomes of a pixel.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


NO_JITTER = Jitter()


@dataclass(frozen=True)
class ClipPlan:
    """One clip, decided: `frames` int32 [T] of video `video_id`, then `box`, `resized`, `window`, `mirror` in turn.

    `box` (y, x, height, width) in px of the decoded frame; it is resized to `resized` (height, width) px; the model
    sees the S x S px at `window` (y, x) of that, their colours changed by `jitter`. `is_real` is False for the padding
    of an evaluation's last batch.
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
    """Frames of a `segments` clip, int32 [T]: one out of each of T equal parts of the video.

    With `words` (training) part i gives frame i*a + randint(0, a), a = F // T. Without, view v of V gives
    int(F/T*(v+1)/(V+1) + F/T*i); a single view is the middle of each part. Source: the reference recipe of
    justld/3D-ResNets_paddle.
    """
    count = spec.num_frames
    if num_frames < count:
        return _fill(num_frames, np.arange(count), spec)
    if words is not None:
        part = num_frames // count
        return (np.arange(count) * part + below(words[:count], part)).astype(np.int32)
    views = 1 if spec.views == "all" else spec.views
    part_length = num_frames / count
    return (part_length * (view + 1) / (views + 1) + part_length * np.arange(count)).astype(np.int32)


def consecutive_frames(
    num_frames: int, spec: ClipSpec, words: NDArray[np.uint64] | None, view: int = 0
) -> NDArray[np.int32]:
    """Frames of a `consecutive` clip, int32 [T], `stride` apart.

    With `words` (training) the start is uniform. Without, view v of V: V windows spread evenly, one view in the
    middle; with views 'all' window v of the non-overlapping ones, a short last one looped
    (Hara et al. 2018, arXiv:1711.09577, section 3.2).
    """
    steps = np.arange(spec.num_frames) * spec.stride
    if spec.views == "all" and words is None:
        begin = view * spec.num_frames * spec.stride
        left = num_frames - begin
        return (begin + (steps if left >= spec.span else steps % max(left, 1))).astype(np.int32)
    room = num_frames - spec.span
    if room < 0:
        return _fill(num_frames, steps, spec)
    if words is not None:
        start = int(below(words[:1], room + 1)[0])
    else:
        views = 1 if spec.views == "all" else spec.views
        start = room // 2 if views == 1 else int(room * view / (views - 1) + 0.5)
    return (start + steps).astype(np.int32)


def _fill(num_frames: int, steps: NDArray[np.int64], spec: ClipSpec) -> NDArray[np.int32]:
    """Frames of a video shorter than the clip, int32 [T], by the rule of `spec.short`."""
    if spec.short == "loop":
        return (steps % num_frames).astype(np.int32)
    if spec.short == "edge":
        return np.minimum(steps, num_frames - 1).astype(np.int32)
    return (np.arange(len(steps)) * num_frames // len(steps)).astype(np.int32)


def crop_sizes(height: int, width: int, spec: AugmentSpec) -> list[tuple[int, int]]:
    """The (height, width) in px of the training crops of a frame, each equally likely."""
    short = min(height, width)
    sides = [int(short * scale) for scale in spec.scales]
    sides = [
        spec.size_px if abs(side - spec.size_px) < spec.snap_px and spec.size_px <= short else side for side in sides
    ]
    sides = [max(1, side) for side in sides]
    return [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= spec.max_scale_step]


def crop_positions(positions: str) -> list[tuple[int, int]]:
    """The (y, x) places of a training crop in quarters of the room that is left."""
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    if positions == "corners5":
        return corners
    return [*corners, (0, 2), (2, 0), (2, 4), (4, 2), (1, 1), (1, 3), (3, 1), (3, 3)]


def train_box(height: int, width: int, spec: AugmentSpec, words: NDArray[np.uint64]) -> tuple[int, int, int, int]:
    """A training crop (y, x, height, width) in px: a size and a place, each uniform."""
    sizes = crop_sizes(height, width, spec)
    h, w = sizes[int(below(words[:1], len(sizes))[0])]
    places = crop_positions(spec.positions)
    y, x = places[int(below(words[1:2], len(places))[0])]
    return round(y * (height - h) / 4), round(x * (width - w) / 4), h, w


def resized_box(height: int, width: int, spec: AugmentSpec, words: NDArray[np.uint64]) -> tuple[int, int, int, int]:
    """A training crop (y, x, height, width) in px by torchvision's RandomResizedCrop; `words` uint64 [22].

    Its share of the frame's area is uniform within `spec.area`, its width / height log-uniform within `spec.aspect`,
    its place uniform. Of ten draws the first that fits into the frame is taken; if none does, the largest central box
    whose aspect is as near to the frame's as `spec.aspect` allows.
    """
    low, high = spec.aspect
    areas = between(words[:_TRIES], *spec.area) * (height * width)
    logs = between(words[_TRIES : 2 * _TRIES], math.log(low), math.log(high))
    for area, log in zip(areas.tolist(), logs.tolist(), strict=True):
        # math.exp, as NumPy's differs between CPUs. A last digit of the C library's is lost in rounding to whole px.
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
    """The colours of a training clip, by torchvision's ColorJitter; `words` uint64 [4], one for each field.

    A factor is uniform from max(0, 1 - v) to 1 + v, the hue from -v to v; v is the field of `spec` of that name.
    """
    shares = (spec.brightness, spec.contrast, spec.saturation)
    limits = [(max(0.0, 1.0 - share), 1.0 + share) for share in shares] + [(-spec.hue, spec.hue)]
    return Jitter(*(float(between(word, *limit)) for word, limit in zip(words, limits, strict=True)))


def eval_geometry(
    height: int, width: int, spec: AugmentSpec, crop: int = 0
) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """(resized height, width), (window y, x), mirror: evaluation's crop 0 .. `spec.eval_crops` - 1 of a frame.

    One crop: the short side becomes `size_px`, the window is the centre. Three: beginning, centre and end of the long
    side (Feichtenhofer et al. 2019, arXiv:1812.03982, section 4.1). Ten: the short side becomes 8/7 of `size_px`, as
    256 px are to 224 px; four corners and the centre, then the same mirrored (Wang et al. 2016, arXiv:1608.00859,
    section 3.3).
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
    return resized, (room[0] * y // 4, room[1] * x // 4), crop >= 5


class ClipSampler:
    """Says which clip stands at each position of an epoch.

    Training: every video `repeats` times an epoch, in a new order each epoch; evaluation: every crop of every view of
    every video, in order. Positions count clips over all shards; shard k of n takes positions k, k+n, ...

    With `repeats` k > 1 an epoch goes in rounds: k batches (of `batch_size` on every shard) that show the same videos,
    each time with other frames, crops and mirrors; videos that fill no batch are left out of the epoch.
    """

    def __init__(
        self, videos: VideoColumns, clip: ClipSpec, augment: AugmentSpec, *, seed: int, train: bool, shard: ShardSpec,
        repeats: int = 1, batch_size: int = 1,
    ) -> None:  # fmt: skip
        if len(videos) == 0:
            raise DataError("no videos to draw clips from: the split is empty; expected at least one indexed video")
        self.videos, self.clip, self.augment = videos, clip, augment
        self.seed, self.train, self.shard = seed, train, shard
        self.repeats = repeats if train else 1
        self._group = batch_size * shard.count  # videos of a round
        if train:
            self.views = np.ones(len(videos), np.int64)
        elif clip.views == "all":
            step = clip.num_frames * clip.stride
            self.views = np.maximum(1, -(-videos.num_frames // step))
        else:
            self.views = np.full(len(videos), clip.views, np.int64)
        self.crops = 1 if train else augment.eval_crops
        self._ends = np.cumsum(self.views * self.crops)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def num_clips(self) -> int:
        """Clips an epoch, over all shards."""
        if self.repeats > 1:
            return len(self.videos) // self._group * self._group * self.repeats
        return int(self._ends[-1])

    def num_batches(self, batch_size: int) -> int:
        """Batches an epoch, the same on every shard: training drops the remainder, evaluation pads it."""
        every = batch_size * self.shard.count
        return self.num_clips // every if self.train else -(-self.num_clips // every)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The videos of an epoch in their order, int64 [V], as rows of `videos`."""
        if not self.train:
            return np.arange(len(self.videos))
        if self._order is None or self._order[0] != epoch:
            words = random_words(len(self.videos), self.seed, epoch, _ORDER)
            self._order = epoch, np.argsort(words, kind="stable")
        return self._order[1]

    def plan(self, epoch: int, position: int) -> ClipPlan:
        """The clip at `position` of `epoch` (both 0-based). Positions past the end are padding: not real."""
        real = position < self.num_clips
        if self.train:
            place = position
            if self.repeats > 1:
                rounds, rest = divmod(position, self._group * self.repeats)
                place = rounds * self._group + rest % self._group
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
        """The plans of this shard's batch `number` of `epoch`."""
        for i in range(batch_size):
            yield self.plan(epoch, (number * batch_size + i) * self.shard.count + self.shard.index)
