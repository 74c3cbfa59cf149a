"""What an index file says of a data set as a whole, checked: its classes and splits, and the columns of its videos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import IndexFileError
from pipelines.index.database import COLUMNS, GROUP_NAMES
from pipelines.index.index_file import IndexFile
from pipelines.index.video_rows import MOST_PIXELS

_MOST_JSON = 1 << 26  # characters of a text, which Python's values take many times


@dataclass(frozen=True)
class Contents:
    """The facts about a data set, as VideoIndex describes them.

    `columns` are int32 [videos] by the names COLUMNS: the label, the number of the split, the number of frames, the
    height and width in px, and the number of the group in `groups`, -1 for a video that is alone.
    """

    columns: Mapping[str, NDArray[np.int32]]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    warnings: tuple[str, ...]
    ignored: dict[str, int]
    options: dict[str, Any]
    kind: str
    digest: str
    lists: str
    lists_split: int | None
    rule: str
    root: str

    @classmethod
    def of(cls, file: IndexFile) -> Contents:
        """The contents of an index file. Raises IndexFileError if they are not those of an index."""
        try:
            meta = file.meta
            columns = {name: np.frombuffer(file.blobs[name], "<i4") for name in COLUMNS}
            contents = cls(
                columns=columns,
                groups=_names(file.blobs[GROUP_NAMES].decode()),
                classes=_names(meta["classes"]),
                splits=_names(meta["splits"]),
                warnings=_names(meta["warnings"]),
                ignored=_mapping(meta["ignored"]),
                options=_mapping(meta["options"]),
                kind=meta["kind"],
                digest=meta["digest"],
                lists=meta["lists"],
                lists_split=int(meta["lists_split"]) if meta["lists_split"] else None,
                rule=meta["rule"],
                root=meta["root"],
            )
        except (KeyError, ValueError, RecursionError) as error:
            raise IndexFileError(f"it lacks a part, or has another one ({error!r})") from error
        contents._check()
        return contents

    def _check(self) -> None:
        columns = self.columns
        height, width = (columns[name].astype(np.int64) for name in ("height", "width"))
        sound = len({len(column) for column in columns.values()}) == 1 and all(
            _is_within(columns[name], low, len(names))
            for name, low, names in (("label", 0, self.classes), ("split", 0, self.splits), ("group", -1, self.groups))
        )
        if not sound or any(bool((column < 1).any()) for column in (columns["num_frames"], height, width)):
            raise IndexFileError("its columns have values out of range")
        if bool((height * width > MOST_PIXELS).any()):
            raise IndexFileError("its columns have frames larger than FFmpeg gives")
        if not all(type(count) is int for count in self.ignored.values()):
            raise IndexFileError("it has values that no index has")
        if len(set(self.splits)) != len(self.splits) or "\0" in self.root:
            raise IndexFileError("it has values that no index has")


def _is_within(column: NDArray[np.int32], low: int, high: int) -> bool:
    return not len(column) or (int(column.min()) >= low and int(column.max()) < high)


def _parsed(text: str) -> Any:
    if len(text) > _MOST_JSON:
        raise ValueError(f"a text of {len(text)} characters")
    return json.loads(text)


def _names(text: str) -> tuple[str, ...]:
    values = _parsed(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("expected a list of names")
    return tuple(values)


def _mapping(text: str) -> dict[str, Any]:
    values = _parsed(text)
    if not isinstance(values, dict):
        raise ValueError("expected names and values")
    return values
