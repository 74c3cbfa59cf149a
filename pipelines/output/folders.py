"""Writes folders whole or not at all, and deletes them so that nobody finds half of one.

A new folder is filled next to its final place under a hidden name, synced to the disk and then renamed. What a killed
process left under such a name is deleted when the same folder is written again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError
from pipelines.input.regular_files import what_lies_at
from pipelines.output.descriptors import STDOUT
from pipelines.output.files import put_in_place
from pipelines.output.hidden import OLD, held_folder, hidden_beside, hold, opened_folder, sweep, try_out
from pipelines.output.places import Hint, sync, write_errors


def make_folder(path: Path, hint: Hint = "") -> None:
    """Make the folder `path` if needed, and check that it can be written to.

    Raises UsageError, which ends in `hint`, if it can't.
    """
    if path == STDOUT:
        raise UsageError(f"{path}: means stdout; expected a folder")
    with write_errors(path, hint):
        path.mkdir(parents=True, exist_ok=True)
        try_out(path / "probe")


def check_own_files(folder: Path, hint: str = "") -> None:
    """Raise UsageError, which ends in `hint`, if a name in `folder` is a link, a pipe or a device.

    This is for a folder whose files are all written by this program: such a name was put there by somebody else, and
    what is written to it would end up elsewhere, or wait for ever. A folder that is not there is fine.
    """
    if not folder.is_dir():
        return
    with write_errors(folder, hint), os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                kind = "a symbolic link" if entry.is_symlink() else what_lies_at(Path(entry.path))
                end = f"; {hint}" if hint else ""
                raise UsageError(f"{entry.path}: it is {kind}; expected a file or folder of its own: remove it{end}")


def check_links_inside(folder: Path, hint: str = "", *, deep: bool = True) -> None:
    """Raise UsageError, which ends in `hint`, if a link in `folder` leads out of it, or a pipe or a device is there.

    This is for a folder that another program writes, and makes links of its own in. It may be absent. What is in the
    folders in it is looked at too if `deep`.
    """
    inside = Path(os.path.realpath(folder))
    end = f"; {hint}" if hint else ""
    for above, folders, names in os.walk(folder):
        for path in (Path(above, name) for name in (*folders, *names)):
            if path.is_symlink():
                if not Path(os.path.realpath(path)).is_relative_to(inside):
                    raise UsageError(f"{path}: it is a symbolic link out of {folder}; remove it{end}")
            elif not (path.is_file() or path.is_dir()):
                raise UsageError(f"{path}: it is {what_lies_at(path)}; expected a file: remove it{end}")
        if not deep:
            return


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to put files into. It becomes `path` when the block ends without an error, and replaces a folder there.

    After an error it is deleted, with the parent folders that were made for it. Raises UsageError if `path` is a file
    or can't be written.
    """
    with write_errors(path, "nothing was left there"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: can't be written: it is {what_lies_at(path)}; expected a folder")
        with replaced_folder(path) as folder:
            yield folder


@contextmanager
def replaced_folder(path: Path, stand_by: Path | None = None) -> Iterator[Path]:
    """The same as `new_folder`, but raises OSError instead of UsageError.

    A folder that is replaced is first renamed to `stand_by` (default: a hidden name), then the new one takes its place.
    If the process is killed between the two renames, the old folder is still there under that name.
    """
    place = Path(os.path.realpath(path))
    with held_folder(place) as building:
        yield building
        for folder, _, names in os.walk(building):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
        _replace_folder(building, place, stand_by or hidden_beside(place, OLD))
    sweep(place, OLD, folders=True)


def _replace_folder(new: Path, place: Path, stand_by: Path) -> None:
    """Rename the folder `new` to `place`; an older folder there goes to `stand_by` meanwhile, and is then deleted.

    One that a killed process left at `stand_by` is deleted too, but not before the new one has its place.
    """
    if not place.exists():
        new.rename(place)
        sync(place.parent)
        shutil.rmtree(stand_by, ignore_errors=True)
        return
    shutil.rmtree(stand_by, ignore_errors=True)
    with opened_folder(place) as old:
        hold(place, old)  # or another process could delete it as `stand_by`
        place.rename(stand_by)
        try:
            new.rename(place)
        except OSError:
            stand_by.rename(place)
            raise
    sync(place.parent)
    shutil.rmtree(stand_by, ignore_errors=True)


def make_once(root: Path, marker: str, arguments: dict[str, Any], what: str, write: Callable[[Path], None]) -> None:
    """Call `write` to fill the folder `root`, unless it was filled with the same `arguments` (JSON values) before.

    The file `marker` in the folder stores the arguments. Raises UsageError, whose message calls the content `what`, if
    `root` contains anything else or can't be written.
    """
    text = json.dumps(arguments, indent=1)
    if _is_made(root, marker, text, what):
        return
    place = Path(os.path.realpath(root))
    with write_errors(root, "nothing was left there"), held_folder(place) as building:
        write(building)
        (building / marker).write_text(text, encoding="utf-8")
        try:
            put_in_place(building, place)
        except OSError:
            if not _is_made(root, marker, text, what):  # if it is, another process made the same meanwhile
                raise


def _is_made(root: Path, marker: str, text: str, what: str) -> bool:
    """Whether `root` was filled with the arguments `text` before. Raises UsageError if it contains anything else."""
    try:
        if (root / marker).read_text(encoding="utf-8") == text:
            return True
        found = f"holds a {what} made with other arguments"
    except (FileNotFoundError, NotADirectoryError):
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = f"exists, but is not a {what}"
    raise UsageError(f"{root}: {found}; give another folder, or remove this one first")


def set_aside(path: Path, ending: str) -> None:
    """Rename the folder `path` to `path` + `ending`, so that it is no longer used. Raises OSError.

    A folder that already has that name is deleted.
    """
    aside = path.with_name(path.name + ending)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def delete_folder(path: Path) -> None:
    """Delete a folder. It is renamed first, so that nobody finds half of it under its name. Raises OSError."""
    doomed = hidden_beside(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def delete_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Delete the temporary files that killed processes left in `folder`. No other process may be writing there."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
