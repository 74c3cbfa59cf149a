"""The loaders that ours is compared with do the same work, and a reader that gives other frames is found out."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from numpy.typing import NDArray

from bench.loader import frame_check as peer_frames
from bench.loader import peers
from bench.loader.frame_check import FrameCheck
from bench.loader.peers import PEERS, Peer, PeerLoader
from bench.videos import synthesis as dataset
from bench.videos.synthesis import make_clips
from pipelines.errors import FrameError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.decoder import read_frames

Frames = NDArray[np.uint8]
BY_NAME = {peer.name: peer for peer in PEERS}
CLIP = ClipSpec(num_frames=6)
AUGMENT = AugmentSpec(size_px=40)
LENGTHS = (48, 36, 5, 60, 24, 72)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Six stamped videos of two classes; one shorter than a clip, two with one key frame."""
    root = tmp_path_factory.mktemp("peers") / "data"
    for i, num_frames in enumerate(LENGTHS):
        folder = root / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(folder / f"{i}.avi", num_frames=num_frames, gop=12 if i % 3 else 300)
    return VideoIndex.build(root, val_fraction=0, workers=1)


def needs(name: str, *, decoder_only: bool = False) -> Peer:
    """The peer of `name`, or a skip that says what installs it; `decoder_only`: torch itself is not needed."""
    peer = BY_NAME[name]
    for module in peer.modules:
        if not any(peers._importable(m) for m in module.split("|")) and not (decoder_only and module == "torch"):
            pytest.skip(f"no {module}: {peer.install}")
    return peer


def path_of(index: VideoIndex, i: int) -> str:
    return str(index.root / index[i].path)


def read_clip(peer: Peer, path: str, frames: NDArray[np.int32], folder: Path) -> Frames:
    if peer.extracts:
        peers.extract(path, str(folder))
        path = str(folder)
    return peers.read(peer, path, frames)


def off_by_one(path: str, frames: NDArray[np.int32]) -> Frames:
    """A reader that gives the frame before, of one video."""
    return BY_NAME["PyAV naive"].decode(path, np.maximum(frames - 1, 0) if path.endswith("3.avi") else frames)


def tinted(path: str, frames: NDArray[np.int32]) -> Frames:
    """A reader with another conversion to RGB, and that can't read one video."""
    if path.endswith("2.avi"):
        raise RuntimeError("can't")
    pixels = BY_NAME["PyAV naive"].decode(path, frames)
    return np.clip(pixels * 0.99 + 1.5, 0, 255).astype(np.uint8)


# What a user is told.


def test_an_unknown_peer_is_named_with_the_nearest_and_all_others() -> None:
    with pytest.raises(UsageError, match=r"no peer 'decrod'; did you mean 'decord'\? There are: torchcodec exact, "):
        peers.find_peers(["OpenCV grab", "decrod"])
    with pytest.raises(UsageError, match=r"no peer 'zzz'; expected one of: .*, PyAV naive, jpg frames$"):
        peers.find_peers(["zzz"])


def test_a_peer_that_does_not_import_is_missing_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"torch", "decord", "PIL"}
    monkeypatch.setattr(peers, "_importable", there.__contains__)
    usable, missing = peers.find_peers()
    assert [peer.name for peer in usable] == ["decord", "PyAV naive", "jpg frames"]
    assert list(missing) == ["torchcodec exact", "torchcodec approximate", "OpenCV full decode", "OpenCV grab"]
    assert missing["torchcodec exact"] == "pip install torch torchcodec (and FFmpeg's shared libraries)"
    assert peers.find_peers(["opencv grab", "DECORD"]) == (
        [BY_NAME["decord"]],
        {"OpenCV grab": BY_NAME["OpenCV grab"].install},
    )


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_module_that_breaks_while_imported_is_not_there(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_{error.__name__}"
    (tmp_path / f"{name}.py").write_text(f"raise {error.__name__}('no FFmpeg')")
    monkeypatch.syspath_prepend(tmp_path)
    assert not peers._importable(name)


# What the readers give.


@pytest.mark.parametrize("name", BY_NAME)
def test_readers_give_the_asked_frames_in_any_order(index: VideoIndex, name: str, tmp_path: Path) -> None:
    peer = needs(name, decoder_only=True)
    for i in (0, 3):
        frames = np.array([30, 2, 2, 17, 31, 0, index[i].num_frames - 1], np.int32)
        got = read_clip(peer, path_of(index, i), frames, tmp_path / str(i))
        assert [clips.read_stamp(frame) for frame in got] == frames.tolist()
        away = np.abs(got.astype(int) - read_frames(index[i], frames, root=index.root)).mean()
        # JPEG loses more at the stamps' sharp edges than in photographs.
        assert away <= (6.0 if peer.extracts else 0.1), f"{name} differs by {away}"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_frame_that_is_not_there_is_an_error(index: VideoIndex, name: str, tmp_path: Path) -> None:
    peer = needs(name, decoder_only=True)
    # torchcodec and decord have errors of their own.
    ours = not name.startswith(("torchcodec", "decord"))
    with pytest.raises(FrameError if ours else Exception, match="frames missing" if ours else "500|[Ii]nd"):
        read_clip(peer, path_of(index, 0), np.array([0, 500], np.int32), tmp_path / "frames")


def test_a_reader_of_another_shape_is_an_error(index: VideoIndex) -> None:
    peer = Peer("odd", (), "", lambda path, frames: np.zeros((len(frames), 3, 96, 128), np.uint8))
    with pytest.raises(FrameError, match=r"odd gives uint8 \(1, 3, 96, 128\)"):
        peers.read(peer, path_of(index, 0), np.array([0], np.int32))


# What the check says.


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if not BY_NAME[name].extracts])
def test_the_check_passes_readers_that_are_right(index: VideoIndex, name: str, sampling: str) -> None:
    """Those of JPEGs aside: stamps are no photographs, JPEG changes them by more than the bound."""
    peer = needs(name, decoder_only=True)
    check = peer_frames.check_frames(peer, index, "train", CLIP.model_copy(update={"sampling": sampling}))
    assert (check.identical + check.same, check.wrong, check.failed) == (len(LENGTHS), (), ())
    assert check.difference < 0.1
    if name == "PyAV naive":
        assert check.text == "identical"


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
def test_the_check_finds_one_video_that_is_off_by_one(index: VideoIndex, sampling: str) -> None:
    check = peer_frames.check_frames(Peer("late", (), "", off_by_one), index, "train", ClipSpec(sampling=sampling))
    assert check == FrameCheck(6, 5, 0, 0.0, ("b/3.avi",), ())
    assert check.text == "1 of 6 videos give other frames, else identical"


def test_the_check_tells_a_conversion_and_an_error_from_other_frames(index: VideoIndex) -> None:
    check = peer_frames.check_frames(Peer("tint", (), "", tinted), index, "train", CLIP)
    assert (check.videos, check.identical, check.same, check.wrong) == (6, 0, 5, ())
    assert check.failed == ("a/2.avi: can't",)
    assert 0.3 < check.difference < 2.0
    expected = f"1 of 6 videos raise, else same frames (mean difference up to {check.difference:.1f} of 255)"
    assert check.text == expected


def test_an_off_by_one_is_found_in_a_video_that_hardly_moves(tmp_path: Path) -> None:
    """Neighbours differ by less than converters do: only their order tells."""
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    with av.open(str(folder / "3.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
        for number in range(40):
            pixels = clips.stamped_frame(0)
            pixels[80:88, 2 * number : 2 * number + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    still = VideoIndex.build(tmp_path / "data", val_fraction=0, workers=1)
    frames = read_frames(still[0], range(40), root=still.root).astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).max() < 3.0 < peer_frames.SAME_FRAME
    check = peer_frames.check_frames(Peer("late", (), "", off_by_one), still, "train", CLIP)
    assert check.wrong == ("a/3.avi",)


@pytest.mark.real
def test_readers_of_real_clips(real_clips: Path, tmp_path: Path) -> None:
    """JPEGs are the same frames; decoding from the start is our decoding."""
    lists = real_clips / "ucfTrainTestlist"
    real = VideoIndex.build(real_clips / "UCF-101", lists=lists, split=1, index=tmp_path / "ucf.r3dindex", workers=1)
    assert peer_frames.check_frames(BY_NAME["PyAV naive"], real, "test", ClipSpec()).text == "identical"
    check = peer_frames.check_frames(
        needs("jpg frames", decoder_only=True), real, "test", ClipSpec(sampling="consecutive")
    )
    assert (check.same, check.wrong, check.failed) == (32, (), ())


# What the loaders give.


def expected_clip(index: VideoIndex, sampler: ClipSampler, k: int, pixels: Frames | None = None) -> Any:
    """Clip k made in the plainest way, in double precision after the resize."""
    torch: Any = importlib.import_module("torch")
    plan = sampler.plan(*divmod(k, sampler.num_clips))
    if pixels is None:
        pixels = read_frames(index[plan.video_id], plan.frames, root=index.root)
    y, x, h, w = plan.box
    planes = torch.from_numpy(pixels[:, y : y + h, x : x + w].transpose(0, 3, 1, 2).copy())
    size = sampler.augment.size_px
    small = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True).numpy()
    if plan.mirror:
        small = small[..., ::-1]
    mean, std = (np.array(three).reshape(1, 3, 1, 1) for three in (sampler.augment.mean, sampler.augment.std))
    return ((small / 255.0 * sampler.augment.value_max - mean) / std).transpose(1, 0, 2, 3)


def train_sampler(index: VideoIndex) -> ClipSampler:
    return ClipSampler(index.columns("train"), CLIP, AUGMENT, seed=3, train=True, shard=ShardSpec())


def load(peer: Peer, index: VideoIndex, *, workers: int, batch_size: int = 4) -> PeerLoader:
    return PeerLoader(peer, index, CLIP, AUGMENT, split="train", seed=3, batch_size=batch_size, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", BY_NAME)
def test_batches_are_the_plans_clips_over_several_epochs(index: VideoIndex, name: str, workers: int) -> None:
    peer = needs(name)
    sampler = train_sampler(index)
    with load(peer, index, workers=workers) as loader:
        for number, batch in enumerate(itertools.islice(loader, 5)):  # 20 clips of 6 videos
            assert batch.shape == (4, 3, 6, 40, 40)
            assert str(batch.dtype) == "torch.float32"
            assert batch.is_contiguous()
            want = np.stack([expected_clip(index, sampler, number * 4 + i) for i in range(4)])
            away = np.abs(batch.numpy() - want)
            assert (away.mean() if peer.extracts else away.max()) < 0.1, name
            if name == "PyAV naive":
                assert away.max() < 1e-5
        assert loader.failures == 0


def test_close_ends_the_workers_and_removes_the_files(index: VideoIndex, tmp_path: Path, monkeypatch: Any) -> None:
    peer = needs("jpg frames")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(multiprocessing.active_children())
    loader = load(peer, index, workers=2)
    next(loader)
    mine = set(multiprocessing.active_children()) - before
    assert len(mine) == 2
    assert len(list(tmp_path.glob("r3d-fast-jpg-*/*/*.jpg"))) == sum(LENGTHS)
    loader.close()
    loader.close()
    assert not any(process.is_alive() for process in mine)
    assert not list(tmp_path.glob("r3d-fast-jpg-*"))


def test_a_clip_that_raises_is_blank_and_counted(index: VideoIndex) -> None:
    needs("PyAV naive")
    sampler = train_sampler(index)
    bad = next(i for i in range(6) if index[i].path == "a/2.avi")
    with load(Peer("tint", (), "", tinted), index, workers=1, batch_size=6) as loader:
        for epoch in range(2):
            batch = next(loader)
            blank = [i for i in range(6) if sampler.plan(epoch, i).video_id == bad]
            assert [i for i in range(6) if not batch[i].any()] == blank
            assert loader.failures == epoch + 1


# The clips that bench makes.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "clips"
    make_clips(root, 64)
    return root


def packet_types(path: Path) -> str:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("mpeg4", 320, 240, 25)
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    return "".join("IPBS"[data[data.index(b"\0\0\1\xb6") + 4] >> 6] for data in packets)


def test_made_clips_are_like_ucf101(made: Path) -> None:
    files = sorted(made.glob("*/*.avi"))
    assert Counter(file.parent.name for file in files) == {f"class_{i}": 8 for i in range(8)}
    types = [packet_types(file) for file in files]
    lengths = np.array([len(one) for one in types])
    assert lengths.min() >= 29
    assert lengths.max() <= 300
    assert 183 < lengths.mean() < 191
    keys = Counter("few" if one.count("I") <= 2 else "every 12" for one in types)
    assert keys == {"every 12": 40, "few": 24}
    assert Counter(one.count("I") for one in types if one.count("I") <= 2) == {1: 16, 2: 8}
    assert all(set(one[12::12]) == {"I"} for one in types if one.count("I") > 2)
    assert sum("B" in one for one in types) == 12
    sizes = np.array([file.stat().st_size for file in files]) / lengths
    assert 2000 < sizes.mean() < 4000
    index = VideoIndex.build(made, val_fraction=0, index=made.parent / "made.r3dindex", workers=1)
    assert len(index.columns("train")) == 64
    assert not index.quarantined


def test_made_clips_move(made: Path) -> None:
    with av.open(str(made / "class_3" / "002.avi")) as container:
        frames = [
            frame.to_ndarray(format="gray").astype(int) for frame in itertools.islice(container.decode(video=0), 12)
        ]
    assert all(np.abs(a - b).mean() > 1.0 for a, b in itertools.pairwise(frames))


def test_equal_arguments_make_equal_bytes_and_are_left_alone(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("a", 1)):
        make_clips(tmp_path / name, 8, seed=seed, progress=lambda *now: told.append(now))
    assert told == [(number, 8) for _ in range(3) for number in range(1, 9)]
    data = {name: [file.read_bytes() for file in sorted((tmp_path / name).rglob("*.avi"))] for name in "abc"}
    assert data["a"] == data["b"] != data["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_stop_half_way_leaves_nothing_and_other_folders_are_kept(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_clips(tmp_path / "clips", 8, progress=stop)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(UsageError, match="exists and is no set of bench clips; give another folder"):
        make_clips(tmp_path / "mine", 8)
    with pytest.raises(UsageError, match="videos 7, seed 0: expected at least 8 and 0"):
        make_clips(tmp_path / "clips", 7)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / dataset.MARKER).write_text("{}")
    with pytest.raises(UsageError, match="made with other arguments"):
        make_clips(tmp_path / "old", 8)
