"""Reads lists with a video and the number of its class on each line, as mmaction2, PaddleVideo and PySlowFast have."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.datasets.lists.listed_videos import INTEGER, ListLine, last_word
from pipelines.datasets.text_files import escaped, text_lines
from pipelines.datasets.video_files import is_video_name
from pipelines.errors import ListError

_EXPECTED = "expected '<path of a video> <label>'"


def parse_text(text: str, file: str) -> list[ListLine]:
    """The lines of a list of ``path label``. The label is the last word, so the path may have spaces.

    Raises ListError, with the file and the line, for a line without a label, for one with several, and for a list of
    folders of frames.
    """
    entries = [(number, line.strip()) for number, line in text_lines(text) if not is_comment(line)]
    if entries and _is_header(entries[0][1]):
        del entries[0]
    if not entries:
        raise ListError(f"{file}: no entries; {_EXPECTED} on each line")
    _check_for_frames(entries, file)
    return [_read(line, f"{file}:{number}") for number, line in entries]


def is_comment(line: str) -> bool:
    """Whether the line begins with "#" and does not name a video, since videos may be called "#clap.avi"."""
    return line.lstrip().startswith("#") and not any(map(is_video_name, (line.rstrip(), last_word(line)[0])))


def _read(line: str, where: str) -> ListLine:
    path, label = last_word(line)
    if is_video_name(line) or not label:
        raise ListError(f"{where}: no label after {escaped(line)}; {_EXPECTED}")
    if not INTEGER.fullmatch(label):
        raise ListError(
            f"{where}: label {label!r} of {escaped(path)} is not an integer; {_EXPECTED}; "
            "names of classes can stand in a CSV of path,label"
        )
    words = path.split()
    if not is_video_name(path) and any(map(is_video_name, words)):
        raise ListError(f"{where}: several words after the path in {line!r}; {_EXPECTED}, one label a video")
    return ListLine(path, label, "", where)


def _is_header(line: str) -> bool:
    words = line.lower().split()
    return words[-1] == "label" and not is_video_name(last_word(line)[0])


def _check_for_frames(entries: Sequence[tuple[int, str]], file: str) -> None:
    """Raise ListError if the list names folders of frames: a folder, a number of frames and a label on each line."""
    number, first = entries[0]
    if "frame_id" in first.split() or all(_is_frames(line) for _, line in entries):
        raise ListError(
            f"{file}:{number}: {first!r} names frames that were taken out of a video, and only video files are read; "
            f"{_EXPECTED}: give the list of the videos (in mmaction2 the one that ends in _videos.txt)"
        )


def _is_frames(line: str) -> bool:
    words = line.split()
    numbers = len(words) > 2 and all(map(INTEGER.fullmatch, words[-2:]))
    return bool(numbers) and not any(map(is_video_name, words))
