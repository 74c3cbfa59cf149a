"""The names of classes that go with foreign weights, read from a text file."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.datasets.class_names import parse_class_names
from pipelines.datasets.text_files import read_text
from pipelines.errors import ListError
from r3d_fast.errors import CheckpointError

_MOST_BYTES = 1 << 20  # lists of classes are much smaller
_HEADERS = {"id", "index", "label", "class", "class_id", "name", "class_name"}


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in `path`, in the order of the network's outputs.

    The file has one name a line. Each name may have its number, from 0 or 1 on: before it as in `1 ApplyEyeMakeup`
    (UCF-101's classInd.txt), or in the first or last column of a CSV, which may have a header. Raises CheckpointError
    where the file can't be read, or where a name or a number is missing or repeated.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{path}: not a file of class names; expected a text file with one name a line")
        text = read_text(path).lstrip()
        head, _, rest = text.partition("\n")
        if path.suffix.lower() == ".csv" and set(re.split("[,;]", head.strip().lower())) <= _HEADERS:
            text = f"\n{rest}"  # the empty line keeps the line numbers of error messages right
        return parse_class_names(text, str(path))
    except ListError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
