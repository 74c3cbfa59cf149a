"""The decoders that a user would take instead, and whether they are installed."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.errors import FrameError, UsageError

Frames = NDArray[np.uint8]
Decode = Callable[[str, NDArray[np.int32]], Frames]

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Peer:
    """A way to decode clips: what it needs, how that is installed, and `decode(path, frames)` -> uint8 [T, H, W, 3].

    A module "a|b" is a or b. With `extracts`, `decode` is given the folder of the video's frames as JPEGs.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    decode: Decode = field(repr=False)
    extracts: bool = False


def _torchcodec(seek_mode: str, path: str, frames: NDArray[np.int32]) -> Frames:
    decoders: Any = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(path, seek_mode=seek_mode, num_ffmpeg_threads=1, dimension_order="NHWC")
    pixels: Frames = decoder.get_frames_at(indices=frames.tolist()).data.numpy()
    return pixels


def _decord(path: str, frames: NDArray[np.int32]) -> Frames:
    decord: Any = importlib.import_module("decord")
    pixels: Frames = decord.VideoReader(path, num_threads=1).get_batch(frames.tolist()).asnumpy()
    return pixels


def _opencv(*, whole: bool, path: str, frames: NDArray[np.int32]) -> Frames:
    """With `whole` every frame of the video is read, as most code does; else no more than needed is converted."""
    cv2: Any = importlib.import_module("cv2")
    # OpenCV's default, a thread a CPU, takes half as long again at this frame size, even alone.
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, found = set(frames.tolist()), {}
    try:
        for number in itertools.count() if whole else range(max(wanted) + 1):
            if not (read := capture.read() if whole else (capture.grab(), None))[0]:
                break
            if number in wanted:
                found[number] = read[1] if whole else capture.retrieve()[1]
    finally:
        capture.release()
    if len(found) < len(wanted):
        raise FrameError(path, "frames missing", f"OpenCV gives {sorted(found)} of {sorted(wanted)}")
    return _bgr_to_rgb(cv2, [found[number] for number in frames.tolist()])


def _opencv_whole(path: str, frames: NDArray[np.int32]) -> Frames:
    return _opencv(whole=True, path=path, frames=frames)


def _opencv_grab(path: str, frames: NDArray[np.int32]) -> Frames:
    return _opencv(whole=False, path=path, frames=frames)


def _pyav(path: str, frames: NDArray[np.int32]) -> Frames:
    wanted, found, converter = set(frames.tolist()), {}, VideoReformatter()
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                # One converter for all: frame.to_ndarray(format=...) makes one a frame, which takes half as long again.
                found[number] = converter.reformat(frame, format="rgb24").to_ndarray()
            if len(found) == len(wanted):
                break
        else:
            raise FrameError(path, "frames missing", f"PyAV gives {sorted(found)} of {sorted(wanted)}")
    return np.stack([found[number] for number in frames.tolist()])


def _jpegs(folder: str, frames: NDArray[np.int32]) -> Frames:
    names = [_jpeg(folder, number) for number in frames.tolist()]
    try:
        if is_importable("cv2"):
            cv2: Any = importlib.import_module("cv2")
            return _bgr_to_rgb(cv2, [cv2.imdecode(np.fromfile(name, np.uint8), cv2.IMREAD_COLOR) for name in names])
        image: Any = importlib.import_module("PIL.Image")
        return np.stack([np.asarray(image.open(name).convert("RGB")) for name in names])
    except FileNotFoundError as error:
        raise FrameError(folder, "frames missing", "the video gave fewer frames when they were extracted") from error


def _bgr_to_rgb(cv2: Any, images: Sequence[Any]) -> Frames:
    out: Frames = np.empty((len(images), *images[0].shape), np.uint8)
    for place, bgr in enumerate(images):
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out[place])
    return out


_FFMPEG = "pip install torch torchcodec (and FFmpeg's shared libraries)"
_OPENCV = "pip install torch opencv-python-headless"
PYAV = Peer("PyAV naive", ("torch",), "pip install torch", _pyav)
PEERS: tuple[Peer, ...] = (
    Peer("torchcodec exact", ("torch", "torchcodec"), _FFMPEG, functools.partial(_torchcodec, "exact")),
    Peer("torchcodec approximate", ("torch", "torchcodec"), _FFMPEG, functools.partial(_torchcodec, "approximate")),
    Peer("decord", ("torch", "decord"), "pip install torch decord", _decord),
    Peer("OpenCV full decode", ("torch", "cv2"), _OPENCV, _opencv_whole),
    Peer("OpenCV grab", ("torch", "cv2"), _OPENCV, _opencv_grab),
    PYAV,
    Peer("jpg frames", ("torch", "cv2|PIL"), _OPENCV, _jpegs, extracts=True),
)


def find_peers(names: Sequence[str] | None = None) -> tuple[list[Peer], dict[str, str]]:
    """The peers of `names` (None: all) that can be used here, and what installs each of the others, by name.

    Raises UsageError for a name that is none.
    """
    known = {peer.name.casefold(): peer for peer in PEERS}
    wanted = [name.casefold() for name in (known if names is None else names)]
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {known[near[0]].name!r}? There are" if near else "expected one of"
            raise UsageError(f"no peer {name!r}; {hint}: {', '.join(peer.name for peer in PEERS)}")
    asked = [known[name] for name in wanted]
    usable = [peer for peer in asked if all(any(map(is_importable, m.split("|"))) for m in peer.modules)]
    return usable, {peer.name: peer.install for peer in asked if peer not in usable}


@functools.cache
def is_importable(module: str) -> bool:
    """Whether `module` can be imported here."""
    try:
        importlib.import_module(module)
    except Exception:  # torchcodec without FFmpeg's libraries raises RuntimeError, a broken wheel OSError
        return False
    return True


def read(peer: Peer, path: str, frames: NDArray[np.int32]) -> Frames:
    """What `peer` gives for the frames, uint8 [T, H, W, 3], RGB; raises what its decoder raises, or FrameError."""
    pixels = peer.decode(path, frames)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != len(frames) or pixels.shape[3] != 3:
        raise FrameError(path, "no such clip", f"{peer.name} gives {pixels.dtype} {pixels.shape}")
    return pixels


def extract(video: str, folder: str, only: NDArray[np.int32] | None = None) -> None:
    """Write the frames of `video` (only those of `only`) into `folder` as JPEGs, for the peer "jpg frames"."""
    cv2: Any = importlib.import_module("cv2") if is_importable("cv2") else None
    image: Any = None if cv2 else importlib.import_module("PIL.Image")
    wanted = None if only is None else set(only.tolist())
    converter = VideoReformatter()
    Path(folder).mkdir(exist_ok=True)
    # What does not decode is missed when it is read.
    with suppress(av.error.FFmpegError), av.open(video) as container:
        container.streams.video[0].thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if wanted is not None and number not in wanted:
                continue
            pixels = converter.reformat(frame, format="bgr24" if cv2 else "rgb24").to_ndarray()
            if cv2:
                cv2.imwrite(_jpeg(folder, number), pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            else:
                image.fromarray(pixels).save(_jpeg(folder, number), quality=JPEG_QUALITY)


def _jpeg(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.jpg"
