from __future__ import annotations

from pathlib import Path

import av
import pytest
from clips import write_stamped_video

from pipelines.bitstreams.h264 import states_full_range


def header(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


@pytest.mark.parametrize("suffix", ["mp4", "avi"])  # an avcC box, a byte stream
@pytest.mark.parametrize(
    ("params", "full"),
    [
        ("fullrange=on", True),
        ("fullrange=on:colormatrix=bt709:overscan=crop:sar=16/15", True),
        ("fullrange=off:colormatrix=bt709", False),
        ("sar=16/15", False),  # colours are not described
        ("fullrange=on:interlaced=1", True),
        ("fullrange=on:cqm=jvt", True),  # with scaling matrices
        ("fullrange=on:bframes=3:ref=5", True),
    ],
)
def test_the_range_is_read_from_the_header(tmp_path: Path, suffix: str, params: str, full: bool) -> None:
    options = {"x264-params": params, "preset": "fast"}
    for size in ((128, 96), (130, 100)):  # not cropped, cropped
        path = write_stamped_video(tmp_path / f"v.{suffix}", codec="h264", num_frames=4, size=size, options=options)
        assert states_full_range(header(path)) == full


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p", "yuv420p10le"])
def test_other_chroma_and_depths(tmp_path: Path, pix_fmt: str) -> None:
    for params, full in (("fullrange=on:cqm=jvt", True), ("colormatrix=bt709", False)):
        path = write_stamped_video(
            tmp_path / "v.mp4", codec="h264", num_frames=4, pix_fmt=pix_fmt, options={"x264-params": params}
        )
        assert states_full_range(header(path)) == full


def test_a_header_that_says_nothing(tmp_path: Path) -> None:
    whole = header(write_stamped_video(tmp_path / "v.mp4", codec="h264", num_frames=1))
    assert not states_full_range(b"")
    for length in range(len(whole)):
        assert not states_full_range(whole[:length])
    full = {"x264-params": "fullrange=on"}
    whole = header(write_stamped_video(tmp_path / "v.mp4", codec="h264", num_frames=1, options=full))
    assert states_full_range(whole)
    assert not states_full_range(whole[:12])
