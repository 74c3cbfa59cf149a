"""The clips of a batch as pictures: the model's input with the normalisation undone, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import VideoError
from pipelines.isolation.chosen_frames import Chosen, read_apart
from pipelines.loader import ClipLoader
from pipelines.sampler import NO_JITTER, ClipPlan
from pipelines.specs import AugmentSpec
from pipelines.video.record import VideoRecord
from r3d_fast.backend.feed import DeviceBatch


@dataclass(frozen=True)
class ShownClip:
    """One clip as the model gets it.

    `frames` are uint8 [T, S, S, 3], RGB. `label` is its class in words, and `path` its video, which has `num_frames`
    frames of `size` (height, width) px; `plan` says which frames and which part of them the clip shows. `whole_frame`
    is the clip's first frame as the video has it, upright, uint8 [H, W, 3]; None where it can't be read. `problem` says
    why the video could not be read, and is empty for one that could. `frames` are black if the loader could not read
    them.
    """

    label: str
    path: str
    frames: NDArray[np.uint8]
    plan: ClipPlan
    num_frames: int
    size: tuple[int, int]
    whole_frame: NDArray[np.uint8] | None
    problem: str = ""

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the whole frame that the model sees: (y, x, height, width) in px of it."""
        plan = self.plan
        side = self.frames.shape[1]
        tall, wide = plan.box[2] / plan.resized[0], plan.box[3] / plan.resized[1]
        return plan.box[0] + plan.window[0] * tall, plan.box[1] + plan.window[1] * wide, side * tall, side * wide

    def facts(self) -> str:
        """How the clip was made, in words: frames, crop, mirror, colours."""
        numbers = self.plan.frames
        y, x, height, width = (round(value) for value in self.seen)
        said = [
            f"frames {numbers.min()} to {numbers.max()} of {self.num_frames}",
            f"crop {width}x{height} at x {x}, y {y} of {self.size[1]}x{self.size[0]}",
        ]
        if self.plan.mirror:
            said.append("mirrored")
        if self.plan.jitter != NO_JITTER:
            *factors, hue = self.plan.jitter
            named = zip(("brightness", "contrast", "saturation"), factors, strict=True)
            colours = [f"{name} x{factor:.2f}" for name, factor in named if factor != 1.0]
            said.append(", ".join(colours + ([f"hue {360 * hue:+.0f}°"] if hue else [])))
        return " · ".join(said)


def pixels_of(clips: NDArray[np.floating], augment: AugmentSpec) -> NDArray[np.uint8]:
    """The pixels of model inputs `clips` in `augment.layout`: uint8 [N, T, S, S, 3], RGB, not normalised any more."""
    values = np.asarray(clips, np.float32)
    if augment.layout == "NCTHW":
        values = values.transpose(0, 2, 3, 4, 1)
    std, mean = np.array(augment.std, np.float32), np.array(augment.mean, np.float32)
    pixels = np.rint((values * std + mean) * np.float32(255 / augment.value_max))
    whole: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return whole


def plans_of(loader: ClipLoader, epoch: int, position: int) -> list[ClipPlan]:
    """The plans of the rows of a batch of `loader`, after which the next batch starts at `position` of `epoch`."""
    number = loader.batches.number_at(position) - 1
    return list(loader.sampler.batch(epoch, number, loader.batch_size))


def mixed_labels(batch: DeviceBatch, classes: Sequence[str]) -> list[str]:
    """The labels of the rows of `batch` in words; of clips that were mixed both, with their shares."""
    own = [classes[label] for label in batch.labels.numpy().tolist()]
    if batch.others is None:
        return own
    others = [classes[label] for label in batch.others.numpy().tolist()]
    shares = f"{100 * batch.share:.0f} %", f"{100 - 100 * batch.share:.0f} %"
    return [f"{shares[0]} {mine} + {shares[1]} {other}" for mine, other in zip(own, others, strict=True)]


def rows_to_show(plans: Sequence[ClipPlan], most: int) -> list[int]:
    """At most `most` rows of a batch, spread evenly over it: of different videos, as long as there are enough."""
    first = {plan.video_id: row for row, plan in reversed(list(enumerate(plans))) if plan.is_real}
    rows = sorted(first.values())
    if len(rows) < most:
        rows = [row for row, plan in enumerate(plans) if plan.is_real]
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return [rows[place] for place in chosen]


def shown_clips(
    pixels: NDArray[np.uint8], plans: Sequence[ClipPlan], labels: Sequence[str], records: Sequence[VideoRecord],
    root: Path, bad: Mapping[int, str],
) -> list[ShownClip]:  # fmt: skip
    """The clips with `pixels` uint8 [N, T, S, S, 3]; `plans`, `labels` (in words) and `records` of videos are theirs.

    The first frame of each is read again from its video below `root`, whole, by another process. `bad` says why clips
    could not be read, by the number of their video; these are not read again. Raises EnvironmentProblem where no
    process can be started.
    """
    shown = [
        ShownClip(
            label, record.path, frames, plan, record.num_frames, (record.height, record.width), None,
            bad.get(plan.video_id, ""),
        )
        for frames, plan, label, record in zip(pixels, plans, labels, records, strict=True)
    ]  # fmt: skip
    rows = [row for row, clip in enumerate(shown) if not clip.problem]
    chosen = [Chosen(records[row], (int(plans[row].frames[0]),)) for row in rows]
    for row, found in zip(rows, read_apart(chosen, root), strict=True):
        if isinstance(found, VideoError):
            shown[row] = replace(shown[row], problem=str(found))
        else:
            shown[row] = replace(shown[row], whole_frame=found[0])
    return shown
