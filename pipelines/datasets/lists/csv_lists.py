"""Reads lists in CSV: path,label[,split]."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.datasets.lists.listed_videos import ListedVideo, relative_path
from pipelines.datasets.split_names import SPLIT_WORDS, final_split, split_named
from pipelines.datasets.text_files import escaped, read_text, text_lines
from pipelines.datasets.video_files import is_video_name
from pipelines.errors import ListError

_HEADERS = ("path", "video", "file", "filename", "video_path")
_MAX_CLASSES = 100_000  # a larger label is a mistake, and would make as many class names
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def read_csv(file: Path, roots: tuple[str, ...]) -> tuple[tuple[str, ...], list[ListedVideo]]:
    """(classes, rows) of a CSV or TSV file, with the names in classes.txt beside it. Raises ListError."""
    beside = file.parent / "classes.txt"
    names: list[str] = []
    if beside.exists():
        names = [line.strip() for _, line in text_lines(read_text(beside)) if not line.lstrip().startswith("#")]
        if len(set(names)) != len(names):
            raise ListError(f"{escaped(beside)}: a class is named twice; expected each once, in the order of labels")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    return parse_csv(read_text(file), escaped(file), delimiter, names, roots)


def parse_csv(
    text: str, file: str, delimiter: str = ",", names: Sequence[str] = (), roots: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], list[ListedVideo]]:
    """(classes, rows) of a CSV of path,label[,split]; `names` are the classes in classes.txt, if there is one.

    If no row has a split, the split of every row is "". Raises ListError with the file and the line.
    """
    cells: list[tuple[str, str, str, str]] = []
    width, label_at, split_at = 3, 1, 2
    for number, row in read_csv_rows(text, file, delimiter):
        where = f"{file}:{number}"
        header = [c.strip().lower() for c in row]
        if not cells and header[0] in _HEADERS:
            width = len(row)
            label_at = header.index("label") if "label" in header else 1
            split_at = header.index("split") if "split" in header else 2
            if label_at == split_at or width < 2:
                raise ListError(f"{where}: header {','.join(row)!r}; expected path,label[,split]")
            continue
        if not label_at < len(row) <= width:
            raise ListError(f"{where}: {len(row)} cells; expected path,label[,split] (quote a path that holds a comma)")
        split = row[split_at].strip() if split_at < len(row) else ""
        if split and not split_named(split):
            raise ListError(f"{where}: split {split!r}; expected one of {', '.join(SPLIT_WORDS)}")
        path = relative_path(row[0].rstrip(), where, roots)
        cells.append((path, row[label_at].strip(), split_named(split), where))
    if not cells:
        raise ListError(f"{file}: no entries; expected lines of path,label[,split]")
    classes, labels = _csv_labels([(label, where) for _, label, _, where in cells], names)
    present = {split for _, _, split, _ in cells}
    default = "train" if present - {""} else ""
    rows = [
        ListedVideo(path, label, final_split(split or default, present), where)
        for (path, _, split, where), label in zip(cells, labels, strict=True)
    ]
    return classes, rows


def read_csv_rows(text: str, file: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row of a CSV as (number of its first line, cells), without blank rows and comments.

    Raises ListError, with the line, where the text is no valid CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for row in reader:
            # A row that starts with "#" is a comment, but not if its first cell is a video such as "#clap.avi".
            if any(c.strip() for c in row) and not (row[0].startswith("#") and not is_video_name(row[0].rstrip())):
                yield number, row
            number = reader.line_num + 1
    except csv.Error as problem:
        raise ListError(f"{file}:{number}: {problem}; expected cells quoted as in RFC 4180") from problem


def _csv_labels(found: Sequence[tuple[str, str]], names: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """(classes, label of each row). If all labels are integers, they are 0-based labels, else they are class names."""
    integers = sum(bool(_INTEGER.fullmatch(label)) for label, _ in found)
    if integers == len(found) or (integers and not names):
        for label, where in found:
            if not _INTEGER.fullmatch(label):
                raise ListError(f"{where}: label {label!r} is not an integer, others are; expected one kind of label")
            if not 0 <= int(label) < (len(names) or _MAX_CLASSES):
                limit = (len(names) or _MAX_CLASSES) - 1
                raise ListError(f"{where}: label {label} is out of range; CSV labels are 0-based: expected 0..{limit}")
        labels = [int(label) for label, _ in found]
        return tuple(names) or tuple(str(i) for i in range(max(labels) + 1)), labels
    known = tuple(names) or tuple(sorted({label for label, _ in found}))
    number = {name: i for i, name in enumerate(known)}
    for label, where in found:
        if not label or label not in number:
            raise ListError(f"{where}: class {label!r}; expected " + ("a class of classes.txt" if names else "a name"))
    return known, [number[label] for label, _ in found]
