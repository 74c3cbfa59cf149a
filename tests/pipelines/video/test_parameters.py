from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import write_stamped_video

from pipelines.containers.opening import open_video
from pipelines.errors import FrameError
from pipelines.video.decoder import FrameReader, read_frames
from pipelines.video.parameters import AS_PLAIN, StreamParameters
from pipelines.video.probe import probe_video


def write_raw(path: Path, codec: str, pix_fmt: str) -> Path:
    """A video of 6 frames of noise in a codec without headers."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# What each needs beside its header and size: pixel format, tag, bits a sample, key flags.
NEEDY = {
    "yuyv422.avi": ("rawvideo", "yuyv422"),
    "gray.avi": ("rawvideo", "gray"),
    "bgr24.avi": ("rawvideo", "bgr24"),
    "uyvy422.mov": ("rawvideo", "uyvy422"),
    "v410.mov": ("v410", "yuv444p10le"),
    "png.avi": ("png", "rgb24"),
    "qtrle.mov": ("qtrle", "rgb24"),
    "utvideo.avi": ("utvideo", "yuv422p"),
    "prores.mov": ("prores_ks", "yuva444p10le"),
    "msvideo1.avi": ("msvideo1", "rgb555le"),
}


@pytest.mark.parametrize("name", NEEDY)
def test_a_decoder_made_of_them_gives_the_frames_of_the_container(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = NEEDY[name]
    path = write_raw(tmp_path / name, codec, pix_fmt)
    record = probe_video(path)
    np.testing.assert_array_equal(read_frames(record, range(6)), decoded(path))


def test_without_them_the_pixels_are_other_ones(tmp_path: Path) -> None:
    record = probe_video(write_raw(tmp_path / "v.avi", "rawvideo", "yuyv422"))
    assert (record.parameters.codec_tag, record.parameters.pix_fmt) == ("YUY2", "yuyv422")
    with pytest.raises(FrameError, match="does not decode"):
        FrameReader(recovers=False).read(replace(record, parameters=AS_PLAIN), [0])


@pytest.mark.parametrize(("space", "colour_range"), [(1, 1), (1, 2), (9, 1), (2, 2)])
def test_colours_that_only_the_container_states_are_those_of_the_frames(
    tmp_path: Path, space: int, colour_range: int
) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, colour_range
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(
                np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8), format="rgb24"
            ).reformat(format="yuv420p")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    record = probe_video(path)
    assert (record.parameters.colorspace, record.parameters.color_range) == (space, colour_range)
    np.testing.assert_array_equal(read_frames(record, range(5)), decoded(path))


def test_they_are_the_same_after_storing(tmp_path: Path) -> None:
    with open_video(str(write_stamped_video(tmp_path / "v.mov", num_frames=2, codec="h264"))) as video:
        parameters = StreamParameters.of_context(video.stream.codec_context, changes=True)
    assert StreamParameters.from_json(parameters.to_json()) == parameters
    assert (parameters.codec_tag, parameters.width, parameters.height, parameters.changes) == ("avc1", 128, 96, True)
