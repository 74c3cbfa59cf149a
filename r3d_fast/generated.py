"""Folders of generated files: made whole or not at all, and left as they are where they are made already."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError


def make_once(root: Path, marker: str, arguments: dict[str, Any], what: str, write: Callable[[Path], None]) -> None:
    """Nothing; afterwards `root` holds what `write` writes into the folder it is given, and the file `marker`.

    A folder that was made with the same `arguments` (JSON values) is left alone; a kill leaves `root` absent. Raises
    UsageError, naming `what` is made, where `root` holds anything else.
    """
    text = json.dumps(arguments, indent=1)
    if _is_made(root, marker, text, what):
        return
    # Built beside its place and renamed, so that a kill never leaves half of it under the asked name.
    building = root.with_name(f"{root.name}.tmp-{os.getpid()}")
    try:
        write(building)
        (building / marker).write_text(text, encoding="utf-8")
        try:
            building.rename(root)
        except OSError:
            if not _is_made(root, marker, text, what):  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_made(root: Path, marker: str, text: str, what: str) -> bool:
    try:
        if (root / marker).read_text(encoding="utf-8") == text:
            return True
        found = f"holds a {what} made with other arguments"
    except (FileNotFoundError, NotADirectoryError):
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = f"exists and is no {what}"
    raise UsageError(f"{root}: {found}; give another folder, or remove this one first")
