"""Reads the list files of a data set, of UCF-101, of HMDB-51 or in CSV. No video is looked at."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets.class_names import parse_class_ind
from pipelines.datasets.split_names import SPLIT_WORDS, split_named
from pipelines.datasets.text_files import escaped, first_ten, read_text, text_lines
from pipelines.errors import ListError, UsageError

VIDEO_EXTENSIONS = frozenset(
    ["avi", "mp4", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "wmv", "flv", "ogv", "ts", "m2ts", "3gp"]
)
EXTENSIONS_SHOWN = " ".join(f".{extension}" for extension in sorted(VIDEO_EXTENSIONS))

_FORMS = (
    "expected a folder with classInd.txt and trainlistNN.txt/testlistNN.txt (UCF-101), a folder of "
    "<class>_test_split<N>.txt files (HMDB-51), a .csv/.tsv file of path,label[,split], or the CSV files of Kinetics"
)
_HEADERS = ("path", "video", "file", "filename", "video_path")
_MAX_CLASSES = 100_000  # a larger label is a mistake, and would make as many class names
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_HMDB_MARKS = {"0": "", "1": "train", "2": "test"}
_UCF_LIST = re.compile(r"(train|test)list([0-9]{1,4})\.txt")
_HMDB_LIST = re.compile(r"(.+)_test_split([0-9]{1,4})\.txt", re.DOTALL)
_UCF_NAME = re.compile(r"v_(.+)_(g[0-9]+)_c[0-9]+\.[^.]+", re.DOTALL)


class ListedVideo(NamedTuple):
    """One line of a list.

    `path` is that of the video, relative to the root; `label` is 0-based; `split` is "" if the list has none; `where`
    is file:line for messages.
    """

    path: str
    label: int
    split: str
    where: str


@dataclass(frozen=True)
class Lists:
    """The content of the list files of a data set.

    `rows` are in the order of the lists. `unused` are the paths that the lists name as belonging to no split. `split`
    is the number of the split that was read, None for lists that have no numbered splits.
    """

    kind: str
    classes: tuple[str, ...]
    rows: tuple[ListedVideo, ...]
    unused: frozenset[str]
    split: int | None = None


def is_video_name(path: str) -> bool:
    """Whether the name ends in one of `VIDEO_EXTENSIONS`, in upper or lower case."""
    _, dot, extension = path.rpartition(".")
    return bool(dot) and extension.lower() in VIDEO_EXTENSIONS


def ucf_group(path: str) -> tuple[str, str] | None:
    """(class, group) of a file that is named as in UCF, such as ("Lunges", "g08") of ``v_Lunges_g08_c01.avi``, or None.

    Clips of one group are cut from the same video.
    """
    match = _UCF_NAME.fullmatch(path.rpartition("/")[2])
    return (match[1], match[2]) if match else None


def final_split(split: str, present: Collection[str]) -> str:
    """The split with its final name: "val" becomes "test" in a data set whose `present` splits have no "test"."""
    return "test" if split == "val" and "test" not in present else split


def read_lists(lists: Path, *, split: int | None = None, root: Path | None = None) -> Lists:
    """The content of the lists in a folder of UCF-101 or HMDB-51 lists, or in a CSV or TSV file.

    `split` chooses one of the numbered splits of a folder (default: 1). `root` is the folder of the videos: absolute
    paths in the lists must be inside it. Raises ListError for a form, a file or a line that can't be used, UsageError
    if `split` is given with a CSV.
    """
    roots = () if root is None else (posixpath.normpath(root.absolute()), str(root.resolve()))
    try:
        is_folder = lists.is_dir()
        names = sorted(p.name for p in lists.iterdir()) if is_folder else []
    except (OSError, ValueError) as problem:
        raise ListError(f"lists {escaped(lists)}: {problem}; {_FORMS}") from problem
    unused: frozenset[str] = frozenset()
    taken: int | None = None
    if any(_UCF_LIST.fullmatch(n) for n in names):
        kind = "ucf101"
        taken = 1 if split is None else split
        classes, rows = _read_ucf(lists, names, taken, roots)
    elif any(_HMDB_LIST.fullmatch(n) for n in names):
        kind = "hmdb51"
        taken = 1 if split is None else split
        classes, rows, unused = _read_hmdb(lists, names, taken)
    elif not is_folder and lists.suffix.lower() in (".csv", ".tsv"):
        if split is not None:
            raise UsageError(
                f"split {split} with {escaped(lists)}: a CSV names its splits in column 3; leave split out"
            )
        kind = "csv"
        classes, rows = _read_csv(lists, roots)
    else:
        came = "holds no list of a known form" if is_folder else "is neither a folder nor a .csv/.tsv file"
        raise ListError(f"lists {escaped(lists)} {came}; {_FORMS}")
    return Lists(kind, classes, tuple(rows), unused, taken)


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
        path, label = (line.lstrip(), None) if is_video_name(line) else _last_token(line.lstrip())
        path = _relative(path, where, roots)
        name = path.partition("/")[0]
        if name not in classes or name == path:
            raise ListError(
                f"{where}: {escaped(path)} is in no class folder named in classInd.txt ({len(classes)} classes)"
            )
        if label is None and split == "train":
            raise ListError(f"{where}: no label after {escaped(path)}; expected '<class>/<video> <label>'")
        hint = f"UCF lists are 1-based: expected {classes[name] + 1} for {name} (1..{len(classes)})"
        if label is not None and not _INTEGER.fullmatch(label):
            raise ListError(f"{where}: label {label!r} is not an integer; {hint}")
        if label is not None and int(label) != classes[name] + 1:
            fault = f"not {name} in classInd.txt" if 1 <= int(label) <= len(classes) else "out of range"
            raise ListError(f"{where}: label {label} is {fault}; {hint}")
        yield ListedVideo(path, classes[name], split, where)


def parse_hmdb(text: str, file: str, name: str, label: int) -> Iterator[ListedVideo]:
    """The rows of one HMDB list, which is that of class `name`, with lines ``video.avi 1``.

    The mark 1 means train, 2 test, 0 unused (split ""). Raises ListError with the file and the line.
    """
    for number, line in text_lines(text):
        where = f"{file}:{number}"
        # Real names of HMDB start with "#", such as "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi". So a line with "#" is a
        # comment only if it is no entry.
        path, mark = _last_token(line)
        if mark in _HMDB_MARKS and is_video_name(path) and "/" not in path:
            yield ListedVideo(f"{name}/{path}", label, _HMDB_MARKS[mark], where)
        elif not line.startswith("#"):
            raise ListError(f"{where}: {line!r}; expected '<video> <mark>', mark 1 train, 2 test, 0 unused")


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
        path = _relative(row[0].rstrip(), where, roots)
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


def _read_ucf(
    folder: Path, names: Sequence[str], split: int, roots: tuple[str, ...]
) -> tuple[tuple[str, ...], list[ListedVideo]]:
    lists = _by_split(names, _UCF_LIST)
    if "classInd.txt" not in names:
        raise ListError(f"lists {escaped(folder)}: trainlists without classInd.txt; expected it beside them")
    _check_split(folder, split, [n for n, pair in lists.items() if len(pair) == 2])
    classes = parse_class_ind(read_text(folder / "classInd.txt"), escaped(folder / "classInd.txt"))
    labels = {name: i for i, name in enumerate(classes)}
    rows: list[ListedVideo] = []
    for side in ("train", "test"):
        file = folder / lists[split][side]
        rows += _checked(parse_ucf(read_text(file), escaped(file), labels, side, roots), file)
    return classes, rows


def _read_hmdb(
    folder: Path, names: Sequence[str], split: int
) -> tuple[tuple[str, ...], list[ListedVideo], frozenset[str]]:
    lists = _by_split(names, _HMDB_LIST)
    classes = tuple(sorted({name for files in lists.values() for name in files}))
    _check_split(folder, split, list(lists))
    if lacking := [name for name in classes if name not in lists[split]]:
        raise ListError(
            f"lists {escaped(folder)}: split {split} has no file for {first_ten(lacking)}; expected one for each"
        )
    rows: list[ListedVideo] = []
    for label, name in enumerate(classes):
        file = folder / lists[split][name]
        rows += _checked(parse_hmdb(read_text(file), escaped(file), name, label), file)
    used = [row for row in rows if row.split]
    return classes, used, frozenset(row.path for row in rows if not row.split)


def _read_csv(file: Path, roots: tuple[str, ...]) -> tuple[tuple[str, ...], list[ListedVideo]]:
    beside = file.parent / "classes.txt"
    names: list[str] = []
    if beside.exists():
        names = [line.strip() for _, line in text_lines(read_text(beside)) if not line.lstrip().startswith("#")]
        if len(set(names)) != len(names):
            raise ListError(f"{escaped(beside)}: a class is named twice; expected each once, in the order of labels")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    return parse_csv(read_text(file), escaped(file), delimiter, names, roots)


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


def _last_token(line: str) -> tuple[str, str]:
    """(path, last word) of a line; the path may contain spaces."""
    path, *last = line.rsplit(None, 1)
    return path, last[0] if last else ""


def _checked(found: Iterator[ListedVideo], file: Path) -> list[ListedVideo]:
    """The rows of one file as a list. Raises ListError if there is none."""
    if rows := list(found):
        return rows
    raise ListError(f"{escaped(file)}: no entries; expected one video a line")


def _by_split(names: Sequence[str], pattern: re.Pattern[str]) -> dict[int, dict[str, str]]:
    """The names of the list files, by the number and then by the first word in them."""
    lists: dict[int, dict[str, str]] = defaultdict(dict)
    for name in names:
        if match := pattern.fullmatch(name):
            lists[int(match[2])][match[1]] = name
    return lists


def _check_split(folder: Path, split: int, there: Collection[int]) -> None:
    if split not in there:
        known = ", ".join(str(n) for n in sorted(there)) or "none (each split needs a train and a test list)"
        raise ListError(f"lists {escaped(folder)}: split {split} is not there; expected one of these: {known}")
