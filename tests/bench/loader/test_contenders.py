from __future__ import annotations

from pathlib import Path

import pytest

from bench.loader import contenders, handover
from bench.videos.selection import selected_videos
from pipelines.errors import EnvironmentProblem
from pipelines.specs import AugmentSpec, ClipSpec


def test_clips_on_another_device_than_was_asked_for_are_no_measurement(
    mjpeg_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = handover.make_loader
    monkeypatch.setattr(contenders, "make_loader", lambda *a, device, **o: make(*a, **o))
    with selected_videos(mjpeg_videos, lambda _: None) as clips:
        work = contenders.Work(clips.index, ClipSpec(num_frames=4), AugmentSpec(size_px=32), 0, 3)
        ours = contenders.ClipLoaderContender("r3d-fast", work, device="gpu")
        with pytest.raises(EnvironmentProblem, match="r3d-fast: clips on the CPU, not gpu"):
            ours.make(1)
        ours.close()
