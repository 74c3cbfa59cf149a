"""Finds out which form the lists of a data set have, and reads them."""

from __future__ import annotations

import posixpath
from pathlib import Path

from pipelines.datasets.lists.csv_lists import read_csv
from pipelines.datasets.lists.hmdb_lists import HMDB_LIST, read_hmdb
from pipelines.datasets.lists.listed_videos import Lists
from pipelines.datasets.lists.ucf_lists import UCF_LIST, read_ucf
from pipelines.datasets.text_files import escaped
from pipelines.errors import ListError, UsageError

_FORMS = (
    "expected a folder with classInd.txt and trainlistNN.txt/testlistNN.txt (UCF-101), a folder of "
    "<class>_test_split<N>.txt files (HMDB-51), a .csv/.tsv file of path,label[,split], or the CSV files of Kinetics"
)


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
    if any(UCF_LIST.fullmatch(n) for n in names):
        kind = "ucf101"
        taken = 1 if split is None else split
        classes, rows = read_ucf(lists, names, taken, roots)
    elif any(HMDB_LIST.fullmatch(n) for n in names):
        kind = "hmdb51"
        taken = 1 if split is None else split
        classes, rows, unused = read_hmdb(lists, names, taken)
    elif not is_folder and lists.suffix.lower() in (".csv", ".tsv"):
        if split is not None:
            raise UsageError(
                f"split {split} with {escaped(lists)}: a CSV names its splits in column 3; leave split out"
            )
        kind = "csv"
        classes, rows = read_csv(lists, roots)
    else:
        came = "holds no list of a known form" if is_folder else "is neither a folder nor a .csv/.tsv file"
        raise ListError(f"lists {escaped(lists)} {came}; {_FORMS}")
    return Lists(kind, classes, tuple(rows), unused, taken)
