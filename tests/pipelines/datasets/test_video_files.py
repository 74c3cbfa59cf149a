from __future__ import annotations

from pathlib import Path

import av
import pytest
from clips import stamped_frame

from pipelines.index.video_index import VideoIndex

# The ending of a file, how FFmpeg writes one, and the size of its pictures.
KINDS = [
    ("gif", "gif", "gif", "rgb8", (128, 96)),
    ("apng", "apng", "apng", "rgb24", (128, 96)),
    ("mj2", "mov", "libx264", "yuv420p", (128, 96)),
    ("mk3d", "matroska", "libx264", "yuv420p", (128, 96)),
    ("ismv", "ismv", "libx264", "yuv420p", (128, 96)),
    ("MTS", "mpegts", "libx264", "yuv420p", (128, 96)),
    ("m2p", "vob", "mpeg2video", "yuv420p", (128, 96)),
    ("mpv", "mpeg2video", "mpeg2video", "yuv420p", (128, 96)),
    ("tp", "mpegts", "libx264", "yuv420p", (128, 96)),
    ("trp", "mpegts", "mpeg2video", "yuv420p", (128, 96)),
    ("tod", "mpegts", "mpeg2video", "yuv420p", (128, 96)),
    ("vro", "vob", "mpeg2video", "yuv420p", (128, 96)),
    ("DV", "dv", "dvvideo", "yuv420p", (720, 576)),
    ("dif", "dv", "dvvideo", "yuv420p", (720, 576)),
    ("h261", "h261", "h261", "yuv420p", (176, 144)),
    ("h263", "h263", "h263", "yuv420p", (176, 144)),
    ("avc", "h264", "libx264", "yuv420p", (128, 96)),
]


def write(path: Path, form: str, codec: str, pix_fmt: str, size: tuple[int, int]) -> None:
    """Write 12 frames at 25 a second."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stamped_frame(number, size))))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    root = tmp_path_factory.mktemp("videos")
    (root / "a").mkdir()
    for ending, *how in KINDS:
        write(root / "a" / f"{ending}.{ending}", *how)  # type: ignore[arg-type]
    (root / "a" / "list.txt").write_text("x")
    return VideoIndex.build(root, workers=0)


@pytest.mark.parametrize("ending", [kind[0] for kind in KINDS])
def test_a_file_that_ffmpeg_reads_as_a_video_is_indexed(index: VideoIndex, ending: str) -> None:
    record = index[index.names().index(f"a/{ending}.{ending}")]
    assert (record.num_frames, record.fps) == (12, 25.0)


def test_other_files_are_counted(index: VideoIndex) -> None:
    assert (index.ignored, index.quarantined) == ({".txt": 1}, [])
