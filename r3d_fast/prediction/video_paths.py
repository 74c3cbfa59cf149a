"""Finds the video files that the user names: as files, folders, globs, or `-` for a list on stdin. Opens no video."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipelines.containers.live_source import live_source
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import DataError

_PIECE = 1 << 16  # bytes of a list read at once
_BOM = b"\xef\xbb\xbf"


def find_videos(named: Iterable[str], stdin: BinaryIO | None = None) -> Iterator[str]:
    """The video files that `named` stands for, each once, in order, as soon as they are found.

    A folder stands for all files under it with the extension of a video, sorted, without hidden names and linked
    folders. A glob stands for the videos among the files that it matches, and for those in the folders that it matches.
    `-` stands for the list on `stdin`: one path a line, or paths separated by NUL. Anything else is taken as the path
    of a file. A missing file, a folder without videos and a glob without a match are given as they are: reading
    them fails with the reason. Raises DataError where nothing is named at all.
    """
    seen: set[str] = set()
    for path in _found(named, stdin):
        key = os.path.abspath(path)  # noqa: PTH100 - a link is a file of its own
        if key not in seen:
            seen.add(key)
            yield path
    if not seen:
        raise DataError(
            f"empty video list: expected files, folders with videos ({EXTENSIONS_SHOWN}), quoted globs such as "
            "'clips/**/*.avi', or - for a list on stdin"
        )


def _found(named: Iterable[str], stdin: BinaryIO | None) -> Iterator[str]:
    for name in named:
        if name == "-" and stdin is not None:
            for line in read_list(stdin):
                yield from _expand(line)
        else:
            yield from _expand(name)


def _expand(name: str) -> Iterator[str]:
    """The files that one name stands for: a file, a folder or a glob."""
    if "\0" in name or os.path.lexists(name) or not glob.has_magic(name):
        yield from _under(name) if "\0" not in name and os.path.isdir(name) else [name]  # noqa: PTH112 - "" is no path
        return
    any_video = False
    for match in sorted(glob.iglob(name, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute patterns
        if os.path.isdir(match):  # noqa: PTH112
            inside = (path for path in _under(match) if path != match)
            for path in inside:
                any_video = True
                yield path
        elif is_video_name(match):
            any_video = True
            yield match
    if not any_video:
        yield name


def _under(folder: str) -> Iterator[str]:
    """The videos under `folder`, sorted, then the folders that can't be read; `folder` itself where there is neither.

    Reading a folder as a video fails, so the user hears of these folders.
    """
    unreadable: list[str] = []
    any_video = False
    for parent, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_video_name(name) and not name.startswith("."):
                any_video = True
                yield str(Path(parent) / name)
    yield from unreadable if any_video or unreadable else [folder]


def why_no_video(path: str) -> str | None:
    """The reason why a path is no video if it is a folder, a live source or a pattern without a match; else None."""
    if os.path.isdir(path):  # noqa: PTH112 - "" is no path
        return "a folder, no video in it" if next(_under(path)) == path else "a folder, not a video file"
    if live_source(path) is not None:
        return "a live source, not a file: name it alone, with --timeline or --events"
    return "the pattern matches no video" if glob.has_magic(path) and not os.path.lexists(path) else None


def read_list(stream: BinaryIO) -> Iterator[str]:
    """The paths of a list, as soon as they are read: separated by NUL if the first bytes have one, else one a line."""
    rest = b""
    separator = b""
    for piece in iter(lambda: stream.read1(_PIECE) if hasattr(stream, "read1") else stream.read(_PIECE), b""):
        if not separator and not rest:
            piece = piece.removeprefix(_BOM)
        rest += piece
        if not separator and (b"\0" in rest or b"\n" in rest):
            separator = b"\0" if b"\0" in rest else b"\n"
        if separator:
            *whole, rest = rest.split(separator)
            yield from (os.fsdecode(path) for path in map(_bare, whole) if path)
    if _bare(rest):
        yield os.fsdecode(_bare(rest))


def _bare(line: bytes) -> bytes:
    return line.rstrip(b"\r\n")
