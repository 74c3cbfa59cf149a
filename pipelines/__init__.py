"""Reads clips out of video files, fast and with exactly the frames asked for, for any framework that takes DLPack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.errors import R3DFastError
    from pipelines.index.video_index import VideoIndex
    from pipelines.loader import Batch, ClipLoader
    from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec
    from pipelines.video.decoder import read_frames
    from pipelines.video.probe import probe_video

# These names are imported on first use, so that `r3d-fast --help` does not wait for PyAV and DALI.
_HOMES = {
    "AugmentSpec": "specs",
    "Batch": "loader",
    "ClipLoader": "loader",
    "ClipSpec": "specs",
    "LoaderSpec": "specs",
    "R3DFastError": "errors",
    "ShardSpec": "specs",
    "VideoIndex": "index.video_index",
    "probe_video": "video.probe",
    "read_frames": "video.decoder",
}

__all__ = [
    "AugmentSpec",
    "Batch",
    "ClipLoader",
    "ClipSpec",
    "LoaderSpec",
    "R3DFastError",
    "ShardSpec",
    "VideoIndex",
    "probe_video",
    "read_frames",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pipelines.{_HOMES[name]}"), name)
