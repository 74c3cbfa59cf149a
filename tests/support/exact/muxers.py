"""Every container of the installed FFmpeg that is one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import av
from av.format import ContainerFormat

# No container of files: packets one after the other as they are, or as a network gets them.
NO_FILES = {"data", "rawvideo", "rtp", "rtp_mpegts"}
# What FFmpeg derives from MP4 and QuickTime, or these themselves: files of boxes.
BOXES = {"mov", "mp4", "3gp", "3g2", "f4v", "ipod", "ismv", "psp", "avif"}


@dataclass(frozen=True)
class Muxer:
    """A container: the name it has in the table, FFmpeg's name of it, the options it is written with."""

    name: str
    format: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def suffix(self) -> str:
        """The usual ending of its files."""
        known = ContainerFormat(self.format, "w").extensions
        return self.format if self.format in known or not known else min(known)

    @property
    def is_boxes(self) -> bool:
        """Whether its files are those of MP4, with an index that can be edited."""
        return self.format in BOXES and not self.options


def muxers() -> list[Muxer]:
    """All containers, MP4 in fragments too."""
    found = []
    for name in sorted(av.formats_available):
        try:
            known = ContainerFormat(name, "w")
        except ValueError:
            continue
        if known.is_output and not known.no_file and name not in NO_FILES:
            found.append(Muxer(name, name))
    return [*found, Muxer("mp4 fragments", "mp4", {"movflags": "frag_keyframe+empty_moov"})]
