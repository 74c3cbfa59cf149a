"""Reads the lists of UCF-101: classInd.txt, trainlistNN.txt and testlistNN.txt."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.datasets.class_names import parse_class_ind
from pipelines.datasets.lists.listed_videos import INTEGER, ListedVideo, last_word
from pipelines.datasets.lists.numbered_lists import check_split, lists_by_split, not_empty
from pipelines.datasets.text_files import escaped, read_text, text_lines
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import ListError

UCF_LIST = re.compile(r"(train|test)list([0-9]{1,4})\.txt")


def read_ucf(
    folder: Path, names: Sequence[str], split: int, roots: tuple[str, ...]
) -> tuple[tuple[str, ...], list[ListedVideo]]:
    """(classes, rows) of one split of the lists in `folder`, which holds the files `names`.

    Raises ListError if classInd.txt or the split is not there, or for a line that can't be used.
    """
    lists = lists_by_split(names, UCF_LIST)
    if "classInd.txt" not in names:
        raise ListError(f"lists {escaped(folder)}: trainlists without classInd.txt; expected it beside them")
    check_split(folder, split, [n for n, pair in lists.items() if len(pair) == 2])
    classes = parse_class_ind(read_text(folder / "classInd.txt"), escaped(folder / "classInd.txt"))
    labels = {name: i for i, name in enumerate(classes)}
    rows: list[ListedVideo] = []
    for side in ("train", "test"):
        file = folder / lists[split][side]
        rows += not_empty(parse_ucf(read_text(file), escaped(file), labels, side, roots), file)
    return classes, rows


def parse_ucf(
    text: str, file: str, classes: Mapping[str, int], split: str, roots: tuple[str, ...] = ()
) -> Iterator[ListedVideo]:
    """The rows of one UCF list, with lines ``Class/video 1``.

    The number is the 1-based label, which must be that of the folder's class; with `split` "test" it may be left out.
    `classes` maps a class name to its 0-based label. Raises ListError with the file and the line.
    """
    for number, line in text_lines(text):
        # A class may be called "#x", so a line with "#" is a comment only if it is not in the folder of a class.
        if line.lstrip().startswith("#") and line.lstrip().partition("/")[0] not in classes:
            continue
        where = f"{file}:{number}"
        path, label = (line.lstrip(), None) if is_video_name(line) else last_word(line.lstrip())
        path = _relative(path, where, roots)
        name = path.partition("/")[0]
        if name not in classes or name == path:
            raise ListError(
                f"{where}: {escaped(path)} is in no class folder named in classInd.txt ({len(classes)} classes)"
            )
        if label is None and split == "train":
            raise ListError(f"{where}: no label after {escaped(path)}; expected '<class>/<video> <label>'")
        hint = f"UCF lists are 1-based: expected {classes[name] + 1} for {name} (1..{len(classes)})"
        if label is not None and not INTEGER.fullmatch(label):
            raise ListError(f"{where}: label {label!r} is not an integer; {hint}")
        if label is not None and int(label) != classes[name] + 1:
            fault = f"not {name} in classInd.txt" if 1 <= int(label) <= len(classes) else "out of range"
            raise ListError(f"{where}: label {label} is {fault}; {hint}")
        yield ListedVideo(path, classes[name], split, where)


def _relative(path: str, where: str, roots: Sequence[str]) -> str:
    """The listed path, normalised and relative to the root.

    Raises ListError if it is not the name of a video, or outside the root.
    """
    if not is_video_name(path):
        raise ListError(f"{where}: {path!r} is no video file name; expected one of {EXTENSIONS_SHOWN}")
    normal = posixpath.normpath(path)
    for root in roots:
        normal = normal.removeprefix(root.rstrip("/") + "/")
    if normal.startswith(("/", "../")):
        raise ListError(f"{where}: {escaped(path)} is outside the root; expected a path relative to it")
    return normal
