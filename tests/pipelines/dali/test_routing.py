from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import turn_mp4, write_stamped_video
from loading import content, make, pixels
from stand_ins import cuda, python

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.dali.routing import _kinds
from pipelines.dali.share_finder import Routing
from pipelines.dali_limits import DaliLimits, VideoKind, refused_profile
from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.machine.nvdec import DecoderCaps
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.orientation import Orientation
from pipelines.video.parameters import StreamParameters
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord

MIXED = {"mjpeg": "avi", "vp8": "webm", "vp9": "mkv", "mpeg4": "avi"}  # the last is none of DALI's on the CPU
LIMITS = """
import json, logging
from pipelines.machine.device import check_device
from pipelines.errors import R3DFastError
from pipelines.dali.routing import limits_of_device
told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger("pipelines").addHandler(handler)
logging.getLogger("pipelines").propagate = False
limits = [limits_of_device("gpu:0") for _ in range(3)][0]
problems = []
for device in ("gpu:0", "gpu:3"):
    try: problems.append(check_device(device) or "")
    except R3DFastError as error: problems.append(f"{error.exit_code} {error}")
print(json.dumps([sorted(limits.codecs), len(limits.caps), told, problems]))
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """24 stamped videos, six of each codec of MIXED."""
    root = tmp_path_factory.mktemp("routing") / "videos"
    for codec, suffix in MIXED.items():
        (root / codec).mkdir(parents=True)
        for n in range(6):
            write_stamped_video(root / codec / f"v{n}.{suffix}", codec=codec, num_frames=20 + n, size=(112, 112))
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


def load(index: VideoIndex, decoder: str, *, train: bool = True, workers: int = 2, **options: object) -> ClipLoader:
    spec = LoaderSpec.model_validate({"batch_size": 4, "workers": workers, "threads": 1, "decoder": decoder, **options})
    augment = AugmentSpec(size_px=48, value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3, resize="graph")
    return ClipLoader(index, clip=ClipSpec(num_frames=6), augment=augment, loader=spec, split=None, train=train)


# What DALI takes


def record(codec: str, pix_fmt: str = "yuv420p", extradata: bytes = b"", width: int = 320) -> VideoRecord:
    return VideoRecord("v", 1, 1, 9, 240, width, codec, codec, pix_fmt, 25.0, "avi", extradata, b"")


def test_what_nvdec_takes() -> None:
    caps = tuple(DecoderCaps(codec, "4:2:0", 8, 1, 48, 48, 4096, 4096, 65536) for codec in ("mpeg4", "h264", "mjpeg"))
    limits = DaliLimits(frozenset({"mpeg4", "h264"}), caps)
    assert limits.refuses(record("mpeg4")) == ""
    assert limits.refuses(record("h264", "yuvj420p")) == ""
    assert limits.refuses(record("mjpeg", "yuvj420p")) == "DALI has no decoder for mjpeg here"
    assert limits.refuses(record("h264", "yuv420p10le")) == "h264 of 4:2:0 10 bit: NVDEC takes 4:2:0 8 bit"
    assert limits.refuses(record("h264", "yuv444p")) == "DALI decodes no 4:4:4 video on a GPU"
    assert limits.refuses(record("h264", "gray")) == "DALI does not know the pixel format gray"
    assert limits.refuses(record("mpeg4", width=32)) == "mpeg4 of 32x240: NVDEC takes 48x48 or more"
    known = replace(limits, exact=frozenset({VideoKind("mpeg4", "yuv420p", "")}))
    assert known.refuses(record("mpeg4")) == ""
    assert known.refuses(record("h264")) == "DALI gives other frames than PyAV"


@pytest.mark.parametrize(
    ("codec", "size", "others", "taken"),
    [
        ("h264", (320, 234), [(320, 240)], False),
        ("h264", (318, 234), [(320, 240)], False),
        ("h264", (318, 240), [(320, 240)], True),  # only its width is cropped: the rows lie where they should
        ("h264", (320, 234), [(320, 234), (320, 256)], True),
        ("h264", (1920, 1080), [(1920, 1080)], True),
        ("h264", (1920, 1080), [(1920, 1088)], False),
        ("hevc", (320, 236), [(320, 240)], False),
        ("hevc", (320, 232), [(320, 240)], True),
    ],
)
def test_sizes_that_are_coded_alike(
    codec: str, size: tuple[int, int], others: list[tuple[int, int]], taken: bool
) -> None:
    """DALI would give a cropped video the session of an uncropped one."""
    caps = (DecoderCaps(codec, "4:2:0", 8, 1, 48, 48, 4096, 4096, 65536),)
    limits = DaliLimits(frozenset({codec}), caps, sizes=frozenset((codec, *other) for other in [size, *others]))
    video = replace(record(codec), width=size[0], height=size[1])
    assert (limits.refuses(video) == "") == taken
    alone = replace(limits, sizes=frozenset({("mpeg4", 320, 240), (codec, *size)}))
    assert alone.refuses(video) == ""


def test_a_turned_video_goes_by_its_stored_size() -> None:
    caps = (DecoderCaps("h264", "4:2:0", 8, 1, 48, 48, 4096, 2304, 65536),)
    limits = DaliLimits(frozenset({"h264"}), caps, sizes=frozenset({("h264", 320, 240), ("h264", 320, 234)}))
    high = replace(record("h264"), height=4000, width=2000)
    assert limits.refuses(high) == "h264 of 2000x4000: NVDEC takes up to 4096x2304"
    assert limits.refuses(replace(high, orientation=Orientation(transposes=True, flips_x=True))) == ""
    cropped = replace(record("h264"), height=320, width=234, orientation=Orientation(transposes=True))
    assert "coded in the same size" in limits.refuses(cropped)
    assert "coded in the same size" not in limits.refuses(replace(cropped, orientation=Orientation(flips_y=True)))


def colours(video: VideoRecord, *, matrix: int = 2, color_range: int = 0) -> VideoRecord:
    return replace(video, parameters=StreamParameters(colorspace=matrix, color_range=color_range))


def test_colours_that_dali_would_convert_wrongly_are_left_to_pyav() -> None:
    limits = DaliLimits(frozenset({"vp9"}))
    for matrix in (0, 2, 5, 6):
        assert limits.refuses(colours(record("vp9"), matrix=matrix)) == ""
    for matrix, name in {1: "BT.709", 4: "FCC", 7: "SMPTE 240M", 9: "BT.2020", 10: "BT.2020", 14: "matrix 14"}.items():
        reason = limits.refuses(colours(record("vp9"), matrix=matrix))
        assert reason == f"DALI converts colours by BT.601, but its are {name}"
    assert limits.refuses(colours(record("vp9"), color_range=2)) == ""


def test_full_range_that_only_the_container_states_is_left_to_pyav_on_a_gpu(tmp_path: Path) -> None:
    """NVDEC's parser sees the stream alone."""
    codecs = ("h264", "hevc", "mpeg4", "vp9")
    caps = tuple(DecoderCaps(codec, "4:2:0", 8, 1, 48, 48, 4096, 4096, 65536) for codec in codecs)
    limits = DaliLimits(frozenset(codecs), caps)
    full = [limits.refuses(colours(record(codec), color_range=2)) for codec in codecs]
    seen = "DALI does not see that its colours have full range, since only its container says so"
    assert full == [seen, seen, seen, ""]  # VP9 states its range in every key frame
    assert [limits.refuses(colours(record(codec), color_range=1)) for codec in codecs] == [""] * 4
    path = write_stamped_video(tmp_path / "v.mp4", codec="h264", num_frames=1, options={"x264-params": "fullrange=on"})
    said = probe_video(path)
    assert (said.parameters.color_range, limits.refuses(said)) == (2, "")


@pytest.mark.parametrize("note", ["truncated", "damaged", "damaged packets", "concealed errors", "interlaced"])
def test_what_decoders_may_show_differently_is_left_to_pyav(note: str) -> None:
    limits = DaliLimits(frozenset({"mpeg4"}))
    odd = replace(record("mpeg4"), note=f"uneven frame times; {note}")
    assert limits.refuses(odd) == f"DALI may show other frames than PyAV of what is {note}"
    assert limits.refuses(replace(odd, note="uneven frame times; rotated; HDR")) == ""


def test_the_kind_of_a_video_has_what_changes_decoding() -> None:
    video = colours(replace(record("h264"), note="rotated; interlaced; HDR"), matrix=1, color_range=2)
    assert str(VideoKind.of(video)) == "h264, yuv420p, interlaced, BT.709, full range"
    plain = colours(replace(record("h264"), note="rotated; uneven frame times"), matrix=6, color_range=1)
    assert VideoKind.of(plain) == VideoKind.of(record("h264")) == VideoKind("h264", "yuv420p")


def layer(*, object_type: int = 17, version: int | None = None, sprite: int = 0) -> bytes:
    """A video object layer of ISO/IEC 14496-2, 6.2.3, of 320x240 px."""
    bits = f"0{object_type:08b}"
    bits += "0" if version is None else f"1{version:04b}001"
    bits += "0001" + "0" + "00" + "1" + f"{25:016b}" + "1" + "0"
    bits += "1" + f"{320:013b}" + "1" + f"{240:013b}" + "1" + "0" + "1"
    bits += f"{sprite:01b}" if version in (None, 1) else f"{sprite:02b}"
    bits += "0" * (-len(bits) % 8 + 64)
    return b"\0\0\1\x20" + int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        (record("mpeg4", extradata=layer()), ""),
        (record("mpeg4", extradata=layer(object_type=1, version=1)), ""),
        (record("mpeg4", extradata=layer(version=5)), ""),
        (record("mpeg4", extradata=layer(version=5, sprite=2)), "global motion compensation"),
        (record("mpeg4", extradata=layer(sprite=1)), "global motion compensation"),
        (record("mpeg4", extradata=layer(object_type=4)), "MPEG-4 video object type 4"),
        (record("mpeg4"), ""),
        (record("h264", extradata=b"\1\x64\0\x1f\xff"), ""),
        (record("h264", extradata=b"\1\x58\0\x1f\xff"), "H.264 extended profile"),
        (record("h264", extradata=b"\0\0\0\1\x09\xf0\0\0\0\1\x67\x58\0\x1f\0"), "H.264 extended profile"),
        (record("h264", extradata=b"\0\0\1\x67\x42\0\x1f\0"), ""),
        (record("h264"), ""),
        (record("hevc", extradata=b"\1\2\0\0"), ""),
        (record("hevc", extradata=b"\1\x49\0\0"), "HEVC profile 9"),
    ],
)
def test_profiles(video: VideoRecord, reason: str) -> None:
    assert refused_profile(video) == reason


def test_layer_fields() -> None:
    found = parse_video_object_layer(layer(version=5, sprite=2))
    assert found is not None
    assert (found.width, found.height, found.object_type, found.sprites) == (320, 240, 17, True)


@pytest.mark.real
def test_profiles_of_real_clips(real_clips: Path, tmp_path: Path) -> None:
    index = VideoIndex.build(real_clips / "UCF-101", index=tmp_path / "index", workers=0, val_fraction=0.0)
    layers = [parse_video_object_layer(index[i].extradata) for i in range(len(index))]
    assert {found and found.object_type for found in layers} <= {1, 17}
    assert {refused_profile(index[i]) for i in range(len(index))} == {""}


# What the driver says


def test_the_limits_of_a_v100(v100: Path) -> None:
    codecs, caps, told, problems, _ = python(LIMITS, libraries=v100)
    assert codecs == ["h264", "hevc", "mpeg4", "vp9"]
    assert caps > len(codecs)
    assert told == []
    assert problems == ["", "4 device gpu:3: there is no GPU 3; choose one of gpu:0 (Tesla V100)"]


def test_without_nvdec_pyav_decodes_and_one_warning_names_the_remedy(tmp_path: Path) -> None:
    cuda(tmp_path)
    codecs, _, told, problems, _ = python(LIMITS, libraries=tmp_path)
    assert codecs == []
    assert problems[0] == ""
    (warning,) = told
    assert warning.startswith(
        "libnvcuvid.so.1 is not there: PyAV decodes on the CPU, everything else runs on the GPU; to use NVDEC: "
    )
    assert "compute,utility,video" in warning or "libnvidia-decode" in warning


def test_a_gpu_that_is_not_there(index: VideoIndex) -> None:
    with pytest.raises(UsageError, match="device 'cuda': expected 'cpu', 'gpu' or 'gpu:N'"):
        make(index, device="cuda")
    with pytest.raises(UsageError, match="dtype 'bfloat16': expected 'float32' or 'float16'"):
        make(index, dtype="bfloat16")


def test_a_gpu_on_a_machine_without_one(index: VideoIndex) -> None:
    code = "import json; from pipelines.machine.nvidia import probe_driver; print(json.dumps([probe_driver().problem]))"
    if not python(code)[0]:
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentProblem, match=r"^device gpu: libcuda.so.1 is not there; ") as caught:
        make(index, device="gpu")
    assert caught.value.exit_code == 4


# What a loader makes of it


def test_without_a_gpu_auto_is_pyav(index: VideoIndex) -> None:
    with make(index) as loader:
        assert loader.routing is None
        next(iter(loader))
        assert loader.routing == Routing("pyav", 0.0, "no GPU")


def test_kinds_of_videos(mixed: VideoIndex) -> None:
    kinds = mixed.kinds()
    assert [(examples[0].codec, len(examples), count) for examples, count in kinds] == [
        (codec, 3, 6) for codec in sorted(MIXED)
    ]
    assert next([record.path for record in examples] for examples, _ in kinds) == [f"mjpeg/v{n}.avi" for n in range(3)]
    assert mixed.kinds("no such split") == []


def test_kinds_of_videos_differ_by_their_colours_and_not_by_their_turn(tmp_path: Path) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    tags = ({}, {}, {"colorspace": "bt709"}, {"color_range": "pc"}, {"colorspace": "smpte170m"})
    for number, options in enumerate(tags):
        path = tmp_path / "v" / "a" / f"{number}.mp4"
        write_stamped_video(path, codec="vp9", num_frames=6, size=(128, 112), options=options)
    turn_mp4(tmp_path / "v" / "a" / "1.mp4", (0, 1, -1, 0))
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    found = {kind.traits: ([one.path for one in some], count) for kind, (some, count) in _kinds(index, None).items()}
    assert found == {
        "": (["a/0.mp4", "a/1.mp4", "a/4.mp4"], 3),
        "BT.709": (["a/2.mp4"], 1),
        "full range": (["a/3.mp4"], 1),
    }
    assert index.sizes() == [("vp9", 128, 112)]  # as they are stored


@pytest.mark.parametrize("workers", [0, 2])
def test_hybrid_finds_a_share_and_loses_nothing(
    mixed: VideoIndex, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with load(mixed, "pyav") as loader:
        expected = [batch for _ in range(6) for batch in loader]
    with caplog.at_level(logging.INFO, "pipelines"), load(mixed, "hybrid", workers=workers) as loader:
        found = []
        for _ in range(6):
            found += list(loader)
        routing = loader.routing
        statistics = loader.statistics
    assert routing is not None
    assert routing.decoder == "hybrid"
    assert 0.0 < routing.share < 1.0
    assert str(routing) in [record.getMessage() for record in caplog.records]
    assert 0 < statistics.encoded_clips < statistics.clips == 6 * 24
    for a, b in zip(found, expected, strict=True):
        assert (a.video_ids.tolist(), a.labels.tolist(), a.epoch, a.position, a.is_real.all(), a.bad) == (
            b.video_ids.tolist(), b.labels.tolist(), b.epoch, b.position, True, ()
        )  # fmt: skip
        assert np.abs(pixels(a) - pixels(b)).mean() < 2.5  # of 255: two colour converters


def test_a_share_that_is_set_makes_the_same_bits_each_time(mixed: VideoIndex) -> None:
    runs = []
    for workers in (0, 2):
        with load(mixed, "hybrid", dali_share=0.5, workers=workers) as loader:
            runs.append(content([batch for _ in range(3) for batch in loader]))
            assert loader.routing == Routing("hybrid", 0.5, "as set")
            # DALI gets half of the rows, and takes what is not MPEG-4.
            assert 0.25 * 72 < loader.statistics.encoded_clips < 0.5 * 72
    assert runs[0] == runs[1]


def test_repeats_of_a_clip_go_the_same_way(mixed: VideoIndex) -> None:
    with load(mixed, "hybrid", repeats=2) as loader:
        batches = [batch for _ in range(2) for batch in loader]
        assert loader.routing is not None
    with load(mixed, "pyav", repeats=2) as loader:
        for a, b in zip(batches, [batch for _ in range(2) for batch in loader], strict=True):
            assert a.video_ids.tolist() == b.video_ids.tolist()
            assert np.abs(pixels(a) - pixels(b)).mean() < 2.5


def test_an_epoch_that_is_left_while_shares_are_tried(mixed: VideoIndex) -> None:
    with load(mixed, "hybrid") as loader:
        for number in range(4):
            next(loader.epoch(number))
            assert loader.routing is None
        for number in range(4, 8):
            assert len(list(loader.epoch(number))) == 6
        assert loader.routing is not None


def test_a_loader_that_is_closed_keeps_what_it_found(mixed: VideoIndex) -> None:
    with load(mixed, "hybrid") as loader:
        for _ in range(3):
            list(loader)
        found = loader.routing
        loader.close()
        list(loader)
        assert loader.routing == found is not None


@pytest.mark.parametrize("decoder", ["auto", "hybrid"])
def test_evaluation_does_not_depend_on_measurements(mixed: VideoIndex, decoder: str) -> None:
    with load(mixed, decoder, train=False) as loader, load(mixed, "pyav", train=False) as plain:
        assert content(list(loader)) == content(list(plain))
        assert loader.routing is not None
        assert loader.routing.decoder == "pyav"


def test_videos_that_dali_can_not_decode_at_all(index: VideoIndex) -> None:
    with make(index, decoder="dali") as loader, make(index) as plain:
        assert content(list(loader)) == content(list(plain))
        assert loader.routing == Routing("pyav", 0.0, "DALI decodes none of these videos here")


def test_what_is_left_to_pyav_is_told_once(mixed: VideoIndex) -> None:
    code = f"""
import json, logging
from pipelines import AugmentSpec, ClipLoader, ClipSpec, LoaderSpec, VideoIndex
told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger("pipelines").addHandler(handler)
index = VideoIndex.open({json.dumps(str(mixed.path))})
for train in (True, False, True):
    spec = LoaderSpec(batch_size=4, workers=0, decoder="dali")
    with ClipLoader(index, loader=spec, split=None, train=train) as loader:
        next(iter(loader))
print(json.dumps([told]))
"""
    told, _ = python(code)
    assert told == [
        "PyAV decodes the videos that DALI can't: 6 videos (mpeg4, yuv420p): DALI has no decoder for mpeg4 here"
    ]
