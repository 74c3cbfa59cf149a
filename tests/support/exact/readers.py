"""Whether everything that reads a video shows the same pixels for the same frame: those of `container.decode`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from resizing import planned_clip

from exact.truth import Truth, truth_of
from exact.verdicts import WRONG, compare, too_far
from pipelines.errors import VideoError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.sampler import ClipPlan, eval_geometry
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.sequence import FrameSequence
from r3d_fast.config.config import Config
from r3d_fast.prediction.clip_logits import answers
from r3d_fast.prediction.timelines.timeline import timeline
from r3d_fast.prediction.timelines.windows import Hops

Clip = NDArray[np.float64]
FRAMES = 5
CLIP = ClipSpec(num_frames=FRAMES)
# Clips of plain pixels, 0..255, so that they can be compared with frames.
PIXELS: dict[str, Any] = {"size_px": 40, "layout": "NTHWC", "value_max": 255, "mean": (0.0,) * 3, "std": (1.0,) * 3}
ROUNDING_MEAN, ROUNDING = 0.3, 0.55  # how far a resized clip may be from that of exact arithmetic, of 255
# The same of a clip that training's scaler made: stamped videos are all saturated texture, whose colour has half the
# resolution.
TEXTURE_MEAN = 5.0


class ShownClips:
    """A Network that keeps the clips that it gets, [T, S, S, 3] each, and answers with zeros."""

    classes = ("a",)
    device = "cpu"
    clip_seconds = None
    clip_dtype: Literal["float32", "float16"] = "float32"

    def __init__(self) -> None:
        self.config = Config.model_validate(
            {"clip": {"num_frames": FRAMES, "views": 1}, "augment": PIXELS, "eval": {"crops": 1}}
        )
        self.clips: list[Clip] = []

    def expect(self, clips: int) -> None:
        """Nothing to prepare."""

    def __call__(self, clips: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = np.asarray(clips, np.float64)
        self.clips += list(rows)
        return np.zeros((len(rows), 1), np.float32), np.zeros((len(rows), 1), np.float32)


def disagreements(root: Path) -> Iterator[str]:
    """What any reader shows otherwise, of the videos in the folders of `root`, which are classes. Nothing if all agree.

    A file that the index refuses is a disagreement too.
    """
    index = VideoIndex.build(root, index=root.parent / f"{root.name}.r3dindex", workers=0, val_fraction=0.0)
    yield from (f"{item.path}, index: {item.reason}: {item.detail}" for item in index.quarantined)
    truths = {number: truth_of(root / index[number].path) for number in range(len(index))}
    for number, truth in truths.items():
        record = index[number]
        verdict = compare(record, truth, number, root)
        if verdict.mark == WRONG:
            yield f"{record.path}, read_frames: {verdict.reason}"
    yield from _loader(index, truths, train=False)
    yield from _loader(index, truths, train=True)
    for number, truth in truths.items():
        path = root / index[number].path
        yield from (f"{index[number].path}, sequence: {fault}" for fault in sequence_faults(path, truth))
        yield from (f"{index[number].path}, predict: {fault}" for fault in _predict(path, truth))
        yield from (f"{index[number].path}, timeline: {fault}" for fault in _timeline(path, truth))


def _loader(index: VideoIndex, truths: dict[int, Truth], *, train: bool) -> Iterator[str]:
    """What the loader's clips of one epoch show otherwise: resized by the graph, or by the decoder in training."""
    augment = AugmentSpec.model_validate({**PIXELS, "resize": "decoder" if train else "graph"})
    spec = LoaderSpec(batch_size=1, workers=0, threads=1, decoder="pyav")
    name = "training" if train else "evaluation"
    with ClipLoader(index, clip=CLIP, augment=augment, loader=spec, split=None, train=train) as loader:
        for number, batch in enumerate(loader):
            (plan,) = loader.sampler.batch(batch.epoch, number, 1)
            path = index[plan.video_id].path
            if batch.bad:
                yield f"{path}, {name}: {batch.bad[0].reason}"
                continue
            shown = np.asarray(np.from_dlpack(batch.clips)[0], np.float64)
            fault = clip_fault(shown, truths[plan.video_id], plan, augment, scaled=train)
            if fault:
                yield f"{path}, {name}: {fault}"


def sequence_faults(path: Path, truth: Truth) -> Iterator[str]:
    """What the frames in a row, which the timeline takes, show otherwise. A file may end them with an error."""
    count, ended = 0, ""
    try:
        with FrameSequence(path) as video:
            for shown in video:
                if shown.number != count or count >= len(truth.frames):
                    yield f"frame {shown.number} after {count} of {len(truth.frames)}"
                    return
                if not np.array_equal(video.pixels(shown.frame), truth.frames[count]):
                    yield f"frame {count} differs"
                    return
                count += 1
    except VideoError as error:
        ended = error.reason
    if not ended and count != len(truth.frames):
        yield f"{count} frames of {len(truth.frames)}"


def _predict(path: Path, truth: Truth) -> Iterator[str]:
    """What the network gets otherwise for the clips of one video."""
    network = ShownClips()
    spec = network.config.augment
    for number, answer in enumerate(answers(network, [path])):
        if answer.error:
            yield answer.error
            return
        plan = evaluation_plan(answer.frames, truth, spec)
        fault = clip_fault(network.clips[number], truth, plan, spec)
        if fault:
            yield fault


def _timeline(path: Path, truth: Truth) -> Iterator[str]:
    """What the network gets otherwise for the windows of one video: frames at equal distances, each as it is."""
    network = ShownClips()
    spec = network.config.augment
    moments = list(timeline(network, [str(path)], Hops(0.2, 0.4)))
    if moments[-1].error and not network.clips:
        yield moments[-1].error
    plan = evaluation_plan(np.arange(len(truth.frames), dtype=np.int32), truth, spec)
    wanted = planned_clip(np.stack(truth.frames), plan, spec)
    for number, clip in enumerate(network.clips):
        found = [int(np.argmin([np.abs(frame - one).max() for one in wanted])) for frame in clip]
        steps = set(np.diff(found).tolist())
        if np.abs(clip - wanted[found]).max() >= ROUNDING:
            yield f"window {number}: a frame that is none of the video"
        elif len(truth.frames) > FRAMES and (len(steps) != 1 or min(steps) < 1):
            yield f"window {number}: frames {found}"


def evaluation_plan(frames: NDArray[np.int32], truth: Truth, spec: AugmentSpec) -> ClipPlan:
    height, width, _ = truth.frames[0].shape if truth.frames else (1, 1, 3)
    resized, window, mirror = eval_geometry(height, width, spec)
    return ClipPlan(0, 0, frames, (0, 0, height, width), resized, window, mirror, True)


def clip_fault(clip: Clip, truth: Truth, plan: ClipPlan, spec: AugmentSpec, *, scaled: bool = False) -> str:
    """How a clip differs from its plan carried out on the true frames, "" if it does not."""
    if max(plan.frames) >= len(truth.frames):
        return f"frames {plan.frames.tolist()} of {len(truth.frames)}"
    if plan.box[0] + plan.box[2] > truth.frames[0].shape[0] or plan.box[1] + plan.box[3] > truth.frames[0].shape[1]:
        return f"box {plan.box} of frames {truth.frames[0].shape}"
    off = clip - planned_clip(np.stack([truth.frames[number] for number in plan.frames]), plan, spec)
    if scaled:
        return too_far(off, TEXTURE_MEAN)
    mean, most = float(np.abs(off).mean()), float(np.abs(off).max())
    return f"differs by {mean:.2f} of 255, at most by {most:.2f}" if mean >= ROUNDING_MEAN or most >= ROUNDING else ""
