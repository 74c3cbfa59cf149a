"""Reads lists in CSV: path,label[,split], with commas, semicolons or tabs between the cells."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator

from pipelines.datasets.lists.listed_videos import INTEGER, ListLine, last_word
from pipelines.datasets.split_names import SPLIT_WORDS, split_named
from pipelines.datasets.text_files import text_lines
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import ListError

_HEADERS = ("path", "video", "file", "filename", "video_path", "file_path", "filepath", "id", "video_id")
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


def parse_csv(text: str, file: str, delimiter: str = ",") -> list[ListLine]:
    """The lines of a CSV of path,label[,split]. If only some of them have a split, the others are of "train".

    A path may lack its extension. Raises ListError with the file and the line.
    """
    lines: list[ListLine] = []
    width, label_at, split_at = 3, 1, 2
    for number, row in read_csv_rows(text, file, delimiter):
        where = f"{file}:{number}"
        header = [c.strip().lower() for c in row]
        if not lines and header[0] in _HEADERS:
            width = len(row)
            label_at = header.index("label") if "label" in header else 1
            split_at = header.index("split") if "split" in header else 2
            if label_at == split_at or width < 2:
                raise ListError(f"{where}: header {','.join(row)!r}; {_EXPECTED}")
            continue
        if not label_at < len(row) <= width:
            raise ListError(f"{where}: {len(row)} cells; {_EXPECTED} (quote a path that holds a {_NAMES[delimiter]})")
        split = row[split_at].strip() if split_at < len(row) else ""
        if split and not split_named(split):
            raise ListError(f"{where}: split {split!r}; expected one of {', '.join(SPLIT_WORDS)}")
        path = row[0].rstrip()
        if not path:
            raise ListError(f"{where}: {path!r} is no video file name; expected one of {EXTENSIONS_SHOWN}")
        lines.append(ListLine(path, row[label_at].strip(), split_named(split), where))
    if not lines:
        raise ListError(f"{file}: no entries; expected lines of path,label[,split]")
    default = "train" if any(line.split for line in lines) else ""
    return [line._replace(split=line.split or default) for line in lines]


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
