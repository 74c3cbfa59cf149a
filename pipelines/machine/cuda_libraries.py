"""Finds the CUDA libraries that paddlepaddle-gpu 2.6 loads by name while it computes on a GPU.

Its wheel brings none of them, and asks for names without a version, such as `libcudnn.so`. NVIDIA's wheels on PyPI
have only names with one, such as `libcudnn.so.8`. A folder of links that is in LD_LIBRARY_PATH when the process starts
brings the two together.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import stat
import sys
from _ctypes import dlclose
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SEARCH_PATH = "LD_LIBRARY_PATH"
# Paddle looks for cuDNN there last (GetCUDNNDsoHandle in paddle/phi/backends/dynload/dynamic_loader.cc).
_TOOLKIT = Path("/usr/local/cuda/lib64")
_CUDA_11 = re.compile(r"paddlepaddle_gpu-(2\.6\.\d+(?:\.post11\d)?)\.dist-info")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Library:
    """A library that Paddle loads by `name`.

    `wheel` is the wheel on PyPI that has it. `major` is the major version that Paddle 2.6.2 was built with, and
    `function` tells the version of a loaded one.
    """

    name: str
    wheel: str
    major: int
    function: str


# The names are those in libphi.so of the wheel of paddlepaddle-gpu 2.6.2. It has some more for what is not used here:
# the profiler (libcupti.so), JPEG files (libnvjpeg.so), TensorRT (libnvinfer.so) and sparse weights (libcusparseLt.so).
LIBRARIES = (
    Library("libcudnn.so", "nvidia-cudnn-cu11", 8, "cudnnGetProperty"),
    Library("libcublas.so", "nvidia-cublas-cu11", 11, "cublasGetProperty"),
    Library("libcublasLt.so", "nvidia-cublas-cu11", 11, "cublasLtGetProperty"),
    Library("libcurand.so", "nvidia-curand-cu11", 10, "curandGetProperty"),
    Library("libcusolver.so", "nvidia-cusolver-cu11", 11, "cusolverGetProperty"),
    Library("libcusparse.so", "nvidia-cusparse-cu11", 11, "cusparseGetProperty"),
    Library("libcufft.so", "nvidia-cufft-cu11", 10, "cufftGetProperty"),
    Library("libnvrtc.so", "nvidia-cuda-nvrtc-cu11", 11, "nvrtcVersion"),
    Library("libnccl.so", "nvidia-nccl-cu11", 2, "ncclGetVersion"),
)
# The runtime is linked into Paddle, but other wheels of CUDA 11 load it.
WHEELS = (*dict.fromkeys(library.wheel for library in LIBRARIES), "nvidia-cuda-runtime-cu11")


@dataclass(frozen=True)
class Found:
    """What the loader finds under the name of a library.

    `version` and `file` are empty if it finds nothing. `problem` says why Paddle can't use it, and is empty if it can.
    """

    name: str
    version: str
    file: str
    problem: str


def needing_paddle(path: Sequence[str] | None = None) -> str:
    """The version of the installed Paddle that needs these libraries, such as "2.6.2"; empty if there is none.

    `path` are the folders in which Python looks for packages (default: `sys.path`). Only their names are read, which
    takes less than a millisecond, because each command asks first of all.
    """
    for folder in sys.path if path is None else path:
        with suppress(OSError):
            for name in os.listdir(folder or "."):  # noqa: PTH208 - thousands of names
                if found := _CUDA_11.fullmatch(name):
                    return found[1]
    return ""


def find(library: Library, toolkit: Path = _TOOLKIT) -> Found:
    """What Paddle would get under the name of `library` in this process. It is loaded for a moment."""
    places = [library.name, str(toolkit / library.name)] if library.name == "libcudnn.so" else [library.name]
    problem = ""
    for place in places:
        try:
            loaded = ctypes.CDLL(place, mode=os.RTLD_LAZY)
        except OSError as error:
            missing = str(error).startswith(f"{place}: cannot open shared object file: No such file")
            problem = problem or ("not found" if missing else f"can't be loaded: {error}")
            continue
        try:
            return _judge(library, _version(loaded, library.function), _file(loaded, library.function))
        finally:
            dlclose(loaded._handle)
    return Found(library.name, "", "", problem)


def problems() -> Iterator[Found]:
    """Each of the libraries that Paddle can't use in this process, as soon as it is found out."""
    return (found for library in LIBRARIES if (found := find(library)).problem)


def library_files() -> dict[str, Path]:
    """The links that Paddle needs: each name with the file of an installed wheel; empty if no wheel has any.

    These are the names of `LIBRARIES`, and the names with versions by which these libraries load each other.
    """
    from importlib import metadata  # not at the top: importing it takes longer than all else here

    files: dict[str, Path] = {}
    for wheel in WHEELS:
        with suppress(metadata.PackageNotFoundError):
            for file in metadata.distribution(wheel).files or ():
                path = Path(str(file.locate()))
                # Not the loader of OpenCL in one of them: it would come before the system's.
                if re.fullmatch(r"lib(?!OpenCL)[\w.-]+\.so\.[\d.]+", path.name) and path.is_file():
                    files[path.name] = Path(os.path.abspath(path))  # noqa: PTH100 - its own links are kept
    for library in LIBRARIES:
        versions = [name for name in files if name.startswith(f"{library.name}.")]
        if versions:
            files[library.name] = files[min(versions, key=len)]
    # NCCL has this name for every CUDA, and none of these libraries loads it: other packages shall find their own.
    files.pop("libnccl.so.2", None)
    return files if any(library.name in files for library in LIBRARIES) else {}


def changed_wheels() -> dict[str, str]:
    """The versions of those wheels, by name, whose libraries have other sizes than when they were installed.

    Another wheel has overwritten them, as `nvidia-cudnn-cu12` does, or a download broke off.
    """
    from importlib import metadata

    changed = {}
    for wheel in WHEELS:
        with suppress(metadata.PackageNotFoundError):
            distribution = metadata.distribution(wheel)
            for file in distribution.files or ():
                path = Path(str(file.locate()))
                if ".so." in path.name and file.size is not None and _size(path) != file.size:
                    changed[wheel] = distribution.version
    return changed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def folder_name(files: Mapping[str, Path]) -> str:
    """The name of the folder with the links `files`. Other files give another name."""
    contents = "\n".join(f"{name} {target}" for name, target in sorted(files.items()))
    return f"cuda-libraries-{hashlib.sha256(os.fsencode(contents)).hexdigest()[:12]}"


def link_folder(
    files: Mapping[str, Path], *, prefix: str = sys.prefix, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """A folder with the links `files` and nothing else; None if none of the places for it can be written or trusted.

    It is in the environment of this Python, else in the user's cache. Several processes may make it at once. It never
    changes under a process that uses it, because other files make another folder.
    """
    cache = environment.get("XDG_CACHE_HOME") or (Path(environment["HOME"]) / ".cache" if "HOME" in environment else "")
    for parent in (prefix and Path(prefix) / "share", cache):
        folder = Path(parent, "r3d-fast", folder_name(files))
        # The loader takes : and ; for separators and replaces $NAME.
        if folder.is_absolute() and not re.search(r"[:;$\n]", str(folder)):
            with suppress(OSError):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                if _is_ours(folder):
                    _fill(folder, files)
                    return folder
    return None


def _is_ours(folder: Path) -> bool:
    """Whether `folder` is no link, and only this user and root can change what is in it."""
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid in (0, os.geteuid()) and not about.st_mode & _OTHERS_MAY_WRITE


def _fill(folder: Path, files: Mapping[str, Path]) -> None:
    """Make the links that `folder` lacks, and remove all else from it. Raises OSError where that is not possible."""
    for name in os.listdir(folder):  # noqa: PTH208 - names are all that is needed
        if name not in files or _target(folder / name) != str(files[name]):
            (folder / name).unlink(missing_ok=True)  # fails on a folder: the loader would look for libraries in it
    for name, target in files.items():
        with suppress(FileExistsError):  # made before, or by another process just now
            (folder / name).symlink_to(target)
        if _target(folder / name) != str(target):
            raise FileExistsError(folder / name)


def _target(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - as text, as it was written
    except OSError:
        return ""


def _judge(library: Library, version: str, file: str) -> Found:
    major = version.partition(".")[0]
    wrong = f"version {version or 'unknown'} instead of {library.major}" if major != str(library.major) else ""
    return Found(library.name, version, file, wrong)


def _version(loaded: ctypes.CDLL, function: str) -> str:
    """The version that `function` of a library tells, such as "8.9.6"; empty if it tells none."""
    ask = getattr(loaded, function, None)
    numbers = (ctypes.c_int * 3)(-1, -1, -1)
    places = [ctypes.byref(numbers, index * ctypes.sizeof(ctypes.c_int)) for index in range(3)]
    if ask is None:
        return ""
    if function.endswith("GetProperty"):  # libraryPropertyType of library_types.h: 0 major, 1 minor, 2 patch
        codes = [ask(index, place) for index, place in enumerate(places)]
    else:
        codes = [ask(*places[:2])]
    if any(codes):
        return ""
    if function == "ncclGetVersion":  # one number: 21903 for 2.19.3
        numbers[:] = [numbers[0] // 10000, numbers[0] // 100 % 100, numbers[0] % 100]
    return ".".join(str(number) for number in numbers if number >= 0)


class _Symbol(ctypes.Structure):
    """Dl_info of dlfcn.h."""

    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _file(loaded: ctypes.CDLL, function: str) -> str:
    """The path of the file that a library was loaded from, its links followed; empty if it has no `function`."""
    symbol = getattr(loaded, function, None)
    about = _Symbol()
    if symbol is None or not ctypes.CDLL(None).dladdr(ctypes.cast(symbol, ctypes.c_void_p), ctypes.byref(about)):
        return ""
    return os.path.realpath(os.fsdecode(about.dli_fname or b""))
