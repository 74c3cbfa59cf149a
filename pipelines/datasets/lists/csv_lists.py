"""Reads lists in CSV: path,label[,split], with commas, semicolons or tabs between the cells."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.datasets.lists.listed_videos import INTEGER, ListLine, last_word
from pipelines.datasets.split_names import SPLIT_WORDS, split_named
from pipelines.datasets.text_files import text_lines
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import ListError

_HEADERS = ("path", "video", "file", "filename", "video_path", "file_path", "filepath", "id", "video_id")
_SPLIT_HEADERS = ("split", "subset", "set", "partition")
_EXPECTED = "expected path,label[,split]"
_SAMPLE = 1000  # lines by which the delimiter is found out


def delimiter_of(text: str, suffix: str) -> str:
    """What stands between the cells of a list: "," ";" or a tab; or " " for lines of ``path label``.

    It is the one by which most lines begin with the name of a video, or else most lines fall into cells. Where there is
    no difference, it is the one that is usual for files with the ending `suffix`.
    """
    usual = {".csv": ",;\t ", ".tsv": "\t,; "}.get(suffix.lower(), " ,;\t")
    lines = [line for _, line in text_lines(text[: _SAMPLE * 500])][:_SAMPLE]

    def fit(delimiter: str) -> tuple[int, int]:
        rows = [last_word(line) for line in lines] if delimiter == " " else _cells(lines, delimiter)
        videos = sum(len(row) > 1 and bool(row[1]) and is_video_name(row[0].rstrip()) for row in rows)
        if delimiter == " ":
            # A name of several words without an extension, and a number: in a CSV that is rather one cell.
            divided = sum(bool(INTEGER.fullmatch(row[1])) for row in rows if " " not in usual[1:] or _is_number(row[0]))
        else:
            divided = sum(len(row) > 1 and not set(row[0]) & set(",;\t") for row in rows)
        return videos, divided

    return max(usual, key=fit)


class _Columns(NamedTuple):
    """How many columns a CSV has at most, and which of them is what; -1 for one that it does not have."""

    width: int = 3
    label: int = 1
    split: int = 2
    group: int = -1


def parse_csv(text: str, file: str, delimiter: str = ",", group: str = "") -> list[ListLine]:
    """The lines of a CSV of path,label[,split]. If only some of them have a split, the others are of "train".

    If the header has a column called `group`, in upper or lower case, it names the group of each line. A third column
    under another name is a split only where its cells say so. A path may lack its extension. Raises ListError with the
    file and the line.
    """
    rows, columns = list(read_csv_rows(text, file, delimiter)), _Columns()
    if rows and rows[0][1][0].strip().lower() in _HEADERS:
        number, header = rows.pop(0)
        columns = _named_columns(header, [row for _, row in rows], group)
        if columns.label == columns.split or columns.width < 2:
            raise ListError(f"{file}:{number}: header {','.join(header)!r}; {_EXPECTED}")
    lines: list[ListLine] = []
    for number, row in rows:
        where = f"{file}:{number}"
        if not columns.label < len(row) <= columns.width:
            raise ListError(f"{where}: {len(row)} cells; {_EXPECTED} (quote a path that holds a {_NAMES[delimiter]})")
        split = _cell(row, columns.split)
        if split and not split_named(split):
            raise ListError(f"{where}: split {split!r}; expected one of {', '.join(SPLIT_WORDS)}")
        path = row[0].rstrip()
        if not path:
            raise ListError(f"{where}: {path!r} is no video file name; expected one of {EXTENSIONS_SHOWN}")
        label, scene = row[columns.label].strip(), _cell(row, columns.group)
        lines.append(ListLine(path, label, split_named(split), where, scene))
    if not lines:
        raise ListError(f"{file}: no entries; expected lines of path,label[,split]")
    default = "train" if any(line.split for line in lines) else ""
    return [line._replace(split=line.split or default) for line in lines]


def _named_columns(header: list[str], rows: list[list[str]], group: str) -> _Columns:
    """Which column is what, by the names in `header`; where none is called a split, by the cells of the third one."""
    names = [cell.strip().lower() for cell in header]
    label_at = names.index("label") if "label" in names else 1
    group_at = names.index(group.lower()) if group and group.lower() in names else -1
    split_at = next((at for at, name in enumerate(names) if name in _SPLIT_HEADERS), -1)
    if split_at < 0 and len(names) > 2 and 2 not in (label_at, group_at):
        cells = [cell for row in rows if (cell := _cell(row, 2))]
        split_at = 2 if all(split_named(cell) for cell in cells) else -1
    return _Columns(len(header), label_at, split_at, group_at)


def _cell(row: list[str], at: int) -> str:
    """The cell of `row` at `at`, without blanks around it; "" where there is none."""
    return row[at].strip() if 0 <= at < len(row) else ""


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


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


def _cells(lines: list[str], delimiter: str) -> list[list[str]]:
    """The cells of each row of CSV, as far as it is valid."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(csv.reader((f"{line}\n" for line in lines), delimiter=delimiter))
    return rows


def _is_number(path: str) -> bool:
    """Whether the last word of `path` is a number, as in the lists of folders of frames."""
    return bool(INTEGER.fullmatch(last_word(path)[1]))
