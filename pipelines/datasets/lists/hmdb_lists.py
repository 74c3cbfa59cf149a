"""Reads the lists of HMDB-51: a file <class>_test_split<N>.txt for each class and split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.datasets.lists.listed_videos import ListedVideo, last_word
from pipelines.datasets.lists.numbered_lists import check_split, lists_by_split, not_empty
from pipelines.datasets.text_files import escaped, first_ten, read_text, text_lines
from pipelines.datasets.video_files import is_video_name
from pipelines.errors import ListError

HMDB_LIST = re.compile(r"(.+)_test_split([0-9]{1,4})\.txt", re.DOTALL)
_MARKS = {"0": "", "1": "train", "2": "test"}


def read_hmdb(
    folder: Path, names: Sequence[str], split: int
) -> tuple[tuple[str, ...], list[ListedVideo], frozenset[str]]:
    """(classes, rows, paths in no split) of one split of the lists in `folder`, which holds the files `names`.

    Raises ListError if the split or a file of it is not there, or for a line that can't be used.
    """
    lists = lists_by_split(names, HMDB_LIST)
    classes = tuple(sorted({name for files in lists.values() for name in files}))
    check_split(folder, split, list(lists))
    if lacking := [name for name in classes if name not in lists[split]]:
        raise ListError(
            f"lists {escaped(folder)}: split {split} has no file for {first_ten(lacking)}; expected one for each"
        )
    rows: list[ListedVideo] = []
    for label, name in enumerate(classes):
        file = folder / lists[split][name]
        rows += not_empty(parse_hmdb(read_text(file), escaped(file), name, label), file)
    used = [row for row in rows if row.split]
    return classes, used, frozenset(row.path for row in rows if not row.split)


def parse_hmdb(text: str, file: str, name: str, label: int) -> Iterator[ListedVideo]:
    """The rows of one HMDB list, which is that of class `name`, with lines ``video.avi 1``.

    The mark 1 means train, 2 test, 0 unused (split ""). Raises ListError with the file and the line.
    """
    for number, line in text_lines(text):
        where = f"{file}:{number}"
        # Real names of HMDB start with "#", such as "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi". So a line with "#" is a
        # comment only if it is no entry.
        path, mark = last_word(line)
        if mark in _MARKS and is_video_name(path) and "/" not in path:
            yield ListedVideo(f"{name}/{path}", label, _MARKS[mark], where)
        elif not line.startswith("#"):
            raise ListError(f"{where}: {line!r}; expected '<video> <mark>', mark 1 train, 2 test, 0 unused")
