"""A decoder that gives other clips is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.loader import contenders, handover
from bench.loader.clip_check import check_clips
from bench.videos.selection import selected_videos
from pipelines.specs import AugmentSpec, ClipSpec


def test_a_loader_that_gives_other_frames_is_found_out(mjpeg_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = handover.make_loader

    def other_frames(index: Any, clip: Any, augment: Any, spec: Any, **options: Any) -> Any:
        # Mirrored is as good as other frames.
        return make(index, clip, augment.model_copy(update={"mirror": float(spec.decoder == "dali")}), spec, **options)

    with selected_videos(mjpeg_videos, lambda _: None) as clips:
        work = contenders.Work(clips.index, ClipSpec(num_frames=4), AugmentSpec(size_px=32), 0, 3)
        assert check_clips("pyav", work, "cpu", {"decoder": "pyav"}) == "identical"
        assert check_clips("dali", work, "cpu", {"decoder": "dali"}).startswith("same clips (mean difference ")
        monkeypatch.setattr(contenders, "make_loader", other_frames)
        assert check_clips("dali", work, "cpu", {"decoder": "dali"}) == "6 of 6 clips are others"
