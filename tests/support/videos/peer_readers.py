"""The readers of peers that are installed, for tests, and readers that read wrongly on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.loader import peers
from bench.loader.peers import PEERS, Peer
from pipelines.specs import ClipSpec

Frames = NDArray[np.uint8]
BY_NAME = {peer.name: peer for peer in PEERS}
CLIP = ClipSpec(num_frames=6)


def needs(name: str, *, decoder_only: bool = False) -> Peer:
    """The peer with this name. If it is not installed, the test is skipped and says how to install it.

    With `decoder_only` torch itself is not needed.
    """
    peer = BY_NAME[name]
    for module in peer.modules:
        if not any(peers.is_importable(m) for m in module.split("|")) and not (decoder_only and module == "torch"):
            pytest.skip(f"no {module}: {peer.install}")
    return peer


def off_by_one(path: str, frames: NDArray[np.int32]) -> Frames:
    """A reader that gives the frame before the wanted one, for one of the videos."""
    return BY_NAME["PyAV naive"].decode(path, np.maximum(frames - 1, 0) if path.endswith("3.avi") else frames)


def tinted(path: str, frames: NDArray[np.int32]) -> Frames:
    """A reader that converts to RGB in another way, and that can't read one of the videos."""
    if path.endswith("2.avi"):
        raise RuntimeError("can't")
    pixels = BY_NAME["PyAV naive"].decode(path, frames)
    return np.clip(pixels * 0.99 + 1.5, 0, 255).astype(np.uint8)
