"""The scaler's colours against those of evaluation, for tagged frames of every pixel format and for tagged files."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.format import names
from av.video.reformatter import VideoReformatter
from loading import make, pixels
from numpy.typing import NDArray
from resizing import triangle

from pipelines.index.video_index import VideoIndex
from pipelines.specs import AugmentSpec, ClipSpec
from pipelines.video.scaler import BoxScaler, rgb_pixels

Tags = tuple[int, int, int, int]  # colour space, range, primaries, transfer, as FFmpeg numbers them

SIDE_PX = 32
EVEN = (2, 4, 20, 20)
ODD = (3, 5, 21, 19)
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18
UNTAGGED: Tags = (2, 0, 2, 2)
# Every colour space with every range; and values that are reserved, usual, or HDR for primaries and transfer.
TAGS: list[Tags] = [(space, span, 2, 2) for space, span in product(range(15), range(3))] + [
    (space, span, *others)
    for space, span, others in product((0, 1, 2, 9), range(3), ((0, 0), (1, 1), (3, 3), (9, PQ), (9, HLG)))
]
# fmt: off
COMMON = [
    "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "yuva420p", "yuva444p",
    "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuva444p12le", "yuv420p16le", "nv12", "nv16", "nv21",
    "p010le", "p210le", "gray", "gray10le", "gray12le", "gray16le", "grayf32le", "ya8", "pal8", "monob", "monow",
    "yuyv422", "uyvy422", "uyyvyy411", "y210le", "ayuv64le", "vuya", "rgb24", "bgr24", "rgb0", "bgr0", "rgba", "argb",
    "gbrp", "gbrap", "gbrp10le", "gbrp12le", "gbrp16le", "rgb48le", "rgb565le", "rgb555le", "rgb8", "xyz12le",
    "bayer_rggb8",
]
# fmt: on
COLOURS = [(128, 128, 128), (200, 30, 60), (20, 180, 90), (255, 255, 255), (40, 60, 220)]


def evaluated(frame: av.VideoFrame) -> NDArray[np.uint8] | None:
    """The frame's pixels as evaluation sees them, [H, W, 3], or None where FFmpeg can't convert it."""
    try:
        return rgb_pixels(VideoReformatter().reformat(frame, format="rgb24", threads=1))
    except (ValueError, OSError):
        return None


def flat_frame(pixel_format: str, colour: tuple[int, int, int]) -> av.VideoFrame | None:
    """A frame of one colour, up to rounding, or None where FFmpeg can't convert such a frame from and to RGB."""
    array = np.full((SIDE_PX, SIDE_PX, 3), colour, np.uint8)
    try:
        frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixel_format)
    except (ValueError, OSError):  # FFmpeg only reads this format
        try:
            frame = av.VideoFrame(SIDE_PX, SIDE_PX, pixel_format)
        except (ValueError, OSError):  # a frame in the memory of a GPU
            return None
        for plane in frame.planes:
            plane.update(bytes([colour[0]]) * plane.buffer_size)
    shown = evaluated(frame)
    return frame if shown is not None and np.ptp(shown, axis=(0, 1)).max() <= 2 else None


def tag(frame: av.VideoFrame, tags: Tags) -> None:
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = tags


def tags_of(frame: av.VideoFrame) -> Tags:
    return (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)


def farthest(scaled: NDArray[np.uint8], whole: NDArray[np.uint8]) -> int:
    """How far the pixels of a scaled box lie outside of those of the flat frame that it was cut out of."""
    low, high = whole.min((0, 1)).astype(int), whole.max((0, 1)).astype(int)
    return int(max((low - scaled).max(), (scaled - high).max()))


@pytest.mark.parametrize("pixel_format", COMMON)
def test_flat_colours_are_those_of_evaluation_whatever_the_tags_say(pixel_format: str) -> None:
    frames = [frame for frame in (flat_frame(pixel_format, colour) for colour in COLOURS) if frame is not None]
    assert frames
    scaler, compared = BoxScaler(), 0
    for tags in TAGS:
        for frame in frames if tags[2:] == (2, 2) else frames[:1]:
            tag(frame, tags)
            expected = evaluated(frame)
            for box in (EVEN, ODD) if expected is not None else ():
                assert farthest(scaler.scale(frame, box, 12), expected) <= 1, (tags, box)
                assert tags_of(frame) == tags
                compared += 1
    assert compared > 150


def test_every_other_pixel_format_has_the_colours_of_evaluation() -> None:
    scaler, compared = BoxScaler(), 0
    for name in sorted(names - set(COMMON)):
        if name.startswith("yaf32"):
            continue  # FFmpeg 8 ends the process when it converts this format, in evaluation too
        for colour in COLOURS[:3]:
            frame = flat_frame(name, colour)
            if frame is not None:
                expected = evaluated(frame)
                for box in (EVEN, ODD):
                    assert farthest(scaler.scale(frame, box, 12), expected) <= 1, (name, colour, box)
                    compared += 1
    assert compared > 300


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("span", [0, LIMITED, FULL])
@pytest.mark.parametrize("space", [0, 1, 2, 4, 5, 6, 7, 9])  # those that FFmpeg converts
def test_grey_128_is_130_in_training_as_in_evaluation(pixel_format: str, span: int, space: int) -> None:
    frame = av.VideoFrame(SIDE_PX, SIDE_PX, pixel_format)
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    tag(frame, (space, span, 2, 2))
    expected = 128 if span == FULL else 130  # (128 - 16) * 255 / 219
    assert (frame.to_ndarray(format="rgb24") == expected).all()
    for box in (EVEN, ODD):
        assert (BoxScaler().scale(frame, box, 12) == expected).all()


def test_one_scaler_serves_frames_of_changing_tags_and_several_boxes_of_each() -> None:
    scaler = BoxScaler()
    frame = flat_frame("yuv420p", (200, 30, 60))
    assert frame is not None
    shown = set()
    for tags in [UNTAGGED, (1, 1, 1, 1), (0, 0, 0, 0), (9, 1, 9, PQ), (2, 2, 2, 2), UNTAGGED] * 2:
        tag(frame, tags)
        expected = frame.to_ndarray(format="rgb24")
        shown.add(tuple(expected[0, 0].tolist()))
        for box in (EVEN, ODD, EVEN, (0, 0, 32, 32)):
            assert farthest(scaler.scale(frame, box, 12), expected) <= 1, (tags, box)
    assert len(shown) == 4  # 0 is read as untagged


def psnr(a: NDArray[np.float64] | NDArray[np.uint8], b: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


# Files

SIZE = (160, 128)


def soft(number: int) -> NDArray[np.uint8]:
    """A frame of broad waves of colour that move, [H, W, 3]: half the resolution is enough for them."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin((x + 3 * number) / 31 + channel) * np.cos((y - number) / 27 - channel) for channel in range(3)]
    return (128 + 70 * np.stack(waves, axis=2)).astype(np.uint8)


def write_tagged(path: Path, codec: str, pixel_format: str, tags: Tags, options: dict[str, str]) -> Path:
    """Write a video of `soft` frames whose stream is tagged. The pixels are the same whatever the tags say."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = tags
        context.bit_rate = 4_000_000
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(soft(number), format="rgb24").reformat(format=pixel_format)
            tag(frame, tags)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def value_0_in_prores(path: Path) -> Path:
    """The file with the colour tags of its ProRes frames set to 0, "unknown", and without the container's tags."""
    data = bytearray(path.read_bytes())
    at = data.find(b"icpf")
    while at >= 0:
        data[at + 4 + 14 : at + 4 + 17] = bytes(3)  # of the frame header: primaries, transfer, matrix
        at = data.find(b"icpf", at + 4)
    box = data.find(b"colr")
    if box >= 0:
        data[box : box + 4] = b"free"
    path.write_bytes(data)
    return path


X264 = {"preset": "ultrafast", "crf": "12"}
X265_HDR = "log-level=none:crf=12:hdr10=1:max-cll=1000,400:master-display="
X265_HDR += "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
BT709: Tags = (1, LIMITED, 1, 1)
FULL_RANGE: Tags = (5, FULL, 5, 6)
BT2020: Tags = (9, LIMITED, 9, 14)
HDR: Tags = (9, LIMITED, 9, PQ)
ZERO: Tags = (0, 0, 0, 0)
TAGGED = {
    "h264-untagged.mp4": ("libx264", "yuv420p", UNTAGGED, X264),
    "h264-bt709.mp4": ("libx264", "yuv420p", BT709, X264),
    "h264-in-mkv-bt709.mkv": ("libx264", "yuv420p", BT709, X264),
    "h264-full.mov": ("libx264", "yuv420p", FULL_RANGE, X264),
    "h264-bt2020.mkv": ("libx264", "yuv420p10le", BT2020, X264),
    "h264-422.mp4": ("libx264", "yuv422p", BT709, X264),
    "hevc-hdr10.mp4": ("libx265", "yuv420p10le", HDR, {"preset": "ultrafast", "x265-params": X265_HDR}),
    "mpeg4-bt709.mov": ("mpeg4", "yuv420p", BT709, {}),
    "mpeg4-in-mkv-bt709.mkv": ("mpeg4", "yuv420p", BT709, {}),
    "mpeg2-bt709.mov": ("mpeg2video", "yuv420p", BT709, {}),
    "mpeg2-zero.mkv": ("mpeg2video", "yuv420p", ZERO, {}),
    "mjpeg-full.avi": ("mjpeg", "yuvj420p", FULL_RANGE, {"qmin": "1", "qmax": "2"}),
    "prores-bt709.mov": ("prores_ks", "yuv422p10le", BT709, {}),
    "prores-bt2020.mkv": ("prores_ks", "yuv422p10le", HDR, {}),
    "prores-zero.mov": ("prores_ks", "yuv422p10le", BT709, {}),
    "ffv1-grey.mkv": ("ffv1", "gray", UNTAGGED, {}),
    "ffv1-rgb.mkv": ("ffv1", "bgr0", UNTAGGED, {}),
}


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    root = tmp_path_factory.mktemp("tagged")
    (root / "data" / "any").mkdir(parents=True)
    for name, (codec, pixel_format, tags, options) in TAGGED.items():
        path = write_tagged(root / "data" / "any" / name, codec, pixel_format, tags, options)
        if name == "prores-zero.mov":
            value_0_in_prores(path)
    return VideoIndex.build(root / "data", index=root / "index", workers=0)


def decoded(index: VideoIndex, name: str) -> list[av.VideoFrame]:
    with av.open(str(Path(index.root) / "any" / name)) as container:
        return list(container.decode(video=0))


def tagged_as(name: str) -> Tags:
    return ZERO if "zero" in name else TAGGED[name][2]


def test_frames_of_the_files_are_tagged(tagged: VideoIndex) -> None:
    """Else the tests below would show less than they say. Some codecs and containers state a part of the tags."""
    for name in TAGGED:
        found, expected = tags_of(decoded(tagged, name)[0]), tagged_as(name)
        assert found[0] == expected[0], name
        assert (found[1] == FULL) == (expected[1] == FULL), name
        if not name.endswith(".avi"):
            assert found[2:] == expected[2:], name


def grey(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(array @ np.array([0.299, 0.587, 0.114]))


def assert_near(scaled: NDArray[np.float64], exact: NDArray[np.float64]) -> None:
    """Assert that [..., 3] pixels of 0..255 are as near as the scaler comes, in luma, in RGB and in brightness."""
    assert psnr(grey(scaled), grey(exact)) > 52
    assert psnr(scaled, exact) > 41
    assert abs(grey(scaled - exact).mean()) < 0.3


@pytest.mark.parametrize("name", TAGGED)
def test_boxes_of_tagged_files_are_scaled_as_rgb_would_be(tagged: VideoIndex, name: str) -> None:
    scaler = BoxScaler()
    for frame in decoded(tagged, name)[:2]:
        whole = frame.to_ndarray(format="rgb24").astype(float)
        for box in [(0, 0, 128, 128), (20, 31, 96, 101), (17, 4, 101, 97), (2, 30, 120, 120)]:
            y, x, h, w = box
            rows, columns = triangle(h, 56), triangle(w, 56)
            exact = np.einsum("ih,hwc,jw->ijc", rows, whole[y : y + h, x : x + w], columns, optimize=True)
            assert_near(scaler.scale(frame, box, 56).astype(float), exact)


def clips_of(index: VideoIndex, resize: str) -> dict[str, NDArray[np.float32]]:
    """The training clip of each video, [T, S, S, 3], 0..255."""
    plain = {"value_max": 255, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "layout": "NTHWC"}
    augment = AugmentSpec.model_validate({"size_px": 56, "resize": resize, **plain})
    clips: dict[str, NDArray[np.float32]] = {}
    with make(index, batch_size=len(index), augment=augment, clip=ClipSpec(num_frames=4)) as loader:
        for batch in loader:
            assert not batch.bad
            paths = [Path(index[video].path).name for video in batch.video_ids]
            clips.update(
                (path, clip) for path, clip, real in zip(paths, pixels(batch), batch.is_real, strict=True) if real
            )
    return clips


def test_training_shows_tagged_files_alike_whatever_resizes(tagged: VideoIndex) -> None:
    by_decoder, by_graph = clips_of(tagged, "decoder"), clips_of(tagged, "graph")
    assert set(by_decoder) == set(by_graph) == set(TAGGED)
    for name, clip in by_decoder.items():
        assert_near(clip.astype(float), by_graph[name].astype(float))
