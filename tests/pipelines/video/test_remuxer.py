from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from av.video import reformatter
from numpy.typing import NDArray

from pipelines.bitstreams.packet_flags import SILENT
from pipelines.dali.versions import cpu_video_codecs, executor_options, import_dali, video_decoder
from pipelines.errors import FrameError, VideoError
from pipelines.video.decoder import read_frames
from pipelines.video.orientation import UPRIGHT, orientation_of
from pipelines.video.packets import select
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import INEXACT, MiniVideo, remux, write_matroska

Pixels = NDArray[np.uint8]

OPEN_HEVC = "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1"

# name: (container, what the maker takes)
STAMPED: dict[str, tuple[str, dict[str, Any]]] = {
    "mpeg4": ("avi", {}),
    "mpeg4 B": ("avi", {"b_frames": 1}),
    "mpeg4 BB": ("avi", {"b_frames": 2}),
    "mpeg4 mp4": ("mp4", {"b_frames": 2}),
    "mpeg4 mkv": ("mkv", {"b_frames": 1}),
    "mpeg4 odd": ("avi", {"size": (135, 97), "b_frames": 2}),
    "mpeg2video": ("avi", {}),
    "mpeg2video BB": ("mkv", {"b_frames": 2}),
    "mjpeg": ("avi", {}),
    "mjpeg mkv": ("mkv", {}),
    "mjpeg odd": ("mp4", {"size": (135, 97)}),
    "h264": ("mp4", {}),
    "h264 BBB": ("mp4", {"b_frames": 3}),
    "h264 avi": ("avi", {"b_frames": 2}),
    "h264 mkv": ("mkv", {"b_frames": 3, "size": (130, 98)}),
    "hevc": ("mp4", {}),
    "hevc BBB": ("mkv", {"b_frames": 3, "size": (130, 98)}),
    "hevc 10 bit": ("mp4", {"b_frames": 3, "pix_fmt": "yuv420p10le"}),
    "hevc open gop": ("mp4", {"b_frames": 3, "options": {"x265-params": OPEN_HEVC}}),
    "vp8": ("webm", {}),
    "vp8 odd": ("webm", {"size": (135, 97)}),
    "vp9": ("webm", {}),
    "vp9 odd": ("webm", {"size": (161, 99)}),
    "av1": ("mp4", {}),
    "av1 mkv": ("mkv", {"size": (130, 98)}),
}


def write_hidden_vp8(path: Path) -> None:
    """`path`, now VP8 of which every tenth frame is not shown, as alternate references are: 48 packets, 43 frames."""
    plain = clips.write_stamped_video(path.with_suffix(".plain.webm"), codec="vp8")
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        for number, packet in enumerate(packet for packet in source.demux(video) if packet.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF if number % 10 != 5 else 0xEF
            changed = av.Packet(bytes(data))
            changed.stream, changed.is_keyframe = stream, packet.is_keyframe
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            target.mux(changed)


OTHERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "packed": ("avi", clips.write_packed_mpeg4),
    "packed BB": ("avi", lambda path: clips.write_packed_mpeg4(path, b_frames=2)),
    "open gop h264": ("mp4", clips.write_open_gop_h264),
    "open gop mpeg2": ("avi", clips.write_open_gop_mpeg),
    "vp8 hidden": ("webm", write_hidden_vp8),
    "open gop mpeg4": ("avi", lambda path: clips.write_open_gop_mpeg(path, codec="mpeg4")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@cache
def made(folder: Path, name: str) -> VideoRecord:
    container = (STAMPED.get(name) or OTHERS[name])[0]
    path = folder / f"{name.replace(' ', '-')}.{container}"
    if name in STAMPED:
        clips.write_stamped_video(path, codec=name.split()[0], **STAMPED[name][1])
    else:
        OTHERS[name][1](path)
    return probe_video(path)


def decoded(mini: MiniVideo) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(mini.data.tobytes())) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name == "h264":
            stream.codec_context.options = {"strict": "1"}  # else FFmpeg guesses how far frames are reordered
        return list(container.decode(stream))


def pixels(frames: list[av.VideoFrame], interpolation: int | None = None) -> Pixels:
    convert = reformatter.VideoReformatter().reformat
    return np.stack([convert(f, format="rgb24", interpolation=interpolation).to_ndarray() for f in frames])


def random_sets(count: int, seed: int, sets: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, count, k) for k in rng.integers(1, 17, sets)]


def assert_exact(record: VideoRecord, wanted: NDArray[np.int64]) -> None:
    mini = remux(record, wanted)
    assert mini.data.dtype == np.uint8
    assert mini.frames.dtype == np.int32
    frames = decoded(mini)
    with av.open(io.BytesIO(mini.data.tobytes())) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert len(frames) == packets, f"{record.path} {wanted}: each packet must give one frame"
    got = pixels([frames[k] for k in mini.frames])
    np.testing.assert_array_equal(got, read_frames(record, wanted), err_msg=f"{record.path} {wanted}")


@pytest.mark.parametrize("name", [*STAMPED, *OTHERS])
def test_the_mini_video_gives_exactly_the_asked_frames(folder: Path, name: str) -> None:
    record = made(folder, name)
    count = record.num_frames
    for wanted in [np.arange(count), np.arange(count)[::-1], np.array([count - 1, 0]), *random_sets(count, 1, 12)]:
        assert_exact(record, wanted)
    if name != "vp8 hidden":
        mini = remux(record, [5, 3, 5, 20])
        frames = decoded(mini)
        assert [clips.read_stamp(frame) for frame in pixels([frames[k] for k in mini.frames])] == [5, 3, 5, 20]


def test_hidden_vp8_frames_are_shown_so_that_packets_count(folder: Path) -> None:
    record = made(folder, "vp8 hidden")
    assert (len(record.packets.offset), record.num_frames) == (48, 43)
    mini = remux(record, [0, 42])
    assert mini.frames.tolist() == [0, 12]  # the first packet, then the last group with the hidden frame in it


@pytest.mark.real
def test_every_real_clip_is_cut_exactly(real_clips: Path) -> None:
    paths = sorted((real_clips / "UCF-101").rglob("*.avi"))
    assert len(paths) == 96
    for seed, path in enumerate(paths):
        record = probe_video(path)
        for wanted in [
            np.arange(0, record.num_frames, record.num_frames // 16),
            *random_sets(record.num_frames, seed, 1),
        ]:
            assert_exact(record, wanted)


@pytest.mark.real
def test_odd_real_clips_are_cut_exactly_or_refused(real_clips: Path) -> None:
    for seed, path in enumerate(sorted((real_clips / "odd").iterdir())):
        record = probe_video(path)
        if path.name == "divx_header_one_frame_long.avi":
            with pytest.raises(FrameError, match=INEXACT):
                remux(record, [20])
            continue
        for wanted in random_sets(record.num_frames, seed, 2):
            assert_exact(record, wanted)


def test_only_the_needed_packets_are_in_it(folder: Path) -> None:
    record = made(folder, "mpeg4 BB")
    wanted = [30, 14]
    mini = remux(record, wanted)
    needed = sum(len(run.packets) for run in select(record.packets, wanted))
    assert len(decoded(mini)) == needed < 12
    assert len(mini.data) < record.size / 3


def test_the_header_says_size_rate_and_codec(folder: Path) -> None:
    for name, codec in (("mpeg4 odd", "mpeg4"), ("h264 mkv", "h264"), ("vp9 odd", "vp9")):
        record = made(folder, name)
        with av.open(io.BytesIO(remux(record, [3]).data.tobytes())) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.codec.canonical_name == codec
            assert (stream.width, stream.height) == (record.width, record.height)
            assert stream.average_rate == pytest.approx(25)


def test_more_frames_than_one_cluster_holds_keep_their_order() -> None:
    packet = (np.arange(40_000) % 251).astype(np.uint8)
    ticks = np.arange(40_000) ^ 1  # each pair swapped, as B-frames are
    data = write_matroska(
        zip(ticks.tolist(), packet[:, None].tobytes().hex(" ").encode().split(), strict=True),
        codec="mjpeg",
        width=16,
        height=16,
    )
    with av.open(io.BytesIO(data)) as container:
        assert [packet.pts for packet in container.demux(video=0) if packet.size] == ticks.tolist()


def test_what_cant_be_cut_exactly_is_refused(folder: Path) -> None:
    record = made(folder, "mpeg4 BB")
    table = record.packets
    flags = table.flags.copy()
    gone = int(table.frame_packet[3])
    flags[gone] |= SILENT
    silent = replace(table, flags=flags, frame_packet=np.delete(table.frame_packet, 3))
    with pytest.raises(FrameError, match="can't be remuxed exactly: a VOP without a picture sets the clock"):
        remux(replace(record, num_frames=47, table=silent.to_bytes()), [10, 7])
    missing = replace(table, frame_packet=np.delete(table.frame_packet, 3))
    with pytest.raises(FrameError, match="can't be remuxed exactly: a packet that gives no frame is needed"):
        remux(replace(record, num_frames=47, table=missing.to_bytes()), [10, 7])
    with pytest.raises(FrameError, match="can't be remuxed exactly: its packets do not tell which frames they give"):
        remux(replace(record, table=replace(table, ordinal=True).to_bytes()), [1])
    with pytest.raises(FrameError, match="can't be remuxed exactly: codec theora"):
        remux(replace(record, codec="theora"), [1])
    changing = replace(record, parameters=replace(record.parameters, changes=True))
    with pytest.raises(FrameError, match="can't be remuxed exactly: its headers change on the way"):
        remux(changing, [1])


@pytest.mark.parametrize("tag", ["XVID", "DIVX"])
def test_mpeg4_whose_encoder_only_the_tag_names_is_refused(tmp_path: Path, tag: str) -> None:
    """FFmpeg takes XviD's inverse transform for it, which no decoder of the small video would know of."""
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25, options={"flags": "bitexact"})  # without user data
        stream.width, stream.height, stream.codec_context.codec_tag = 128, 96, tag
        for number in range(12):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(clips.stamped_frame(number), format="rgb24")))
        target.mux(stream.encode(None))
    record = probe_video(path)
    with pytest.raises(FrameError, match=f"can't be remuxed exactly: only its codec tag {tag} names the encoder"):
        remux(record, [1])
    assert_exact(replace(record, parameters=replace(record.parameters, codec_tag="FMP4")), np.array([3, 1]))


def test_the_small_video_of_a_turned_one_is_stored_as_that_one(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.mp4", codec="vp9", size=(160, 96))
    record = probe_video(clips.turn_mp4(path, (0, 1, -1, 0)))
    assert (record.width, record.height) == (96, 160)
    frames = decoded(remux(record, [7]))
    assert (frames[0].width, frames[0].height) == (160, 96)
    assert orientation_of(frames[0]) == UPRIGHT
    assert clips.read_stamp(pixels(frames)[-1]) == 7


@pytest.mark.parametrize("frame", [-1, 48])
def test_a_frame_that_does_not_exist_is_an_error(folder: Path, frame: int) -> None:
    with pytest.raises(IndexError, match="are asked for, but the video has 48"):
        remux(made(folder, "mpeg4"), [0, frame])


def test_a_file_that_changed_or_went_is_an_error(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record = probe_video("a.avi", root=tmp_path)
    assert len(remux(record, [7], root=str(tmp_path)).data)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(VideoError, match=r"changed since it was indexed: \d+ bytes then, \d+ now; index the data set"):
        remux(record, [0], root=str(tmp_path))
    path.unlink()
    with pytest.raises(VideoError, match="can't be read: No such file"):
        remux(record, [0], root=str(tmp_path))


# Through DALI on the CPU. Its converter (full chroma interpolation, accurate rounding) is not PyAV's default for rgb24:
# against that, MEAN_RGB24 holds for every codec, full range included; with the same flags pixels are the same.
MEAN_RGB24 = 2.5
MAX_STAMPED = 40
FLAGS = ("BILINEAR", "FULL_CHR_H_INT", "ACCURATE_RND")


def through_dali(batches: list[list[MiniVideo]], prefetch: int = 2, threads: int = 2) -> list[list[Pixels]]:
    fn, types, Pipeline = import_dali()
    source = iter([([mini.data for mini in batch], [mini.frames for mini in batch]) for batch in batches])
    pipeline = Pipeline(
        batch_size=len(batches[0]),
        num_threads=threads,
        device_id=None,
        prefetch_queue_depth=prefetch,
        **executor_options(Pipeline),
    )
    with pipeline:
        encoded, numbers = fn.external_source(
            source=source, num_outputs=2, dtype=[types.UINT8, types.INT32], ndim=[1, 1]
        )
        pipeline.set_outputs(video_decoder()(encoded, frames=numbers, device="cpu"))
    pipeline.build()
    outputs = []
    for batch in batches:
        (frames,) = pipeline.run()
        outputs.append([np.array(frames.at(place)) for place in range(len(batch))])
    return outputs


@pytest.mark.parametrize("prefetch", [1, 2])
def test_dali_gives_the_asked_frames_batch_after_batch(folder: Path, prefetch: int) -> None:
    records = [made(folder, name) for name in ("vp8", "mjpeg odd", "vp9 odd", "vp8 hidden", "vp9", "mjpeg")]
    rng = np.random.default_rng(prefetch)
    asked = [[rng.integers(0, record.num_frames, 8) for record in records] for _ in range(20)]
    batches = [[remux(r, wanted) for r, wanted in zip(records, sets, strict=True)] for sets in asked]
    for sets, clips_of_batch in zip(asked, through_dali(batches, prefetch), strict=True):
        for record, wanted, got in zip(records, sets, clips_of_batch, strict=True):
            expected = read_frames(record, wanted)
            assert [clips.read_stamp(frame) for frame in got] == [clips.read_stamp(frame) for frame in expected]
            difference = np.abs(got.astype(np.int16) - expected)
            assert difference.mean() < MEAN_RGB24, record.path
            assert difference.max() < MAX_STAMPED, record.path


@pytest.mark.skipif(not hasattr(reformatter.Interpolation, FLAGS[1]), reason="this PyAV can't set the scaler's flags")
@pytest.mark.parametrize("name", ["vp8", "vp9 odd", "mjpeg odd"])
def test_with_its_scaler_flags_dali_gives_the_same_pixels(folder: Path, name: str) -> None:
    flags = int(sum(getattr(reformatter.Interpolation, flag) for flag in FLAGS))
    record = made(folder, name)
    mini = remux(record, [40, 3, 3, 17])
    frames = decoded(mini)
    (got,) = through_dali([[mini]])[0]
    difference = np.abs(got.astype(np.int16) - pixels([frames[k] for k in mini.frames], flags))
    assert difference.max() <= 1  # two builds of one scaler


@pytest.mark.real
def test_dali_decodes_a_real_full_range_mjpeg(real_clips: Path) -> None:
    record = probe_video(real_clips / "odd" / "mjpeg_320x600.avi")
    sets = random_sets(record.num_frames, 5, 8)
    for wanted, (got,) in zip(sets, through_dali([[remux(record, wanted)] for wanted in sets]), strict=True):
        difference = np.abs(got.astype(np.int16) - read_frames(record, wanted))
        assert difference.mean() < MEAN_RGB24
        assert (difference > 32).mean() < 0.02  # sharp edges of colour


def test_dali_decodes_each_codec_that_compat_names() -> None:
    assert cpu_video_codecs() == {"vp8", "vp9", "mjpeg"}


def test_dali_says_so_when_a_frame_or_the_end_is_missing(folder: Path) -> None:
    mini = remux(made(folder, "vp8"), [3, 40])
    with pytest.raises(RuntimeError, match="out-of-bounds frame index 1000"):
        through_dali([[MiniVideo(mini.data, np.array([1000], np.int32))]])
    with pytest.raises(RuntimeError, match="out-of-bounds frame index"):
        through_dali([[MiniVideo(mini.data[: len(mini.data) // 2].copy(), mini.frames)]])
