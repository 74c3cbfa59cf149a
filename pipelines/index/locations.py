"""Where the index of a data set lies, and the command that makes it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.containers.file_checks import MAX_PIXELS, MOST_CORRUPT

SUFFIX = ".r3dindex"
# The options of `VideoIndex.build`, and of `r3d-fast data index`, that decide what is in an index.
_DEFAULTS: Mapping[str, Any] = {
    "lists": None, "split": None, "val_fraction": 0.2, "follow_links": False, "group": None, "allow_partial": False,
    "max_pixels": MAX_PIXELS, "max_corrupt_fraction": MOST_CORRUPT,
}  # fmt: skip


def default_path(root: Path) -> Path:
    """The path of a new index of `root`: beside it, or in the current folder if that place can't be written."""
    resolved = root.resolve()
    beside = resolved.parent / (resolved.name + SUFFIX)
    # os.access says yes to a superuser, even for a folder that is marked read-only.
    writable = os.access(resolved.parent, os.W_OK) and bool(resolved.parent.stat().st_mode & 0o222)
    return beside if writable else Path.cwd() / (resolved.name + SUFFIX)


def find_index(root: str | Path) -> Path | None:
    """The existing index of the data set at `root`: beside it or in the current folder; None if there is none."""
    resolved = Path(root).resolve()
    for folder in (resolved.parent, Path.cwd()):
        path = folder / (resolved.name + SUFFIX)
        if path.is_file():
            return path
    return None


def rebuild_command(path: Path, root: str | Path | None, options: Mapping[str, Any]) -> list[str]:
    """The words of the command that makes the index at `path` again, with the `options` that are not at their defaults.

    `root` is the folder of the data set; None: it is not known. Options that `data index` does not have are left out.
    """
    words = ["r3d-fast", "data", "index", "ROOT" if root is None else str(root)]
    found = None if root is None else find_index(root)
    if found is None or found.resolve() != path.resolve():
        words += ["--index", str(path)]
    for name, default in _DEFAULTS.items():
        value = options.get(name, default)
        if value != default and isinstance(value, bool | int | float | str):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return words
