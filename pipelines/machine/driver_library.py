"""Calls the libraries of the NVIDIA driver by ctypes, says what a failed call means and what to do about it.

Also lists which of them are installed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.machine.container import install_driver

SUCCESS = 0


def _without(folder: str) -> str:
    """The line for a shell that takes the folders with `folder` in their names out of LD_LIBRARY_PATH."""
    return f'export LD_LIBRARY_PATH=$(echo "$LD_LIBRARY_PATH" | tr : "\\n" | grep -v {folder} | paste -sd :)'


# For each CUresult of cuda.h: (what it means, what to do).
MEANINGS = {
    2: ("out of GPU memory", "nvidia-smi   # shows the programs that use the GPU: end them"),
    34: ("a CUDA toolkit's stub of libcuda.so.1 is found first", _without("/stubs")),
    46: ("another process uses this GPU exclusively", "sudo nvidia-smi -c DEFAULT   # lets several programs use it"),
    100: (
        "no GPU is visible",
        "unset CUDA_VISIBLE_DEVICES; nvidia-smi -L   # has to list a GPU; with MIG, a slice",
    ),
    101: ("CUDA_VISIBLE_DEVICES names no GPU that is there", "unset CUDA_VISIBLE_DEVICES"),
    802: ("the GPUs are not ready", "sudo systemctl start nvidia-fabricmanager"),
    803: ("the kernel's driver and libcuda.so.1 differ in version", "sudo reboot   # a container: start it again"),
    804: ("libcuda.so.1 is of cuda-compat, which does not fit this GPU", _without("compat")),
}
# The same for a library that says "too old" (35, 36) of a driver that is new enough: CUDA judges what it has loaded.
OTHER_DRIVER = (
    "it does not load the libcuda.so.1 of the driver, which is new enough",
    'ldconfig -p | grep libcuda.so; echo "$LD_LIBRARY_PATH"   # take out each libcuda.so.1 that is not the driver\'s',
)
# What the driver brings, each by the name that programs ask for.
_OF_DRIVER = (
    "libcuda.so.1", "libnvidia-ml.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm.so.4",
)  # fmt: skip
_UNKNOWN = "sudo reboot   # if nvidia-smi fails after it too: install the driver again"


class LibraryFailed(Exception):
    """A library could not be loaded or a call failed. `problem` says what failed, `to_do` what to do about it."""

    def __init__(self, problem: str, to_do: str) -> None:
        super().__init__(problem)
        self.problem, self.to_do = problem, to_do


class LibraryNotThere(LibraryFailed):
    """A library was not found."""


def load_library(name: str) -> ctypes.CDLL:
    """The shared library `name`. Raises LibraryNotThere if it is not found, LibraryFailed if it can't be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        if str(error).startswith(f"{name}: cannot open shared object file: No such file"):
            raise LibraryNotThere(f"{name} is not there", "") from error
        raise LibraryFailed(f"{name} can't be loaded: {error}", _UNKNOWN) from error


def has_driver() -> bool:
    """Whether the driver's library for CUDA is there and can be loaded."""
    try:
        load_library("libcuda.so.1")
    except LibraryFailed:
        return False
    return True


def function_of(library: ctypes.CDLL, names: list[str]) -> Callable[..., int]:
    """The first function of `names` that the library has. Raises LibraryFailed if it has none of them."""
    for name in names:
        function: Callable[..., int] | None = getattr(library, name, None)
        if function is not None:
            return function
    raise LibraryFailed(f"the driver is too old: it has no {names[0]}", install_driver())


def call(library: ctypes.CDLL, names: list[str], *arguments: Any) -> None:
    """Call the first function of `names` that the library has. Raises LibraryFailed if it returns an error."""
    code = function_of(library, names)(*arguments)
    if code != SUCCESS:
        raise LibraryFailed(f"{names[0]}: {meaning_of(library, code)}", MEANINGS.get(code, ("", _UNKNOWN))[1])


def meaning_of(library: ctypes.CDLL, code: int) -> str:
    """What the CUresult `code` means, in words, with the name that the driver gives it."""
    name = ctypes.c_char_p()
    get_name = getattr(library, "cuGetErrorName", None)
    if get_name is None or get_name(code, ctypes.byref(name)) != SUCCESS or not name.value:
        name.value = f"CUDA error {code}".encode()
    shown = (name.value or b"").decode(errors="replace")
    return f"{MEANINGS[code][0]} ({shown})" if code in MEANINGS else shown


@contextmanager
def primary_context(library: ctypes.CDLL, index: int) -> Iterator[None]:
    """A block in which the primary context of a GPU is current. DALI and Paddle use the same one, so it is cheap."""
    device, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    call(library, ["cuInit"], 0)
    call(library, ["cuDeviceGet"], ctypes.byref(device), index)
    call(library, ["cuDevicePrimaryCtxRetain"], ctypes.byref(context), device)
    try:
        call(library, ["cuCtxPushCurrent_v2"], context)
        try:
            yield
        finally:
            call(library, ["cuCtxPopCurrent_v2"], ctypes.byref(popped))
    finally:
        call(library, ["cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"], device)


def installed_libraries(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The file behind each library of the driver, its version in its name, such as "libcuda.so.550.54.15".

    The folders of LD_LIBRARY_PATH come first, as for the loader, then what ldconfig lists. "not there" where nothing
    has that name. Nothing is loaded.
    """
    folders = [Path(folder) for folder in environment.get("LD_LIBRARY_PATH", "").split(":") if folder]
    known: dict[str, Path] = {}
    with suppress(OSError, subprocess.SubprocessError):
        # Of the superuser's programs, which are not on everyone's PATH.
        path = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
        listed = subprocess.run(
            ["ldconfig", "-p"], env={"PATH": path}, capture_output=True, text=True, timeout=10, check=False
        ).stdout
        for line in listed.splitlines():
            name, arrow, place = line.strip().partition(" => ")
            if arrow:
                known.setdefault(name.split()[0], Path(place))
    found = {}
    for name in _OF_DRIVER:
        places = [folder / name for folder in folders if (folder / name).exists()]
        places += [known[name]] if name in known else []
        found[name] = places[0].resolve().name if places else "not there"
    return found
