"""Finds out which form the lists of a data set have, and reads them."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

from pipelines.datasets.lists.class_numbers import find_name_files, number_classes
from pipelines.datasets.lists.csv_lists import delimiter_of, parse_csv
from pipelines.datasets.lists.hmdb_lists import HMDB_LIST, read_hmdb
from pipelines.datasets.lists.json_lists import parse_json
from pipelines.datasets.lists.listed_videos import ListedVideo, ListLine, Lists
from pipelines.datasets.lists.split_files import SUFFIXES, SplitFiles, find_split_files, split_of_name
from pipelines.datasets.lists.text_lists import is_comment, parse_text
from pipelines.datasets.lists.ucf_lists import UCF_LIST, read_ucf
from pipelines.datasets.split_names import final_split
from pipelines.datasets.text_files import escaped, first_ten, names_in, read_text, text_lines
from pipelines.datasets.video_files import is_video_name
from pipelines.errors import ListError, UsageError

_FORMS = (
    "expected a folder with classInd.txt and trainlistNN.txt/testlistNN.txt (UCF-101), a folder of "
    "<class>_test_split<N>.txt files (HMDB-51), a .csv/.tsv file of path,label[,split], the CSV files of Kinetics, a "
    ".txt file with '<path> <label>' on each line, a .json file of Something-Something, of ActivityNet or of the code "
    "of Hara et al., or a folder of such files, one for each split (train.txt, val.txt)"
)

_CSV, _TEXT, _JSON = "csv", "text list", "something-something-v2"


def read_lists(lists: Path, *, split: int | None = None, root: Path | None = None, group: str = "") -> Lists:
    """The content of the lists in a folder or a file of any form but that of Kinetics.

    `split` chooses one of the numbered splits of a folder (default: 1). `root` is the folder of the videos: absolute
    paths in the lists of UCF-101 must be inside it. `group` is the column of CSV lists that names the group of a video,
    if they have such a column. Raises ListError for a form, a file or a line that can't be used,
    UsageError if `split` is given with lists that have no numbers.
    """
    try:
        is_folder = lists.is_dir()
        names = sorted(p.name for p in lists.iterdir()) if is_folder else []
    except (OSError, ValueError) as problem:
        raise ListError(f"lists {escaped(lists)}: {problem}; {_FORMS}") from problem
    if any(UCF_LIST.fullmatch(n) for n in names):
        roots = () if root is None else (posixpath.normpath(root.absolute()), str(root.resolve()))
        taken = 1 if split is None else split
        classes, rows = read_ucf(lists, names, taken, roots)
        return Lists("ucf101", classes, tuple(rows), frozenset(), taken)
    if any(HMDB_LIST.fullmatch(n) for n in names):
        taken = 1 if split is None else split
        classes, rows, unused = read_hmdb(lists, names, taken)
        return Lists("hmdb51", classes, tuple(rows), unused, taken)
    if is_folder:
        files = find_split_files(lists, names, split)
    elif lists.suffix.lower() in SUFFIXES:
        files = _one_file(lists, split)
    else:
        files = SplitFiles((), None, ())
    if not files.files:
        ends = f"is neither a folder nor a file that ends in {' '.join(SUFFIXES)}"
        came = "holds no list of a known form" if is_folder else ends if lists.exists() else "is not there"
        raise ListError(f"lists {escaped(lists)} {came}; {_FORMS}")
    return _read_files(lists if is_folder else lists.parent, files, group)


def _one_file(file: Path, split: int | None) -> SplitFiles:
    """A single list. Its name says no split: where its lines have none, a share of them is held out."""
    if split is not None:
        where = "a CSV names its splits in column 3" if file.suffix.lower() in (".csv", ".tsv") else "it has no numbers"
        raise UsageError(
            f"split {split} with {escaped(file)}: {where}; leave split out, or give the folder of the lists"
        )
    return SplitFiles(((file, ""),), None, ())


def _read_files(folder: Path, files: SplitFiles, group: str) -> Lists:
    """The content of lists that lie in `folder`, with the class names beside them."""
    kind, lines, warnings = _all_lines(folder, files, group)
    present = {line.split for line in lines}
    warnings = [*files.warnings, *warnings, *_about_splits(present, files)]
    names = find_name_files(folder, [file for file, _ in files.files], is_binding=kind == _JSON)
    numbered = number_classes(lines, names, "CSV" if kind == _CSV else "list", by_folder=kind != _CSV)
    rows = [
        ListedVideo(line.path, label, final_split(line.split, present), line.where, line.group)
        for line, label in zip(lines, numbered.labels, strict=True)
    ]
    warnings += numbered.warnings
    if kind == _JSON and not names:
        warnings.append(
            f"no something-something-v2-labels.json in {escaped(folder)}: the classes are in the order of names"
        )
    return Lists(kind, numbered.classes, tuple(rows), frozenset(), files.number, tuple(warnings), made_elsewhere=True)


def _all_lines(folder: Path, files: SplitFiles, group: str) -> tuple[str, list[ListLine], list[str]]:
    """(the kind of the lists, the lines of all, warnings). A line without a split has that of its file."""
    warnings: list[str] = []
    kinds: list[str] = []
    sides: dict[str, Path] = {}
    lines: list[ListLine] = []
    for file, side in files.files:
        kind, found = _read_file(file, group)
        if found is None:
            warnings.append(f"{escaped(file)} has no labels and is left out")
            continue
        if side and sides.setdefault(side, file) != file:
            raise ListError(
                f"lists {escaped(folder)}: {sides[side].name} and {file.name} are both for {side}; expected one list a "
                "split: move one away"
            )
        kinds.append(kind)
        lines += [line._replace(split=line.split or side) for line in found]
    if not lines:
        shown = first_ten([str(file) for file, _ in files.files])
        raise ListError(f"{shown}: no video has a label; expected lists of labelled videos")
    lines, same = _without_double(lines)
    return _JSON if _JSON in kinds else kinds[0], lines, warnings + same


def _read_file(file: Path, group: str) -> tuple[str, list[ListLine] | None]:
    """(the kind of list, its lines or None if it has no labels)."""
    text = read_text(file)
    if not text.strip() and file.suffix.lower() not in (".csv", ".tsv"):
        raise ListError(f"{escaped(file)} is empty; {_FORMS}")
    if file.suffix.lower() == ".json":
        return _JSON, parse_json(text, escaped(file))
    if split_of_name(file.name) and _is_unlabelled([line for _, line in text_lines(text) if not is_comment(line)]):
        return _TEXT, None
    delimiter = delimiter_of(text, file.suffix)
    if delimiter == " ":
        return _TEXT, parse_text(text, escaped(file))
    return _CSV, parse_csv(text, escaped(file), delimiter, group)


def _is_unlabelled(lines: Sequence[str]) -> bool:
    """Whether each line is only the name of a video, as in some lists of test videos."""
    return (
        bool(lines)
        and all(is_video_name(line) or len(line.split()) == 1 for line in lines)
        and not any(set(line) & set(",;\t") for line in lines)
    )


def _without_double(lines: Sequence[ListLine]) -> tuple[list[ListLine], list[str]]:
    """(the lines without those of "val", a warning) if the same videos are listed as "test"; else (the lines, nothing).

    Users of PySlowFast have a copy of val.csv as test.csv.
    """
    val, test = ({line[:2] for line in lines if line.split == side} for side in ("val", "test"))
    if not val or val != test:
        return list(lines), []
    return [line for line in lines if line.split != "val"], ["the lists of val and test are the same: taken as test"]


def _about_splits(present: set[str], files: SplitFiles) -> list[str]:
    """Warnings about splits that the user may miss."""
    if present == {"train"}:
        return ["no list of test or val videos: there is nothing to evaluate on"]
    (first, side), *others = files.files
    if others or side or present != {""} or not split_of_name(first.name):
        return []
    beside = [name for name in names_in(first.parent) if Path(name).suffix.lower() in SUFFIXES]
    unread = [name for name in beside if split_of_name(name) not in ("", split_of_name(first.name))]
    if not unread:
        return []
    return [
        f"videos of {first.name} itself are held out for testing; to use {first_ten(unread)} beside it, give their "
        f"folder, {escaped(first.parent)}"
    ]
