"""Videos, loaders and comparisons for tests that run on the CPU and on a GPU, with the codecs that DALI decodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import has_encoder, write_open_gop_h264, write_packed_mpeg4, write_stamped_video
from numpy.typing import NDArray

from pipelines.dali.routing import limits_of_device
from pipelines.dali_limits import VideoKind
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.record import VideoRecord

GPU = pytest.param("gpu:0", marks=pytest.mark.gpu)
DEVICES = ["cpu", GPU]
PIXELS = AugmentSpec(size_px=112, resize="graph", value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3)
# For each video its suffix and how to write it. Where the encoder allows it, there are sizes that are no multiples of
# the blocks of the codec.
Write = Callable[[Path], Path]
VIDEOS: dict[str, tuple[str, Write]] = {
    "mjpeg": ("avi", lambda path: write_stamped_video(path, codec="mjpeg", size=(177, 161))),
    "vp8": ("webm", lambda path: write_stamped_video(path, codec="vp8", size=(177, 161))),
    "vp9": ("webm", lambda path: write_stamped_video(path, codec="vp9", size=(177, 161))),
    "mpeg4": ("avi", lambda path: write_stamped_video(path, codec="mpeg4", size=(176, 160))),
    "mpeg4 odd": ("avi", lambda path: write_stamped_video(path, codec="mpeg4", size=(177, 161))),
    "mpeg4 B": ("avi", lambda path: write_stamped_video(path, codec="mpeg4", size=(176, 160), b_frames=2)),
    "mpeg4 packed": ("avi", lambda path: write_packed_mpeg4(path, size=(176, 160))),
    "h264": ("mp4", lambda path: write_stamped_video(path, codec="h264", size=(176, 160))),
    "h264 cropped": ("mp4", lambda path: write_stamped_video(path, codec="h264", size=(178, 162))),
    "h264 B": ("mp4", lambda path: write_stamped_video(path, codec="h264", size=(176, 160), b_frames=3)),
    "h264 open": ("mp4", lambda path: write_open_gop_h264(path, size=(176, 160))),
    "hevc": ("mp4", lambda path: write_stamped_video(path, codec="hevc", size=(176, 160))),
    "hevc B": ("mp4", lambda path: write_stamped_video(path, codec="hevc", size=(178, 162), b_frames=3)),
    "av1": ("mp4", lambda path: write_stamped_video(path, codec="av1", size=(178, 162))),
}
ON_CPU = ("mjpeg", "vp8", "vp9")
# (device, name of a video that DALI may decode there)
DECODED = [("cpu", name) for name in ON_CPU] + [
    pytest.param("gpu:0", name, marks=pytest.mark.gpu, id=f"gpu-{name}") for name in VIDEOS if name != "mjpeg"
]


def write(folder: Path, name: str) -> Path:
    """Write the video `name` of VIDEOS to `folder`. The test is skipped if FFmpeg has no encoder for it."""
    suffix, make = VIDEOS[name]
    codec = name.split()[0]
    if not has_encoder(codec):
        pytest.skip(f"this PyAV has no {codec} encoder")
    folder.mkdir(parents=True, exist_ok=True)
    return make(folder / f"{name.replace(' ', '_')}.{suffix}")


def skip_unless_decoded(record: VideoRecord, device: str) -> None:
    """Skip the test if DALI can't decode this video on this device."""
    reason = limits_of_device(device).refuses(record)
    if reason:
        pytest.skip(f"{VideoKind.of(record)}: {reason}")


def on_host(clips: Any) -> NDArray[np.float32]:
    """The clips of a batch as an array, also if they are on a GPU."""
    if hasattr(clips, "as_cpu"):
        clips = clips.as_cpu()
    return np.array(np.from_dlpack(clips), np.float32)


def load(index: VideoIndex, decoder: str, device: str, *, train: bool = True, **options: Any) -> ClipLoader:
    """A small loader of all videos, with pixels of 0..255."""
    own = {
        name: options.pop(name)
        for name in ("batch_size", "workers", "threads", "dali_share", "repeats")
        if name in options
    }
    spec = LoaderSpec.model_validate({"batch_size": 4, "workers": 2, "threads": 2, "decoder": decoder, **own})
    options = {"clip": ClipSpec(num_frames=8), "augment": PIXELS, "split": None, **options}
    return ClipLoader(index, loader=spec, train=train, device=device, **options)


def assert_same_clips(one: list[Batch], other: list[Batch], *, mean: float = 3.0) -> float:
    """Assert that two epochs have the same plans and nearly the same pixels; give their mean difference, of 255.

    Pixels differ because two colour converters round differently; `mean` is the limit for a batch.
    """
    assert len(one) == len(other) > 0
    errors = []
    for a, b in zip(one, other, strict=True):
        assert a.video_ids.tolist() == b.video_ids.tolist()
        assert a.labels.tolist() == b.labels.tolist()
        assert (a.is_real.tolist(), a.epoch, a.position, a.bad) == (b.is_real.tolist(), b.epoch, b.position, b.bad)
        errors.append(np.abs(on_host(a.clips) - on_host(b.clips))[a.is_real].mean())
        assert errors[-1] < mean
    return float(np.mean(errors))
