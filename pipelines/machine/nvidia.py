"""What the NVIDIA driver, its GPUs and their video decoders (NVDEC) can do, asked of the driver's own libraries.

Nothing here raises or needs a GPU: what is not there is told in words. Only ctypes, so that it works before DALI does.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# cudaVideoCodec of cuviddec.h, under FFmpeg's names where FFmpeg has one.
_CODECS = {
    "mpeg1video": 0,
    "mpeg2video": 1,
    "mpeg4": 2,
    "vc1": 3,
    "h264": 4,
    "mjpeg": 5,
    "h264_svc": 6,
    "h264_mvc": 7,
    "hevc": 8,
    "vp8": 9,
    "vp9": 10,
    "av1": 11,
}
# What DALI hands to NVDEC of these (its GPU decoder has no MJPEG, though its documentation lists that), and the size in
# px that pictures are coded in multiples of: what is shown is cut out of that.
DALI_CODECS = {"mpeg4": 16, "h264": 16, "vp8": 16, "hevc": 8, "vp9": 8, "av1": 8}
_SAME_CODEC = {"wmv3": "vc1"}
_CHROMAS = {"4:2:0": 1, "4:2:2": 2, "4:4:4": 3}  # cudaVideoChromaFormat
_MANY_CHROMAS = {"h264", "hevc", "mjpeg", "vp9", "av1"}
_MANY_DEPTHS = {"h264": (8, 10), "hevc": (8, 10, 12), "vp9": (8, 10, 12), "av1": (8, 10, 12)}

_SUCCESS = 0
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
# CUresult of cuda.h: (what it means, what to do).
_MEANINGS = {
    2: ("out of GPU memory", "end what else uses the GPU"),
    34: ("a CUDA toolkit's stub of libcuda.so.1 is found first", "take the stubs folder out of LD_LIBRARY_PATH"),
    46: ("another process holds the GPU alone", "end it, or choose another GPU with CUDA_VISIBLE_DEVICES"),
    100: ("no GPU is visible", "see what nvidia-smi says, and what CUDA_VISIBLE_DEVICES is set to"),
    101: ("CUDA_VISIBLE_DEVICES names no GPU that is there", "set it to one that nvidia-smi lists"),
    802: ("the GPUs are not ready", "start nvidia-fabricmanager"),
    803: ("the kernel's driver and libcuda.so.1 differ in version", "reboot; a container: start it again"),
    804: ("libcuda.so.1 is a compatibility one, not for this GPU", "take cuda-compat out of LD_LIBRARY_PATH"),
}
# Of a CUDA generation: the oldest driver (docs.nvidia.com/deploy/cuda-compatibility, Table 1) and the oldest GPU.
_OLDEST = {11: ("450", 35), 12: ("525", 50), 13: ("580", 75)}
_UNKNOWN = "see what nvidia-smi says; reboot, or install the driver again"
_VIDEO = "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
_START_AGAIN = {
    "": "install NVIDIA's driver",
    "Apptainer": f"start the container with --nv and --env {_VIDEO}",
    "Kubernetes": f"ask for nvidia.com/gpu in the pod's resources, and set {_VIDEO} in its environment",
}


class CuvidDecodeCaps(ctypes.Structure):
    """CUVIDDECODECAPS of cuviddec.h (NVIDIA Video Codec SDK); newer headers name parts of what is reserved here."""

    _fields_ = (
        ("eCodecType", ctypes.c_int),
        ("eChromaFormat", ctypes.c_int),
        ("nBitDepthMinus8", ctypes.c_uint),
        ("reserved1", ctypes.c_uint * 3),
        ("bIsSupported", ctypes.c_ubyte),
        ("nNumNVDECs", ctypes.c_ubyte),
        ("nOutputFormatMask", ctypes.c_ushort),
        ("nMaxWidth", ctypes.c_uint),
        ("nMaxHeight", ctypes.c_uint),
        ("nMaxMBCount", ctypes.c_uint),
        ("nMinWidth", ctypes.c_ushort),
        ("nMinHeight", ctypes.c_ushort),
        ("bIsHistogramSupported", ctypes.c_ubyte),
        ("nCounterBitDepth", ctypes.c_ubyte),
        ("nMaxHistogramBins", ctypes.c_ushort),
        ("reserved3", ctypes.c_uint * 10),
    )


@dataclass(frozen=True)
class Gpu:
    """One GPU as CUDA counts them; `arch` is 70 for compute capability 7.0."""

    index: int
    name: str
    arch: int
    memory_mib: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver. `problem` says why CUDA can't be used, empty where it can; `to_do` mends it.

    `version` is the driver's, such as "550.54.15", empty where nothing says it; `cuda` the newest CUDA it supports,
    (0, 0) where that is not known. A machine without driver and card has a problem, but nothing to do about it.
    """

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]
    problem: str
    to_do: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Driver:
        """The driver whose `asdict` went through JSON."""
        gpus = tuple(Gpu(**gpu) for gpu in values["gpus"])
        return cls(**{**values, "cuda": (values["cuda"][0], values["cuda"][1]), "gpus": gpus})

    def misfit(self, cuda: int, archs: Sequence[int] = ()) -> str:
        """Why code built by CUDA `cuda` for `archs` does not run on these GPUs; empty where it does, or might."""
        driver, oldest = _OLDEST.get(cuda, ("", 0))
        for gpu in self.gpus:
            # Code for one architecture runs on later ones of the same generation.
            if gpu.arch < oldest:
                return f"no code for {gpu.name} (sm_{gpu.arch}) in it: CUDA {cuda} begins with sm_{oldest}"
            if archs and not any(arch // 10 == gpu.arch // 10 and arch <= gpu.arch for arch in archs):
                return f"no code for {gpu.name} (sm_{gpu.arch}) in it"
        # A driver runs all of its CUDA generation, and all earlier ones.
        if not self.gpus or self.cuda >= (cuda, 0):
            return ""
        least = f" (driver {driver} or later)" if driver else ""
        return f"it needs CUDA {cuda}{least}, this driver supports up to {self.cuda[0]}.{self.cuda[1]}"


@dataclass(frozen=True)
class DecoderCaps:
    """What NVDEC takes of one codec, chroma format and bit depth; `engines` is 0 where the driver counts none."""

    codec: str
    chroma: str
    bit_depth: int
    engines: int
    min_width_px: int
    min_height_px: int
    max_width_px: int
    max_height_px: int
    max_macroblocks: int


@dataclass(frozen=True)
class Decoder:
    """The NVDEC of GPU `device`. `problem` says why nothing can be decoded, empty where it can; `to_do` mends it."""

    device: int
    caps: tuple[DecoderCaps, ...]
    problem: str
    to_do: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decoder:
        """The decoder whose `asdict` went through JSON."""
        return cls(**{**values, "caps": tuple(DecoderCaps(**caps) for caps in values["caps"])})


class _Failed(Exception):
    """A library or a call that did not work, in words, and what to do about it."""

    def __init__(self, problem: str, to_do: str) -> None:
        super().__init__(problem)
        self.problem, self.to_do = problem, to_do


class _NotThere(_Failed):
    """A library that is nowhere to be found."""


def probe_driver(
    *, proc: Path = Path("/proc/driver/nvidia/version"), devices: Path = Path("/sys/bus/pci/devices")
) -> Driver:
    """The driver and its GPUs, or what is in the way."""
    version, cuda = driver_version(proc=proc), (0, 0)
    try:
        library = _load("libcuda.so.1")
        cuda = _cuda_version(library)
        _call(library, ["cuInit"], 0)
        gpus = tuple(_gpus(library))
    except _NotThere as failed:
        # Nothing to mend where there is no card.
        return Driver(version, cuda, (), failed.problem, _again("") if version or cards_on_bus(devices) else "")
    except _Failed as failed:
        return Driver(version, cuda, (), failed.problem, failed.to_do)
    problem, to_do = ("", "") if gpus else _MEANINGS[100]
    return Driver(version, cuda, gpus, problem, to_do)


def probe_decoder(device: int = 0) -> Decoder:
    """What the NVDEC of GPU `device` decodes, or what is in the way. Takes the GPU's primary context for a moment."""
    try:
        cuda = _load("libcuda.so.1")
        try:
            cuvid = _load("libnvcuvid.so.1")
        except _NotThere as failed:
            branch = driver_version().split(".")[0] or "VERSION"
            package = f"install the driver's decoder library (Debian, Ubuntu: libnvidia-decode-{branch})"
            return Decoder(device, (), failed.problem, _again(package))
        _function(cuvid, ["cuvidGetDecoderCaps"])
        with _context(cuda, device):
            caps, refused = _all_caps(cuda, cuvid)
    except _Failed as failed:
        return Decoder(device, (), failed.problem, failed.to_do)
    if caps:
        return Decoder(device, caps, "", "")
    return Decoder(device, (), refused or "NVDEC takes no codec: this GPU, or this part of one, has no decoder", "")


def can_decode(
    caps: Iterable[DecoderCaps], codec_name: str, bit_depth: int, chroma: str, width: int, height: int
) -> str:
    """Empty if NVDEC takes such a video, else the reason in words.

    `codec_name` is FFmpeg's, `chroma` such as "4:2:0", `width` and `height` in px.
    """
    codec = _SAME_CODEC.get(codec_name, codec_name)
    of_codec = [item for item in caps if item.codec == codec]
    if not of_codec:
        return f"no {codec_name} on this GPU's NVDEC"
    fit = next((item for item in of_codec if (item.chroma, item.bit_depth) == (chroma, bit_depth)), None)
    if fit is None:
        taken = ", ".join(f"{item.chroma} {item.bit_depth} bit" for item in of_codec)
        return f"{codec_name} of {chroma} {bit_depth} bit: NVDEC takes {taken}"
    if width < fit.min_width_px or height < fit.min_height_px:
        return f"{codec_name} of {width}x{height}: NVDEC takes {fit.min_width_px}x{fit.min_height_px} or more"
    if width > fit.max_width_px or height > fit.max_height_px:
        return f"{codec_name} of {width}x{height}: NVDEC takes up to {fit.max_width_px}x{fit.max_height_px}"
    macroblocks = -(-width // 16) * -(-height // 16)
    if macroblocks > fit.max_macroblocks:
        return f"{codec_name} of {width}x{height}, {macroblocks} macroblocks: NVDEC takes up to {fit.max_macroblocks}"
    return ""


def driver_version(*, proc: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the driver that the kernel or NVML tells; empty where neither is there."""
    try:
        found = re.search(r"^NVRM.*?\s(\d{3,}(?:\.\d+)+)\b", proc.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return found[1]
    text = ctypes.create_string_buffer(96)
    try:
        nvml = _load("libnvidia-ml.so.1")
        if _function(nvml, ["nvmlInit_v2"])() != _SUCCESS:
            return ""
        code = _function(nvml, ["nvmlSystemGetDriverVersion"])(text, ctypes.c_uint(len(text)))
        _function(nvml, ["nvmlShutdown"])()
    except _Failed:
        return ""
    return text.value.decode(errors="replace") if code == _SUCCESS else ""


def cards_on_bus(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """NVIDIA display or compute cards on the PCI bus, whether or not there is a driver for them."""
    count = 0
    for device in devices.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except (OSError, ValueError):
            continue
        count += vendor.startswith("0x10de") and kind.startswith("0x03")
    return count


def container(*, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str:
    """The kind of container this runs in, such as "Docker"; empty outside of one."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes"
    if "APPTAINER_CONTAINER" in environment or "SINGULARITY_CONTAINER" in environment:
        return "Apptainer"
    for mark, kind in ((".dockerenv", "Docker"), ("run/.containerenv", "Podman")):
        if (root / mark).exists():
            return kind
    try:
        groups = (root / "proc/1/cgroup").read_text(errors="replace")
    except OSError:
        groups = ""
    for word, kind in (("kubepods", "Kubernetes"), ("docker", "Docker"), ("libpod", "Podman"), ("lxc", "LXC")):
        if word in groups:
            return kind
    return environment.get("container", "")


def _again(outside: str) -> str:
    """How to get a driver's library into this container, or what to do outside of one."""
    kind = container()
    if not kind and outside:
        return outside
    return _START_AGAIN.get(kind, f"start the container with --gpus all -e {_VIDEO}")


def _load(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        if str(error).startswith(f"{name}: cannot open shared object file: No such file"):
            raise _NotThere(f"{name} is not there", "") from error
        raise _Failed(f"{name} can't be loaded: {error}", _UNKNOWN) from error


def _function(library: ctypes.CDLL, names: list[str]) -> Callable[..., int]:
    """The first of `names` that the library has."""
    for name in names:
        function: Callable[..., int] | None = getattr(library, name, None)
        if function is not None:
            return function
    raise _Failed(f"the driver is too old: it has no {names[0]}", "install a newer NVIDIA driver")


def _call(library: ctypes.CDLL, names: list[str], *arguments: Any) -> None:
    code = _function(library, names)(*arguments)
    if code != _SUCCESS:
        raise _Failed(f"{names[0]}: {_meaning(library, code)}", _MEANINGS.get(code, ("", _UNKNOWN))[1])


def _meaning(library: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    get_name = getattr(library, "cuGetErrorName", None)
    if get_name is None or get_name(code, ctypes.byref(name)) != _SUCCESS or not name.value:
        name.value = f"CUDA error {code}".encode()
    shown = (name.value or b"").decode(errors="replace")
    return f"{_MEANINGS[code][0]} ({shown})" if code in _MEANINGS else shown


def _cuda_version(library: ctypes.CDLL) -> tuple[int, int]:
    value = ctypes.c_int()
    _call(library, ["cuDriverGetVersion"], ctypes.byref(value))
    return value.value // 1000, value.value % 1000 // 10


def _gpus(library: ctypes.CDLL) -> Iterator[Gpu]:
    count = ctypes.c_int()
    _call(library, ["cuDeviceGetCount"], ctypes.byref(count))
    for index in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        _call(library, ["cuDeviceGet"], ctypes.byref(device), index)
        _call(library, ["cuDeviceGetName"], name, len(name), device)
        _call(library, ["cuDeviceTotalMem_v2"], ctypes.byref(memory), device)
        capability = []
        for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            _call(library, ["cuDeviceGetAttribute"], ctypes.byref(value), attribute, device)
            capability.append(value.value)
        arch = 10 * capability[0] + capability[1]
        yield Gpu(index, name.value.decode(errors="replace"), arch, memory.value // 2**20)


@contextmanager
def _context(library: ctypes.CDLL, index: int) -> Iterator[None]:
    """The primary context of a GPU, current inside: the one that DALI and Paddle use too, so it costs them nothing."""
    device, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    _call(library, ["cuInit"], 0)
    _call(library, ["cuDeviceGet"], ctypes.byref(device), index)
    _call(library, ["cuDevicePrimaryCtxRetain"], ctypes.byref(context), device)
    try:
        _call(library, ["cuCtxPushCurrent_v2"], context)
        try:
            yield
        finally:
            _call(library, ["cuCtxPopCurrent_v2"], ctypes.byref(popped))
    finally:
        _call(library, ["cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"], device)


def _all_caps(cuda: ctypes.CDLL, cuvid: ctypes.CDLL) -> tuple[tuple[DecoderCaps, ...], str]:
    """(what is supported, the first error that the driver gave)."""
    supported, first_error = [], ""
    for codec, number in _CODECS.items():
        for chroma, chroma_number in _CHROMAS.items():
            if chroma != "4:2:0" and codec not in _MANY_CHROMAS:
                continue
            for bit_depth in _MANY_DEPTHS.get(codec, (8,)):
                asked = CuvidDecodeCaps(number, chroma_number, bit_depth - 8)
                code = cuvid.cuvidGetDecoderCaps(ctypes.byref(asked))
                # Drivers answer questions about codecs that came after them with an error.
                if code != _SUCCESS:
                    first_error = first_error or f"cuvidGetDecoderCaps: {_meaning(cuda, code)}"
                elif asked.bIsSupported:
                    supported.append(_as_caps(codec, chroma, bit_depth, asked))
    return tuple(supported), first_error


def _as_caps(codec: str, chroma: str, bit_depth: int, answer: CuvidDecodeCaps) -> DecoderCaps:
    return DecoderCaps(
        codec, chroma, bit_depth, answer.nNumNVDECs, answer.nMinWidth, answer.nMinHeight,
        answer.nMaxWidth, answer.nMaxHeight, answer.nMaxMBCount,
    )  # fmt: skip
