"""The videos that bench makes for itself."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from bench.videos import synthesis as dataset
from bench.videos.synthesis import make_clips
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex


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
    index = VideoIndex.build(made, val_fraction=0, index=made.parent / "made.r3dindex", workers=0)
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
    with pytest.raises(UsageError, match="exists, but is not a set of bench clips; give another folder"):
        make_clips(tmp_path / "mine", 8)
    with pytest.raises(UsageError, match="videos 7, seed 0: expected at least 8 and 0"):
        make_clips(tmp_path / "clips", 7)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / dataset.MARKER).write_text("{}")
    with pytest.raises(UsageError, match="made with other arguments"):
        make_clips(tmp_path / "old", 8)
