"""Live sources: the addresses, devices and pipes that videos come from while they happen, instead of from a file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.input.credentials import without_credentials

STDIN = ("pipe:", "pipe:0")
_SCHEME = re.compile(r"(rtsps?|rtmps?|https?|tcp|udp|rtp)://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video\d+")
_VIDEO4LINUX = 81  # the major number of such devices, Documentation/admin-guide/devices.txt of Linux
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},  # UDP, FFmpeg's first choice, loses packets and is stopped by firewalls
    "udp": {"overrun_nonfatal": "1"},
    # FFmpeg then goes on by itself where the connection to a file is cut, from the byte where it was.
    "http": {"reconnect": "1", "reconnect_on_network_error": "1", "reconnect_delay_max": "5"},
}


@dataclass(frozen=True)
class LiveSource:
    """A source that FFmpeg opens by `address`, as the container `form` if that is known, with `options`.

    `name` is what to call it in messages and results: "stdin", or the address without its password. `waits`: whether
    the sender waits while nobody reads, and there is no connecting again: stdin.
    """

    address: str
    name: str
    form: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    waits: bool = False


def live_source(name: str) -> LiveSource | None:
    """The live source that `name` stands for; None for the path of a file.

    An address begins with rtsp://, http:// and the like; a camera is a device such as /dev/video0; stdin is `pipe:`. A
    file that has such a name is a file.
    """
    try:
        status = os.stat(name)  # noqa: PTH116 - a name may be any text
    except (OSError, ValueError):
        status = None
    is_camera = _DEVICE.fullmatch(name) is not None
    if status is not None:
        if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _VIDEO4LINUX:
            return None
        is_camera = True
    if is_camera:
        return LiveSource(name, name, "v4l2")
    if name in STDIN:
        return LiveSource("pipe:0", "stdin", waits=True)
    scheme = _SCHEME.match(name)
    if scheme is None or "\0" in name:
        return None
    options = _OPTIONS.get(scheme[1].lower().removesuffix("s"), {})
    return LiveSource(name, without_credentials(name), None, options)
