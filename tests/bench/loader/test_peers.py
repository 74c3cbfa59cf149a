"""The decoders of peers: what a user is told of them, and the frames that they give."""

from __future__ import annotations

from pathlib import Path

import clips
import numpy as np
import pytest
from numpy.typing import NDArray
from peer_readers import BY_NAME, Frames, needs

from bench.loader import peers
from bench.loader.peers import Peer
from pipelines.errors import FrameError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.video.decoder import read_frames


def path_of(index: VideoIndex, i: int) -> str:
    return str(index.root / index[i].path)


def read_clip(peer: Peer, path: str, frames: NDArray[np.int32], folder: Path) -> Frames:
    if peer.extracts:
        peers.extract(path, str(folder))
        path = str(folder)
    return peers.read(peer, path, frames)


def test_an_unknown_peer_is_named_with_the_nearest_and_all_others() -> None:
    with pytest.raises(UsageError, match=r"no peer 'decrod'; did you mean 'decord'\? There are: torchcodec exact, "):
        peers.find_peers(["OpenCV grab", "decrod"])
    with pytest.raises(UsageError, match=r"no peer 'zzz'; expected one of: .*, PyAV naive, jpg frames$"):
        peers.find_peers(["zzz"])


def test_a_peer_that_does_not_import_is_missing_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"torch", "decord", "PIL"}
    monkeypatch.setattr(peers, "is_importable", there.__contains__)
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
    assert not peers.is_importable(name)


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
